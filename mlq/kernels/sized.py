"""Kernels that are told their sizes with each call, so that calls of all sizes share one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

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


class Sized:
    """A kernel whose code takes the numbers in the fields called `sizes` as sizes, too.

    An image without a margin is told none, and has code of its own; but for the one that is
    `with_margin`, whose margin may be of no width.
    """

    sizes: ClassVar[tuple[str, ...]]
    with_margin: ClassVar[str] = ""


KernelT = TypeVar("KernelT")


def numbers(kernel: object) -> list[int]:
    """The sizes of a kernel, one after the other; of one that is not sized there are none."""
    if not isinstance(kernel, Sized):
        return []
    fields = [(getattr(kernel, name), name == kernel.with_margin) for name in kernel.sizes]
    return [number for value, margin in fields for number in _numbers(value, margin=margin)]


def form(kernel: KernelT) -> KernelT:
    """What a kernel has in common with those of other sizes."""
    return filled(kernel, itertools.repeat(_ANY))


def filled(kernel: KernelT, sizes: Iterator[Any]) -> KernelT:
    """The kernel with other sizes, each in the place that `numbers` has it from."""
    if not isinstance(kernel, Sized):
        return kernel
    changes = {
        name: _filled(getattr(kernel, name), sizes, margin=name == kernel.with_margin)
        for name in kernel.sizes
    }
    return replace(kernel, **changes)  # type: ignore[type-var]  # a dataclass


def _numbers(value: Any, *, margin: bool) -> list[int]:
    if isinstance(value, int):
        return [value]
    if value == NO_MARGIN and not margin:
        return []
    parts = value if isinstance(value, tuple) else vars(value).values() if value else ()
    return [number for part in parts for number in _numbers(part, margin=margin)]


def _filled(value: Any, sizes: Iterator[Any], *, margin: bool) -> Any:
    if isinstance(value, int):
        return next(sizes)
    if value is None or (value == NO_MARGIN and not margin):
        return value
    if isinstance(value, tuple):
        return tuple(_filled(part, sizes, margin=margin) for part in value)
    parts = {name: _filled(part, sizes, margin=margin) for name, part in vars(value).items()}
    return replace(value, **parts)
