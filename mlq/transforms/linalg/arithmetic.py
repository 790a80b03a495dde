"""Scalar arithmetic for the bodies of linalg ops, each operation as `mlq.numerics` has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isinf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith, math
from torch_mlir.ir import F16Type, F32Type, FloatType, IntegerType, Type, Value

from mlq.dialect import linalg
from mlq.numerics import Bounds, QuantParams

# Products below any float32: a comparison with it keeps LLVM from fusing product and sum.
_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Coefficients:
    """A constant for the body of an op: one number, or one for each position `at` some axes."""

    values: NDArray[Any]
    at: str

    @property
    def operands(self) -> list[linalg.Operand]:
        """The operand that the op must read for it; none for a single number."""
        return [] if self._single else [(linalg.array(self.values), self.at)]

    def read(self, elements: Iterator[Value]) -> Value:
        """The number as a value: a constant, or the next of the body's `elements`."""
        if not self._single:
            return next(elements)
        dtype = self.values.dtype
        element = F32Type.get() if dtype.kind == "f" else linalg.integer_type(8 * dtype.itemsize)
        return linalg.scalar(element, self.values.reshape(-1)[0])

    @property
    def _single(self) -> bool:
        return bool(np.all(self.values == self.values.reshape(-1)[0]))


def storage_type(params: QuantParams) -> IntegerType:
    """The integer that a quantized element takes in memory; less than a byte takes a byte."""
    return linalg.integer_type(8 * params.dtype.itemsize)


# Floats of this size are integers; its low 16 bits, as an integer's, are zero.
_ADDED = 1.5 * (1 << 23)
_ROUNDED_BY_ADDING = 1 << 16


def widened(stored: Value, params: QuantParams, element: Type) -> Value:
    """A stored integer as a wider one, by its signedness, or as the float that equals it."""
    if isinstance(element, FloatType):
        extend = arith.sitofp if params.signed else arith.uitofp
    else:
        extend = arith.extsi if params.signed else arith.extui
    return stored if stored.type == element else extend(element, stored)


def in_f32(value: Value) -> Value:
    """A tensor of f16 as f32; others as they are."""
    f32 = F32Type.get()
    if not isinstance(value.type.element_type, F16Type):
        return value
    sizes = linalg.sizes_of(value)
    return linalg.elementwise([linalg.whole(value)], f32, sizes, lambda x: arith.extf(f32, x))


def centred(stored: Value, params: QuantParams, element: Type) -> Value:
    """`stored - zero_point` in a wide integer or a float that holds it (numerics.centre)."""
    wide, zero_point = widened(stored, params, element), params.zero_point[0]
    if zero_point == 0:
        return wide
    subtract = arith.subf if isinstance(element, FloatType) else arith.subi
    return subtract(wide, linalg.scalar(element, zero_point))


def real(integer: Value) -> Value:
    """An integer as the nearest float32; a float as it is."""
    if isinstance(integer.type, FloatType):
        return integer
    return arith.sitofp(F32Type.get(), integer)


def product(one: Value, other: Value) -> Value:
    """A float32 product that stays one: no fused multiply-add with a sum that may follow.

    LLVM contracts `a * b + c` whatever the op's flags; a selection in between stops it.
    """
    return at_least(arith.mulf(one, other), _LOWEST)


def clamp(x: Value, bounds: Bounds) -> Value:
    """`x` within the bounds (numerics.clamp), infinite ones left out."""
    low, high = bounds
    if not isinf(low):
        x = at_least(x, low)
    return x if isinf(high) else at_most(x, high)


def at_least(x: Value, low: float | Value) -> Value:
    """`x > low ? x : low`, one instruction on every device; NaN becomes `low`."""
    bound = low if isinstance(low, Value) else linalg.scalar(x.type, low)
    return arith.select(arith.cmpf(arith.CmpFPredicate.OGT, x, bound), x, bound)


def at_most(x: Value, high: float | Value) -> Value:
    """`x < high ? x : high`."""
    bound = high if isinstance(high, Value) else linalg.scalar(x.type, high)
    return arith.select(arith.cmpf(arith.CmpFPredicate.OLT, x, bound), x, bound)


def rounded(value: Value, zero_point: Value, limits: tuple[int, int], element: Type) -> Value:
    """`clamp(rne(value), low - zero_point, high - zero_point) + zero_point` as an integer element.

    As numerics.round_and_saturate: before the zero point is added, and in float, where nothing
    overflows. `zero_point` is an i32.
    """
    low, high = (arith.subf(linalg.scalar(value.type, limit), real(zero_point)) for limit in limits)
    i32 = linalg.integer_type(32)
    if max(map(abs, limits)) >= _ROUNDED_BY_ADDING:
        steps = at_most(at_least(math.roundeven(value), low), high)
        return arith.addi(arith.fptosi(i32, steps), zero_point)
    # The bounds are integers, so clamping first changes nothing; then a sum with 1.5 * 2**23 has
    # the nearest even integer in its low bits. Three times as fast as roundeven and fptosi.
    steps = at_most(at_least(value, low), high)
    bits = arith.bitcast(i32, arith.addf(steps, linalg.scalar(value.type, _ADDED)))
    return arith.trunci(element, arith.addi(bits, zero_point))
