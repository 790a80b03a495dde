"""Bytes looked up in tables of 256: by shuffles of 16 bytes on x86, by TBL on Arm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code

Bytes = NDArray[np.uint8]

_ROWS, _ROW = 16, 16  # a table, as shuffles see it
_UNSEEN = 8  # rows further on, an index has its highest bit set, and a shuffle gives zero
_SHUFFLE = {
    128: "llvm.x86.ssse3.pshuf.b.128",
    256: "llvm.x86.avx2.pshuf.b",
    512: "llvm.x86.avx512.pshuf.b.512",
}
_NEON = "llvm.aarch64.neon"
_QUARTER, _NEON_BYTES = 64, 16


@dataclass(frozen=True)
class Tables:
    """How a CPU looks bytes up: the order of a table in memory, and the code for a vector."""

    arranged: Callable[[Bytes], Bytes] = field(repr=False)
    look_up: Callable[[Value, Value], Value] = field(repr=False)


def _differences(table: Bytes) -> Bytes:
    """Rows whose exclusive or, over those that a byte sees, is the row that it asks for.

    A byte sees all rows up to its own, but no more than the last eight of them.
    """
    rows = table.reshape(_ROWS, _ROW).copy()
    for i in range(1, _ROWS):
        for seen in range(max(0, i - _UNSEEN + 1), i):
            rows[i] ^= rows[seen]
    return rows.reshape(-1)


def _shuffled(memory: Value, value: Value) -> Value:
    """16 shuffles; from one to the next, indices go down by a row."""
    size = code.lanes_of(value)
    name, step = _SHUFFLE[8 * size], code.splat(code.constant(_ROW, "i8"), size)
    found: Value | None = None
    for i in range(_ROWS):
        row = code.load(memory, i * _ROW, _ROW)
        row = code.shuffle(row, row, list(range(_ROW)) * (size // _ROW))
        part = code.call(name, value.type, row, value)
        found = part if found is None else arith.xori(found, part)
        # What was below zero stays there, once all bytes have been below their own row.
        value = (
            arith.subi(value, step)
            if i < _UNSEEN
            else code.call("llvm.ssub.sat", value.type, value, step)
        )
    assert found is not None
    return found


def _quarters(memory: Value, value: Value) -> Value:
    """A quarter of the table at a time; what it does not hold keeps what was found before."""
    whole = code.lanes_of(value)
    if whole != _NEON_BYTES:
        parts = [code.part(value, i, _NEON_BYTES) for i in range(0, whole, _NEON_BYTES)]
        one, other = (_quarters(memory, part) for part in parts)
        return code.shuffle(one, other, range(whole))
    step = code.splat(code.constant(_QUARTER, "i8"), whole)
    found: Value | None = None
    for first in range(0, _ROWS * _ROW, _QUARTER):
        rows = [code.load(memory, first + i, _ROW) for i in range(0, _QUARTER, _ROW)]
        if found is None:
            found = code.call(f"{_NEON}.tbl4.v16i8", value.type, *rows, value)
        else:
            found = code.call(f"{_NEON}.tbx4.v16i8", value.type, found, *rows, value)
        value = arith.subi(value, step)
    assert found is not None
    return found


X86 = Tables(_differences, _shuffled)
NEON = Tables(lambda table: table, _quarters)
