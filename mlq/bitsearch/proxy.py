"""A guess at what an allocation loses: noise adds up over layers, corrected by what was visited.

log KL = a + b log(sum of what layers lose alone) + a correction for each layer and width. With
nothing visited a = 0, b = 1 and no correction: the additive model. Ridge regression on the visits
then moves all three (the second-order view of HAWQ-V3, and what it leaves out).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlq.bitsearch.measuring import LEAST_KL, kept, kl_of
from mlq.precision import Precision
from mlq.search import Archive, Evaluate, Point, Space, Visit

Array = NDArray[Any]
Noise = dict[str, dict[str, float]]
"""Milli-nats by layer and precision that narrowing the layer alone adds."""

# How firmly corrections are held at nothing, and a and b at theirs, in visits.
_HELD, _HELD_COMMON = 2.0, 0.1
# Visits grow by so much between two fits.
_GROWTH = 1.15


def alone(space: Space) -> list[Point]:
    """The widest allocation, and every one that narrows the weights or activations of a decision.

    One that narrows both is there only where there is none that narrows either.
    """
    widest = (0,) * len(space.sizes)
    return [
        widest,
        *(
            (*widest[:i], option, *widest[i + 1 :])
            for i, names in enumerate(space.names)
            for option in range(1, len(names))
            if _parts(names, names[option]) == (names[option],)
        ),
    ]


def _parts(names: Sequence[str], name: str) -> tuple[str, ...]:
    """The precisions whose losses add up to that of `name`: weights' and activations'."""
    widest, narrow = Precision.parse(names[0]), Precision.parse(name)
    parts = (
        str(Precision(narrow.weight_bits, widest.activation_bits)),
        str(Precision(widest.weight_bits, narrow.activation_bits)),
    )
    return parts if set(parts) <= set(names) and name not in parts else (name,)


def noise_alone(space: Space, archive: Archive) -> Noise:
    """What each decision adds to the KL of the widest allocation, at each of its options."""
    points = alone(space)
    first, *others = (kl_of(visit.accuracy) for visit in archive.measure(points))
    added: Noise = {}
    for point, kl in zip(points[1:], others, strict=True):
        at = next(i for i, option in enumerate(point) if option)
        names, members = space.names[at], space.decisions[at].layers
        for layer in members:
            row = added.setdefault(layer, {names[0]: 0.0})
            row[names[point[at]]] = max(kl - first, 0.0) / len(members)
    found: Noise = {}
    for names, decision in zip(space.names, space.decisions, strict=True):
        share = first / len(space.decisions) / len(decision.layers)
        for layer in decision.layers:
            row = added.get(layer, {names[0]: 0.0})
            found[layer] = {
                name: share + sum(row[part] for part in _parts(names, name)) for name in names
            }
    return found


class Fit(NamedTuple):
    """A regression: log KL = a + b log(sum of losses alone) + sum of corrections.

    Losses and corrections lie one decision after the other, which begin at `starts`; `spread` is
    the standard deviation of log KL about it.
    """

    a: float
    b: float
    losses: Array
    corrections: Array
    starts: Array
    spread: float

    def __call__(self, options: Array) -> Array:
        """Log KL (milli-nats) of allocations, one a row."""
        chosen = self.starts + options
        return self.of_sums(self.losses[chosen].sum(axis=1), self.corrections[chosen].sum(axis=1))

    def of_sums(self, losses: Array, corrections: Array) -> Array:
        """Log KL where losses and corrections sum up to these."""
        found: Array = self.a + self.b * np.log(np.maximum(losses, LEAST_KL)) + corrections
        return found

    def tangent(self, space: Space, near: Point) -> Noise:
        """What each option adds to log KL, for allocations that lose about as much as `near`.

        The sum over layers alone is inside the logarithm; beside `near` it is linear.
        """
        total = max(float(self.losses[self.starts + np.asarray(near)].sum()), LEAST_KL)
        added = self.b / total * self.losses + self.corrections
        found: Noise = {}
        parts = np.split(added, self.starts[1:])
        for part, decision in zip(parts, space.decisions, strict=True):
            share = (part - part.min()) / len(decision.layers)
            named = dict(zip(decision.options, share.tolist(), strict=True))
            found |= dict.fromkeys(decision.layers, named)
        return found


class Proxy:
    """Learns to predict from visits; equal visits give equal predictions."""

    def __init__(self, space: Space, noise: Mapping[str, Mapping[str, float]]) -> None:
        self._losses = np.array([
            sum(noise[layer][name] for layer in each.layers)
            for each in space.decisions
            for name in each.options
        ])  # fmt: skip
        self._starts = np.cumsum([0, *space.sizes])[:-1]
        self._fitted: tuple[int, Fit] = (0, self.fit(()))

    def __call__(self, visits: Sequence[Visit]) -> Evaluate:
        """Predict after so many visits; fitted anew whenever they grew by a share."""
        count = _stage(len(visits))
        if count != self._fitted[0]:
            self._fitted = count, self.fit(visits[:count])
        fit = self._fitted[1]
        return lambda points: [kept(math.exp(each)) for each in fit(np.array(points))]

    def fit(self, visits: Sequence[Visit]) -> Fit:
        """The regression over all of the visits."""
        width = len(self._losses)
        prior = Fit(0.0, 1.0, self._losses, np.zeros(width), self._starts, 0.0)
        if not visits:
            return prior
        options = np.array([visit.point for visit in visits])
        added = prior(options)
        features = np.zeros((len(visits), 2 + width))
        features[:, 0] = 1.0
        features[:, 1] = added
        np.put_along_axis(features, 2 + self._starts + options, 1.0, axis=1)
        found = np.log([max(kl_of(visit.accuracy), LEAST_KL) for visit in visits])
        held = np.full(2 + width, _HELD)
        held[:2] = _HELD_COMMON
        error = found - added
        moved = np.linalg.solve(features.T @ features + np.diag(held), features.T @ error)
        spread = float(np.sqrt(np.mean(np.square(error - features @ moved))))
        a, b = float(moved[0]), 1.0 + float(moved[1])
        return Fit(a, b, self._losses, moved[2:], self._starts, spread)


def _stage(count: int) -> int:
    """The greatest number of visits up to `count` at which the model is fitted."""
    if count < 1:
        return 0
    return int(_GROWTH ** math.floor(math.log(count) / math.log(_GROWTH) + 1e-9))
