"""Which elements of a tensor a histogram counts, and where it counts them."""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import NDArray

from mlq.numerics.affine import Reals


def subsampling_step(elements: int, most: int) -> int:
    """Every how-manieth element to look at so that about `most` are seen, or each one.

    The step is coprime to the number of elements: with it no axis is looked at in one place only.
    """
    step = max(1, -(-elements // most))
    while gcd(step, elements) > 1:
        step += 1
    return step


def histogram(x: Reals, least: np.float32, greatest: np.float32, bins: int) -> NDArray[np.int32]:
    """Counts of `x` in `bins` equal bins over [least, greatest], the last one closed.

    Elements are placed in float32, as a device does it; all are in the first bin of an empty range.
    """
    width = np.float32(greatest - least)
    per_unit = np.float32(bins) / width if width > 0 else np.float32(0)
    place = np.minimum((x.reshape(-1) - least) * per_unit, np.float32(bins - 1))
    return np.bincount(place.astype(np.int64), minlength=bins).astype(np.int32)
