"""What allocation chooses from and answers with: plain frozen values."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from mlq.errors import PlanError
from mlq.precision import F16, Precision

Measure = Literal["noise", "us", "bytes"]

# By this activations of f16 are known, which are other than integers of 16 bits.
_HALVES = -16
# Stands for everything that is always f32: graph inputs, and ops no precision is chosen for.
OUTSIDE = ""


class Option(NamedTuple):
    """What one layer costs at one precision: milli-nats, microseconds, bytes of parameters."""

    noise: float
    us: float
    bytes: float = 0.0


@dataclass(frozen=True)
class LayerChoice:
    """A layer and what each precision would cost it; of equals, the first option is preferred."""

    name: str
    options: Mapping[str, Option]


@dataclass(frozen=True)
class Border:
    """A tensor: what it costs when those that make and read it store activations differently.

    `dequantize_us` is paid once when the producer is reduced and any consumer f32. An integer
    producer stores its result as all its consumers read it, one of f16 if they read f16; where they
    differ, or it is float, each storage that some read is a cast of its own: `quantize_us`, by its
    bits. `OUTSIDE` stands for a float op.
    """

    producer: str
    consumers: tuple[str, ...]
    dequantize_us: float = 0.0
    quantize_us: Mapping[int, float] = field(default_factory=dict)

    def us(self, bits: Mapping[str, int]) -> float:
        """What casts cost when layers store activations in so many bits (see `stored_bits`)."""
        made, readers = bits[self.producer], {*self.consumers} - {self.producer}
        read = {bits[reader] for reader in readers}
        us = self.dequantize_us if made and 0 in read else 0.0
        if len(read) > 1 or (made <= 0 and read != {made}):
            us += sum(self.quantize_us.get(each, 0.0) for each in read)
        return us


@dataclass(frozen=True)
class Budget:
    """The most a plan may cost; None where there is no limit."""

    noise: float | None = None
    us: float | None = None
    bytes: float | None = None

    def limits(self) -> Iterable[tuple[Measure, float]]:
        """The measures that are limited, each with its limit."""
        limited: tuple[tuple[Measure, float | None], ...] = (
            ("noise", self.noise),
            ("us", self.us),
            ("bytes", self.bytes),
        )
        return [(measure, limit) for measure, limit in limited if limit is not None]


@dataclass(frozen=True)
class Allocation:
    """A solution: the precision of each layer, why, and what the plan is predicted to cost."""

    precisions: Mapping[str, str]
    reasons: Mapping[str, str]
    noise: float
    us: float
    bytes: float


@dataclass(frozen=True)
class Problem:
    """A network as allocation sees it: layers in order, borders, groups that share a precision."""

    layers: Sequence[LayerChoice]
    borders: Sequence[Border] = ()
    groups: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names) or OUTSIDE in names:
            raise ValueError("layers need names of their own")
        ends = {end for border in self.borders for end in (border.producer, *border.consumers)}
        if unknown := (ends | set(itertools.chain(*self.groups))) - {OUTSIDE, *names}:
            raise ValueError(f"no such layers: {sorted(unknown)}")
        costs = [
            cost for layer in self.layers for option in layer.options.values() for cost in option
        ]
        costs += [us for b in self.borders for us in (b.dequantize_us, *b.quantize_us.values())]
        if not np.isfinite(costs).all() or min(costs, default=0.0) < 0.0:
            raise ValueError("costs must be finite and not negative")
        by_name = {layer.name: layer.options for layer in self.layers}
        for members in (*self.groups, *((name,) for name in names)):
            if not set.intersection(*(set(by_name[member]) for member in members)):
                raise PlanError(f"{', '.join(members)}: no precision that all of it can have")

    def totals(self, precisions: Mapping[str, str]) -> Option:
        """What a complete choice costs, borders included."""
        return self._cost(precisions, self._options, self.borders)

    def change(
        self, precisions: Mapping[str, str], members: Collection[str], precision: str
    ) -> Option:
        """What a complete choice would cost more if `members` had another precision."""
        changed = {**precisions, **dict.fromkeys(members, precision)}
        touched = sorted({place for name in members for place in self._places[name]})
        borders = [self.borders[place] for place in touched]
        new, old = (self._cost(each, members, borders) for each in (changed, precisions))
        return Option(*(n - o for n, o in zip(new, old, strict=True)))

    def _cost(
        self, precisions: Mapping[str, str], names: Iterable[str], borders: Sequence[Border]
    ) -> Option:
        """What some layers and some borders cost in a complete choice."""
        chosen = [self._options[name][precisions[name]] for name in names]
        noise, us, size = (float(sum(column)) for column in zip(*chosen, strict=True))
        ends = {end for border in borders for end in (border.producer, *border.consumers)}
        bits = {OUTSIDE: 0} | {end: stored_bits(precisions[end]) for end in ends - {OUTSIDE}}
        return Option(noise, us + sum(border.us(bits) for border in borders), size)

    @cached_property
    def _options(self) -> dict[str, Mapping[str, Option]]:
        """The options of each layer."""
        return {layer.name: layer.options for layer in self.layers}

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """The borders that each layer is at."""
        found: dict[str, list[int]] = {layer.name: [] for layer in self.layers}
        for place, border in enumerate(self.borders):
            for end in {border.producer, *border.consumers} - {OUTSIDE}:
                found[end].append(place)
        return found


def stored_bits(precision: str) -> int:
    """In how many bits layers of this precision read their activations; 0 for f32, -16 for f16."""
    parsed = Precision.parse(precision)
    if parsed.is_float:
        return _HALVES if parsed == F16 else 0
    return parsed.activation_bits
