"""From what calibration saw of a tensor to the range [low, high] that its storage will cover.

The range always holds zero: no scheme can do without. What lies outside saturates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from mlq.entropy import closest_windows
from mlq.histograms import coarse, gather_bounds
from mlq.numerics import choose_params, nearest
from mlq.precision import Calibrator, Scheme
from mlq.ranges import Histogram

Reals = NDArray[np.float64]

PERCENTILE = 99.99
# The mse search tries scales down to 2^-11 of the one that covers everything, then refines twice.
_OCTAVES, _PER_OCTAVE, _REFINEMENTS = 11, 3, 2
# Zero points are tried in steps first, then all about the best.
_ZERO_POINT_STEP = 8
# Scales that are tried together: what of them fits into a cache.
_AT_ONCE = 8


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
        counts = np.asarray(self.histogram.counts, np.int64)
        low, high = self.histogram.low, self.histogram.high
        edges: Reals = np.linspace(low, high, len(counts) + 1, dtype=np.float64)
        # Nothing lies beyond the extremes, though the outer bins do.
        if edges[0] < self.minimum < edges[1]:
            edges[0] = self.minimum
        if edges[-2] < self.maximum < edges[-1]:
            edges[-1] = self.maximum
        edges, below = gather_bounds(edges, counts)
        spanned = np.union1d(edges, 0.0)
        return spanned, np.interp(spanned, edges, below)

    @cached_property
    def coarse(self) -> Histogram:
        """The histogram as people look at it."""
        return coarse(self.histogram)

    @cached_property
    def windows(self) -> dict[tuple[int, bool], tuple[float, float]]:
        """What `entropy` keeps, by levels and whether it is centred: schemes share it."""
        return {}

    @property
    def is_certain(self) -> bool:
        """Whether there is nothing to choose: a constant, or a tensor without values."""
        return self.minimum == self.maximum or not any(self.histogram.counts)

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
    if calibrator == "entropy":
        return entropy(observed, storage)
    return mse(observed, storage)


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


def mse(observed: Observation, storage: Storage = U8) -> tuple[float, float]:
    """Keep what minimises the expected squared error of storing the tensor, clipping included.

    Over a geometric grid of scales and a coarse one of zero points, refined around the best pair.
    """
    spread = Spread(observed)
    allowed = storage.zero_points(observed.minimum)

    def best(scales: Reals, zero_points: NDArray[np.int64]) -> tuple[float, int]:
        """The scale and zero point with the least error; from the greatest scale down."""
        found = math.inf, 0.0, 0
        for start in range(0, len(scales), _AT_ONCE):
            part = scales[start : start + _AT_ONCE]
            kept, clipped = spread.error(part, zero_points, storage.levels)
            error = kept + clipped
            row, column = divmod(int(error.argmin()), len(zero_points))
            here = (float(error[row, column]), float(part[row]), int(zero_points[column]))
            found = min(found, here, key=itemgetter(0))
            if clipped[-1].min() > found[0]:
                break  # a smaller scale clips more
        return found[1:]

    covering = choose_params(*observed.span, bits=storage.bits, scheme=storage.scheme).scale[0]
    if storage.scheme == "power_of_two":
        octaves = np.arange(_OCTAVES + 1, dtype=np.float64)
        scale, zero_point = best(covering * np.exp2(-octaves), allowed)
    else:
        ratio = 2.0 ** (1.0 / _PER_OCTAVE)
        scales = covering * ratio ** -np.arange(_OCTAVES * _PER_OCTAVE + 1.0)
        scale, zero_point = best(scales, np.union1d(allowed[::_ZERO_POINT_STEP], allowed[-1:]))
        for _ in range(_REFINEMENTS):
            about = allowed[np.abs(allowed - zero_point) <= _ZERO_POINT_STEP]
            steps: Reals = np.linspace(1.0, -1.0, 2 * _PER_OCTAVE + 1, dtype=np.float64)
            near = scale * np.power(ratio, steps, dtype=np.float64)
            scale, zero_point = best(near, about)
            ratio **= 1.0 / _PER_OCTAVE
    high = scale * (storage.levels - zero_point)
    return (-high if storage.is_centred(observed.minimum) else 0.0 - scale * zero_point), high


def entropy(observed: Observation, storage: Storage = U8) -> tuple[float, float]:
    """Keep the window whose quantized histogram tells least apart from the whole one (KL).

    The search of TensorRT and Glow (Calibration.cpp), `mlq.entropy`.
    """
    search_windows([observed], storage)
    return observed.windows[storage.levels, storage.is_centred(observed.minimum)]


def search_windows(tensors: Iterable[Observation], storage: Storage) -> None:
    """Search what `entropy` keeps of tensors, all at once, where that is not known."""
    unknown: dict[tuple[int, bool], list[Observation]] = {}
    for each in tensors:
        searched = storage.levels, storage.is_centred(each.minimum)
        if not (each.is_certain or searched in each.windows):
            unknown.setdefault(searched, []).append(each)
    for (levels, centred), found in unknown.items():
        closest = closest_windows([each.cumulative for each in found], levels, centred=centred)
        for each, window in zip(found, closest, strict=True):
            each.windows[levels, centred] = _kept(*window, each)


class Spread:
    """A tensor's values as its histogram tells them: equally spread within each bin."""

    def __init__(self, observed: Observation) -> None:
        edges, below = observed.cumulative
        counts = np.diff(below)
        zero = int(np.searchsorted(edges, 0.0))
        self._left = _Side(-edges[zero::-1], counts[:zero][::-1])
        self._right = _Side(edges[zero:], counts[zero:])

    @property
    def energy(self) -> float:
        """The sum of squares."""
        return self._left.energy + self._right.energy

    def error(
        self, scales: Reals, zero_points: NDArray[np.int64], levels: int
    ) -> tuple[Reals, Reals]:
        """Summed squared error of storing the values in `levels` steps, from zero to the last.

        [scale, zero point], of what is rounded and of what is clipped.
        """
        left = self._left.error(scales, zero_points)
        right = self._right.error(scales, levels - zero_points)
        return left[0] + right[0], left[1] + right[1]


