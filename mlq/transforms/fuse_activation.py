"""Fuse activations into the ops that they follow."""

from __future__ import annotations

from torch_mlir.ir import BlockArgument, Location, OpView, Value

from mlq.dialect.build import Activation
from mlq.dialect.ops import (
    ActivateOp,
    AddOp,
    BatchMatmulOp,
    Conv2dOp,
    MatmulOp,
    MaxPool2dOp,
    MulOp,
    ReshapeOp,
    SliceOp,
    TransposeOp,
)
from mlq.transforms.base import Pass, Skip, register_pass, rewrites, skip

_FUSABLE = (Conv2dOp, MatmulOp, BatchMatmulOp, AddOp, MulOp, ActivateOp)
# A clamp before them and one behind them are the same.
_MOVING = (ReshapeOp, TransposeOp, SliceOp, MaxPool2dOp)


@register_pass
class FuseActivation(Pass):
    """Make an activation part of the product, the sum or the matrix product whose only use it is.

    It passes through reshapes, transposes, slices and max pools. Activations in a row become one.

    Before:
        func.func @main(%x: tensor<4xf32>, %y: tensor<4xf32>) -> tensor<4xf32> {
          %0 = "mlq.add"(%x, %y) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>}
            : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
          %1 = "mlq.activate"(%0) {activation = #mlq.activation<"clip", 0.0 : f32, 6.0 : f32>}
            : (tensor<4xf32>) -> tensor<4xf32>
          return %1 : tensor<4xf32>
        }
    After:
        func.func @main(%x: tensor<4xf32>, %y: tensor<4xf32>) -> tensor<4xf32> {
          %0 = "mlq.add"(%x, %y) {activation = #mlq.activation<"clip", 0.0 : f32, 6.0 : f32>}
            : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
          return %0 : tensor<4xf32>
        }
    """

    name = "mlq-fuse-activation"

    @rewrites(ActivateOp)
    def fuse(self, op: ActivateOp) -> Value | Skip:
        producer = _producer(op.input)
        if isinstance(producer, str):
            return skip(op, producer)
        fused = Activation.of(producer).then(Activation.of(op))
        producer.attributes["activation"] = fused.attribute()
        producer.operation.location = Location.fused([producer.location, op.location])
        return op.input


def _producer(value: Value) -> OpView | str:
    """The op that can take in an activation of `value`, or why there is none."""
    while not isinstance(value, BlockArgument):
        op = value.owner.opview
        if len(list(value.uses)) > 1:
            return "the tensor before it has other uses"
        if isinstance(op, _FUSABLE):
            return op
        if not isinstance(op, _MOVING):
            return f"it follows {op.operation.name}, which has no activation"
        value = op.input
    return "it follows an input of the network"
