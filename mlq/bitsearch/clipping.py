"""Ranges of activations of few bits, as the network wants them.

A calibrator looks at one tensor. What it clips it clips for all that is made of the tensor, so that
it adds up where rounding averages out, and how much of it arrives at the outputs the tensor does
not tell: at 3 bits most layers of ResNet18 want wider ranges than have the least squared error, and
one wants its range a third narrower. So ranges are widened or narrowed for as long as the logits
lose less by it, while what reads the tensor is narrow and all else wide.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mlq import columns, journal, metrics
from mlq.analysis import Subject
from mlq.bitsearch.rounding import multiplied
from mlq.calibration import Batch
from mlq.journal import Journal
from mlq.ranges import Ranges
from mlq.rounding import fitting_batches
from mlq.simulation import Simulation
from mlq.stored import Array, Assignment

# A range is tried so many times as wide as the last one, or as narrow; at most so many times.
_STEP, _MOST = 2.0**0.25, 8
# Samples that tell: of 8 ranges are too wide. They are not those that allocations are measured on.
_SAMPLES = 32
_LEAST_ENERGY = 1e-30


def fit_ranges(
    subject: Subject, simulation: Simulation, ranges: Ranges, narrow: Mapping[int, Ranges]
) -> dict[int, Ranges]:
    """The `narrow` ranges, by bits, each scaled by the factor with which the logits lose least.

    What was measured is kept in mlq's cache, so that a search that was killed goes on from there.
    """
    readers: dict[str, list[str]] = {}
    for layer in multiplied(subject.network)[1:-1]:
        readers.setdefault(layer.flows[0].tensor, []).append(layer.name)
    tried = _Tried.of(subject, simulation, ranges, narrow)
    found = dict(narrow)
    with subject.stages.stage("choose ranges", len(narrow) * len(readers)) as advance:
        for bits, (tensor, names) in itertools.product(narrow, readers.items()):
            factor = _best_factor(partial(tried.noise, bits, tensor, names))
            found[bits] = found[bits].scaled(tensor, factor)
            advance(1)
    return found


def _best_factor(loss: Callable[[float], float]) -> float:
    """The factor of a range to go to from 1, wider or else narrower, while less is lost."""
    best, least = 1.0, loss(1.0)
    for step in (_STEP, 1.0 / _STEP):
        for _ in range(_MOST):
            lost = loss(best * step)
            if lost >= least:
                break
            best, least = best * step, lost
        if best != 1.0:
            break
    return best


def _logits(results: Iterable[list[Array]]) -> Array:
    """The first result of all batches, each sample's mean aside."""
    return np.concatenate([metrics.centred(first) for first, *_ in results])


@dataclass(frozen=True)
class _Tried:
    """What layers that read one tensor in few bits do to the logits."""

    simulation: Simulation
    ranges: Ranges
    narrow: Mapping[int, Ranges]
    wide: Assignment
    batches: Sequence[Batch] = field(repr=False)
    exact: Array = field(repr=False)
    journal: Journal = field(repr=False)

    @classmethod
    def of(
        cls, subject: Subject, simulation: Simulation, ranges: Ranges, narrow: Mapping[int, Ranges]
    ) -> _Tried:
        """With the float network's logits for samples that no search measures on."""
        available = subject.data.samples
        seen = columns.first(
            fitting_batches(subject.batches(), available), min(available, _SAMPLES)
        )
        batches = [[np.array(each) for each in batch] for batch in seen]
        exact = _logits(simulation.each(batches, ranges, {}))
        identity = (subject.network.model.sha256, subject.data.sha256, ranges.to_json())
        known = journal.cached(simulation.identity, repr(_SAMPLES), *identity)
        return cls(simulation, ranges, narrow, subject.base, batches, exact, known)

    def noise(self, bits: int, tensor: str, names: list[str], factor: float) -> float:
        """Noise over signal in the logits with this range, as amplitudes: mean over samples.

        A few samples beyond the ranges would decide the mean of energies.
        """
        scaled = self.narrow[bits].scaled(tensor, factor)

        def measured() -> list[float]:
            simulation = self.simulation.clipped({bits: scaled})
            taken = {**self.wide, **dict.fromkeys(names, f"w8a{bits}")}
            changed = _logits(simulation.each(self.batches, self.ranges, taken)) - self.exact
            signal = np.maximum(metrics.energies(self.exact), _LEAST_ENERGY)
            ratios: list[float] = np.sqrt(metrics.energies(changed) / signal).tolist()
            return ratios

        low, high = scaled.tensors[tensor].kept(bits)
        key = (bits, tensor, f"{low:.7g}", f"{high:.7g}")
        return float(np.mean(self.journal.recall(key, measured)))
