"""Move casts towards the producers of what they cast, and let those that meet vanish."""

from __future__ import annotations

from torch_mlir.ir import InsertionPoint, Operation, OpView, Value

from mlq.dialect import build, layers
from mlq.dialect.ops import DequantizeOp, QuantizeOp, RequantizeOp
from mlq.transforms.base import Pass, register_pass, skip, walk


@register_pass
class FoldCasts(Pass):
    """Lift `mlq.quantize` over ops that only move elements; fold casts that undo each other.

    Quantization is monotonic and works element by element, so it commutes exactly with reshape,
    transpose, concat, slice, pad, max pool and clamp. An op is lifted over only if all that read
    its result quantize it alike: a float reader keeps it in float.

    Before:
        func.func @f(%x: tensor<1x4xf32>) -> tensor<4x!quant.uniform<u8:f32, 0.5>> {
          %y = "mlq.reshape"(%x) {mlq.name = "y"} : (tensor<1x4xf32>) -> tensor<4xf32>
          %q = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4x!quant.uniform<u8:f32, 0.5>>
          return %q : tensor<4x!quant.uniform<u8:f32, 0.5>>
        }
    After:
        func.func @f(%x: tensor<1x4xf32>) -> tensor<4x!quant.uniform<u8:f32, 0.5>> {
          %q = "mlq.quantize"(%x) : (tensor<1x4xf32>) -> tensor<1x4x!quant.uniform<u8:f32, 0.5>>
          %y = "mlq.reshape"(%q) {mlq.name = "y"} : (tensor<1x4x!quant.uniform<u8:f32, 0.5>>)
            -> tensor<4x!quant.uniform<u8:f32, 0.5>>
          return %y : tensor<4x!quant.uniform<u8:f32, 0.5>>
        }
    """

    name = "mlq-fold-casts"

    def run(self, module: Operation) -> None:
        for op in walk(module, QuantizeOp):
            _fold_inverse(op)
        # Consumers first: a cast that is lifted may then be lifted over the next op above it.
        for op in reversed(walk(module)):
            if isinstance(op, layers.MOVES):
                _lift(op)


def _fold_inverse(op: OpView) -> None:
    """`quantize(dequantize(x))` is x when the types agree, else one `requantize`."""
    if layers.is_argument(op.input) or not isinstance(op.input.owner.opview, DequantizeOp):
        return
    stored = op.input.owner.opview.input
    if stored.type == op.output.type:
        replacement = stored
    else:
        with InsertionPoint(op), op.location:
            replacement = RequantizeOp(stored, op.output.type).output
    op.output.replace_all_uses_with(replacement)
    op.operation.erase()


def _lift(op: OpView) -> None:
    """Do on quantized operands what `op` does in float, if every reader quantizes it alike."""
    casts = [use.owner.opview for use in op.output.uses]
    if not casts or not all(isinstance(cast, QuantizeOp) for cast in casts):
        return
    types = {str(cast.output.type) for cast in casts}
    if len(types) > 1:
        skip(op, "its readers quantize it in different ways")
        return
    element = build.element_of(casts[0].output)
    with InsertionPoint(op), op.location:
        operands = [build.quantize(operand, element) for operand in op.operation.operands]
        moved: Value = Operation.create(
            op.operation.name,
            results=[build.tensor(build.shape_of(op.output), element)],
            operands=operands,
            attributes=build.all_attributes_of(op),
        ).result
    for cast in casts:
        cast.output.replace_all_uses_with(moved)
        cast.operation.erase()
    op.operation.erase()
