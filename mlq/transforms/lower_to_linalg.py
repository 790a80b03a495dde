"""Say in linalg, on storage integers and floats, what mlq ops mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch_mlir.dialects import arith
from torch_mlir.ir import (
    ArrayAttr,
    DictAttr,
    FunctionType,
    InsertionPoint,
    Operation,
    OpView,
    RankedTensorType,
    Type,
    TypeAttr,
    Value,
)

from mlq.dialect import build, linalg, ops, quant
from mlq.transforms.base import Pass, register_pass, walk
from mlq.transforms.linalg import contractions, movement, nonlinear, pointwise, pools, statistics
from mlq.transforms.linalg.arithmetic import in_f32, storage_type
from mlq.transforms.linalg.epilogue import Stored

Lowering = Callable[[Any, Stored], Value | list[Value]]

LOWERINGS: dict[type[OpView], Lowering] = {
    ops.ActivateOp: pointwise.activate,
    ops.AddOp: pointwise.add,
    ops.AvgPool2dOp: pools.avg_pool2d,
    ops.BatchMatmulOp: contractions.batch_matmul,
    ops.CompareOp: statistics.compare,
    ops.ConcatOp: movement.concat,
    ops.Conv2dOp: contractions.conv2d,
    ops.DequantizeOp: pointwise.dequantize,
    ops.FakeQuantizeOp: pointwise.fake_quantize,
    ops.MatmulOp: contractions.matmul,
    ops.MaxPool2dOp: pools.max_pool2d,
    ops.MulOp: pointwise.mul,
    ops.NonlinearityOp: nonlinear.nonlinearity,
    ops.ObserveOp: statistics.observe,
    ops.PadOp: movement.pad,
    ops.QuantizeOp: pointwise.quantize,
    ops.RequantizeOp: pointwise.requantize,
    ops.ResampleOp: movement.resample,
    ops.ReshapeOp: movement.reshape,
    ops.ResizeNearestOp: movement.resize_nearest,
    ops.SliceOp: movement.slice,
    ops.TransposeOp: movement.transpose,
    ops.WeightOp: movement.weight,
}

_MOVE = (ops.ConcatOp, ops.ReshapeOp, ops.SliceOp, ops.TransposeOp, ops.WeightOp)


@register_pass
class LowerToLinalg(Pass):
    """Lower mlq ops to linalg, bit for bit as `mlq.numerics` defines them; no !quant type is left.

    Convolutions and pools must be in NHWC (mlq-assign-layout). Zero points of layers with known
    weights are folded into their biases, which the weight store holds from then on.

    Before:
        func.func @f(%x: tensor<4x!quant.uniform<u8:f32, 0.5>>)
            -> tensor<4x!quant.uniform<u8:f32, 0.5>> {
          %y = "mlq.activate"(%x) {activation = #mlq.activation<"clip", 1.0 : f32, 6.0 : f32>}
            : (tensor<4x!quant.uniform<u8:f32, 0.5>>) -> tensor<4x!quant.uniform<u8:f32, 0.5>>
          return %y : tensor<4x!quant.uniform<u8:f32, 0.5>>
        }
    After:
        func.func @f(%x: tensor<4xi8>) -> tensor<4xi8> {
          %high = arith.constant 12 : i8
          %low = arith.constant 2 : i8
          %init = tensor.empty() : tensor<4xi8>
          %y = linalg.generic {indexing_maps = [affine_map<(d0) -> (d0)>, affine_map<(d0) -> (d0)>],
              iterator_types = ["parallel"]} ins(%x : tensor<4xi8>) outs(%init : tensor<4xi8>) {
          ^bb0(%q: i8, %out: i8):
            %least = arith.maxui %q, %low : i8
            %most = arith.minui %least, %high : i8
            linalg.yield %most : i8
          } -> tensor<4xi8>
          return %y : tensor<4xi8>
        }
    """

    name = "mlq-lower-to-linalg"

    def run(self, module: Operation) -> None:
        """Lower producers first; the ops that were lowered go at the end, with all their users."""
        program = walk(module)
        functions = [op for op in program if op.operation.name == "func.func"]
        values = {k: v for function in functions for k, v in _stored_arguments(function).items()}
        lowered: list[OpView] = []
        for op in program:
            if type(op) in LOWERINGS or op.operation.name == "quant.scast":
                with InsertionPoint(op), op.location:
                    results = _results(op, lambda value: values.get(value, value))
                values.update(zip(op.operation.results, results, strict=True))
                lowered.append(op)
                continue
            for i, operand in enumerate(op.operation.operands):
                if operand in values:
                    op.operation.operands[i] = values[operand]
        for op in reversed(lowered):
            op.operation.erase()
        for function in functions:
            _store_signature(function)
        for op in walk(module):
            _forget(op)


def _stored_arguments(function: OpView) -> dict[Value, Value]:
    """The quantized arguments as storage: by a cast, until the arguments themselves are that."""
    found: dict[Value, Value] = {}
    for block in function.regions[0].blocks:
        quantized = [each for each in block.arguments if quant.is_quantized(each.type)]
        with InsertionPoint.at_block_begin(block), function.location:
            found |= {each: quant.scast(each, _storage(each.type)).result for each in quantized}
    return found


def _results(op: OpView, stored: Stored) -> list[Value]:
    """What replaces the results of an op that has a lowering, or of a cast of storage.

    What only moves f16 moves them; all else computes with them in f32, and rounds its result once.
    """
    if type(op) in LOWERINGS:
        moves = type(op) in _MOVE
        made = LOWERINGS[type(op)](op, stored if moves else lambda value: in_f32(stored(value)))
        several = made if isinstance(made, list) else [made]
        return [_kept(*each) for each in zip(several, op.operation.results, strict=True)]
    return [_cast(stored(op.operation.operands[0]), op.operation.results[0].type)]


def _kept(value: Value, result: Value) -> Value:
    """A value as the result's f16, if it has those."""
    element = result.type.element_type
    if not quant.is_half(element) or value.type.element_type == element:
        return value
    sizes, whole = linalg.sizes_of(value), linalg.whole(value)
    return linalg.elementwise([whole], element, sizes, lambda x: arith.truncf(element, x))


def _cast(value: Value, type_: Type) -> Value:
    """`quant.scast`: nothing, unless storage of less than a byte must take a byte or give it up."""
    element, params = _storage(type_).element_type, quant.params_of(type_.element_type)
    width = element.width - value.type.element_type.width
    if width == 0:
        return value
    extend = arith.extui if params is not None and not params.signed else arith.extsi
    cast = extend if width > 0 else arith.trunci
    sizes = linalg.sizes_of(value)
    return linalg.elementwise([linalg.whole(value)], element, sizes, lambda x: cast(element, x))


def _storage(type_: Type) -> Type:
    """A tensor type with storage for what it has of quantized elements."""
    params = quant.params_of(getattr(type_, "element_type", type_))
    return type_ if params is None else RankedTensorType.get(type_.shape, storage_type(params))


def _store_signature(function: OpView) -> None:
    """Let a function take and give storage; only the casts read its arguments by now."""
    type_ = FunctionType(TypeAttr(function.attributes["function_type"]).value)
    inputs, results = ([_storage(each) for each in side] for side in (type_.inputs, type_.results))
    function.attributes["function_type"] = TypeAttr.get(FunctionType.get(inputs, results))
    for block in function.regions[0].blocks:
        for argument in block.arguments:
            if not quant.is_quantized(argument.type):
                continue
            casts = [use.owner for use in argument.uses]
            argument.set_type(_storage(argument.type))
            for cast in casts:
                cast.operation.result.replace_all_uses_with(argument)
                cast.operation.erase()


def _forget(op: OpView) -> None:
    """Drop what only mlq understands: IREE knows no attribute of its dialect."""
    known = set(build.ANNOTATIONS)
    for name in known & set(op.operation.attributes):
        del op.operation.attributes[name]
    if "arg_attrs" in op.operation.attributes:
        arguments = [DictAttr(each) for each in op.operation.attributes["arg_attrs"]]
        kept = [{e.name: e.attr for e in each if e.name not in known} for each in arguments]
        op.operation.attributes["arg_attrs"] = ArrayAttr.get([DictAttr.get(each) for each in kept])
