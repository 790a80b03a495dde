"""Weights and biases that make up for what a layer reads: least squares in context.

The layers before it are quantized, and so is what they hand over. A part of that error can be told
from the input itself: what is clipped is what is large, what is rounded to zero is small, and its
neighbours say which. So a weight is moved to where the layer's results are nearest to those of the
float network, given what it reads now (asymmetric calibration, Li et al. 2025, GPTAQ). Samples are
few, so ridge regression draws it back to where it was; how much, samples that were not fitted to
decide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.numerics import Reals

Array = NDArray[Any]

# Shares of the mean of the diagonal that may be added to it, each about three times the last.
_RIDGES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
# The last windows, one in so many, say what is right for the others.
_HELD_OUT = 4
_LEAST = 1e-12


def moved(rows: Reals, exact: Reals, stored: Reals) -> Reals:
    """`rows` [G, O, K] such that with `stored` [G, K, N] they make what they do of `exact`.

    Windows [G, K, N] are in the form of `mlq.columns`, sample after sample. Means are the bias's to
    make up for. Rows are as they were where no ridge has less error on the windows held out.
    """
    held = stored.shape[-1] // _HELD_OUT
    if not held:
        return rows
    lost = rows @ (exact - stored)
    known = _moments(stored[..., :-held], lost[..., :-held])
    ridge = _best_ridge(known, _centred(stored[..., -held:]), _centred(lost[..., -held:]))
    return rows if ridge is None else rows + _solved(*_moments(stored, lost), ridge)


def _best_ridge(known: tuple[Array, Array], stored: Reals, lost: Reals) -> float | None:
    """The ridge from which a lesser one has more error, from the greatest on; None for none."""
    best, least = None, float(np.sum(np.square(lost), dtype=np.float64))
    for ridge in _RIDGES:
        rest = lost - _solved(*known, ridge) @ stored
        error = float(np.sum(np.square(rest), dtype=np.float64))
        if error < least:
            best, least = ridge, error
        elif best is not None:
            break
    return best


def _moments(stored: Reals, lost: Reals) -> tuple[Array, Array]:
    """Covariance of the stored windows, [G, K, K], and of what was lost with them, [G, O, K]."""
    centred, count = _centred(stored), np.float32(stored.shape[-1])
    turned = centred.transpose(0, 2, 1)
    return centred @ turned / count, _centred(lost) @ turned / count


def _solved(covariance: Array, crossed: Array, ridge: float) -> Array:
    damped = covariance.copy()
    diagonal = np.einsum("gkk->gk", damped)
    diagonal += ridge * diagonal.mean(axis=1, keepdims=True) + np.float32(_LEAST)
    found: Array = np.linalg.solve(damped, crossed.transpose(0, 2, 1)).transpose(0, 2, 1)
    return found


def _centred(values: Reals) -> Reals:
    return values - values.mean(axis=-1, keepdims=True)


def gains(exact: Reals, made: Reals) -> Reals:
    """By channel the factor of `made` [G, O, N] with which it is nearest to `exact`: [G, O].

    Means aside. A channel that is always the same, or the other way round, is not scaled.
    """
    wanted, had = _centred(exact), _centred(made)
    energy = np.einsum("gon,gon->go", had, had)
    found = np.einsum("gon,gon->go", wanted, had) / np.maximum(energy, _LEAST)
    scaled: Reals = np.where((energy > _LEAST) & (found > 0.0), found, 1.0).astype(np.float32)
    return scaled
