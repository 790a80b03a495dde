"""The choice of scales and zero points: for activations, for weights, for biases.

Every scale chosen here is exactly a float32, so that IR text, JSON and kernels hold the same value.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.errors import DataError
from mlq.numerics.affine import QuantParams, Reals, quantize
from mlq.precision import BYTE_BITS, Granularity, Scheme

# The product of two least scales is still a normal float32 (2^-126).
LEAST_SCALE = 2.0**-63
GREATEST_SCALE = float(np.finfo(np.float32).max)
# An all-zero channel stores nothing but zeros at any scale; a small one keeps its bias precise.
EMPTY_CHANNEL_SCALE = 2.0**-23
# A quantized bias may take half of int32; the other half is left to the sum of products.
BIAS_LIMIT = 1 << 30
# Sums of wide activations need more: they may take all but a quantized bias and its rounding.
WIDE_BIAS_LIMIT = 1 << 28
WIDE_SUM_LIMIT = (1 << 31) - WIDE_BIAS_LIMIT - (1 << 10)
_WORD_BITS = 16


@lru_cache(maxsize=1 << 14)  # a simulation asks for every tensor on every batch
def choose_params(
    low: float,
    high: float,
    *,
    bits: int = 8,
    signed: bool = False,
    scheme: Scheme = "asymmetric",
    centred: bool = False,
) -> QuantParams:
    """Parameters that store the reals [low, high] (of a DynamicQuantizeLinear, by scheme).

    Zero is always representable exactly, so the interval is first widened to hold it. `symmetric`
    puts the zero point in the middle of the storage, `symmetric_uint8` at its lower end when no
    real is negative, `power_of_two` is symmetric with a scale rounded up to a power of two. What
    must be `centred` is symmetric by any scheme, and in the narrow range of a weight
    (`u8<1:255>`). More bits than a byte has are a part of 16 (`u16<0:4095>`).
    Raises DataError when [low, high] is not an interval of finite numbers.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise DataError(f"[{low}, {high}] is no range: look for NaN or infinity in the samples")
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    least, most = limits = QuantParams(bits, signed, (1.0,), (0,)).limits
    one_sided = scheme == "symmetric_uint8" and low == 0.0
    if (scheme == "asymmetric" or one_sided) and not centred:
        scale = _scale((high - low) / (most - least))
        zero_point = least - int(np.rint(max(low / scale, least - most)))
    else:
        zero_point = 0 if signed else 1 << bits - 1
        scale = _scale(max(-low, high) / (most - zero_point), power_of_two=scheme == "power_of_two")
    stored = _WORD_BITS if BYTE_BITS < bits < _WORD_BITS else bits
    if centred:
        limits = (least + 1, most)
    within = limits if centred or stored != bits else None
    return QuantParams(stored, signed, (scale,), (zero_point,), storage_range=within)


def weight_params(
    weight: Reals,
    *,
    bits: int = 8,
    granularity: Granularity = "per_axis",
    axis: int = 0,
    scheme: Scheme = "symmetric",
) -> QuantParams:
    """Symmetric parameters of a weight, in the narrow range `i8<-127:127>`, `i4<-7:7>`.

    `axis` is the output channel: one scale for each of its slices, or one for all (per_tensor). The
    greatest magnitude of a slice is stored as the greatest integer, or as less when `scheme` is
    `power_of_two`; the other schemes concern activations only. More bits than a byte has are a part
    of 16 (`i16<-2047:2047>`).
    """
    most = (1 << bits - 1) - 1
    per_axis = granularity == "per_axis"
    axis %= weight.ndim
    others = tuple(i for i in range(weight.ndim) if not per_axis or i != axis)
    greatest = np.max(np.abs(weight), axis=others, initial=0.0).reshape(-1).astype(np.float64)
    scale = np.clip(greatest / most, LEAST_SCALE, GREATEST_SCALE).astype(np.float32)
    if scheme == "power_of_two":
        scale = np.exp2(np.ceil(np.log2(scale, dtype=np.float64)))
    return QuantParams(
        bits=bits if bits <= BYTE_BITS else _WORD_BITS,
        signed=True,
        scale=tuple(np.where(greatest > 0.0, scale, EMPTY_CHANNEL_SCALE).tolist()),
        zero_point=(0,) * len(scale),
        axis=axis if per_axis else None,
        storage_range=(-most, most),
    )


