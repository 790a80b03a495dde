"""What an allocation loses, measured on a few samples by the simulation: no compiler, no labels.

The KL to the float network tells allocations apart that the accuracy of some hundred samples
cannot. The search wants an accuracy, so it is given the share of float's that is expected to be
kept. It is monotone in the KL: fronts are the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from mlq import calibration
from mlq.bitsearch.preparing import Prepared
from mlq.planning import MNAT_PER_UNIT_DROP
from mlq.search import Point, Space

# What cannot be told from no loss, in milli-nats.
LEAST_KL = 1e-3


def kept(kl_mnat: float) -> float:
    """The share of float's accuracy expected to be kept: about 1 less a point for each 40 mnat."""
    return math.exp(-kl_mnat / MNAT_PER_UNIT_DROP)


def kl_of(share: float) -> float:
    """The KL (milli-nats) of which `share` is kept."""
    return -math.log(max(share, 1e-300)) * MNAT_PER_UNIT_DROP


class Measuring:
    """Evaluates allocations on the first `samples` of the calibration samples, kept in memory."""

    def __init__(self, prepared: Prepared, space: Space, samples: int) -> None:
        self._prepared, self._space = prepared, space
        self._base = prepared.base
        needed = -(-samples // prepared.subject.batch)
        first = itertools.islice(prepared.subject.batches(), needed)
        self._batches = [[np.array(each) for each in batch] for batch in first]

    @property
    def samples(self) -> int:
        """How many samples an allocation is measured on."""
        return sum(len(batch[0]) for batch in self._batches)

    def __call__(self, points: Sequence[Point]) -> list[float]:
        """The share of float's accuracy that each is expected to keep."""
        return [kept(self.kl(self._space.precisions(point))) for point in points]

    def kl(self, precisions: Mapping[str, str]) -> float:
        """KL (milli-nats) to float in these precisions."""
        return calibration.divergence(
            self._prepared.observations,
            self._batches,
            self._prepared.simulation,
            self._prepared.choice.ranges,
            {**self._base, **precisions},
            samples=self.samples,
        )
