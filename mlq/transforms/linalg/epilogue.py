"""What becomes of an accumulator or a sum: scale, residual, activation, storage, in one op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith
from torch_mlir.ir import F32Type, OpView, Type, Value

from mlq import numerics
from mlq.dialect import build, linalg, quant
from mlq.numerics import Bounds, QuantParams
from mlq.transforms.linalg.arithmetic import (
    Coefficients,
    centred,
    clamp,
    product,
    real,
    rounded,
    storage_type,
)

Stored = Callable[[Value], Value]
"""From a value of the module to the same as storage integers or floats."""


def params_of(value: Value) -> QuantParams | None:
    """The quantization of a tensor's elements; None for floats."""
    return quant.params_of(value.type.element_type)


def result_element(op: OpView) -> Type:
    """The element type that the op's result is stored in."""
    params = params_of(op.results[0])
    return F32Type.get() if params is None else storage_type(params)


def bounds_of(op: OpView) -> Bounds:
    """The reals that the op's activation lets through; all of them for an op without."""
    if "activation" not in op.operation.attributes:
        return numerics.UNBOUNDED
    return build.Activation.of(op).bounds


def finish(
    op: OpView,
    acc: Value,
    stored: Stored,
    *,
    scale: Coefficients | None = None,
    bias: linalg.Operand | None = None,
) -> Value:
    """The op's result from its accumulator (numerics.finish); without a scale `acc` is real.

    `bias` is added first, in the accumulator's own type; `scale` is numerics.accumulator_scale or
    pool_scale. The op's `residual` and `activation` are taken from it, if it has them.
    """
    output = params_of(op.results[0])
    residual = getattr(op, "residual", None)
    inputs = [linalg.whole(acc), *([bias] if bias else []), *(scale.operands if scale else [])]
    if residual is not None:
        inputs.append(linalg.whole(stored(residual)))

    def body(total: Value, *rest: Value) -> Value:
        elements = iter(rest)
        if bias is not None:
            total = _sum(total, next(elements))
        value = real(total)
        if scale is not None:
            value = _scaled(value, scale.read(elements), fenced=residual is not None or not output)
        if residual is not None:
            value = arith.addf(value, addend(next(elements), params_of(residual), output))
        return finished(value, output, bounds_of(op))

    return linalg.elementwise(inputs, result_element(op), linalg.sizes_of(acc), body)


def finished(value: Value, output: QuantParams | None, bounds: Bounds) -> Value:
    """A real result within the activation's bounds, or stored within them."""
    if output is None:
        return clamp(value, bounds)
    limits = numerics.activation_bounds(output, bounds)
    zero_point = linalg.scalar(linalg.integer_type(32), output.zero_point[0])
    return rounded(value, zero_point, limits, storage_type(output))


def addend(value: Value, params: QuantParams | None, output: QuantParams | None) -> Value:
    """One term of a sum, in float32 (numerics.addend); `params` None for reals."""
    unit = 1.0 if output is None else output.scale[0]
    if params is None:
        return value if unit == 1.0 else product(value, _constant(1.0 / unit))
    steps = real(centred(value, params, linalg.integer_type(32)))
    return product(steps, _constant(params.scale[0] / unit))


def varying(values: NDArray[Any], at: str) -> Coefficients:
    """Coefficients in float32, or in i32 for integers."""
    kind = np.float32 if values.dtype.kind == "f" else np.int32
    return Coefficients(values.astype(kind), at)


def _constant(value: float) -> Value:
    return linalg.scalar(F32Type.get(), float(np.float32(value)))


def _scaled(value: Value, scale: Value, *, fenced: bool) -> Value:
    """The product; fenced where a sum may come to read it, here or in a consumer."""
    return product(value, scale) if fenced else arith.mulf(value, scale)


def _sum(one: Value, other: Value) -> Value:
    return arith.addf(one, other) if one.type == F32Type.get() else arith.addi(one, other)
