"""What an allocation loses, measured on a few samples by the simulation: no compiler, no labels.

A few samples' accuracy, or KL to float, is that of the few among them that are in doubt. The noise
in the logits over their signal is in all of them: on 16 samples it ranks allocations as the KL of
hundreds does. It is scaled to the KL of all calibration samples, and that to an accuracy, which is
what a search wants: the share of float's that is expected to be kept. Fronts depend on the ranks
only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import calibration, evaluation, metrics
from mlq.bitsearch.preparing import Prepared
from mlq.planning import MNAT_PER_UNIT_DROP
from mlq.precision import Precision
from mlq.search import Point, Space

Array = NDArray[Any]

# What cannot be told from no loss, in milli-nats.
LEAST_KL = 1e-3
# Beyond this noise-to-signal ratio KL no longer follows it.
_PROPORTIONAL = 0.5
# Milli-nats of a noise as strong as the signal, where no calibration sample tells: 3 nats.
_USUAL_UNIT = 3000.0


def kept(kl_mnat: float) -> float:
    """The share of float's accuracy expected to be kept: about 1 less a point for each 40 mnat."""
    return math.exp(-kl_mnat / MNAT_PER_UNIT_DROP)


def kept_by_log(log_kl: Array) -> Array:
    """`kept` of many, from the logarithms of their KL in milli-nats."""
    shares: Array = np.exp(-np.exp(log_kl) / MNAT_PER_UNIT_DROP)
    return shares


def kl_of(share: float) -> float:
    """The KL (milli-nats) of which `share` is kept."""
    return -math.log(max(share, 1e-300)) * MNAT_PER_UNIT_DROP


class Measuring:
    """Evaluates allocations on the first `samples` of the calibration samples, kept in memory.

    `unit` is the KL in milli-nats of a noise as strong as the signal.
    """

    def __init__(self, prepared: Prepared, space: Space, samples: int) -> None:
        self._prepared, self._space = prepared, space
        self._base = prepared.base
        needed = -(-samples // prepared.subject.batch)
        first = itertools.islice(prepared.subject.batches(), needed)
        self._batches = [[np.array(each) for each in batch] for batch in first]
        self._exact = _centred(prepared.observations.outputs[: len(self._batches)])
        self.unit = self._calibrated()

    @property
    def samples(self) -> int:
        """How many samples an allocation is measured on."""
        return len(self._exact)

    def __call__(self, points: Sequence[Point]) -> list[float]:
        """The share of float's accuracy that each is expected to keep."""
        names = map(self._space.precisions, points)
        return [kept(self.unit * self.noise(precisions)) for precisions in names]

    def noise(self, precisions: Mapping[str, str]) -> float:
        """Energy of the noise in the logits over that of the logits, each sample's mean aside."""
        prepared, assignment = self._prepared, {**self._base, **precisions}
        ranges = prepared.choice.ranges
        results = prepared.simulation.each(self._batches, ranges, assignment)
        noise = _centred(first for first, *_ in results) - self._exact
        return float(np.sum(np.square(noise)) / np.sum(np.square(self._exact)))

    def _calibrated(self) -> float:
        """KL over noise, where all layers have one width, by all calibration samples."""
        kls, noises = [], []
        names = list(dict.fromkeys(itertools.chain(*self._space.names)))
        # Of pairs of bits those that are equal say enough.
        for name in [each for each in names if _is_even(each)] or names:
            precisions = self._space.precisions(self._space.uniform(name))
            noise = self.noise(precisions)
            if noise <= _PROPORTIONAL:
                noises.append(noise)
                kls.append(self._kl(precisions))
        signal = sum(kls)
        return signal / sum(noises) if signal > 0.0 else _USUAL_UNIT

    def _kl(self, precisions: Mapping[str, str]) -> float:
        """KL (milli-nats) to float over all calibration samples."""
        return calibration.divergence(
            self._prepared.observations,
            self._prepared.subject.batches(),
            self._prepared.simulation,
            self._prepared.choice.ranges,
            {**self._base, **precisions},
        )


def _is_even(name: str) -> bool:
    precision = Precision.parse(name)
    return precision.weight_bits == precision.activation_bits


def _centred(outputs: Iterable[Array]) -> Array:
    """The logits of all batches, each less its mean over classes."""
    return metrics.centred(np.concatenate([evaluation.logits(each) for each in outputs]))
