"""How memory holds a u8, and what turns sums into that and that into numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code

LEAST, MOST = 0, 255


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A u8 less `offset`, as one element or as a wider one; elements have a sign if there is one.

    `saturates` says that what makes i32 of f32 does; `cut` makes one vector of two, whose elements
    are half as wide, of what fits, where that is cheaper than to saturate.
    """

    offset: int
    cut: Callable[[Value, Value], Value] | None = field(default=None, repr=False, compare=False)
    saturates: bool = False

    @property
    def limits(self) -> tuple[int, int]:
        """What stands for the least and the greatest u8."""
        return self.stored(LEAST), self.stored(MOST)

    @property
    def signed(self) -> bool:
        """Whether bytes are compared, and extended, with their sign."""
        return self.offset > 0

    def stored(self, number: int) -> int:
        """What memory holds for a u8."""
        return number - self.offset

    def extended(self, value: Value) -> Value:
        """A vector of elements as i32."""
        wide = code.vector_type(code.lanes_of(value), "i32")
        return (arith.extsi if self.signed else arith.extui)(wide, value)

    def shown(self, element: Value) -> Value:
        """One element as the byte that the u8 is."""
        byte = code.element("i8")
        element = element if element.type == byte else arith.trunci(byte, element)
        return self._moved(element, self.offset)

    def hidden(self, byte: Value, name: str) -> Value:
        """A u8 as an element of a type."""
        wide, byte = code.element(name), self._moved(byte, -self.offset)
        return byte if wide == byte.type else arith.extui(wide, byte)

    def _moved(self, byte: Value, by: int) -> Value:
        return arith.addi(byte, code.constant(by, "i8")) if by else byte


@dataclass(frozen=True, kw_only=True)
class Packing(Storage):
    """How a CPU packs vectors, within 128 bits each.

    `nearest` makes i32 of f32, ties to even. `to_i16` and `to_bytes` make one vector of two, whose
    elements are half as wide, saturated; `halves` is the other way.
    """

    nearest: Callable[[Value], Value] = field(repr=False, compare=False)
    to_i16: Callable[[Value, Value], Value] = field(repr=False, compare=False)
    to_bytes: Callable[[Value, Value], Value] = field(repr=False, compare=False)
    halves: Callable[[Value], list[Value]] = field(repr=False, compare=False)