class _Side:
    """The values on one side of zero, as magnitudes: equally spread within each bin."""

    def __init__(self, edges: Reals, counts: Reals) -> None:
        self.edges = edges
        self.density = counts / (edges[1:] - edges[:-1])
        self._ends = _moments(edges)
        self._sums = self._running(self._ends)

    @property
    def energy(self) -> float:
        """The sum of squares."""
        return float(self._sums[2, -1])

    def error(self, scales: Reals, levels: NDArray[np.int64]) -> tuple[Reals, Reals]:
        """Summed squared error when `levels` steps of `scale` cover this side.

        [scale, level], of what is rounded and of what is clipped.
        """
        if not self.density.any():
            nothing = np.zeros((len(scales), len(levels)))
            return nothing, nothing
        step = scales[:, None]
        bound = step * levels
        reached = np.minimum(bound, self.edges[-1])
        # The bin of each bound, the last one of what lies beyond.
        where = np.minimum(self.edges.searchsorted(reached, "right"), len(self.density)) - 1
        ends, rows = _rounding(self.edges / step), np.arange(len(scales))[:, None]
        density = self.density[where]
        part = _rounding(reached / step) - ends[rows, where]
        kept: Reals = (self._running(ends)[rows, where] + density * part) * (step**3 / 12.0)
        part = _moments(reached) - self._ends[:, where]
        zeroth, first, second = self._sums[:, -1:, None] - self._sums[:, where] - density * part
        # The integral of (x - bound)^2 over everything beyond the bound.
        clipped: Reals = second - 2.0 * bound * first + bound**2 * zeroth
        return kept, clipped

    def _running(self, ends: Reals) -> Reals:
        """Density times the derivative of what is given at the edges, integrated up to each."""
        running: Reals = np.zeros_like(ends)
        np.cumsum(self.density * (ends[:, 1:] - ends[:, :-1]), axis=1, out=running[:, 1:])
        return running


def _moments(x: Reals) -> Reals:
    """The primitives of 1, x and x^2."""
    square = x * x
    return np.stack([x, square / 2.0, square * x / 3.0])


def _rounding(steps: Reals) -> Reals:
    """The primitive of 12 (x - nearest integer)^2: one for each integer."""
    whole = nearest(steps)
    beyond = steps - whole
    whole += 4.0 * beyond * beyond * beyond
    return whole


def _kept(low: float, high: float, observed: Observation) -> tuple[float, float]:
    """Hold [low, high] within what was observed, and zero within [low, high]."""
    least, most = observed.span
    return min(max(low, least), 0.0), max(min(high, most), 0.0)
