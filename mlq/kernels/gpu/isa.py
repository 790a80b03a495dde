"""What kernels must know of a GPU as data, and the few lines that emit what differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch_mlir.dialects import arith
from torch_mlir.ir import Attribute, Operation, UnitAttr, Value

from mlq.kernels import code
from mlq.kernels.storage import Kind, Storage

Dot = Callable[[Value, Value, Value], Value]
"""`acc + sum of x * w` over four u8 and four i8, each four in an i32; sums wrap around."""


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Dot products, and the steps of a requantization, each rounded on its own."""

    dot: Dot
    product: Callable[[Value, Value], Value]
    total: Callable[[Value, Value], Value]
    rounded: Callable[[Value], Value]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A kind of GPU; `features` are mlq's words for what its targets promise.

    One access moves at most `words` of memory. `warp` threads are in lockstep, where kernels rely
    on that; `fragments` says whether these multiply matrices of 16 x 32 u8 by 32 x 8 i8 together.
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
    kinds: frozenset[Kind] = frozenset({"u8", "f32"})

    def storage_of(self, _kind: Kind) -> Storage:
        """How memory holds integers of a kind, of which there is one."""
        return self.storage

    @staticmethod
    def element(kind: Kind) -> str:
        """What images of u8, or of f32, hold."""
        return "f32" if kind == "f32" else "i8"


def _dp4a(acc: Value, x: Value, w: Value) -> Value:
    return code.call("llvm.nvvm.idp4a.u.s", acc.type, x, w, acc)


def _multiplied(one: Value, other: Value) -> Value:
    return arith.mulf(one, other)


def _fenced(value: Value) -> Value:
    return code.call("llvm.arithmetic.fence", value.type, value)


_CUDA = Arithmetic(
    dot=_dp4a,
    product=_multiplied,
    total=lambda one, other: arith.addf(_fenced(one), _fenced(other)),
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


_VULKAN = Arithmetic(
    dot=_dot,
    product=lambda one, other: _spirv("FMul", "f32", one, other, no_contraction=UnitAttr.get()),
    total=lambda one, other: _spirv("FAdd", "f32", one, other, no_contraction=UnitAttr.get()),
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
