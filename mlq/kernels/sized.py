"""Kernels that are told their sizes with each call, so that calls of all sizes share one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.image import NO_MARGIN

# Stands for all sizes in what kernels of any have in common; no channels are too few for a kernel.
_ANY = 64


@dataclass(frozen=True)
class Size(code.Beyond):
    """A size that is known at run time: added, multiplied and divided as numbers are."""

    offset: int = 0

    def __add__(self, other: Index) -> Size:
        return Size(code.index(code.plus(self, other)))

    def __sub__(self, other: Index) -> Size:
        return self + code.times(other, -1)

    def __mul__(self, factor: Index) -> Size:
        return Size(code.index(code.times(self, factor)))

    def __floordiv__(self, by: Index) -> Size:
        return Size(code.index(code.split(self, by)[0]))

    __radd__, __rmul__ = __add__, __mul__


@runtime_checkable
class Sized(Protocol):
    """A kernel whose code takes the numbers in some of its fields as sizes, too."""

    @property
    def sizes(self) -> tuple[str, ...]:
        """The names of these fields."""


KernelT = TypeVar("KernelT")


def numbers(kernel: object) -> list[int]:
    """The sizes of a kernel, one after the other; of one that is not sized there are none."""
    fields = kernel.sizes if isinstance(kernel, Sized) else ()
    return [number for name in fields for number in _numbers(getattr(kernel, name))]


def form(kernel: KernelT) -> KernelT:
    """What a kernel has in common with those of other sizes."""
    return filled(kernel, itertools.repeat(_ANY))


def filled(kernel: KernelT, sizes: Iterator[Any]) -> KernelT:
    """The kernel with other sizes, each in the place that `numbers` has it from."""
    fields = kernel.sizes if isinstance(kernel, Sized) else ()
    changes = {name: _filled(getattr(kernel, name), sizes) for name in fields}
    return replace(kernel, **changes) if changes else kernel  # type: ignore[type-var]  # a dataclass


def _numbers(value: Any) -> list[int]:
    if isinstance(value, int):
        return [value]
    if value == NO_MARGIN:
        return []
    parts = value if isinstance(value, tuple) else vars(value).values() if value else ()
    return [number for part in parts for number in _numbers(part)]


def _filled(value: Any, sizes: Iterator[Any]) -> Any:
    if isinstance(value, int):
        return next(sizes)
    if value == NO_MARGIN:
        return value
    if isinstance(value, tuple):
        return tuple(_filled(part, sizes) for part in value)
    if value is None:
        return None
    return replace(value, **{name: _filled(part, sizes) for name, part in vars(value).items()})
