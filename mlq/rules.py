"""Selection rules: walk the list of layers, the most sensitive first, and leave some of them float.

The integer program weighs noise against time; these rules know noise alone. They are what the
literature uses (QuantuneV2, arXiv 2501.07161, and the compiler it grew from), for comparison, and
for whoever wants to say how many layers shall stay float.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlq.allocation import Allocation, LayerChoice, Problem
from mlq.errors import UsageError
from mlq.precision import one_of

RULES = ("program", "threshold", "top-k", "knee")
# A rule without a number of its own is followed by so many plans with more float layers.
_STRICTER = 3


@dataclass(frozen=True)
class Rule:
    """A rule and its number, where one is given: milli-nats of a threshold, layers of a top-k."""

    name: str
    value: float | None = None

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read `threshold:0.2`, `top-k:5`, or a name alone; UsageError for anything else."""
        name, colon, number = text.partition(":")
        one_of(RULES, name, "selection rule")
        if not colon:
            return cls(name)
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name not in ("threshold", "top-k") or not 0.0 <= value < float("inf"):
            raise UsageError(f"cannot select by {text!r}; write threshold:0.2, top-k:5 or knee")
        return cls(name, value)


@dataclass(frozen=True)
class Listed:
    """The layers that can be integer, by the noise that they add so, the most first."""

    problem: Problem
    names: tuple[str, ...]
    noises: tuple[float, ...]

    @classmethod
    def of(cls, problem: Problem) -> Listed:
        """Of equals, the earlier layer first."""
        noisy = [(name, layer) for layer in problem.layers if (name := _integer(layer))]
        found = sorted(((layer.options[name].noise, layer.name) for name, layer in noisy), key=_key)
        return cls(problem, tuple(name for _, name in found), tuple(noise for noise, _ in found))

    def allocation(self, count: int, rule: Rule) -> Allocation:
        """The plan with the first `count` layers of the list in float, the others integer."""
        place = {name: index for index, name in enumerate(self.names)}
        precisions, reasons = {}, {}
        for layer in self.problem.layers:
            at = place.get(layer.name)
            chosen = "f32" if at is None or at < count else _integer(layer) or "f32"
            precisions[layer.name] = chosen
            reasons[layer.name] = f"{chosen}: {self._reason(at, count, rule)}"
        totals = self.problem.totals(precisions)
        return Allocation(precisions, reasons, *totals)

    def _reason(self, at: int | None, count: int, rule: Rule) -> str:
        if at is None:
            return "has no integer precision here"
        where = f"number {at + 1} of {len(self.names)} by predicted noise, {self.noises[at]:.2g} mn"
        return f"{where}; {rule.name} leaves {count} in float"


def counts(
    rule: Rule, listed: Listed, budget: float | None, divergence: Callable[[int], float]
) -> list[int]:
    """How many layers shall stay float: by the rule, then in stricter plans.

    `divergence` says the simulated KL (milli-nats) of a plan with so many float layers, `budget`
    what it may be. A number that was given is kept to; without one, threshold takes a layer's equal
    share of the budget, and top-k the fewest layers with which the simulation keeps to it.
    """
    most = len(listed.names)
    if rule.name == "knee":
        first = knee(listed.noises)
    elif rule.name == "threshold":
        first = sum(noise > _threshold(rule, listed, budget) for noise in listed.noises)
    elif rule.value is not None:
        first = min(int(rule.value), most)
    else:
        first = fewest(most, budget, divergence)
    if rule.value is not None:
        return [first]
    stricter = itertools.accumulate(range(_STRICTER), lambda k, _: 3 * k // 2 + 1, initial=first)
    return list(dict.fromkeys(min(count, most) for count in stricter))


def knee(noises: Sequence[float]) -> int:
    """How many of the noises, in falling order, lie before the knee of their running sum.

    The knee is where the curve from (0, 0) to (1, 1) is furthest above the diagonal: Kneedle
    (Satopaa et al., 2011) without smoothing.
    """
    running = np.cumsum(noises)
    if not len(running) or running[-1] <= 0.0:
        return 0
    above = running / running[-1] - np.arange(1, len(running) + 1) / len(running)
    return int(np.argmax(above)) + 1 if above.max() > 0.0 else 0


def fewest(most: int, budget: float | None, divergence: Callable[[int], float]) -> int:
    """The fewest float layers with which `divergence` is within `budget`, by bisection."""
    if budget is None:
        return 0
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if divergence(middle) <= budget:
            high = middle
        else:
            low = middle + 1
    return low


def _threshold(rule: Rule, listed: Listed, budget: float | None) -> float:
    """Milli-nats above which a layer stays float."""
    if rule.value is not None:
        return rule.value
    whole = sum(listed.noises) if budget is None else budget
    return whole / max(len(listed.names), 1)


def _integer(layer: LayerChoice) -> str | None:
    """The first integer precision that a layer can have."""
    return next((name for name in layer.options if name != "f32"), None)


def _key(entry: tuple[float, str]) -> float:
    return -entry[0]
