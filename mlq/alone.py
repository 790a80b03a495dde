"""Layers tried alone (O1): what quantizing one of them, and nothing else, does to the output.

It is what metrics are judged by: noise is additive over layers, so O1 predicts any mix, and it asks
nothing of a model of how noise spreads. It takes a run for each layer and precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlq import metrics
from mlq.calibration import Advance, Batch
from mlq.journal import Journal
from mlq.ranges import Ranges
from mlq.sensitivities import Sensitivities
from mlq.simulation import Simulation
from mlq.stored import Array

Pair = tuple[Batch, Array]
"""A batch of inputs, and what the float network makes of it."""

# What trying layers alone may cost, in passes over the samples; more samples than these add little.
MOST_PASSES = 5
_ENOUGH_SAMPLES = 16
# Samples held in memory at once; binding a layer's weights takes about as long as running a few.
_CHUNK_SAMPLES = 64
# The names under which O1 stands beside the local metrics, and those of O1 on all samples.
TRIED = ("output_error", "output_typical_error", "output_kl_mnat", "output_expected_mnat")
ORACLE = ("oracle_output_error", "oracle_typical_error", "oracle_kl_mnat", "oracle_expected_mnat")
# What a sample without any change counts for in a mean of logarithms.
_LEAST_ERROR = 1e-30


def try_alone(
    known: Sensitivities,
    pairs: Iterable[Pair],
    simulation: Simulation,
    ranges: Ranges,
    predictions: NDArray[np.float64],
    *,
    names: tuple[str, str, str, str] = TRIED,
    journal: Journal | None = None,
    advance: Advance = lambda _runs: None,
) -> Sensitivities:
    """Add what each layer alone, at each of its precisions, changes the output by.

    Under `names`: the energy of the change over that of the output, logits less their mean, which
    no softmax sees; the geometric mean of that ratio over samples, which a few samples beyond the
    calibrated ranges do not decide; the KL to float, in milli-nats; and the KL to be expected of
    the change wherever the float network makes one of its `predictions` [N, ..., C], which few
    samples tell as well as many: the square of its root's mean over samples, in which those beyond
    the ranges count less. A lone output is no choice: there it is the energy of the change.
    `advance` counts runs over a chunk of samples. What is in the `journal` is not run again.
    """
    journal = Journal() if journal is None else journal
    runs = _runs(known)
    totals = {run: np.zeros(len(names)) for run in runs}
    signal, samples = 0.0, 0
    for number, chunk in enumerate(_chunks(pairs)):
        for run in runs:
            effect = partial(_effect, simulation, ranges, predictions, dict([run]), chunk)
            totals[run] += journal.recall((number, *run), effect)
            advance(1)
        signal += sum(float(np.sum(metrics.energies(metrics.centred(ref)))) for _, ref in chunk)
        samples += _samples(chunk)
    found = {}
    for name, layer in known.layers.items():
        candidates = {
            precision: metrics_
            | dict(zip(names, _means(totals[name, precision], signal, samples), strict=True))
            for precision, metrics_ in layer.candidates.items()
        }
        found[name] = layer.model_copy(update={"candidates": candidates})
    alone = known.samples_alone + len(runs) * samples
    return known.model_copy(update={"layers": found, "samples_alone": alone})


def few(known: Sensitivities, pairs: Iterable[Pair]) -> list[Pair]:
    """The first batches, as many as keep all runs below `MOST_PASSES` passes over the samples."""
    runs, chosen = len(_runs(known)), list[Pair]()
    for pair in pairs:
        taken = _samples([*chosen, pair])
        if chosen and (taken * runs > MOST_PASSES * known.samples or taken > _ENOUGH_SAMPLES):
            break
        chosen.append(_kept(pair))
    return chosen


def steps(known: Sensitivities, samples: int, batch: int) -> int:
    """How often `advance` is called for so many samples in batches of such a size."""
    chunk = max(_CHUNK_SAMPLES // batch, 1) * batch
    return len(_runs(known)) * -(-samples // chunk)


def _runs(known: Sensitivities) -> list[tuple[str, str]]:
    return [(name, each) for name, layer in known.layers.items() for each in layer.candidates]


def _chunks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """The batches in lists of about `_CHUNK_SAMPLES` samples."""
    chunk: list[Pair] = []
    for pair in pairs:
        if chunk and _samples([*chunk, pair]) > _CHUNK_SAMPLES:
            yield chunk
            chunk = []
        chunk.append(_kept(pair))
    if chunk:
        yield chunk


def _kept(pair: Pair) -> Pair:
    """A batch whose arrays stay as they are when the next one is read."""
    return [np.array(array) for array in pair[0]], pair[1]


def _samples(pairs: Sequence[Pair]) -> int:
    return sum(len(reference) for _, reference in pairs)


def _effect(
    simulation: Simulation,
    ranges: Ranges,
    predictions: NDArray[np.float64],
    assignment: dict[str, str],
    chunk: Sequence[Pair],
) -> Array:
    """Summed over samples: energy of the change, log of its ratio, KL, root of the expected KL."""
    sums = np.zeros(len(TRIED))
    outputs = simulation.each((batch for batch, _ in chunk), ranges, assignment)
    for (value, *_), (_, reference) in zip(outputs, chunk, strict=True):
        exact = metrics.centred(reference)
        noise, signal = metrics.energies(metrics.centred(value) - exact), metrics.energies(exact)
        ratio = np.divide(noise, signal, out=noise.copy(), where=signal > 0.0)
        divergence = metrics.kl_mnat(reference, value) * len(reference)
        expected = noise
        if predictions.shape[-1] > 1:
            change = np.subtract(value, reference, dtype=np.float64)
            expected = np.maximum(metrics.expected_divergences_mnat(predictions, change), 0.0)
        logarithm = np.sum(np.log(np.maximum(ratio, _LEAST_ERROR)))
        sums += np.sum(noise), logarithm, divergence, np.sum(np.sqrt(expected))
    return sums


def _means(totals: Array, signal: float, samples: int) -> tuple[float, float, float, float]:
    noise, logarithm, divergence, root = totals.tolist()
    return (
        noise / signal if signal else noise,
        math.exp(logarithm / samples),
        divergence / samples,
        (root / samples) ** 2,
    )
