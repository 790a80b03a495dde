"""Instruction sets as data: what multiplies, how that adds up, how memory holds a u8."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from torch_mlir.dialects import vector
from torch_mlir.ir import Value

from mlq.kernels import arm, x86
from mlq.kernels.arm_reduction import ByElement, Channels, Pairs
from mlq.kernels.reduction import Reduction, Spread
from mlq.kernels.storage import Kind, Packing
from mlq.kernels.tables import NEON, X86, Tables
from mlq.kernels.taps import Plain, Taps, Words

WORD_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What multiplies a word of four bytes of an image by as much of a weight, in every lane.

    `element` is what images hold, `weight` what weights do, `total` what products are added up in;
    one cycle starts `dots`, and after `latency` cycles a sum can be added to. `reduction` is how
    convolutions add up; `taps` how depthwise ones do. No weight may be less than `least`.
    """

    element: str
    weight: str
    total: str
    dots: float
    latency: float
    reduction: Reduction
    taps: Taps
    least: int = -128

    @property
    def depth(self) -> int:
        """Elements of a word."""
        return WORD_BYTES * 8 // int(self.element[1:])


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Cycles that nothing hides, by which tiles are chosen; one cycle starts `loads`.

    To finish a vector, packed with others or alone; to store what of a pixel is packed; to find a
    pixel anywhere; for each tile; for a vector of weights that comes from the second cache; for any
    load beside dot products; to ask for other weights in a step whose own are far. `ahead` are the
    instructions that a CPU has at work at a time: only if a tile has fewer is it finished beside
    the products of the next.
    """

    loads: float
    packed: float
    alone: float
    stored: float
    pixel: float
    tile: float
    far: float
    near: float
    asking: float = 0.0
    ahead: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Isa:
    """What a kernel must know of a CPU; `features` are in Linux's spelling.

    `integers` multiplies u8, as `storage` holds it, by i8 into i32, exactly; `words` does so with
    u16, as `word_storage` holds them, where there is such a thing; `reals` multiplies f32, each
    product fused with its sum; `halves` multiplies i16 by i16, where that is as fast as bytes are.
    `selects` says that to select the row of a pixel is cheaper than to divide, `prefetches` that
    to ask for weights early is of use, `joins` that one dispatch had better be made of many. Of its
    registers, which hold `vector_bytes` each, tiles may have `registers`.
    """

    name: str
    features: frozenset[str]
    vector_bytes: int
    registers: int
    integers: Unit
    reals: Unit
    storage: Packing
    pace: Pace
    tables: Tables
    words: Unit | None = None
    word_storage: Packing | None = None
    halves: Unit | None = None
    selects: bool = False
    prefetches: bool = False
    joins: bool = False

    @property
    def lanes(self) -> int:
        """Accumulators of a register."""
        return self.vector_bytes // WORD_BYTES

    @property
    def kinds(self) -> frozenset[Kind]:
        """What images may hold."""
        return frozenset({"u8", "f32"} if self.words is None else {"u8", "u16", "f32"})

    @property
    def widens(self) -> bool:
        """Whether bytes are multiplied as words are, so that weights of 16 bits are as fast."""
        return self.integers.depth < WORD_BYTES

    @property
    def wide(self) -> Isa:
        """The same for weights of 16 bits, which words are multiplied by."""
        return replace(self, words=self.halves)

    def unit(self, kind: Kind) -> Unit:
        """What multiplies images of a kind."""
        if kind == "u16":
            assert self.words is not None
            return self.words
        return self.reals if kind == "f32" else self.integers

    def storage_of(self, kind: Kind) -> Packing:
        """How memory holds integers of a kind."""
        if kind == "u16":
            assert self.word_storage is not None
            return self.word_storage
        return self.storage

    def element(self, kind: Kind) -> str:
        """What images of a kind hold."""
        return self.unit(kind).element

    def width(self, kind: Kind) -> int:
        """Elements of an image in a register."""
        return self.lanes * self.unit(kind).depth


def _fused_real(acc: Value, x: Value, w: Value) -> Value:
    return vector.fma(x, w, acc)


_PLAIN = Packing(
    offset=0,
    nearest=x86.nearest,
    to_i16=x86.to_i16,
    to_bytes=x86.to_bytes,
    halves=x86.halves,
)
# Products of 16 bits have a sign, so that half of all u16 are held as what is below zero.
_WIDE = replace(_PLAIN, offset=1 << 15, bits=16, halves=x86.signed_halves)
_CENTRED = Packing(
    offset=128,
    nearest=arm.nearest,
    to_i16=arm.to_i16,
    to_bytes=arm.to_bytes,
    halves=arm.halves,
    cut=arm.cut,
    shifted=arm.shifted,
    saturates=True,
)

# As measured on x86: AVX2 on Zen 3, AVX512 on Zen 5 (benchmarks/tiles_x86.py). Counted in
# instructions on Arm.
_MEASURED = Pace(
    loads=2.0, packed=2.5, alone=4.5, stored=0.0, pixel=2.0, tile=12.0, far=1.5, near=0.15
)
_MEASURED_WIDE = replace(
    _MEASURED, packed=1.5, stored=1.0, pixel=1.5, tile=1.0, near=0.0, asking=0.1, ahead=256.0
)
_COUNTED = Pace(
    loads=2.0, packed=5.4, alone=8.0, stored=1.0, pixel=8.0, tile=12.0, far=1.0, near=1.0
)


def _bytes(products: int) -> Unit:
    return Unit(
        element="i8",
        weight="i8",
        total="i32",
        dots=2.0,
        latency=5.0,
        reduction=Spread(x86.dot_bytes, 4, products, beyond=3),
        taps=Words(x86.dot_bytes, 4),
    )


def _words(products: int) -> Unit:
    return Unit(
        element="i16",
        weight="i8",
        total="i32",
        dots=1.6,
        latency=4.0,
        reduction=Spread(x86.dot_words, 2, products, beyond=1),
        taps=Words(x86.dot_words, 2),
    )


def _halves(products: int) -> Unit:
    return replace(
        _words(products),
        weight="i16",
        dots=2.0,
        reduction=Spread(x86.dot_pairs, 2, products, beyond=1),
        taps=Words(x86.dot_pairs, 2),
        least=-(1 << 15),
    )


def _reals(products: int) -> Unit:
    return Unit(
        element="f32",
        weight="f32",
        total="f32",
        dots=2.0,
        latency=4.0,
        reduction=Spread(_fused_real, 1, products),
        taps=Words(_fused_real, 1),
    )


_SDOT = Unit(
    element="i8",
    weight="i8",
    total="i32",
    dots=1.0,
    latency=4.0,
    reduction=ByElement(arm.dot_bytes, 4),
    taps=Words(arm.dot_bytes, 4, pixels=2),
)
_SMMLA = replace(_SDOT, reduction=Pairs(arm.multiply_matrices))
_SMULL = replace(
    _SDOT,
    reduction=Channels(arm.multiply_halves, arm.sums_of_four),
    taps=Plain(arm.add_taps),
    least=-127,
)
_FMLA = replace(_reals(0), dots=1.0, reduction=ByElement(_fused_real, 1))


def _x86(name: str, features: Iterable[str], integers: Callable[[int], Unit], *, wide: bool) -> Isa:
    """32 registers of 64 bytes, or 16 of 32, some for what is beside sums and weights."""
    vector_bytes, registers, products = (64, 28, 40) if wide else (32, 14, 24)
    # What floats are multiplied by may come from memory; LLVM loads integers first, and spills.
    fused = 112 if wide else 24
    return Isa(
        name=name,
        features=frozenset(features),
        vector_bytes=vector_bytes,
        registers=registers,
        integers=integers(products),
        reals=_reals(fused),
        storage=_PLAIN,
        pace=_MEASURED_WIDE if wide else _MEASURED,
        tables=X86,
        words=_words(products),
        word_storage=_WIDE,
        halves=_halves(products),
        prefetches=True,
        joins=True,
    )


def _arm(name: str, features: Iterable[str], integers: Unit, *, selects: bool) -> Isa:
    """Plain NEON has short steps, in each of which selected places would be added to."""
    return Isa(
        name=name,
        features=frozenset({"asimd", *features}),
        vector_bytes=16,
        registers=29,
        integers=integers,
        reals=_FMLA,
        storage=_CENTRED,
        pace=replace(_COUNTED, pixel=4.0) if selects else _COUNTED,
        tables=NEON,
        selects=selects,
    )


_AVX512, _AVX2 = ("avx512f", "avx512bw", "avx512dq", "avx512vl"), ("avx2", "fma")

ISAS: tuple[Isa, ...] = (
    _x86("avx512_vnni", (*_AVX512, "avx512_vnni"), _bytes, wide=True),
    _x86("avx_vnni", (*_AVX2, "avx_vnni"), _bytes, wide=False),
    _x86("avx512", _AVX512, _words, wide=True),
    _x86("avx2", _AVX2, _words, wide=False),
    _arm("neon_i8mm", ("asimddp", "i8mm"), _SMMLA, selects=True),
    _arm("neon_dotprod", ("asimddp",), _SDOT, selects=True),
    _arm("neon", (), _SMULL, selects=False),
)
