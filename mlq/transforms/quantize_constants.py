"""Quantize constants at compile time."""

from __future__ import annotations

from torch_mlir.ir import Value

from mlq import numerics
from mlq.dialect import build, layers, quant, weights
from mlq.dialect.ops import QuantizeOp
from mlq.transforms.base import Pass, Skip, option, register_pass, rewrites, skip


@register_pass
class QuantizeConstants(Pass):
    """Replace `mlq.quantize` of a weight by a weight of the integers, or f16, it would store.

    Before:
        func.func @f() -> tensor<2x!quant.uniform<i8<-127:127>:f32, 0.5>> {
          %w = "mlq.weight"() {key = "w"} : () -> tensor<2xf32>
          %q = "mlq.quantize"(%w) : (tensor<2xf32>)
            -> tensor<2x!quant.uniform<i8<-127:127>:f32, 0.5>>
          return %q : tensor<2x!quant.uniform<i8<-127:127>:f32, 0.5>>
        }
    Weights:
        w = [0.5, -1.0]
    After:
        func.func @f() -> tensor<2x!quant.uniform<i8<-127:127>:f32, 0.5>> {
          %w = "mlq.weight"() {key = "w:i8"} : ()
            -> tensor<2x!quant.uniform<i8<-127:127>:f32, 0.5>>
          return %w : tensor<2x!quant.uniform<i8<-127:127>:f32, 0.5>>
        }
    """

    name = "mlq-quantize-constants"
    max_elements: int = option(0, help="leave larger constants alone; 0 is no limit")

    @rewrites(QuantizeOp)
    def fold(self, op: QuantizeOp) -> Value | Skip:
        key = layers.weight_key(op.input)
        if key is None:
            return skip(op, "its operand is not a constant")
        store = weights.current()
        if 0 < self.max_elements < store[key].size:
            return skip(op, f"{store[key].size} elements, over max-elements")
        if quant.is_half(op.output.type):
            halves = numerics.real.to_f16(store[key])
            return build.weight(store.keep(f"{key}:f16", halves), op.output.type)
        params = quant.params_of(build.element_of(op.output))
        if params is None:
            return skip(op, "its type is quantized neither per tensor nor per axis")
        stored = numerics.quantize(store[key], params)
        new_key = store.keep(f"{key}:{'i' if params.signed else 'u'}{params.bits}", stored)
        return build.weight(new_key, op.output.type)
