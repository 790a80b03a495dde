"""What a trial measures: logits of batch after batch beside the float network's, until they do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import metrics
from mlq.tuning.racing import Divergences, Hits, radius

Array = NDArray[Any]
Racing = Callable[[Hits, Divergences], bool]
"""Told hits and KL so far, in the samples' order: whether the race is lost."""


@dataclass(frozen=True)
class Measurement:
    """What a trial found; `samples` is less than there are when it was stopped early.

    `hits` says which samples are classified right (or, without labels, as float does), of which
    float has a share of `float_accuracy`. `lost` says that it lost its race; otherwise the KL is
    within `within_mnat` of that of more samples (`racing.radius`), 0 where all were evaluated.
    """

    hits: Hits = field(repr=False)
    divergences: Divergences = field(repr=False)
    agreement: float
    float_accuracy: float
    seconds: float
    lost: bool = False
    within_mnat: float = 0.0

    @property
    def samples(self) -> int:
        """How many samples were evaluated."""
        return len(self.hits)

    @property
    def accuracy(self) -> float:
        """The share of hits, in [0, 1]."""
        return float(self.hits.mean())

    @property
    def lost_points(self) -> float:
        """The points of accuracy that are lost against float on the same samples."""
        return 100.0 * (self.float_accuracy - self.accuracy)

    @property
    def kl_mnat(self) -> float:
        """The mean KL to float, in milli-nats."""
        return max(float(self.divergences.mean()), 0.0)


def never(_hits: Hits, _divergences: Divergences) -> bool:
    """Race against nobody."""
    return False


class Reference:
    """The float network's logits over the samples: `outputs`, batch by batch, run when needed.

    `known` are the labels; where there are none, right is what float predicts.
    """

    def __init__(self, outputs: Iterator[Array], known: Array | None, samples: int) -> None:
        self.samples = samples
        self._outputs, self._known = outputs, known
        self._logits: Array = np.zeros((0, 0))

    def logits(self, samples: int) -> Array:
        """Of the first samples: [N, classes].

        If they have to be run, as many more are: to go to another network and back takes time.
        """
        if len(self._logits) < samples:
            wanted, made = max(samples, 2 * len(self._logits)), [self._logits]
            while sum(map(len, made)) < min(wanted, self.samples):
                made.append(next(self._outputs))
            self._logits = np.concatenate([each for each in made if len(each)])
        logits: Array = self._logits[:samples]
        return logits

    def labels(self, samples: int) -> Array:
        """What is right for the first samples."""
        if self._known is None:
            return np.asarray(np.argmax(self.logits(samples), -1))
        labels: Array = self._known[:samples]
        return labels

    def hits(self, samples: int) -> Hits:
        """Which of the first samples float classifies right."""
        return metrics.correct(self.logits(samples), self.labels(samples))

    def measure(
        self, outputs: Iterator[Array], racing: Racing, *, tolerance: float, fewest: int
    ) -> Measurement:
        """Take another network's logits until it loses its race, or its KL is known.

        That is when it is within `tolerance` milli-nats, `fewest` samples are run, or all.
        """
        found: list[Array] = []
        hits: Hits = np.zeros(0, np.bool_)
        divergences: Divergences = np.zeros(0)
        lost, within = False, 0.0
        for output in outputs:
            found.append(output)
            here = slice(len(hits), len(hits) + len(output))
            exact = self.logits(here.stop)
            hits = np.append(hits, metrics.correct(output, self.labels(here.stop)[here]))
            divergences = np.append(divergences, metrics.divergences_mnat(exact[here], output))
            if len(hits) == self.samples:
                within = 0.0
                break
            lost = racing(hits, divergences)
            within = (
                self._within(found, divergences, tolerance) if len(hits) >= fewest else math.inf
            )
            if lost or within <= tolerance:
                break
        seen = len(hits)
        return Measurement(
            hits=hits,
            divergences=divergences,
            agreement=metrics.agreement(self.logits(seen), np.concatenate(found)),
            float_accuracy=float(self.hits(seen).mean()),
            seconds=0.0,
            lost=lost,
            within_mnat=0.0 if lost else within,
        )

    def _within(self, found: list[Array], divergences: Divergences, tolerance: float) -> float:
        """How far the mean KL may be from that of more samples; too far for `tolerance` is enough.

        The spread is that of the samples or, if that is greater, of all pairs of what float
        predicts and how logits change: a few samples seldom hold those that decide the KL.
        """
        samples, deviation = len(divergences), float(divergences.std())
        if (least := radius(deviation, samples)) > tolerance:
            return least
        exact = self.logits(samples)
        change = np.subtract(np.concatenate(found), exact, dtype=np.float64)
        pairs = metrics.divergence_deviation_mnat(metrics.softmax(exact), change)
        return radius(max(deviation, pairs), samples)
