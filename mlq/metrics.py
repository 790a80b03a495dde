"""How far a quantized network is from its float one, and whether a difference is real.

Everything is computed in float64. `reference` is the float network, `value` the one compared.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# More than any tensor has that was rounded; JSON cannot hold infinity.
MOST_DB = 200.0


def sqnr_db(reference: Array, value: Array) -> float:
    """Signal to quantization noise, `10 log10(sum r^2 / sum (r - v)^2)`, in decibels.

    Infinite when the two are equal, minus infinity when only the reference is silent.
    """
    return decibels(_energy(np.asarray(reference)), _energy(_difference(reference, value)))


def decibels(signal: float, noise: float) -> float:
    """The ratio of two powers in decibels, from the two sums that `mlq.compare` yields."""
    if noise == 0.0:
        return math.inf
    # A difference of logarithms: the quotient of the two can underflow.
    return -math.inf if signal == 0.0 else 10.0 * (math.log10(signal) - math.log10(noise))


def bounded(ratio: float) -> float:
    """Decibels within `MOST_DB` of zero: what files can hold where nothing was lost, or all."""
    return max(-MOST_DB, min(ratio, MOST_DB))


def mse(reference: Array, value: Array) -> float:
    """Mean squared error, in the unit of the operands squared."""
    noise = _difference(reference, value)
    return _energy(noise) / noise.size


def cosine(reference: Array, value: Array) -> float:
    """Cosine of the angle between the two as vectors, in [-1, 1]; 1 when both are zero."""
    a = np.asarray(reference, np.float64).reshape(-1)
    b = np.asarray(value, np.float64).reshape(-1)
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norm == 0.0:
        return float(not a.any() and not b.any())
    # In this order of operands a NaN stays one.
    return max(min(float(a @ b) / norm, 1.0), -1.0)


def centred(logits: Array) -> NDArray[np.float64]:
    """Logits [N, ..., C] less their mean over classes, which no softmax sees; of one, as it is."""
    exact = np.asarray(logits, np.float64)
    if exact.ndim == 1 or exact.shape[-1] == 1:
        return exact
    less: NDArray[np.float64] = exact - exact.mean(axis=-1, keepdims=True)
    return less


def energies(values: Array) -> NDArray[np.float64]:
    """The sum of squares of each row of [N, ...]: [N]."""
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    found: NDArray[np.float64] = np.sum(np.square(rows), axis=1)
    return found


def kl_mnat(reference: Array, value: Array) -> float:
    """Mean KL(softmax(reference) || softmax(value)) over the rows of logits [N, C], in milli-nats.

    0 when the predictions agree; about 12 for a loss of 0.3 points of top-1 accuracy.
    """
    # Rounding can leave a divergence of nothing a little below it; a NaN stays one.
    return max(float(np.mean(divergences_mnat(reference, value))), 0.0)


def divergences_mnat(reference: Array, value: Array) -> NDArray[np.float64]:
    """KL(softmax(reference) || softmax(value)) of each row of logits [N, C], in milli-nats: [N]."""
    p, q = _log_softmax(reference), _log_softmax(value)
    divergences: NDArray[np.float64] = 1000.0 * np.sum(np.exp(p) * (p - q), axis=-1)
    return divergences


def softmax(logits: Array) -> NDArray[np.float64]:
    """What logits [..., C] predict: probabilities along the last axis."""
    return np.exp(_log_softmax(logits))


def expected_divergences_mnat(predictions: Array, change: Array) -> NDArray[np.float64]:
    """KL that each change of the logits is to cost wherever predictions are made, in milli-nats.

    To second order a change d costs `Var_p(d) / 2` where the prediction is p. KL is decided by the
    few samples that are in doubt, but all tell of the change; so each of `change` [n, ..., C] meets
    all of `predictions` [N, ..., C], and the mean is returned: [n].
    """
    p = predictions.reshape(len(predictions), -1, predictions.shape[-1])
    d = change.reshape(len(change), *p.shape[1:])
    # A shift of all logits changes nothing; without it the difference below keeps its digits.
    d = d - np.mean(d, axis=-1, keepdims=True)
    squares = np.einsum("rc,jrc->jr", np.mean(p, axis=0), d * d)
    means = np.einsum("irc,jrc->ijr", p, d)
    found: NDArray[np.float64] = 500.0 * np.mean(squares - np.mean(means * means, axis=0), axis=-1)
    return found


def divergence_deviation_mnat(predictions: Array, change: Array) -> float:
    """Standard deviation of KL (milli-nats) where any change [N, C] meets any prediction [N, C].

    To second order, as above. Few samples hold few of those in doubt, whose KL is the greatest, so
    that the KL of these few varies less than what is to come; all their pairs tell of that, too.
    """
    change = change - np.mean(change, axis=-1, keepdims=True)
    means = predictions @ change.T
    return float(np.std(500.0 * (predictions @ (change * change).T - means * means)))


def top1(logits: Array, labels: Array) -> float:
    """Share of the rows of `logits` [N, C] that are greatest at their label, in [0, 1]."""
    return float(np.mean(correct(logits, labels)))


def correct(logits: Array, labels: Array) -> NDArray[np.bool_]:
    """Which rows of `logits` [N, C] are greatest at their label: [N]."""
    hits: NDArray[np.bool_] = np.argmax(logits, axis=-1) == np.asarray(labels)
    return hits


def agreement(reference: Array, value: Array) -> float:
    """Share of the rows of logits [N, C] for which both predict the same class, in [0, 1]."""
    return top1(value, np.argmax(reference, axis=-1))


def paired_interval(
    reference: NDArray[np.bool_],
    value: NDArray[np.bool_],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of `mean(value) - mean(reference)`, two networks on the same samples.

    Operands are `correct` of each, [N]; it is the percentile interval of Efron and Tibshirani (An
    Introduction to the Bootstrap, 1993, chapter 13). A pair matters only through its difference,
    -1, 0 or 1, so a resample of all pairs is one multinomial draw.
    """
    difference = np.asarray(value, np.int64) - np.asarray(reference, np.int64)
    count = difference.size
    shares = np.bincount(difference + 1, minlength=3) / count
    draws = np.random.default_rng(seed).multinomial(count, shares, size=resamples)
    deltas = (draws[:, 2] - draws[:, 0]) / count
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(deltas, (tail, 1.0 - tail)).tolist()
    return low, high


def _difference(reference: Array, value: Array) -> NDArray[np.float64]:
    return np.subtract(reference, value, dtype=np.float64)


def _energy(values: Array) -> float:
    """The sum of squares. Not by BLAS: its threads take longer to wake than most weights take."""
    flat = values.reshape(-1)
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64))


def _log_softmax(logits: Array) -> NDArray[np.float64]:
    """Logarithm of the softmax along the last axis; shifting by the maximum cannot overflow."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - np.max(shifted, axis=-1, keepdims=True)
    normalized: NDArray[np.float64] = shifted - np.log(
        np.sum(np.exp(shifted), axis=-1, keepdims=True)
    )
    return normalized
