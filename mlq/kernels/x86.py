"""Instructions of x86 that kernels call by name, on vectors of 128, 256 or 512 bits."""

from __future__ import annotations

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code, lanes

_MULTIPLY_PAIRS = {
    128: "llvm.x86.sse2.pmadd.wd",
    256: "llvm.x86.avx2.pmadd.wd",
    512: "llvm.x86.avx512.pmaddw.d.512",
}
_TO_I16 = {
    128: "llvm.x86.sse2.packssdw.128",
    256: "llvm.x86.avx2.packssdw",
    512: "llvm.x86.avx512.packssdw.512",
}
_TO_U8 = {
    128: "llvm.x86.sse2.packuswb.128",
    256: "llvm.x86.avx2.packuswb",
    512: "llvm.x86.avx512.packuswb.512",
}


def dot_bytes(acc: Value, x: Value, w: Value) -> Value:
    """Products of u8 by i8, four to a sum."""
    return code.call(f"llvm.x86.avx512.vpdpbusd.{8 * code.lanes_of(x)}", acc.type, acc, x, w)


def dot_words(acc: Value, x: Value, w: Value) -> Value:
    """Products of 16 bits, two to a sum: exact, where `pmaddubsw` would saturate."""
    return dot_pairs(acc, x, arith.extsi(x.type, w))


def dot_pairs(acc: Value, x: Value, w: Value) -> Value:
    """The same where weights have 16 bits, too."""
    return arith.addi(acc, code.call(_MULTIPLY_PAIRS[16 * code.lanes_of(x)], acc.type, x, w))


def nearest(value: Value) -> Value:
    """The nearest i32, ties to even; the least i32 for what it cannot hold."""
    return code.call("llvm.lrint", code.vector_type(code.lanes_of(value), "i32"), value)


def to_i16(one: Value, other: Value) -> Value:
    """Two vectors of i32 as one, saturated; in turn by 128 bits."""
    count = code.lanes_of(one)
    return code.call(_TO_I16[32 * count], code.vector_type(2 * count, "i16"), one, other)


def to_bytes(one: Value, other: Value) -> Value:
    """Two vectors of i16 as one of u8, saturated; in turn by 128 bits."""
    count = code.lanes_of(one)
    return code.call(_TO_U8[16 * count], code.vector_type(2 * count, "i8"), one, other)


def halves(value: Value) -> list[Value]:
    """The low and the high halves of each 128 bits, in elements twice as wide, without sign."""
    name = code.element_of(value)
    zero = code.splat(code.constant(0, name), code.lanes_of(value))
    twice = f"i{2 * int(name[1:])}"
    return [code.view(lanes.zipped(value, zero, high=high), twice) for high in (False, True)]


def signed_halves(value: Value) -> list[Value]:
    """The same of i16 with their sign."""
    zero = code.splat(code.constant(0, "i16"), code.lanes_of(value))
    found = []
    for high in (False, True):
        upper = code.view(lanes.zipped(zero, value, high=high), "i32")
        found.append(arith.shrsi(upper, code.splat(code.constant(16, "i32"), code.lanes_of(upper))))
    return found
