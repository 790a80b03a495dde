"""Instruction sets as data, and the few lines that emit what differs: what multiplies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch_mlir.dialects import arith, vector
from torch_mlir.ir import Value

from mlq.kernels import code

Dot = Callable[[Value, Value, Value], Value]
"""`acc + sum of x * w` over the elements of each word of four bytes."""

WORD_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What multiplies a word of four bytes of an image by as much of a weight, in every lane.

    `element` is what images hold, `weight` what weights do, `total` what products are added up in;
    one cycle starts `dots`, and after `latency` cycles a sum can be added to.
    """

    element: str
    weight: str
    total: str
    dots: float
    latency: float
    dot: Dot = field(repr=False, compare=False)

    @property
    def depth(self) -> int:
        """Elements of a word."""
        return WORD_BYTES * 8 // int(self.element[1:])


@dataclass(frozen=True, kw_only=True)
class Isa:
    """What a kernel must know of a CPU; `features` are in Linux's spelling.

    `integers` multiplies u8 by i8 into i32, exactly, where images may hold each u8 in more than a
    byte; `reals` f32, each product fused with its sum. One cycle starts `loads`; `registers` hold
    `vector_bytes` each; an innermost loop may have `unrolled` products before LLVM, which likes to
    load early, runs out of them.
    """

    name: str
    features: frozenset[str]
    vector_bytes: int
    registers: int
    unrolled: int
    integers: Unit
    reals: Unit
    loads: float = 2.0

    @property
    def lanes(self) -> int:
        """Accumulators of a register."""
        return self.vector_bytes // WORD_BYTES

    def element(self, kind: str) -> str:
        """What images of u8, or of f32, hold."""
        return self.reals.element if kind == "f32" else self.integers.element

    def width(self, kind: str) -> int:
        """Elements of an image in a register."""
        return self.lanes * (self.reals if kind == "f32" else self.integers).depth


def _fused(acc: Value, x: Value, w: Value) -> Value:
    bits = 8 * code.lanes_of(x)
    return code.call(f"llvm.x86.avx512.vpdpbusd.{bits}", acc.type, acc, x, w)


_MULTIPLY_PAIRS = {
    128: "llvm.x86.sse2.pmadd.wd",
    256: "llvm.x86.avx2.pmadd.wd",
    512: "llvm.x86.avx512.pmaddw.d.512",
}


def _pairs(acc: Value, x: Value, w: Value) -> Value:
    """By 16-bit products: exact, where `pmaddubsw` would saturate."""
    wide = arith.extsi(x.type, w)
    name = _MULTIPLY_PAIRS[16 * code.lanes_of(x)]
    return arith.addi(acc, code.call(name, acc.type, x, wide))


def _fused_real(acc: Value, x: Value, w: Value) -> Value:
    return vector.fma(x, w, acc)


_BYTES = Unit(element="i8", weight="i8", total="i32", dots=2.0, latency=5.0, dot=_fused)
_WORDS = Unit(element="i16", weight="i8", total="i32", dots=1.6, latency=4.0, dot=_pairs)
_REALS = Unit(element="f32", weight="f32", total="f32", dots=2.0, latency=4.0, dot=_fused_real)

_AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})

ISAS: tuple[Isa, ...] = (
    Isa(
        name="avx512_vnni",
        features=_AVX512 | {"avx512_vnni"},
        vector_bytes=64,
        registers=32,
        unrolled=112,
        integers=_BYTES,
        reals=_REALS,
    ),
    Isa(
        name="avx_vnni",
        features=frozenset({"avx2", "fma", "avx_vnni"}),
        vector_bytes=32,
        registers=16,
        unrolled=24,
        integers=_BYTES,
        reals=_REALS,
    ),
    Isa(
        name="avx512",
        features=_AVX512,
        vector_bytes=64,
        registers=32,
        unrolled=112,
        integers=_WORDS,
        reals=_REALS,
    ),
    Isa(
        name="avx2",
        features=frozenset({"avx2", "fma"}),
        vector_bytes=32,
        registers=16,
        unrolled=24,
        integers=_WORDS,
        reals=_REALS,
    ),
)