def bias_params(input: QuantParams, weight: QuantParams) -> QuantParams:
    """Parameters of an int32 bias: scale `sx * sw` in float64, zero point 0 (ONNX QLinearConv)."""
    scale = tuple(input.scale[0] * each for each in weight.scale)
    axis = None if weight.axis is None else 0
    return QuantParams(bits=32, signed=True, scale=scale, zero_point=(0,) * len(scale), axis=axis)


def raise_weight_scale(weight: QuantParams, input: QuantParams, bias: Reals) -> QuantParams:
    """`weight` with the scales raised of those channels whose bias would not fit into int32.

    Such channels have weights far below their bias (batch norm killed them); they lose nothing that
    shows. Glow does the same (lib/Quantization/Base, specializeBiasQuantizationParams).
    """
    limit = BIAS_LIMIT if input.bits <= BYTE_BITS else WIDE_BIAS_LIMIT
    needed = np.abs(bias.astype(np.float64)) / (input.scale[0] * limit)
    if weight.axis is None:
        needed = np.max(needed, keepdims=True, initial=0.0)
    scale = tuple(
        each if each >= least else _scale(least, power_of_two=math.log2(each).is_integer())
        for each, least in zip(weight.scale, needed.tolist(), strict=True)
    )
    return replace(weight, scale=scale)


def accumulator_scale(
    input: QuantParams,
    weight: QuantParams,
    output: QuantParams | None = None,
    *,
    factor: float = 1.0,
) -> NDArray[np.float32]:
    """`f32(factor * sx * sw[c])`, or `f32(factor * sx * sw[c] / sy)` for integers: [1] or [C].

    The expression is computed in float64 and rounded once.
    """
    scale = factor * input.scale[0] * np.asarray(weight.scale, np.float64)
    return (scale if output is None else scale / output.scale[0]).astype(np.float32)


def accumulator_bound(
    weight: NDArray[np.integer[Any]], axis: int, input: QuantParams, bias: Any = 0
) -> int:
    """The greatest magnitude that any partial sum of an accumulator can reach.

    `weight` and `bias` are stored integers, `axis` the weight's output channel. Below 2^31 an i32
    accumulator is exact.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    low, high = input.limits
    swing = max(high - input.zero_point[0], input.zero_point[0] - low)
    weights = np.abs(weight.astype(np.int64)).sum(axis=others)
    return int(np.max(weights * swing + np.abs(np.asarray(bias, np.int64)), initial=0))


def result_bound(
    weight: NDArray[np.integer[Any]], axis: int, input: QuantParams, bias: Any = 0
) -> int:
    """The greatest magnitude that an accumulator can have once all of it is summed up.

    As `accumulator_bound`, of which it is as little as half. Below 2^31 it is in an i32 whose
    partial sums wrap around.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    wide, (low, high) = weight.astype(np.int64), input.limits
    above, below = high - input.zero_point[0], input.zero_point[0] - low
    most, least = np.maximum(wide, 0).sum(axis=others), np.minimum(wide, 0).sum(axis=others)
    offset = np.asarray(bias, np.int64)
    greatest = most * above - least * below + offset
    return int(np.max(np.maximum(greatest, most * below - least * above - offset), initial=0))


def most_of_one_sign(weight: Reals, axis: int, bits: int = BYTE_BITS) -> int:
    """The greatest sum of integers of one sign that a channel has, stored in so many bits.

    Times the greatest stored activation it bounds the sum of products, whatever the zero point.
    """
    stored = quantize(weight, weight_params(weight, bits=bits, axis=axis)).astype(np.int64)
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    sides = np.maximum(stored, 0).sum(axis=others), -np.minimum(stored, 0).sum(axis=others)
    return int(np.max(np.maximum(*sides), initial=0))


def _scale(value: float, *, power_of_two: bool = False) -> float:
    """`value` as a float32 that is a usable scale; optionally the next power of two."""
    if value == 0.0:
        return 1.0
    scale = min(max(value, LEAST_SCALE), GREATEST_SCALE)
    scale = float(np.float32(scale))
    return 2.0 ** math.ceil(math.log2(scale)) if power_of_two else scale
