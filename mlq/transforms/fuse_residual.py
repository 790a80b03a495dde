"""Fuse sums into the later of the two ops that they add."""

from __future__ import annotations

from torch_mlir.ir import BlockArgument, Location, Operation, Value

from mlq.dialect.build import Activation
from mlq.dialect.ops import AddOp, Conv2dOp, MatmulOp
from mlq.transforms.base import Pass, Skip, register_pass, rewrites, skip
from mlq.transforms.cleaning import clean
from mlq.transforms.linear import Linear, rebuilt


@register_pass
class FuseResidual(Pass):
    """Make an add the residual of the later of the two convolutions or matmuls that it adds.

    Before:
        func.func @main(%x: tensor<1x2xf32>) -> tensor<1x2xf32> {
          %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2xf32>
          %0 = "mlq.matmul"(%x, %w) {transpose_rhs = false,
            activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            operandSegmentSizes = array<i32: 1, 1, 0, 0>}
            : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
          %1 = "mlq.add"(%0, %x) {activation = #mlq.activation<"relu", 0.0 : f32,
            0x7F800000 : f32>} : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x2xf32>
          return %1 : tensor<1x2xf32>
        }
    After:
        func.func @main(%x: tensor<1x2xf32>) -> tensor<1x2xf32> {
          %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2xf32>
          %0 = "mlq.matmul"(%x, %w, %x) {transpose_rhs = false,
            activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>,
            operandSegmentSizes = array<i32: 1, 1, 0, 1>}
            : (tensor<1x2xf32>, tensor<2x2xf32>, tensor<1x2xf32>) -> tensor<1x2xf32>
          return %0 : tensor<1x2xf32>
        }
    """

    name = "mlq-fuse-residual"

    def run(self, module: Operation) -> None:
        super().run(module)
        clean(module)

    @rewrites(AddOp)
    def fuse(self, op: AddOp) -> Value | Skip:
        found = [pair for pair in ((op.lhs, op.rhs), (op.rhs, op.lhs)) if _takes(pair[0])]
        if not found:
            return skip(op, "no convolution or matrix product before it has this as its only use")
        made, other = found[0]
        if len(found) > 1 and made.owner.is_before_in_block(other.owner):
            made, other = other, made
        producer: Linear = made.owner.opview
        with Location.fused([producer.location, op.location]):
            return rebuilt(producer, residual=other, activation=Activation.of(op)).output


def _takes(value: Value) -> bool:
    """Whether a value comes from a linear op that can add something to it."""
    if isinstance(value, BlockArgument) or len(list(value.uses)) > 1:
        return False
    op = value.owner.opview
    if not isinstance(op, (Conv2dOp, MatmulOp)) or op.residual is not None:
        return False
    return Activation.of(op).kind == "none"
