"""From what calibration saw of a tensor to the range [low, high] that its storage will cover.

The range always holds zero: no scheme can do without. What lies outside saturates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.entropy import closest_windows
from mlq.histograms import coarse, gather_bounds
from mlq.numerics import choose_params
from mlq.precision import Calibrator, Scheme
from mlq.ranges import Histogram
from mlq.squared_error import closest_storage

Reals = NDArray[np.float64]

PERCENTILE = 99.99


@dataclass(frozen=True)
class Storage:
    """The storage that a range is chosen for: `bits` wide, laid out by `scheme`."""

    bits: int = 8
    scheme: Scheme = "asymmetric"

    @property
    def levels(self) -> int:
        """How many steps lie between the least and the greatest integer."""
        return (1 << self.bits) - 1

    def zero_points(self, minimum: float) -> NDArray[np.int64]:
        """Every zero point (in unsigned storage) the scheme allows a tensor with this minimum."""
        if self.scheme == "asymmetric":
            return np.arange(self.levels + 1 if minimum < 0.0 else 1)
        if self.scheme == "symmetric_uint8" and minimum >= 0.0:
            return np.array([0])
        return np.array([1 << self.bits - 1])

    def is_centred(self, minimum: float) -> bool:
        """Whether the range must reach equally far to both sides."""
        return int(self.zero_points(minimum)[-1]) == 1 << self.bits - 1


U8 = Storage()


@dataclass(frozen=True)
class Observation:
    """What calibration saw of one tensor: exact extremes, and a histogram of a subsample."""

    minimum: float
    maximum: float
    histogram: Histogram

    @cached_property
    def cumulative(self) -> tuple[Reals, Reals]:
        """Edges, and how many values lie below each; for np.interp. The range spans zero."""
        counts, low, high = self._counts, self.histogram.low, self.histogram.high
        edges: Reals = np.linspace(low, high, len(counts) + 1, dtype=np.float64)
        # Nothing lies beyond the extremes, though the outer bins do.
        if edges[0] < self.minimum < edges[1]:
            edges[0] = self.minimum
        if edges[-2] < self.maximum < edges[-1]:
            edges[-1] = self.maximum
        edges, below = gather_bounds(edges, counts)
        zero = int(edges.searchsorted(0.0))
        if edges[zero : zero + 1].any() or zero == len(edges):
            edges, known = np.insert(edges, zero, 0.0), edges
            below = np.interp(edges, known, below)
        return edges, below

    @cached_property
    def coarse(self) -> Histogram:
        """The histogram as people look at it."""
        return coarse(self.histogram, self._counts)

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        return np.array(self.histogram.counts, np.int64)

    @cached_property
    def searched(self) -> dict[tuple[Any, ...], tuple[float, float]]:
        """What `entropy` and `mse` keep, by what decides that: schemes share windows."""
        return {}

    @property
    def is_certain(self) -> bool:
        """Whether there is nothing to choose: a constant, or a tensor without values."""
        return self.minimum == self.maximum or not self._counts.any()

    @property
    def span(self) -> tuple[float, float]:
        """The extremes, widened to hold zero."""
        return min(self.minimum, 0.0), max(self.maximum, 0.0)


def calibrate(
    calibrator: Calibrator,
    observed: Observation,
    storage: Storage = U8,
    *,
    percentile: float = PERCENTILE,
) -> tuple[float, float]:
    """The range [low, high] that `calibrator` keeps of a tensor stored in `storage`."""
    if calibrator == "minmax" or observed.is_certain:
        return minmax(observed)
    if calibrator == "percentile":
        return keep_percentile(observed, storage, percentile=percentile)
    search(calibrator, [observed], storage)
    return observed.searched[_decisive(calibrator, observed, storage)]


def minmax(observed: Observation) -> tuple[float, float]:
    """Keep everything."""
    return observed.span


def keep_percentile(
    observed: Observation, storage: Storage = U8, *, percentile: float = PERCENTILE
) -> tuple[float, float]:
    """Keep all but the outermost (100 - `percentile`) percent of the values on either side.

    A centred scheme keeps `percentile` percent of the magnitudes. Bounds are edges of bins.
    """
    edges, below = observed.cumulative
    beyond = below[-1] * (1.0 - percentile / 100.0)
    if storage.is_centred(observed.minimum):
        magnitudes = np.unique(np.abs(edges))
        within = np.interp(magnitudes, edges, below) - np.interp(-magnitudes, edges, below)
        bound = float(magnitudes[np.searchsorted(within, below[-1] - beyond)])
        return _kept(-bound, bound, observed)
    low = float(edges[np.searchsorted(below, beyond, side="right") - 1])
    high = float(edges[np.searchsorted(below, below[-1] - beyond)])
    return _kept(low, high, observed)


def mse(tensors: Sequence[Observation], storage: Storage = U8) -> list[tuple[float, float]]:
    """Keep what minimises the expected squared error of storing each tensor, clipping included.

    `mlq.squared_error`. The same zero points must be allowed to all tensors.
    """
    minimum = tensors[0].minimum
    covering = [
        choose_params(*each.span, bits=storage.bits, scheme=storage.scheme).scale[0]
        for each in tensors
    ]
    scale, zero_point = closest_storage(
        [each.cumulative for each in tensors],
        np.array(covering),
        storage.zero_points(minimum),
        storage.levels,
        octaves_only=storage.scheme == "power_of_two",
    )
    high = scale * (storage.levels - zero_point)
    low = -high if storage.is_centred(minimum) else 0.0 - scale * zero_point
    return list(zip(low.tolist(), high.tolist(), strict=True))


def entropy(tensors: Sequence[Observation], storage: Storage = U8) -> list[tuple[float, float]]:
    """Keep the window whose quantized histogram tells least apart from the whole one (KL).

    The search of TensorRT and Glow (Calibration.cpp), `mlq.entropy`.
    """
    centred = storage.is_centred(tensors[0].minimum)
    cumulative = [each.cumulative for each in tensors]
    windows = closest_windows(cumulative, storage.levels, centred=centred)
    return [_kept(*window, each) for window, each in zip(windows, tensors, strict=True)]


def search(calibrator: Calibrator, tensors: Iterable[Observation], storage: Storage) -> None:
    """Find what `entropy` or `mse` keeps of tensors, of all that are alike at once."""
    unknown: dict[tuple[Any, ...], list[Observation]] = {}
    for each in tensors:
        decisive = _decisive(calibrator, each, storage)
        if not (each.is_certain or decisive in each.searched):
            unknown.setdefault(decisive, []).append(each)
    for decisive, found in unknown.items():
        kept = (entropy if calibrator == "entropy" else mse)(found, storage)
        for each, ends in zip(found, kept, strict=True):
            each.searched[decisive] = ends


def _decisive(calibrator: Calibrator, observed: Observation, storage: Storage) -> tuple[Any, ...]:
    """What a search depends on, besides what was observed."""
    if calibrator == "entropy":
        return storage.levels, storage.is_centred(observed.minimum)
    return storage, *storage.zero_points(observed.minimum)[[0, -1]].tolist()


def _kept(low: float, high: float, observed: Observation) -> tuple[float, float]:
    """Hold [low, high] within what was observed, and zero within [low, high]."""
    least, most = observed.span
    return min(max(low, least), 0.0), max(min(high, most), 0.0)
