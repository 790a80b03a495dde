"""Bias correction: what rounding moves a layer's mean result by goes into the layer's bias.

The error that stored weights and activations make is no noise of mean zero: activations are mostly
positive, what lies beyond a range is cut off on one side, and few weights round the same way. The
mean of the error of each output channel, over calibration samples, is known and can be taken off
(Nagel et al. 2019, Data-Free Quantization, section 4.2, the empirical form).

Means are those of the layer alone, with float operands. Errors add up, and a layer is linear in
them up to its activation: when each layer's own shift is taken off, there is none to pass on but
what activations make of noise. The analytic form wants the statistics of batch norms, which are
folded into weights when a network is raised; they are not there any more, nor needed.
"""

from __future__ import annotations

import numpy as np

from mlq import numerics
from mlq.numerics import QuantParams, Reals


def shift(
    weight: Reals, stored: Reals, columns: Reals, storage: QuantParams | None, *, axis: int = 0
) -> Reals:
    """What the means of a layer's outputs lost, to be added to its bias: [O].

    `weight` in float, and as it is `stored` (in float, too), output channels along `axis`;
    `columns` [G, K, N] are windows that the layer reads, stored as `storage` says (None: as they
    are), in the form of `mlq.columns`.
    """
    groups, inputs = columns.shape[:2]
    kept = columns if storage is None else numerics.fake_quantize(columns, storage)
    means = [each.mean(axis=-1, dtype=np.float64) for each in (columns, kept)]
    rows = [
        np.moveaxis(each, axis, 0).reshape(groups, -1, inputs).astype(np.float64)
        for each in (weight, stored)
    ]
    exact, moved = (np.einsum("gok,gk->go", *pair) for pair in zip(rows, means, strict=True))
    found: Reals = (exact - moved).reshape(-1).astype(np.float32)
    return found
