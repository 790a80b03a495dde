"""Instructions of 64-bit Arm that kernels call by name, on vectors of 128 bits."""

from __future__ import annotations

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code

_NEON = "llvm.aarch64.neon"
_CONVERTED = (2, 4)  # lanes that one conversion takes


def dot_bytes(acc: Value, x: Value, w: Value) -> Value:
    """Products of i8, four to a sum; LLVM takes `x` by element where it is one, spread."""
    return code.call(f"{_NEON}.sdot.v4i32.v16i8", acc.type, acc, w, x)


def multiply_matrices(acc: Value, x: Value, w: Value) -> Value:
    """Two rows of eight i8 by two rows of eight: four sums, those of the first row first."""
    return code.call(f"{_NEON}.smmla.v4i32.v16i8", acc.type, acc, x, w)


def nearest(value: Value) -> Value:
    """The nearest i32, ties to even; saturated."""
    lanes = code.lanes_of(value)
    result = code.vector_type(lanes, "i32")
    if lanes in _CONVERTED:
        return code.call(f"{_NEON}.fcvtns.v{lanes}i32.v{lanes}f32", result, value)
    return code.call("llvm.lrint", result, value)


def to_i16(one: Value, other: Value) -> Value:
    """Two vectors of i32 as one, saturated."""
    return _narrowed(one, other, "i16")


def to_bytes(one: Value, other: Value) -> Value:
    """Two vectors of i16 as one of i8, saturated."""
    return _narrowed(one, other, "i8")


def halves(value: Value) -> list[Value]:
    """The low and the high half, in elements twice as wide, with their sign."""
    lanes, twice = code.lanes_of(value) // 2, 2 * int(code.element_of(value)[1:])
    wide = code.vector_type(lanes, f"i{twice}")
    return [arith.extsi(wide, code.part(value, first, lanes)) for first in (0, lanes)]


def _narrowed(one: Value, other: Value, name: str) -> Value:
    lanes = code.lanes_of(one)
    call, half = f"{_NEON}.sqxtn.v{lanes}{name}", code.vector_type(lanes, name)
    low, high = (code.call(call, half, each) for each in (one, other))
    return code.shuffle(low, high, range(2 * lanes))
