"""Weights that make up for errors in what their layer reads: ridge regression.

What layers before a layer do to its input, and the input's own rounding, can in part be told from
the input. So a weight moves to where the results are nearest to float's, given what the layer now
reads (asymmetric calibration: Li et al. 2025, GPTAQ); how far, samples not fitted to decide.
"""

from __future__ import annotations

import numpy as np

from mlq import damping
from mlq.numerics import Reals

# From the greatest on; the least share is not tried.
_RIDGES = damping.SHARES[:0:-1]
_LEAST = 1e-12


def ridge_regressed(rows: Reals, exact: Reals, stored: Reals) -> Reals:
    """`rows` [G, O, K], so that of `stored` windows [G, K, N] they make what they do of `exact`.

    Windows are in the form of `mlq.columns`, sample after sample. Means are the bias's to make up
    for. Rows stay as they are where no ridge has less error on the windows that are held out.
    """
    lost, stored = (_centred(each) for each in (rows @ (exact - stored), stored))
    known = stored.shape[-1] - stored.shape[-1] // damping.HELD_OUT
    form = _moments(stored[..., :known], lost[..., :known])
    best, least = None, float(np.sum(np.square(lost[..., known:]), dtype=np.float64))
    for ridge in _RIDGES:
        rest = lost[..., known:] - _solved(*form, ridge) @ stored[..., known:]
        error = float(np.sum(np.square(rest), dtype=np.float64))
        if error >= least and best is not None:
            break
        if error < least:
            best, least = ridge, error
    return rows if best is None else rows + _solved(*_moments(stored, lost), best)


def gains(exact: Reals, made: Reals) -> Reals:
    """By channel the factor of `made` [G, O, N] with which it is nearest to `exact`, means aside.

    A channel that is always the same, or the other way round, is not scaled: [G, O].
    """
    wanted, had = _centred(exact), _centred(made)
    energy = np.einsum("gon,gon->go", had, had)
    found = np.einsum("gon,gon->go", wanted, had) / np.maximum(energy, _LEAST)
    return np.where((energy > _LEAST) & (found > 0.0), found, 1.0).astype(np.float32)


def _moments(stored: Reals, lost: Reals) -> tuple[Reals, Reals]:
    turned = stored.transpose(0, 2, 1)
    return stored @ turned, lost @ turned


def _solved(form: Reals, crossed: Reals, ridge: float) -> Reals:
    damped = form.copy()
    diagonal = np.einsum("gkk->gk", damped)
    diagonal += ridge * diagonal.mean(axis=1, keepdims=True) + np.float32(_LEAST)
    return np.linalg.solve(damped, crossed.transpose(0, 2, 1)).transpose(0, 2, 1)


def _centred(values: Reals) -> Reals:
    centred: Reals = values - values.mean(axis=-1, keepdims=True)
    return centred
