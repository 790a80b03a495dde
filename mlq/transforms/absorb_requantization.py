"""Let a layer of integers, or f16, store its result itself, in the epilogue of its accumulator."""

from __future__ import annotations

from torch_mlir.ir import InsertionPoint, Operation, OpView

from mlq.dialect import build, layers, quant
from mlq.dialect.ops import QuantizeOp
from mlq.transforms.base import Pass, register_pass, skip, walk


@register_pass
class AbsorbRequantization(Pass):
    """Give an integer layer the quantized result type that all its readers cast it to.

    So with a layer of f16 whose readers are, too. A layer that has a float reader keeps its
    unrounded f32 result, which its integer readers quantize; that float reader would otherwise see
    rounding that nothing asked for.

    Before:
        func.func @f(%x: tensor<4x!quant.uniform<u8:f32, 0.5>>)
            -> tensor<4x!quant.uniform<u8:f32, 0.25>> {
          %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<4x!quant.uniform<u8:f32, 0.5>>,
            tensor<4x!quant.uniform<u8:f32, 0.5>>) -> tensor<4xf32>
          %q = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4x!quant.uniform<u8:f32, 0.25>>
          return %q : tensor<4x!quant.uniform<u8:f32, 0.25>>
        }
    After:
        func.func @f(%x: tensor<4x!quant.uniform<u8:f32, 0.5>>)
            -> tensor<4x!quant.uniform<u8:f32, 0.25>> {
          %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<4x!quant.uniform<u8:f32, 0.5>>,
            tensor<4x!quant.uniform<u8:f32, 0.5>>) -> tensor<4x!quant.uniform<u8:f32, 0.25>>
          return %y : tensor<4x!quant.uniform<u8:f32, 0.25>>
        }
    """

    name = "mlq-absorb-requantization"

    def run(self, module: Operation) -> None:
        for op in walk(module):
            if isinstance(op, layers.LAYERS) and quant.is_reduced(op.operation.operands[0].type):
                _absorb(op)


def _absorb(op: OpView) -> None:
    casts = [use.owner.opview for use in op.output.uses]
    if quant.is_reduced(op.output.type) or not casts:
        return
    if not all(isinstance(cast, QuantizeOp) for cast in casts):
        skip(op, "a float reader takes its unrounded f32 result")
        return
    if len({str(cast.output.type) for cast in casts}) > 1:
        skip(op, "its readers store it in different ways, each casts its f32 result")
        return
    element = build.element_of(casts[0].output)
    if quant.is_quantized(element) and not quant.is_quantized(op.operation.operands[0].type):
        skip(op, "it is of f16 and its readers are of integers, which cast its f32 result")
        return
    with InsertionPoint(op), op.location:
        stored = Operation.create(
            op.operation.name,
            results=[build.tensor(build.shape_of(op.output), element)],
            operands=list(op.operation.operands),
            attributes=build.all_attributes_of(op),
        ).result
    for cast in casts:
        cast.output.replace_all_uses_with(stored)
        cast.operation.erase()
    op.operation.erase()
