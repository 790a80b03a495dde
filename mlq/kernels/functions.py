"""Functions of vectors of floats: an exponential of our own, and what is made of it."""

from __future__ import annotations

from functools import partial

from torch_mlir.dialects import arith, vector
from torch_mlir.ir import Value

from mlq.kernels import code

# exp(x) = 2^n exp(f) for |f| <= ln(2) / 2, exp(f) = 1 + f + f^2 p(f): Cephes, single/expf.c. Below
# the least the power of two would have no exponent; what is given for it is as good as zero.
_LEAST, _PER_OCTAVE = -87.3, 1.44269504088896341
_LN2 = 0.693359375, -2.12194440e-4
_FACTORS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_EXPONENT_BIAS, _MANTISSA_BITS = 127, 23


def exponential(x: Value) -> Value:
    """The exponential of what is at most 87; of what is no number, none."""
    lanes = code.lanes_of(x)
    number = partial(_number, like=x)
    x = code.greater(number(_LEAST), x)
    octaves = code.call("llvm.roundeven", x.type, arith.mulf(x, number(_PER_OCTAVE)))
    for part in _LN2:
        x = vector.fma(octaves, number(-part), x)
    factor = number(_FACTORS[0])
    for each in _FACTORS[1:]:
        factor = vector.fma(factor, x, number(each))
    mantissa = vector.fma(factor, arith.mulf(x, x), arith.addf(x, number(1.0)))
    integers = arith.fptosi(code.vector_type(lanes, "i32"), octaves)
    biased = arith.addi(integers, code.splat(code.constant(_EXPONENT_BIAS, "i32"), lanes))
    shift = code.splat(code.constant(_MANTISSA_BITS, "i32"), lanes)
    return arith.mulf(mantissa, code.view(arith.shli(biased, shift), "f32"))


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x)), within a few units of 2^-24; of what is no number, none."""
    return _share(_number(1.0, x), _number(-1.0, x), x)


def tanh(x: Value) -> Value:
    """1 - 2 / (1 + exp(2 x)), within a few units of 2^-23; of what is no number, none."""
    return arith.subf(_number(1.0, x), _share(_number(2.0, x), _number(2.0, x), x))


def _share(of: Value, factor: Value, x: Value) -> Value:
    """`of` / (1 + exp(factor x))."""
    power = code.lesser(_number(-_LEAST, x), arith.mulf(factor, x))
    return arith.divf(of, arith.addf(_number(1.0, x), exponential(power)))


def _number(value: float, like: Value) -> Value:
    return code.splat(code.constant(value, "f32"), code.lanes_of(like))
