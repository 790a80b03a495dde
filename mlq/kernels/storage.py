"""How memory holds a u8 or a u16, and what turns sums into that and that into numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code

Kind = Literal["u8", "u16", "f16", "f32"]
"""What the elements of an image are."""
REALS: frozenset[Kind] = frozenset({"f16", "f32"})


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A u8 less `offset`, as one element or as a wider one; elements have a sign if there is one.

    A u16 if `bits` are 16. `saturates` says that what makes i32 of f32 does; `cut` makes one vector
    of two, whose elements are half as wide, of what fits, where that is cheaper than to saturate;
    `shifted` subtracts from reals what is so far below them that whole numbers remain.
    """

    offset: int
    bits: int = 8
    cut: Callable[[Value, Value], Value] | None = field(default=None, repr=False, compare=False)
    shifted: Callable[[Value, Value], Value] | None = field(default=None, repr=False, compare=False)
    saturates: bool = False

    @property
    def plain(self) -> str:
        """The element that the number is outside of kernels."""
        return f"i{self.bits}"

    @property
    def most(self) -> int:
        """The greatest number."""
        return int((1 << self.bits) - 1)

    @property
    def limits(self) -> tuple[int, int]:
        """What stands for the least and the greatest number."""
        return self.stored(0), self.stored(self.most)

    @property
    def signed(self) -> bool:
        """Whether elements are compared, and extended, with their sign."""
        return self.offset > 0

    def stored(self, number: int) -> int:
        """What memory holds for a number."""
        return number - self.offset

    def extended(self, value: Value) -> Value:
        """A vector of elements as i32."""
        wide = code.vector_type(code.lanes_of(value), "i32")
        return (arith.extsi if self.signed else arith.extui)(wide, value)

    def shown(self, element: Value) -> Value:
        """One element as the number that it stands for."""
        plain = code.element(self.plain)
        element = element if element.type == plain else arith.trunci(plain, element)
        return self._moved(element, self.offset)

    def hidden(self, number: Value, name: str) -> Value:
        """A number as an element of a type."""
        wide, number = code.element(name), self._moved(number, -self.offset)
        return number if wide == number.type else arith.extui(wide, number)

    def _moved(self, number: Value, by: int) -> Value:
        return arith.addi(number, code.constant(by, self.plain)) if by else number


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
