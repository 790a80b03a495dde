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

Batch = Sequence[NDArray[Any]]
Advance = Callable[[int], None]
"""Called with the number of samples that were done since the last call."""

BINS = 128
MAX_ELEMENTS = 32768
# Samples on which calibrators are compared, and on which plans are; KL needs no labels and
# resolves what top-1 cannot, but a few samples say little: most are classified without any doubt.
PROBE_SAMPLES = (16, 40)
_PROBE_PART = 5
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
    """The ranges that were chosen, and the KL (milli-nats) of each calibrator that was tried."""

    ranges: Ranges
    tried: Mapping[Calibrator, float]
    probed_samples: int


def observe(
    network: Network,
    batches: Iterable[Batch],
    target: Target,
    *,
    threads: int = 1,
    advance: Advance = lambda _samples: None,
) -> Observations:
    """Run the float network once over the samples; memory does not grow with their number."""
    pipeline = instrument_pipeline(
        bins=BINS, max_elements=MAX_ELEMENTS, lower=lowering(target.cpu_features)
    )
    lowered = network.transform(pipeline)
    vmfb = compile_module(lowered.text, target, embed=False)
    executable = runtime.load(vmfb, parameters=lowered.weights, threads=threads)
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
    """The ranges of one calibrator; `auto` takes the one with the least KL of `assignment`.

    The KL is that of the simulated network against the float one on the first samples: no
    calibrator wins everywhere, and the least local error is not the least loss.
    """
    if calibrator != "auto":
        chosen: Calibrator = calibrator  # type: ignore[assignment]  # the command line checked it
        return Choice(ranges_by(chosen, observations, scheme=scheme), {}, 0)
    few = probe_samples(observations.samples)
    tried: dict[Calibrator, float] = {}
    candidates: dict[Calibrator, Ranges] = {}
    for name in CALIBRATORS:
        candidates[name] = ranges_by(name, observations, scheme=scheme)
        tried[name] = divergence(
            observations,
            batches(),
            simulation,
            candidates[name],
            assignment,
            samples=few,
            advance=advance,
        )
    best = min(tried, key=lambda name: (tried[name], name))
    return Choice(candidates[best], tried, min(few, observations.checked_samples) * len(tried))


def probe_samples(samples: int) -> int:
    """How many of the calibration samples calibrators are compared on."""
    least, most = PROBE_SAMPLES
    return min(max(samples // _PROBE_PART, least), most, samples)


def divergence(
    observations: Observations,
    batches: Iterable[Batch],
    simulation: Simulation,
    ranges: Ranges,
    assignment: Assignment,
    *,
    samples: int = CHECK_SAMPLES,
    advance: Advance = lambda _samples: None,
) -> float:
    """KL (milli-nats) of the simulated network to the float one, on about the first `samples`."""
    total, done = 0.0, 0
    for batch, reference in zip(batches, observations.outputs, strict=False):
        value = simulation.run(batch, ranges, assignment)[0]
        total += metrics.kl_mnat(reference, value) * len(reference)
        done += len(reference)
        advance(len(reference))
        if done >= samples:
            break
    return total / done


def _coarse(histogram: Histogram) -> Histogram:
    """The histogram with neighbouring bins added up, for files that people open."""
    counts = np.asarray(histogram.counts, np.int64)
    step = -(-len(counts) // _REPORTED_BINS)
    padded = np.pad(counts, (0, -len(counts) % step)).reshape(-1, step).sum(axis=1)
    width = (histogram.high - histogram.low) / len(counts)
    high = histogram.low + width * step * len(padded)
    return Histogram(low=histogram.low, high=high, counts=tuple(padded.tolist()))
