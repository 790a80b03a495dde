"""How far the moments of a few samples are to be trusted when weights are rounded by them.

A layer of 4608 inputs has more weights in a row than a hundred samples have windows, so there are
roundings that change nothing of what the samples show and ruin whatever else the layer reads. What
is added to the diagonal of the moments (ridge regression; "damping" in GPTQ) draws the rounding
back to the nearest, and how much of it is best differs between layers by three orders of magnitude.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.numerics import Reals

Array = NDArray[Any]

# Shares of the mean of the diagonal that may be added to it, each about three times the last.
SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_FIRST = SHARES.index(0.1)
# The last windows, a quarter of them and so many at most, say what the moments of the others do.
HELD_OUT, _MOST_HELD_OUT = 4, 1024


def least_error(columns: Reals, *, centred: bool = True) -> float:
    """The damping with which rounding by some samples of `columns` loses least on others.

    `columns` [G, K, N] are windows of `mlq.columns`, sample after sample. What Babai's nearest
    plane leaves of a weight is evenly distributed in a box whose edges are those of the lattice
    made orthogonal, so with H = L L^T the moments of some windows, damped, the loss on others with
    moments M is expected to be the sum of L_kk^2 (L^-1 M L^-T)_kk in units of step^2 / 12: no
    weight has to be rounded to know it. Moments are about the mean if they are to be `centred`.
    """
    held = columns.shape[-1] // HELD_OUT
    if not held:
        return SHARES[-1]
    known, others = columns[..., :-held], columns[..., -held:]
    others = others[..., :: -(-held // _MOST_HELD_OUT)]
    if centred:
        known, others = (each - each.mean(axis=-1, keepdims=True) for each in (known, others))
    moments = known @ known.transpose(0, 2, 1) / np.float32(known.shape[-1])
    groups = [
        (form[order][:, order], rest[order])
        for form, rest in zip(moments, others, strict=True)
        for order in [np.argsort(np.diagonal(form))]
        if form.any()
    ]
    return _descended(groups) if groups else SHARES[-1]


def _descended(groups: list[tuple[Array, Array]]) -> float:
    """The share from which a step to either side loses more."""
    losses: dict[int, float] = {}

    def loss(place: int) -> float:
        if place not in losses:
            losses[place] = sum(_expected(*group, SHARES[place]) for group in groups)
        return losses[place]

    best = _FIRST
    step = 1 if loss(best + 1) < loss(best) else -1
    while 0 <= best + step < len(SHARES) and loss(best + step) < loss(best):
        best += step
    return SHARES[best]


def _expected(form: Array, others: Array, share: float) -> float:
    """What is lost on `others` [K, n] by rounding that knows the moments `form` [K, K]."""
    # It takes longer to load than a small network to round.
    from scipy.linalg import cholesky, solve_triangular

    damped = form.copy()
    damped[np.diag_indices_from(damped)] += share * np.trace(form) / len(form)
    lower = cholesky(damped, lower=True, overwrite_a=True, check_finite=False)
    seen = solve_triangular(lower, others, lower=True, check_finite=False)
    edges = np.square(np.diagonal(lower), dtype=np.float64)
    return float(edges @ np.einsum("kn,kn->k", seen, seen, dtype=np.float64))
