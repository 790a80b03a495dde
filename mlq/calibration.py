"""Inference 1: the float network measures its own tensors, and each gets the range it keeps."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import metrics, runtime
from mlq.calibrators import Observation, Storage, calibrate, search
from mlq.histograms import HistogramAccumulator
from mlq.network import Network
from mlq.precision import CALIBRATORS, Calibrator, Precision, Scheme
from mlq.ranges import Ranges, TensorRange
from mlq.simulation import Simulation
from mlq.stored import Assignment
from mlq.targets.base import Target
from mlq.targets.iree import compile_module
from mlq.transforms.pipelines import instrument_pipeline, lowering

Array = NDArray[Any]
Batch = Sequence[Array]
Advance = Callable[[int], None]
"""Called with the number of samples that were done since the last call."""

# Samples on which calibrators are compared: an eighth of all within these bounds. What they tell is
# averaged over the float outputs of all, so a dozen say as much as the KL of a hundred by itself
# (benchmarks/choosing_calibrators.py). All race on a third of them, the best two on the rest.
_PROBE_SHARE, _FEWEST_PROBED, _MOST_PROBED, _HEAT_SHARE = 8, 12, 32, 3
# Elements of the float outputs that meet those of one simulated sample.
_PREDICTED_ELEMENTS = 1 << 22
_FINALISTS = 2
# Samples on which plans are compared, by the KL to float.
CHECK_SAMPLES = 200


@dataclass(frozen=True)
class Observations:
    """What the float inference saw of each tensor, and its outputs on the first batches.

    Of an equalized network `given` are the outputs of the network that it was made of.
    """

    samples: int
    tensors: dict[str, Observation]
    outputs: tuple[NDArray[Any], ...] = field(repr=False)
    given: tuple[NDArray[Any], ...] | None = field(default=None, repr=False)

    @property
    def reference(self) -> tuple[NDArray[Any], ...]:
        """The outputs that a quantized network is to have: those of the network as it was given."""
        return self.outputs if self.given is None else self.given

    @property
    def checked_samples(self) -> int:
        """How many samples there are outputs of."""
        return sum(len(each) for each in self.outputs)

    @property
    def predictions(self) -> NDArray[np.float64]:
        """What the float network predicts, to judge changes of its output by: [N, ..., C]."""
        rows = max(_PREDICTED_ELEMENTS // max(self.reference[0][:1].size, 1), 1)
        logits = np.concatenate(self.reference)[:rows]
        return metrics.softmax(logits if logits.ndim > 1 else logits[:, None])


@dataclass(frozen=True)
class Choice:
    """The ranges that were chosen, and the expected KL (milli-nats) of each calibrator tried.

    `probed_samples` counts a sample once for each time that it was simulated.
    """

    ranges: Ranges
    tried: Mapping[Calibrator, float]
    probed_samples: int


def instrument(network: Network, target: Target) -> runtime.Executable:
    """The float network, compiled to measure its own tensors."""
    pipeline = instrument_pipeline(batch=network.batch, lower=lowering(target.features))
    lowered = network.transform(pipeline)
    vmfb = compile_module(lowered.text, target, embed=False)
    return runtime.load(vmfb, parameters=lowered.weights)


def observe(
    network: Network,
    results: Iterable[list[Array]],
    *,
    advance: Advance = lambda _samples: None,
) -> Observations:
    """What `instrument` made of each batch, added up; memory does not grow with their number."""
    *_, last = observe_each(network, results, advance=advance)
    return last


def observe_each(
    network: Network,
    results: Iterable[list[Array]],
    counts: Container[int] = (),
    *,
    advance: Advance = lambda _samples: None,
) -> Iterator[Observations]:
    """The same of the first `counts` samples, then of all."""
    names = network.observed
    seen = HistogramAccumulator(names)
    outputs: list[NDArray[Any]] = []
    samples = 0
    for result in results:
        if samples and samples in counts:
            # What was seen so far is merged in a copy, so that the rest is merged as it would be.
            yield _observations(copy.deepcopy(seen), outputs, samples)
        if names:
            statistics = result[-1].reshape(len(names), -1)
            seen.add(statistics[:, 0], statistics[:, 1], statistics[:, 2:])
        if samples < CHECK_SAMPLES:
            outputs.append(result[0])
        samples += network.batch
        advance(network.batch)
    yield _observations(seen, outputs, samples)


def _observations(seen: HistogramAccumulator, outputs: list[Array], samples: int) -> Observations:
    tensors = {
        name: Observation(float(seen.minimum[i]), float(seen.maximum[i]), seen.histogram(i))
        for i, name in enumerate(seen.names)
    }
    return Observations(samples, tensors, tuple(outputs))


def ranges_by(
    calibrator: Calibrator, observations: Observations, *, scheme: Scheme, precision: str = "w8a8"
) -> Ranges:
    """The range of every tensor, by one calibrator, for the activation bits of `precision`."""
    storage = Storage(bits=Precision.parse(precision).activation_bits, scheme=scheme)
    tensors = {}
    if calibrator in ("entropy", "mse"):
        search(calibrator, observations.tensors.values(), storage)
    for name, observed in observations.tensors.items():
        low, high = calibrate(calibrator, observed, storage)
        tensors[name] = TensorRange(
            minimum=observed.minimum,
            maximum=observed.maximum,
            low=low,
            high=high,
            calibrator=calibrator,
            histogram=observed.coarse,
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

    That of the network simulated in `assignment`: what it changes on the first samples, met by the
    float predictions of all (`metrics.expected_divergences_mnat`). No calibrator wins everywhere,
    and the least local error is not the least loss.
    """
    if calibrator != "auto":
        chosen: Calibrator = calibrator  # type: ignore[assignment]  # the command line checked it
        return Choice(ranges_by(chosen, observations, scheme=scheme), {}, 0)
    candidates = {name: ranges_by(name, observations, scheme=scheme) for name in CALIBRATORS}
    known = observations.predictions
    few = _first(batches(), observations, _probe_samples(observations.samples))
    heat = -(-len(few) // _HEAT_SHARE)
    totals = {name: np.zeros(2) for name in CALIBRATORS}
    racing, tried, seen, probed = list(CALIBRATORS), dict[Calibrator, float](), 0, 0
    for part in (few[:heat], few[heat:]):
        samples = sum(len(reference) for _, reference in part)
        seen, probed = seen + samples, probed + len(racing) * samples
        for name in racing:
            lost = losses(part, known, simulation, candidates[name], assignment)
            totals[name] += lost.sum(axis=0)
            tried[name] = float(totals[name][0]) / seen
        advance(len(racing) * samples)
        racing = sorted(racing, key=lambda name: (*totals[name], name))[:_FINALISTS]
    return Choice(candidates[racing[0]], tried, probed)


def _probe_samples(samples: int) -> int:
    """How many samples calibrators are compared on, of those there are."""
    return min(max(samples // _PROBE_SHARE, _FEWEST_PROBED), _MOST_PROBED)


def losses(
    pairs: Iterable[tuple[Batch, Array]],
    known: NDArray[np.float64],
    simulation: Simulation,
    ranges: Ranges,
    assignment: Assignment,
) -> NDArray[np.float64]:
    """KL (milli-nats) to be expected of what changes in each sample, and its energy: [N, 2].

    `known` are predictions of the float network. The energy decides where there is no KL: a lone
    output is no choice. A NaN loses to everything.
    """
    found = [np.zeros((0, 2))]
    few = list(pairs)
    outputs = simulation.each((batch for batch, _ in few), ranges, assignment)
    for (value, *_), (_, reference) in zip(outputs, few, strict=True):
        change = np.subtract(value, reference, dtype=np.float64)
        energies = np.sum(np.square(change).reshape(len(change), -1), axis=1)
        expected = metrics.expected_divergences_mnat(known, change)
        found.append(np.stack([expected, energies], axis=1))
    every = np.concatenate(found)
    return np.where(np.isnan(every), np.inf, every)


def divergence(
    observations: Observations,
    batches: Iterable[Batch],
    simulation: Simulation,
    ranges: Ranges,
    assignment: Assignment,
) -> float:
    """KL (milli-nats) of the simulated network to the float one, on the first `CHECK_SAMPLES`."""
    lost = 0.0
    first = itertools.islice(batches, len(observations.reference))
    outputs = simulation.each(first, ranges, assignment)
    for (value, *_), reference in zip(outputs, observations.reference, strict=True):
        lost += metrics.kl_mnat(reference, value) * len(reference)
    return lost / observations.checked_samples


def _first(
    batches: Iterable[Batch], observations: Observations, samples: int
) -> list[tuple[Batch, Array]]:
    """The first batches, of at least so many samples, each with what the float network made."""
    few: list[tuple[Batch, Array]] = []
    for batch, reference in zip(batches, observations.reference, strict=False):
        if sum(len(each) for _, each in few) >= samples:
            break
        few.append(([np.array(array) for array in batch], reference))
    return few
