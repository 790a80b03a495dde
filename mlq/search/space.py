"""What a search chooses from: decisions, their options, and what each option costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlq.errors import PlanError, UsageError
from mlq.hardware import Hardware, Layer
from mlq.precision import Precision

# One option's index for each decision of a space.
Point: TypeAlias = tuple[int, ...]


class Cost(NamedTuple):
    """What a decision's layers cost in one option: microseconds, and bytes of weights."""

    us: float
    bytes: float


class Decision(NamedTuple):
    """Layers that share a precision, and what each precision costs, from the widest on."""

    layers: tuple[str, ...]
    options: Mapping[str, Cost]


class Space:
    """All allocations: the product of the decisions' options; costs add up over decisions."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        if not decisions or not all(decision.options for decision in decisions):
            raise ValueError("a space needs decisions, and each of them options")
        self.decisions = tuple(decisions)
        self.names = tuple(tuple(decision.options) for decision in decisions)
        self.sizes = tuple(len(names) for names in self.names)
        self._us, self._bytes = (
            [np.array([cost[i] for cost in each.options.values()]) for each in decisions]
            for i in range(2)
        )

    def us(self, point: Point) -> float:
        """Microseconds of an allocation."""
        return _total(self._us, point)

    def bytes(self, point: Point) -> float:
        """Bytes of weights of an allocation."""
        return _total(self._bytes, point)

    def has(self, point: Point) -> bool:
        """Whether the point is an allocation of this space."""
        return len(point) == len(self.sizes) and all(
            0 <= chosen < size for chosen, size in zip(point, self.sizes, strict=True)
        )

    def precisions(self, point: Point) -> dict[str, str]:
        """Precision by layer, as a plan wants it."""
        return {
            layer: names[chosen]
            for decision, names, chosen in zip(self.decisions, self.names, point, strict=True)
            for layer in decision.layers
        }

    def uniform(self, precision: str) -> Point:
        """The allocation that has the precision wherever it is an option, else the widest."""
        return tuple(names.index(precision) if precision in names else 0 for names in self.names)

    def start(self, max_bytes: float | None) -> Point:
        """The widest allocation that fits: decisions that save most are narrowed first.

        PlanError says how many bytes the least allocation takes where none fits.
        """
        point = [0] * len(self.decisions)
        least = tuple(int(np.argmin(sizes)) for sizes in self._bytes)
        if max_bytes is not None and self.bytes(least) > max_bytes:
            raise PlanError(
                f"no allocation fits {max_bytes:g} bytes: the least takes {self.bytes(least):g}; "
                "allow more bytes or fewer bits"
            )
        saved = [float(sizes[0] - sizes.min()) for sizes in self._bytes]
        for i in sorted(range(len(point)), key=lambda i: -saved[i]):
            if max_bytes is None or self.bytes(tuple(point)) <= max_bytes:
                break
            point[i] = least[i]
        return tuple(point)


def menu(bits: Sequence[int], activation_bits: Sequence[int] | None = None) -> list[str]:
    """Precisions of these bits, the widest first; UsageError if a precision cannot have them.

    Without `activation_bits` activations have those of the weights; with them every weight's width
    goes with every activation's.
    """
    widths, others = (
        sorted({Precision.parse(f"w{width}a{width}").weight_bits for width in each})[::-1]
        for each in (bits, activation_bits or ())
    )
    if not widths:
        raise UsageError("no bits to choose from; 2,3,4,8 is the usual choice")
    return [f"w{width}a{other}" for width in widths for other in others or [width]]


def space_of(
    layers: Mapping[str, Layer],
    hardware: Hardware,
    bits: Sequence[int],
    activation_bits: Sequence[int] | None = None,
    *,
    fixed: Collection[str] = (),
    groups: Sequence[Sequence[str]] = (),
) -> Space:
    """The space of a network on a device, whose layers choose from a `menu`.

    `fixed` layers stay at 8 bits (by default nothing is; the first and last usually are); the
    layers of a group share their bits.
    """
    precisions = menu(bits, activation_bits)
    together = {name: tuple(group) for group in groups for name in group}
    members = dict.fromkeys(together.get(name, (name,)) for name in layers)
    decisions = []
    for names in members:
        choices = ["w8a8"] if set(names) & set(fixed) else precisions
        costs = {each: _cost(names, layers, hardware, Precision.parse(each)) for each in choices}
        decisions.append(Decision(names, costs))
    return Space(decisions)


def _cost(
    names: Sequence[str], layers: Mapping[str, Layer], hardware: Hardware, precision: Precision
) -> Cost:
    width, other = precision.weight_bits, precision.activation_bits
    us = sum(hardware.latency_us(layers[name], width, other) for name in names)
    return Cost(us, sum(layers[name].weights for name in names) * width / 8)


def _total(costs: Sequence[NDArray[np.float64]], point: Point) -> float:
    return float(sum(cost[chosen] for cost, chosen in zip(costs, point, strict=True)))
