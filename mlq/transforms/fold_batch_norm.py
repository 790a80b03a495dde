"""Fold batch norms into the weights before them."""

from __future__ import annotations

from torch_mlir.ir import Operation

from mlq.transforms import affine
from mlq.transforms.base import Pass, register_pass


@register_pass
class FoldBatchNorm(Pass):
    """Fold batch norms, and arithmetic with constants, into the conv2d or matmul before them.

    Behind anything else they become a depthwise 1x1 convolution. The folded weights are computed in
    float64 and kept as `<key>:bn`.

    Before:
        func.func @main(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
          %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x1xf32>
          %0 = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>,
            dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw",
            activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            operandSegmentSizes = array<i32: 1, 1, 0, 0>}
            : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32>
          %1 = torch_c.from_builtin_tensor %0
            : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
          %p = "mlq.weight"() {key = "p"} : () -> tensor<2xf32>
          %2 = torch_c.from_builtin_tensor %p : tensor<2xf32> -> !torch.vtensor<[2],f32>
          %3 = torch.operator "onnx.BatchNormalization"(%1, %2, %2, %2, %2)
            : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>,
            !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>) -> !torch.vtensor<[1,2,4,4],f32>
          %4 = torch_c.to_builtin_tensor %3
            : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32>
          return %4 : tensor<1x2x4x4xf32>
        }
    After:
        func.func @main(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
          %w = "mlq.weight"() {key = "w:bn"} : () -> tensor<2x2x1x1xf32>
          %b = "mlq.weight"() {key = "w:bn:bias"} : () -> tensor<2xf32>
          %0 = "mlq.conv2d"(%x, %w, %b) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>,
            dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw",
            activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            operandSegmentSizes = array<i32: 1, 1, 1, 0>}
            : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>, tensor<2xf32>) -> tensor<1x2x4x4xf32>
          return %0 : tensor<1x2x4x4xf32>
        }
    """

    name = "mlq-fold-batch-norm"

    def run(self, module: Operation) -> None:
        affine.absorb(module, ("BatchNormalization", *affine.ARITHMETIC), convolve=True)
