"""Fuse sums with constants into the bias of what precedes them."""

from __future__ import annotations

from torch_mlir.ir import Operation

from mlq.transforms import affine
from mlq.transforms.base import Pass, register_pass


@register_pass
class FuseBias(Pass):
    """Make an added or subtracted per-channel constant the bias of the conv2d or matmul before it.

    Before:
        func.func @main(%x: tensor<1x3xf32>) -> tensor<1x2xf32> {
          %w = "mlq.weight"() {key = "w"} : () -> tensor<3x2xf32>
          %0 = "mlq.matmul"(%x, %w) {transpose_rhs = false,
            activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            operandSegmentSizes = array<i32: 1, 1, 0, 0>}
            : (tensor<1x3xf32>, tensor<3x2xf32>) -> tensor<1x2xf32>
          %1 = torch_c.from_builtin_tensor %0 : tensor<1x2xf32> -> !torch.vtensor<[1,2],f32>
          %b = "mlq.weight"() {key = "b"} : () -> tensor<2xf32>
          %2 = torch_c.from_builtin_tensor %b : tensor<2xf32> -> !torch.vtensor<[2],f32>
          %3 = torch.operator "onnx.Add"(%1, %2) : (!torch.vtensor<[1,2],f32>,
            !torch.vtensor<[2],f32>) -> !torch.vtensor<[1,2],f32>
          %4 = torch_c.to_builtin_tensor %3 : !torch.vtensor<[1,2],f32> -> tensor<1x2xf32>
          return %4 : tensor<1x2xf32>
        }
    After:
        func.func @main(%x: tensor<1x3xf32>) -> tensor<1x2xf32> {
          %w = "mlq.weight"() {key = "w"} : () -> tensor<3x2xf32>
          %b = "mlq.weight"() {key = "w:bias"} : () -> tensor<2xf32>
          %0 = "mlq.matmul"(%x, %w, %b) {transpose_rhs = false,
            activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            operandSegmentSizes = array<i32: 1, 1, 1, 0>}
            : (tensor<1x3xf32>, tensor<3x2xf32>, tensor<2xf32>) -> tensor<1x2xf32>
          return %0 : tensor<1x2xf32>
        }
    """

    name = "mlq-fuse-bias"

    def run(self, module: Operation) -> None:
        affine.absorb(module, ("Add", "Sub"), convolve=False)
