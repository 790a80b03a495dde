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
# Samples on which calibrators are compared, by the SQNR of the output: the KL of a few is that of
# the one or two that are not classified beyond doubt, so that it says less on 60 than SQNR on 24
# (benchmarks/choosing_calibrators.py). Calibrators race: all on half of them, the best two on the
# rest; where there are few samples, on fewer, so that it stays a small part of a pass.
PROBE_SAMPLES, _PROBE_SHARE = 32, 6
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
    """The ranges that were chosen, and the output's SQNR (dB) by each calibrator that was tried.

    `probed_samples` counts a sample once for each time that it was simulated.
    """

    ranges: Ranges
    tried: Mapping[Calibrator, float]
    probed_samples: int


def instrument(network: Network, target: Target, *, threads: int = 1) -> runtime.Executable:
    """The float network, compiled to measure its own tensors."""
    samples = next((spec.shape[0] or 1 for spec in network.model.inputs if spec.shape), 1)
    pipeline = instrument_pipeline(
        bins=BINS, max_elements=_COUNTED * samples, lower=lowering(target.features)
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
    accumulators = {name: HistogramAccumulator(name) for name in names}
    outputs: list[NDArray[Any]] = []
    samples = 0
    for batch in batches:
        results = executable.run(*batch)
        first = len(results) - 3 * len(names)
        for index, accumulator in enumerate(accumulators.values()):
            least, greatest, counts = results[first + 3 * index : first + 3 * index + 3]
            accumulator.add(float(least), float(greatest), counts)
        if samples < CHECK_SAMPLES:
            outputs.append(results[0])
        samples += len(batch[0])
        advance(len(batch[0]))
    tensors = {
        name: Observation(each.minimum, each.maximum, each.histogram())
        for name, each in accumulators.items()
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
    """The ranges of one calibrator; `auto` takes the one with the greatest output SQNR.

    That of the network simulated in `assignment` against the float one, on the first samples: no
    calibrator wins everywhere, and the least local error is not the least loss.
    """
    if calibrator != "auto":
        chosen: Calibrator = calibrator  # type: ignore[assignment]  # the command line checked it
        return Choice(ranges_by(chosen, observations, scheme=scheme), {}, 0)
    candidates = {name: ranges_by(name, observations, scheme=scheme) for name in CALIBRATORS}
    most = max(min(PROBE_SAMPLES, observations.samples // _PROBE_SHARE), 1)
    few = _first(batches(), observations, most)
    half = -(-len(few) // 2)
    energies = {name: np.zeros(2) for name in CALIBRATORS}
    racing, tried, probed = list(CALIBRATORS), dict[Calibrator, float](), 0
    for part in (few[:half], few[half:]):
        for name in racing:
            energies[name] += _energies(part, simulation, candidates[name], assignment)
            tried[name] = metrics.bounded(metrics.decibels(*energies[name]))
        samples = len(racing) * sum(len(reference) for _, reference in part)
        probed += samples
        advance(samples)
        racing = sorted(racing, key=lambda name: (-tried[name], name))[:_FINALISTS]
    return Choice(candidates[racing[0]], tried, probed)


def divergence(
    observations: Observations,
    batches: Iterable[Batch],
    simulation: Simulation,
    ranges: Ranges,
    assignment: Assignment,
) -> float:
    """KL (milli-nats) of the simulated network to the float one, on the first `CHECK_SAMPLES`."""
    total = sum(
        metrics.kl_mnat(reference, simulation.run(batch, ranges, assignment)[0]) * len(reference)
        for batch, reference in zip(batches, observations.outputs, strict=False)
    )
    return total / observations.checked_samples


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


def _energies(
    pairs: Iterable[tuple[Batch, Array]],
    simulation: Simulation,
    ranges: Ranges,
    assignment: Assignment,
) -> NDArray[np.float64]:
    """Energy of the float outputs, and of what the simulated network makes different in them."""
    found = np.zeros(2)
    for batch, reference in pairs:
        exact = reference.astype(np.float64)
        change = simulation.run(batch, ranges, assignment)[0] - exact
        found += np.vdot(exact, exact), np.vdot(change, change)
    return found


def _coarse(histogram: Histogram) -> Histogram:
    """The histogram with neighbouring bins added up, for files that people open."""
    counts = np.asarray(histogram.counts, np.int64)
    step = -(-len(counts) // _REPORTED_BINS)
    padded = np.pad(counts, (0, -len(counts) % step)).reshape(-1, step).sum(axis=1)
    width = (histogram.high - histogram.low) / len(counts)
    high = histogram.low + width * step * len(padded)
    return Histogram(low=histogram.low, high=high, counts=tuple(padded.tolist()))
