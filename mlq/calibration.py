"""Inference 1: the float network measures its own tensors, and each gets the range it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import metrics, runtime
from mlq.calibrators import Observation, Storage, calibrate
from mlq.histograms import HistogramAccumulator
from mlq.network import Network
from mlq.precision import CALIBRATORS, Calibrator, Precision, Scheme
from mlq.ranges import Histogram, Ranges, TensorRange
from mlq.simulation import Assignment, Simulation
from mlq.targets.base import Target
from mlq.targets.iree import compile_module
from mlq.transforms.pipelines import instrument_pipeline, lowering

Array = NDArray[Any]
Batch = Sequence[Array]
Advance = Callable[[int], None]
"""Called with the number of samples that were done since the last call."""

BINS = 128
# Elements of a tensor that are counted, of each sample: enough samples make up for few of them.
_COUNTED = 4096
# Samples on which calibrators are compared. The KL of a hundred and more picks the best one, that
# of a dozen as well as any other rule does (benchmarks/choosing_calibrators.py): so many that each
# calibrator takes so many multiply-accumulates, about a second in all, or where that is fewer a
# small part of a pass. Calibrators race: all on half of them, the best two on the rest.
_PROBE_MACS, _PROBE_SHARE, _PROBE_SAMPLES = 5e9, 6, 32
_FINALISTS = 2
# Samples on which plans are compared, by the KL to float.
CHECK_SAMPLES = 200
# How many bins of a histogram are kept for people to look at.
_REPORTED_BINS = 64


@dataclass(frozen=True)
class Observations:
    """What the float inference saw of each tensor, and its outputs on the first batches."""

    samples: int
    tensors: dict[str, Observation]
    outputs: tuple[NDArray[Any], ...] = field(repr=False)

    @property
    def checked_samples(self) -> int:
        """How many samples there are outputs of."""
        return sum(len(each) for each in self.outputs)


@dataclass(frozen=True)
class Choice:
    """The ranges that were chosen, and the KL (milli-nats) of each calibrator that was tried.

    `probed_samples` counts a sample once for each time that it was simulated.
    """

    ranges: Ranges
    tried: Mapping[Calibrator, float]
    probed_samples: int


def instrument(network: Network, target: Target, *, threads: int = 1) -> runtime.Executable:
    """The float network, compiled to measure its own tensors."""
    pipeline = instrument_pipeline(
        bins=BINS, max_elements=_COUNTED * network.batch, lower=lowering(target.features)
    )
    lowered = network.transform(pipeline)
    vmfb = compile_module(lowered.text, target, embed=False)
    return runtime.load(vmfb, parameters=lowered.weights, threads=threads)


def observe(
    network: Network,
    executable: runtime.Executable,
    batches: Iterable[Batch],
    *,
    advance: Advance = lambda _samples: None,
) -> Observations:
    """Run what `instrument` made once over the samples; memory does not grow with their number."""
    names = network.observed
    seen = HistogramAccumulator(names)
    outputs: list[NDArray[Any]] = []
    samples = 0
    for batch in batches:
        results = executable.run(*batch)
        if names:
            statistics = results[-1].reshape(len(names), -1)
            seen.add(statistics[:, 0], statistics[:, 1], statistics[:, 2:])
        if samples < CHECK_SAMPLES:
            outputs.append(results[0])
        samples += len(batch[0])
        advance(len(batch[0]))
    tensors = {
        name: Observation(float(seen.minimum[i]), float(seen.maximum[i]), seen.histogram(i))
        for i, name in enumerate(names)
    }
    return Observations(samples, tensors, tuple(outputs))


def ranges_by(
    calibrator: Calibrator, observations: Observations, *, scheme: Scheme, precision: str = "w8a8"
) -> Ranges:
    """The range of every tensor, by one calibrator, for the activation bits of `precision`."""
    storage = Storage(bits=Precision.parse(precision).activation_bits, scheme=scheme)
    tensors = {}
    for name, observed in observations.tensors.items():
        low, high = calibrate(calibrator, observed, storage)
        tensors[name] = TensorRange(
            minimum=observed.minimum,
            maximum=observed.maximum,
            low=low,
            high=high,
            calibrator=calibrator,
            histogram=_coarse(observed.histogram),
        )
    return Ranges(
        schema_version=1, calibrator=calibrator, samples=observations.samples, tensors=tensors
    )


def choose(
    observations: Observations,
    batches: Callable[[], Iterable[Batch]],
    simulation: Simulation,
    assignment: Assignment,
    *,
    calibrator: str = "auto",
    scheme: Scheme = "asymmetric",
    advance: Advance = lambda _samples: None,
) -> Choice:
    """The ranges of one calibrator; `auto` takes the one with the least KL to float.

    That of the network simulated in `assignment`, on the first samples: no calibrator wins
    everywhere, and the least local error is not the least loss.
    """
    if calibrator != "auto":
        chosen: Calibrator = calibrator  # type: ignore[assignment]  # the command line checked it
        return Choice(ranges_by(chosen, observations, scheme=scheme), {}, 0)
    candidates = {name: ranges_by(name, observations, scheme=scheme) for name in CALIBRATORS}
    few = _first(batches(), observations, _probe_samples(simulation.network, observations.samples))
    half = -(-len(few) // 2)
    totals = {name: np.zeros(2) for name in CALIBRATORS}
    racing, tried, seen, probed = list(CALIBRATORS), dict[Calibrator, float](), 0, 0
    for part in (few[:half], few[half:]):
        samples = sum(len(reference) for _, reference in part)
        seen, probed = seen + samples, probed + len(racing) * samples
        for name in racing:
            totals[name] += _loss(part, simulation, candidates[name], assignment)
            tried[name] = float(totals[name][0]) / seen
        advance(len(racing) * samples)
        racing = sorted(racing, key=lambda name: (*totals[name], name))[:_FINALISTS]
    return Choice(candidates[racing[0]], tried, probed)


def _probe_samples(network: Network, samples: int) -> int:
    """How many samples calibrators are compared on, of those there are."""
    macs = sum(layer.macs for layer in network.layers) / network.batch
    affordable = min(int(_PROBE_MACS / max(macs, 1.0)), CHECK_SAMPLES)
    return max(affordable, min(_PROBE_SAMPLES, samples // _PROBE_SHARE), 1)


def divergence(
    observations: Observations,
    batches: Iterable[Batch],
    simulation: Simulation,
    ranges: Ranges,
    assignment: Assignment,
) -> float:
    """KL (milli-nats) of the simulated network to the float one, on the first `CHECK_SAMPLES`."""
    pairs = zip(batches, observations.outputs, strict=False)
    lost = _loss(pairs, simulation, ranges, assignment)[0]
    return float(lost) / observations.checked_samples


def _first(
    batches: Iterable[Batch], observations: Observations, samples: int
) -> list[tuple[Batch, Array]]:
    """The first batches, of at least so many samples, each with what the float network made."""
    few: list[tuple[Batch, Array]] = []
    for batch, reference in zip(batches, observations.outputs, strict=False):
        if sum(len(each) for _, each in few) >= samples:
            break
        few.append(([np.array(array) for array in batch], reference))
    return few


def _loss(
    pairs: Iterable[tuple[Batch, Array]],
    simulation: Simulation,
    ranges: Ranges,
    assignment: Assignment,
) -> NDArray[np.float64]:
    """KL (milli-nats) of the simulated network to the float outputs, and the energy of the change.

    Both added up over samples. The energy decides where there is no KL: a lone output is no choice.
    """
    found = np.zeros(2)
    for batch, reference in pairs:
        value = simulation.run(batch, ranges, assignment)[0]
        change = value.astype(np.float64) - reference
        divergence = metrics.kl_mnat(reference, value) * len(reference)
        found += divergence, float(np.vdot(change, change))
    return found


def _coarse(histogram: Histogram) -> Histogram:
    """The histogram with neighbouring bins added up, for files that people open."""
    counts = np.asarray(histogram.counts, np.int64)
    step = -(-len(counts) // _REPORTED_BINS)
    padded = np.pad(counts, (0, -len(counts) % step)).reshape(-1, step).sum(axis=1)
    width = (histogram.high - histogram.low) / len(counts)
    high = histogram.low + width * step * len(padded)
    return Histogram(low=histogram.low, high=high, counts=tuple(padded.tolist()))
