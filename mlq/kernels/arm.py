"""Instructions of 64-bit Arm that kernels call by name, on vectors of 128 bits."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

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


def multiply_halves(acc: Value, x: Value, w: Value) -> Value:
    """Products of 8 or 16 i8 in four sums; two fit 16 bits as long as no weight is -128."""
    size, half = code.lanes_of(x), 8
    total: Value | None = None
    for first in range(0, size, half):
        products = _multiplied(code.part(x, first, half), code.part(w, first, half))
        total = products if total is None else arith.addi(total, products)
    return arith.addi(acc, code.call(f"{_NEON}.saddlp.v4i32.v8i16", acc.type, total))


def sums_of_four(vectors: Sequence[Value]) -> Value:
    """The sum of each of four vectors, side by side."""
    one, other, third, last = vectors
    return _pairwise(_pairwise(one, other), _pairwise(third, last))


def add_taps(sums: Sequence[Value], taps: Iterable[tuple[Value, Value]]) -> list[Value]:
    """16 products of i8 of each tap, two taps at a time in 16 bits as long as no weight is -128."""
    done, rest = list(sums), iter(taps)
    for first in rest:
        pair = [first, *itertools.islice(rest, 1)]
        for half in (0, 1):
            products = [
                _multiplied(code.part(x, 8 * half, 8), code.part(w, 8 * half, 8)) for x, w in pair
            ]
            total = products[0] if len(products) == 1 else arith.addi(*products)
            for quarter, wide in enumerate(halves(total), 2 * half):
                done[quarter] = arith.addi(done[quarter], wide)
    return done


def _multiplied(x: Value, w: Value) -> Value:
    return code.call(f"{_NEON}.smull.v8i16", code.vector_type(8, "i16"), x, w)


def _pairwise(one: Value, other: Value) -> Value:
    return code.call(f"{_NEON}.addp.v4i32", one.type, one, other)


def nearest(value: Value) -> Value:
    """The nearest i32, ties to even; saturated."""
    lanes = code.lanes_of(value)
    result = code.vector_type(lanes, "i32")
    if lanes in _CONVERTED:
        return code.call(f"{_NEON}.fcvtns.v{lanes}i32.v{lanes}f32", result, value)
    return code.call("llvm.lrint", result, value)


def shifted(value: Value, by: Value) -> Value:
    """Reals less a number far below them: a difference that LLVM does not fuse with a product."""
    return code.call(f"{_NEON}.fabd.v{code.lanes_of(value)}f32", value.type, value, by)


def to_i16(one: Value, other: Value) -> Value:
    """Two vectors of i32 as one, saturated."""
    return _narrowed(one, other, "i16")


def cut(one: Value, other: Value) -> Value:
    """Two vectors of i32 as one, which holds them."""
    words = code.view(one, "i16"), code.view(other, "i16")
    return code.shuffle(*words, range(0, 4 * code.lanes_of(one), 2))


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
