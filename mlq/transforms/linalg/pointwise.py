"""Ops on one element at a time: the casts, add, mul, activate, fake_quantize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith, math, tensor
from torch_mlir.ir import F32Type, OpView, Value

from mlq import numerics
from mlq.dialect import linalg, quant
from mlq.dialect.ops import (
    ActivateOp,
    AddOp,
    DequantizeOp,
    FakeQuantizeOp,
    MulOp,
    QuantizeOp,
    RequantizeOp,
)
from mlq.errors import DiagnosticError
from mlq.numerics import QuantParams
from mlq.transforms.linalg.arithmetic import (
    Coefficients,
    at_least,
    at_most,
    centred,
    clamp,
    product,
    real,
    rounded,
    storage_type,
    widened,
)
from mlq.transforms.linalg.epilogue import (
    Stored,
    addend,
    bounds_of,
    finished,
    params_of,
    result_element,
    varying,
)

_WIDEST = 16  # bits whose every value float32 holds, so that rounding in float32 is exact


def quantize(op: QuantizeOp, stored: Stored) -> Value:
    """True division by the scale, as ONNX has it; one multiplication would round differently.

    What is f16 is f32 here.
    """
    if quant.is_half(op.output.type):
        return stored(op.input)
    output = _params(op, op.output)
    scale, zero_point = _per_element(output, np.asarray(output.scale, np.float32)), _zeros(output)

    def body(x: Value, *rest: Value) -> Value:
        elements = iter(rest)
        steps = arith.divf(x, scale.read(elements))
        return rounded(steps, zero_point.read(elements), output.limits, storage_type(output))

    return _map(op, stored(op.input), [scale, zero_point], body)


def dequantize(op: DequantizeOp, stored: Stored) -> Value:
    """`f32(q - zero_point) * scale`."""
    if quant.is_half(op.input.type):
        return stored(op.input)
    input = _params(op, op.input)
    scale, zero_point = _per_element(input, np.asarray(input.scale, np.float32)), _zeros(input)

    def body(q: Value, *rest: Value) -> Value:
        elements = iter(rest)
        factor = scale.read(elements)
        return product(_steps(q, input, zero_point.read(elements)), factor)

    return _map(op, stored(op.input), [scale, zero_point], body)


def requantize(op: RequantizeOp, stored: Stored) -> Value:
    """`f32(q - zx) * f32(sx / sy)`, rounded and saturated."""
    input, output = _params(op, op.input), _params(op, op.output)
    quotient = np.asarray(input.scale, np.float64) / np.asarray(output.scale, np.float64)
    axis = input if input.axis is not None else output
    coefficients = [_per_element(axis, quotient), _zeros(input), _zeros(output)]

    def body(q: Value, *rest: Value) -> Value:
        elements = iter(rest)
        factor, leaving, entering = (each.read(elements) for each in coefficients)
        value = arith.mulf(_steps(q, input, leaving), factor)
        return rounded(value, entering, output.limits, storage_type(output))

    return _map(op, stored(op.input), coefficients, body)


def add(op: AddOp, stored: Stored) -> Value:
    """The sum of two addends, each with a scale of its own."""
    output = params_of(op.output)

    def body(lhs: Value, rhs: Value) -> Value:
        terms = addend(lhs, params_of(op.lhs), output), addend(rhs, params_of(op.rhs), output)
        return finished(arith.addf(*terms), output, bounds_of(op))

    lhs, rhs = stored(op.lhs), stored(op.rhs)
    inputs = [linalg.whole(lhs), linalg.whole(rhs)]
    return linalg.elementwise(inputs, result_element(op), linalg.sizes_of(lhs), body)


def mul(op: MulOp, stored: Stored) -> Value:
    """The product of what lies above the zero points, scaled; `rhs` repeated where its size is 1.

    In float32: a product of integers of up to 16 bits is rounded there as its conversion would be.
    """
    left, right, output = (params_of(each) for each in (op.lhs, op.rhs, op.output))
    f32 = F32Type.get()

    def body(lhs: Value, rhs: Value) -> Value:
        if left is None or right is None:
            return clamp(arith.mulf(lhs, rhs), bounds_of(op))
        scale = float(numerics.product_scale(left, right, output))
        acc = arith.mulf(centred(lhs, left, f32), centred(rhs, right, f32))
        return finished(product(acc, linalg.scalar(f32, scale)), output, bounds_of(op))

    lhs, rhs = stored(op.lhs), stored(op.rhs)
    sizes = zip(linalg.axes(rhs.type.rank), rhs.type.shape, lhs.type.shape, strict=True)
    at = ", ".join("0" if n == 1 != whole else axis for axis, n, whole in sizes)
    inputs = [linalg.whole(lhs), (rhs, at)]
    return linalg.elementwise(inputs, result_element(op), linalg.sizes_of(lhs), body)


def activate(op: ActivateOp, stored: Stored) -> Value:
    """A clamp, of reals or of storage."""
    params = params_of(op.input)
    if params is None:
        return _map(op, stored(op.input), [], lambda x: clamp(x, bounds_of(op)))
    low, high = numerics.activation_bounds(params, bounds_of(op))
    least, most = (arith.maxsi, arith.minsi) if params.signed else (arith.maxui, arith.minui)
    element = storage_type(params)

    def body(q: Value) -> Value:
        return most(least(q, linalg.scalar(element, low)), linalg.scalar(element, high))

    return _map(op, stored(op.input), [], body)


def fake_quantize(op: FakeQuantizeOp, stored: Stored) -> Value:
    """numerics.fake_quantize_row with a row that is known at run time only."""
    table, f32 = stored(op.table), F32Type.get()

    def body(x: Value) -> Value:
        row = linalg.index(op.row.value)
        scale, zero_point, low, high = (
            tensor.extract(table, [row, linalg.index(column)]) for column in range(4)
        )
        on = arith.cmpf(arith.CmpFPredicate.OGT, scale, linalg.scalar(f32, 0.0))
        divisor = arith.select(on, scale, linalg.scalar(f32, 1.0))
        steps = math.roundeven(arith.divf(x, divisor))
        steps = at_least(steps, arith.subf(low, zero_point))
        steps = at_most(steps, arith.subf(high, zero_point))
        halves = arith.cmpf(arith.CmpFPredicate.OLT, scale, linalg.scalar(f32, 0.0))
        return arith.select(
            on, product(steps, divisor), arith.select(halves, _rounded_to_f16(x), x)
        )

    return _map(op, stored(op.input), [], body)


def _rounded_to_f16(x: Value) -> Value:
    """Rounded to the bits that f16 has, ties to even."""
    i32 = linalg.integer_type(32)
    half, last, one = (
        linalg.scalar(i32, number)
        for number in (numerics.F16_HALF_ULP, numerics.F16_DROPPED_BITS, 1)
    )
    bits = arith.bitcast(i32, x)
    rounded = arith.addi(bits, arith.addi(half, arith.andi(arith.shrui(bits, last), one)))
    return arith.bitcast(x.type, arith.shli(arith.shrui(rounded, last), last))


def _map(
    op: OpView, value: Value, coefficients: list[Coefficients], body: Callable[..., Value]
) -> Value:
    operands = [operand for each in coefficients for operand in each.operands]
    inputs = [linalg.whole(value), *operands]
    return linalg.elementwise(inputs, result_element(op), linalg.sizes_of(value), body)


def _params(op: OpView, value: Value) -> QuantParams:
    params = params_of(value)
    if params is None:
        raise DiagnosticError(op, f"is quantized neither per tensor nor per axis: {value.type}")
    if params.bits > _WIDEST and isinstance(op, QuantizeOp | RequantizeOp):
        raise DiagnosticError(op, "makes a bias at run time; run mlq-quantize-constants before")
    return params


def _per_element(params: QuantParams, values: NDArray[Any]) -> Coefficients:
    return varying(values, f"d{params.axis or 0}")


def _zeros(params: QuantParams) -> Coefficients:
    return _per_element(params, np.asarray(params.zero_point, np.int32))


def _steps(stored: Value, params: QuantParams, zero_point: Value) -> Value:
    """`f32(stored - zero_point)`."""
    wide = widened(stored, params, linalg.integer_type(32))
    return real(arith.subi(wide, zero_point))
