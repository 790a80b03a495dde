"""Uniform affine quantization: how reals become the integers that are stored, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float32]
Integers = NDArray[np.integer[Any]]

# float32 holds every integer below 2^24, so all of 16-bit storage minus its zero point.
_FLOAT32_STORAGE = 16
# The difference of two of these cannot leave int32.
_NARROW = tuple(np.dtype(name) for name in ("int8", "uint8", "int16", "uint16"))


@dataclass(frozen=True)
class QuantParams:
    """Uniform affine quantization, `real = scale * (stored - zero_point)` (MLIR !quant.uniform).

    One scale and zero point per tensor, or one per slice along `axis`. `storage_range` narrows the
    range of the storage type (`i8<-127:127>`).
    """

    bits: int
    signed: bool
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None
    storage_range: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        low, high = self.limits
        if len(self.scale) != len(self.zero_point):
            raise ValueError(f"{len(self.scale)} scales but {len(self.zero_point)} zero points")
        if self.axis is None and len(self.scale) != 1:
            raise ValueError(f"{len(self.scale)} scales need an axis")
        # A sum is below infinity only if each is, and a NaN is not: faster than to ask each.
        if not (min(self.scale, default=1.0) > 0.0 and sum(self.scale) < math.inf):
            raise ValueError("a scale must be positive and finite")
        if (
            not low
            <= min(self.zero_point, default=low)
            <= max(self.zero_point, default=low)
            <= high
        ):
            raise ValueError(f"a zero point lies outside of the storage range [{low}, {high}]")

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the greatest integer that may be stored."""
        if self.storage_range is not None:
            return self.storage_range
        if self.signed:
            return -(1 << self.bits - 1), (1 << self.bits - 1) - 1
        return 0, (1 << self.bits) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest numpy integer that holds the storage; less than a byte takes a byte."""
        width = next(width for width in (8, 16, 32) if self.bits <= width)
        return np.dtype(f"{'int' if self.signed else 'uint'}{width}")

    def scales(self, rank: int) -> NDArray[np.float64]:
        """The scales, shaped to broadcast over a tensor of `rank`."""
        return np.asarray(self.scale, np.float64).reshape(self._shape(rank))

    def zero_points(self, rank: int) -> NDArray[np.int64]:
        """The zero points, shaped to broadcast over a tensor of `rank`."""
        return np.asarray(self.zero_point, np.int64).reshape(self._shape(rank))

    def _shape(self, rank: int) -> tuple[int, ...]:
        return tuple(-1 if axis == self.axis else 1 for axis in range(rank))


def quantize(x: Reals, params: QuantParams) -> Integers:
    """Divide by the scale, round half to even, add the zero point, saturate (ONNX QuantizeLinear).

    Scale and quotient are float32, as in ONNX; 32-bit storage (biases) is computed in float64,
    because float32 cannot hold it. `x` must hold no NaN: there is no integer for it.
    """
    compute = np.dtype(np.float32 if params.bits <= _FLOAT32_STORAGE else np.float64)
    scale = params.scales(x.ndim).astype(compute)
    with np.errstate(over="ignore"):  # a quotient beyond float32 saturates like any other
        quotient: NDArray[Any] = x.astype(compute) / scale
    zero_point = params.zero_points(x.ndim)
    return round_and_saturate(quotient, zero_point, *params.limits).astype(params.dtype)


def dequantize(stored: Integers, params: QuantParams) -> Reals:
    """What `stored` stands for: `f32(stored - zero_point) * scale` (ONNX DequantizeLinear)."""
    scale = params.scales(stored.ndim).astype(np.float32)
    return centre(stored, params.zero_points(stored.ndim)).astype(np.float32) * scale


def fake_quantize(x: Reals, params: QuantParams) -> Reals:
    """Quantize, then dequantize: `x` as the quantized network sees it."""
    if params.bits > _FLOAT32_STORAGE:
        return dequantize(quantize(x, params), params)
    scale = params.scales(x.ndim).astype(np.float32)
    return _simulated(x, scale, params.zero_points(x.ndim), params.limits)


F16_ROW = (-1.0, 0.0, 0.0, 0.0)
"""The row that makes `mlq.fake_quantize` round to what f16 holds between 2^-14 and 65504."""
F16_HALF_ULP, F16_DROPPED_BITS = 0x0FFF, 13  # of f16's 11 bits, among the 24 of f32


def fake_quantize_row(x: Reals, row: Reals) -> Reals:
    """`mlq.fake_quantize` by a row (scale, zero_point, qmin, qmax): F16_ROW, or none at scale 0."""
    scale = np.float32(row[0])
    if scale < 0:
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        rounded = (
            bits + np.uint32(F16_HALF_ULP) + (bits >> np.uint32(F16_DROPPED_BITS) & np.uint32(1))
        )
        halves: Reals = (
            rounded >> np.uint32(F16_DROPPED_BITS) << np.uint32(F16_DROPPED_BITS)
        ).view(np.float32)
        return halves
    if scale == 0:
        return x
    zero_point, *limits = (int(each) for each in row[1:])
    return _simulated(x, scale, np.int64(zero_point), limits)


def _simulated(x: Reals, scale: Any, zero_point: Any, limits: Sequence[int]) -> Reals:
    """Round and saturate in float32, which holds all of these integers; none is negative zero."""
    least, most = ((each - zero_point).astype(np.float32) for each in limits)
    with np.errstate(over="ignore"):
        steps = np.clip(nearest(x.astype(np.float32, copy=False) / scale), least, most)
    simulated: Reals = (steps + np.float32(0.0)) * scale
    return simulated


def table_row(params: QuantParams) -> Reals:
    """The row that makes `mlq.fake_quantize` do what `params` (per tensor) say: float32 [4]."""
    return np.array([params.scale[0], params.zero_point[0], *params.limits], np.float32)


def requantize(stored: Integers, input: QuantParams, output: QuantParams) -> Integers:
    """From one quantized type to another: `f32(q - zx) * f32(sx / sy)`, rounded and saturated."""
    rank = stored.ndim
    scale = (input.scales(rank) / output.scales(rank)).astype(np.float32)
    value = centre(stored, input.zero_points(rank)).astype(np.float32) * scale
    zero_point = output.zero_points(rank)
    return round_and_saturate(value, zero_point, *output.limits).astype(output.dtype)


def centre(stored: Integers, zero_point: int | NDArray[np.int64]) -> Integers:
    """`stored - zero_point`, exact: the integers that a scale multiplies."""
    wide = np.dtype(np.int32 if stored.dtype in _NARROW else np.int64)
    centred: Integers = stored.astype(wide) - np.asarray(zero_point, wide)
    return centred


def nearest(value: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """The nearest integers, as reals; a half goes to the even one."""
    whole: NDArray[Any] = np.rint(value)
    return whole


def round_and_saturate(
    value: NDArray[np.floating[Any]], zero_point: int | NDArray[np.int64], low: int, high: int
) -> NDArray[np.int64]:
    """`clamp(rne(value), low - zero_point, high - zero_point) + zero_point`.

    Saturating before the zero point is added keeps the addition exact and inside of the integers.
    """
    offset = np.asarray(zero_point, np.int64)
    least, most = (low - offset).astype(value.dtype), (high - offset).astype(value.dtype)
    steps: NDArray[np.int64] = np.clip(nearest(value), least, most).astype(np.int64)
    return steps + offset


def clamp(x: Reals, low: float, high: float) -> Reals:
    """`x` held within [low, high], in float32 (ONNX Clip, and Relu with [0, inf])."""
    return np.clip(x, np.float32(low), np.float32(high))
