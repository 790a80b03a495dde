"""A guess at what an allocation loses: noise adds up over layers, corrected by what was visited.

log KL = a + b log(sum of what layers lose alone) + a correction for each layer and width. With
nothing visited a = 0, b = 1 and no correction: the additive model. Ridge regression on the visits
then moves all three (the second-order view of HAWQ-V3, and what it leaves out).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.bitsearch.measuring import LEAST_KL, kept, kl_of
from mlq.search import Archive, Evaluate, Point, Space, Visit

Array = NDArray[Any]
Noise = dict[str, dict[str, float]]
"""Milli-nats by layer and precision that narrowing the layer alone adds."""

# How firmly corrections are held at nothing, and a and b at theirs, in visits.
_HELD, _HELD_COMMON = 2.0, 0.1
# Visits grow by so much between two fits.
_GROWTH = 1.15


def alone(space: Space) -> list[Point]:
    """The widest allocation, and every one that narrows a single decision."""
    widest = (0,) * len(space.sizes)
    return [
        widest,
        *(
            (*widest[:i], option, *widest[i + 1 :])
            for i, size in enumerate(space.sizes)
            for option in range(1, size)
        ),
    ]


def noise_alone(space: Space, archive: Archive) -> Noise:
    """What each decision adds to the KL of the widest allocation, at each of its options."""
    points = alone(space)
    first, *others = (kl_of(visit.accuracy) for visit in archive.measure(points))
    found: Noise = {}
    for names, decision in zip(space.names, space.decisions, strict=True):
        share = first / len(space.decisions) / len(decision.layers)
        for layer in decision.layers:
            found[layer] = {names[0]: share}
    for point, kl in zip(points[1:], others, strict=True):
        at = next(i for i, option in enumerate(point) if option)
        members = space.decisions[at].layers
        for layer in members:
            added = max(kl - first, 0.0) / len(members)
            found[layer][space.names[at][point[at]]] = found[layer][space.names[at][0]] + added
    return found


class Proxy:
    """Learns to predict from visits; equal visits give equal predictions."""

    def __init__(self, space: Space, noise: Mapping[str, Mapping[str, float]]) -> None:
        self._space = space
        self._alone = [
            np.array([sum(noise[layer][name] for layer in each.layers) for name in each.options])
            for each in space.decisions
        ]
        self._starts = np.cumsum([0, *space.sizes])[:-1]
        self._width = sum(space.sizes)
        self._fitted: tuple[int, Array] = (0, self._prior())

    def __call__(self, visits: Sequence[Visit]) -> Evaluate:
        """Predict after so many visits; fitted anew whenever they grew by a share."""
        weights = self._weights(visits)
        return lambda points: [kept(math.exp(each)) for each in self._features(points) @ weights]

    def tangent(self, visits: Sequence[Visit], near: Point) -> Noise:
        """What each option adds to log KL, for allocations that lose about as much as `near`.

        The sum over layers alone is inside the logarithm; beside `near` it is linear.
        """
        weights = self._weights(visits)
        steepness = weights[1] / self._total(near)
        found: Noise = {}
        for start, losses, decision in zip(
            self._starts, self._alone, self._space.decisions, strict=True
        ):
            added = steepness * losses + weights[2 + start : 2 + start + len(losses)]
            added -= added.min()
            share = 1.0 / len(decision.layers)
            named = dict(zip(decision.options, (share * added).tolist(), strict=True))
            found |= dict.fromkeys(decision.layers, named)
        return found

    def _weights(self, visits: Sequence[Visit]) -> Array:
        count = _stage(len(visits))
        if count != self._fitted[0]:
            self._fitted = count, self._fit(visits[:count])
        return self._fitted[1]

    def _total(self, point: Point) -> float:
        """What an allocation loses if losses add up."""
        lost = (losses[option] for losses, option in zip(self._alone, point, strict=True))
        return max(float(sum(lost)), LEAST_KL)

    def _prior(self) -> Array:
        prior = np.zeros(2 + self._width)
        prior[1] = 1.0
        return prior

    def _fit(self, visits: Sequence[Visit]) -> Array:
        prior = self._prior()
        if not visits:
            return prior
        features = self._features([visit.point for visit in visits])
        found = np.log([max(kl_of(visit.accuracy), LEAST_KL) for visit in visits])
        held = np.full(2 + self._width, _HELD)
        held[:2] = _HELD_COMMON
        gram = features.T @ features + np.diag(held)
        moved: Array = np.linalg.solve(gram, features.T @ (found - features @ prior))
        return prior + moved

    def _features(self, points: Sequence[Point]) -> Array:
        features = np.zeros((len(points), 2 + self._width))
        features[:, 0] = 1.0
        for row, point in zip(features, points, strict=True):
            row[1] = math.log(self._total(point))
            row[2 + self._starts + np.asarray(point)] = 1.0
        return features


def _stage(count: int) -> int:
    """The greatest number of visits up to `count` at which the model is fitted."""
    if count < 1:
        return 0
    return int(_GROWTH ** math.floor(math.log(count) / math.log(_GROWTH) + 1e-9))
