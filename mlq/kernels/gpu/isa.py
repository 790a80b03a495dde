"""What kernels must know of a GPU as data, and the few lines that emit what differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch_mlir.dialects import arith
from torch_mlir.ir import Attribute, Operation, UnitAttr, Value

from mlq.kernels import code
from mlq.kernels.storage import REALS, Kind, Storage

Dot = Callable[[Value, Value, Value], Value]
"""`acc + sum of x * w` over four u8 and four i8, each four in an i32; sums wrap around."""

# Of a float32: the exponent; sign, exponent and 12 bits of the 24; 2^-24 as a step of the exponent.
_EXPONENT, _UPPER, _HALF_AN_ULP = 0x7F800000, -0x1000, 24 << 23


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Dot products, and the steps of a requantization, each rounded on its own.

    `quotient` is a real over a scale, or a real with the same nearest integer.
    """

    dot: Dot
    product: Callable[[Value, Value], Value]
    total: Callable[[Value, Value], Value]
    quotient: Callable[[Value, Value], Value]
    rounded: Callable[[Value], Value]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A kind of GPU; `features` are mlq's words for what its targets promise.

    One access moves at most `words` of memory. `warp` threads are in lockstep, where kernels rely
    on that; `fragments` says whether these multiply matrices of 16 x 32 u8 by 32 x 8 i8 together,
    and of 16 x 16 by 16 x 8 f16, which are as many bytes.
    `cluster` workgroups run at once and may wait for each other; 0 where none may.
    """

    name: str
    features: frozenset[str]
    words: int
    warp: int = 0
    fragments: bool = False
    cluster: int = 0
    arithmetic: Arithmetic = field(repr=False, compare=False)
    storage: Storage = field(default_factory=lambda: Storage(offset=0))

    @property
    def kinds(self) -> frozenset[Kind]:
        """What images are of; what multiplies matrices of bytes does of f16, too."""
        halves: tuple[Kind, ...] = ("f16",) if self.fragments else ()
        return frozenset({"u8", "f32", *halves})

    def storage_of(self, _kind: Kind) -> Storage:
        """How memory holds integers of a kind, of which there is one."""
        return self.storage

    @staticmethod
    def element(kind: Kind) -> str:
        """What images of u8, or of floats, hold."""
        return kind if kind in REALS else "i8"


def _dp4a(acc: Value, x: Value, w: Value) -> Value:
    return code.call("llvm.nvvm.idp4a.u.s", acc.type, x, w, acc)


def _fenced(value: Value) -> Value:
    return code.call("llvm.arithmetic.fence", value.type, value)


_CUDA = Arithmetic(
    dot=_dp4a,
    product=arith.mulf,
    total=lambda one, other: arith.addf(_fenced(one), _fenced(other)),
    quotient=arith.divf,
    rounded=lambda real: code.call("llvm.nvvm.f2i.rn", code.element("i32"), real),
)


def _spirv(name: str, result: str, *operands: Value, **attributes: Attribute) -> Value:
    return Operation.create(
        f"spirv.{name}",
        results=[code.element(result)],
        operands=list(operands),
        attributes=attributes,
    ).result


def _dot(acc: Value, x: Value, w: Value) -> Value:
    """The first operand is signed. What saturates is no use: folded biases may wrap around."""
    packed = Attribute.parse("#spirv.packed_vector_format<PackedVectorFormat4x8Bit>")
    return arith.addi(acc, _spirv("SUDot", "i32", w, x, format=packed))


def _product(one: Value, other: Value) -> Value:
    return _spirv("FMul", "f32", one, other, no_contraction=UnitAttr.get())


def _total(one: Value, other: Value) -> Value:
    return _spirv("FAdd", "f32", one, other, no_contraction=UnitAttr.get())


def _masked(real: Value, mask: int, less: int = 0) -> Value:
    """Some bits of a real, less a number, as a real."""
    bits = arith.andi(arith.bitcast(code.element("i32"), real), code.constant(mask, "i32"))
    return code.bits(arith.subi(bits, code.constant(less, "i32")), "f32")


def _quotient(real: Value, scale: Value) -> Value:
    """A real with the nearest integer of numerics' quotient, from a division that is inexact.

    `half` is between the integers around an estimate; `past` is `real - half * scale`, and `reach`
    half an ULP of `half`, scaled: within it numerics' quotient is `half`, a tie. What decides is
    exact: near a half below 2^11, whose 12 bits meet 12 of the scale, all in `past` is
    representable, from scales of 2^-101 on, and Vulkan leaves such results as they are.
    """
    half = _total(_spirv("GL.Floor", "f32", arith.divf(real, scale)), code.constant(0.5, "f32"))
    minus, upper = arith.negf(half), _masked(scale, _UPPER)
    lower = _total(scale, arith.negf(upper))
    past = _total(_total(real, _product(minus, upper)), _product(minus, lower))
    reach = _product(scale, _masked(half, _EXPONENT, _HALF_AN_ULP))
    above = arith.cmpf(arith.CmpFPredicate.OGT, past, reach)
    below = arith.cmpf(arith.CmpFPredicate.OLT, past, arith.negf(reach))
    aside, none = code.constant(0.25, "f32"), code.constant(0.0, "f32")
    side = arith.select(above, aside, arith.select(below, arith.negf(aside), none))
    return _total(half, side)


_VULKAN = Arithmetic(
    dot=_dot,
    product=_product,
    total=_total,
    quotient=_quotient,
    rounded=lambda real: arith.fptosi(code.element("i32"), _spirv("GL.RoundEven", "f32", real)),
)

GPUS: tuple[Gpu, ...] = (
    Gpu(
        name="cuda_cluster",
        features=frozenset({"dp4a", "mma_s8", "clusters"}),
        words=4,
        warp=32,
        fragments=True,
        cluster=8,
        arithmetic=_CUDA,
    ),
    Gpu(
        name="cuda_mma",
        features=frozenset({"dp4a", "mma_s8"}),
        words=4,
        warp=32,
        fragments=True,
        arithmetic=_CUDA,
    ),
    Gpu(
        name="cuda_dp4a",
        features=frozenset({"dp4a"}),
        words=4,
        warp=32,
        arithmetic=_CUDA,
    ),
    Gpu(
        name="vulkan_dot",
        features=frozenset({"spirv_dot"}),
        words=1,
        arithmetic=_VULKAN,
    ),
)
