"""Which elements of a tensor a histogram counts, and where; which rows a comparison adds up."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

from mlq.numerics.affine import Reals

_IMAGE_RANK = 4


def subsampling_step(elements: int, most: int) -> int:
    """Every how-manieth element to look at so that about `most` are seen, or each one.

    The step is coprime to the number of elements: with it no axis is looked at in one place only.
    """
    step = max(1, -(-elements // most))
    while gcd(step, elements) > 1:
        step += 1
    return step


def row_step(shape: Sequence[int], most: int) -> int:
    """Every how-manieth slice of axis 1 to add up so that hardly more than `most` elements are.

    Of images: neighbouring rows are alike, so that few say as much. What is no image is small: 1.
    """
    if len(shape) != _IMAGE_RANK:
        return 1
    return min(max(1, -(-prod(n for n in shape if n > 0) // most)), max(shape[1], 1))


def histogram(x: Reals, least: np.float32, greatest: np.float32, bins: int) -> NDArray[np.int32]:
    """Counts of `x` in `bins` equal bins over [least, greatest], the last one closed.

    Elements are placed in float32, as a device does it; all are in the first bin of an empty range.
    """
    width = np.float32(greatest - least)
    per_unit = np.float32(bins) / width if width > 0 else np.float32(0)
    place = np.minimum((x.reshape(-1) - least) * per_unit, np.float32(bins - 1))
    return np.bincount(place.astype(np.int64), minlength=bins).astype(np.int32)


def statistics(x: Reals, step: int, bins: int) -> Reals:
    """What `mlq.observe` yields: least, greatest, and a histogram of every `step`-th element."""
    least, greatest = np.min(x), np.max(x)
    counts = histogram(x.reshape(-1)[::step], least, greatest, bins)
    return np.array([least, greatest, *counts], np.float32)


def energies(reference: Reals, value: Reals, step: int) -> Reals:
    """What `mlq.compare` yields, of every `step`-th slice of axis 1; `value` may have no others."""
    seen = (slice(None), slice(None, None, step))[: reference.ndim]
    kept = reference[seen].astype(np.float64)
    noise = kept - (value if value.shape == kept.shape else value[seen])
    part = kept.size / max(reference.size, 1)
    return np.array([np.vdot(each, each) / part for each in (kept, noise)], np.float32)
