"""Which scale and zero point store a tensor with the least squared error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlq.numerics import nearest

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]
Histogram = tuple[Reals, Reals]
"""Edges, with zero among them, and how many values lie below each."""

# Scales are tried down to 2^-11 of the one that covers everything, then refined twice.
_OCTAVES, _PER_OCTAVE, _REFINEMENTS = 11, 3, 2
# Zero points are tried in steps first, then all about the best.
_ZERO_POINT_STEP = 8
# Scales of tensors that are tried together: what of them fits into a cache.
_AT_ONCE = 16


def closest_storage(
    tensors: Sequence[Histogram],
    covering: Reals,
    zero_points: Integers,
    levels: int,
    *,
    octaves_only: bool,
) -> tuple[Reals, Integers]:
    """Scale and zero point [T] of the least squared error of each tensor, clipping included.

    `covering` are the scales that cover everything. Over a geometric grid of scales from there down
    and a coarse one of zero points, refined around the best pair. All tensors are looked at
    together: it is calls of numpy that take time.
    """
    spreads, count = Spreads(tensors), len(tensors)
    coarse = np.union1d(zero_points[::_ZERO_POINT_STEP], zero_points[-1:])
    unknown = np.full(count, np.inf)
    if octaves_only:
        scales = covering[:, None] * np.exp2(-np.arange(_OCTAVES + 1.0))
        scale, zero_point, _ = _best(
            spreads, scales, np.tile(zero_points, (count, 1)), unknown, levels
        )
        return scale, zero_point
    ratio = 2.0 ** (1.0 / _PER_OCTAVE)
    scales = covering[:, None] * ratio ** -np.arange(_OCTAVES * _PER_OCTAVE + 1.0)
    scale, zero_point, least = _best(spreads, scales, np.tile(coarse, (count, 1)), unknown, levels)
    reach = min(_ZERO_POINT_STEP, len(zero_points) - 1)
    for _ in range(_REFINEMENTS):
        about = zero_point[:, None] + np.arange(-reach, reach + 1)
        steps: Reals = np.linspace(1.0, -1.0, 2 * _PER_OCTAVE + 1, dtype=np.float64)
        near = scale[:, None] * np.power(ratio, steps, dtype=np.float64)
        within = np.minimum(np.maximum(about, zero_points[0]), zero_points[-1])
        scale, zero_point, least = _best(spreads, near, within, least, levels)
        ratio **= 1.0 / _PER_OCTAVE
    return scale, zero_point


def _best(
    spreads: Spreads, scales: Reals, zero_points: Integers, least: Reals, levels: int
) -> tuple[Reals, Integers, Reals]:
    """Scale, zero point and error [T] of the least error; none is above the `least` known.

    Of scales [T, S], from the greatest down, and zero points [T, Z]. What is clipped alone rules
    out the smaller ones.
    """
    stored = spreads.stored(scales, zero_points, levels)
    clipped = stored.clipped.min(axis=2)
    errors = np.full(stored.clipped.shape, np.inf)
    for start in range(0, scales.shape[1], _PER_OCTAVE):
        part = slice(start, start + _PER_OCTAVE)
        tensors, places = np.nonzero(clipped[:, part] <= least[:, None])
        if not tensors.size:
            continue
        places += start
        errors[tensors, places] = stored.clipped[tensors, places] + stored.rounded(tensors, places)
        least = np.minimum(least, errors[:, part].min(axis=(1, 2)))
    rows = np.arange(len(scales))
    place, column = np.divmod(errors.reshape(len(rows), -1).argmin(axis=1), zero_points.shape[1])
    return scales[rows, place], zero_points[rows, column], least


class Spreads:
    """Tensors' values as their histograms tell them: equally spread within each bin."""

    def __init__(self, tensors: Sequence[Histogram]) -> None:
        left, right = [], []
        for edges, below in tensors:
            counts, zero = below[1:] - below[:-1], int(edges.searchsorted(0.0))
            left.append((-edges[zero::-1], counts[:zero][::-1]))
            right.append((edges[zero:], counts[zero:]))
        self._left, self._right = _Side(left), _Side(right)

    @property
    def energy(self) -> Reals:
        """The sum of squares of each."""
        return self._left.energy + self._right.energy

    def stored(self, scales: Reals, zero_points: Integers, levels: int) -> Stored:
        """The values stored in `levels` steps of scales [T, S], from zero points [T, Z] on."""
        left = self._left.covered(scales, zero_points)
        return Stored((left, self._right.covered(scales, levels - zero_points)))


class Stored(NamedTuple):
    """Squared errors of storing tensors by some scales and zero points."""

    sides: tuple[_Covered, _Covered]

    @property
    def clipped(self) -> Reals:
        """Those of what is clipped: [T, S, Z]."""
        left, right = self.sides
        return left.clipped + right.clipped

    def rounded(self, tensors: Integers, places: Integers) -> Reals:
        """Those of what is rounded, of tensors and scales by their places [J]: [J, Z]."""
        left, right = (each.rounded(tensors, places) for each in self.sides)
        return left + right


class _Side:
    """The values on one side of zero, as magnitudes: equally spread within each bin.

    Tensors with fewer bins have some of no width at the end.
    """

    def __init__(self, sides: Sequence[Histogram]) -> None:
        self.bins = np.array([len(counts) for _, counts in sides])
        most = int(self.bins.max())
        self.edges, self.density = np.zeros((len(sides), most + 1)), np.zeros((len(sides), most))
        for row, (edges, counts) in enumerate(sides):
            self.edges[row], self.edges[row, : len(edges)] = edges[-1], edges
            self.density[row, : len(counts)] = counts / (edges[1:] - edges[:-1])
        self.is_empty = not self.density.any()
        self.ends = _moments(self.edges)
        self.sums = _running(self.density, self.ends)

    @property
    def energy(self) -> Reals:
        """The sum of squares of each."""
        energy: Reals = self.sums[2, :, -1]
        return energy

    def covered(self, scales: Reals, levels: Integers) -> _Covered:
        """This side, covered by so many levels [T, Z] of scales [T, S]."""
        bound = scales[..., None] * levels[:, None]
        if self.is_empty:
            return _Covered(self, scales, bound, np.zeros_like(bound, np.int64), 0.0 * bound)
        reached = np.minimum(bound, self.edges[:, -1:, None])
        # The bin of each bound, the last one of what lies beyond.
        pairs = zip(self.edges, reached, strict=True)
        after = np.stack([edges.searchsorted(each, "right") for edges, each in pairs])
        where = np.maximum(np.minimum(after, self.bins[:, None, None]) - 1, 0)
        rows = np.arange(len(scales))[:, None, None]
        part = _moments(reached) - self.ends[:, rows, where]
        beyond = self.sums[..., -1:, None] - self.sums[:, rows, where]
        zeroth, first, second = beyond - self.density[rows, where] * part
        # The integral of (x - bound)^2 over everything beyond the bound.
        clipped: Reals = second - 2.0 * bound * first + bound**2 * zeroth
        return _Covered(self, scales, reached, where, clipped)


class _Covered(NamedTuple):
    """How far scales [T, S] and numbers of levels [T, Z] reach on one side, and into which bin."""

    side: _Side
    scales: Reals
    reached: Reals
    where: Integers
    clipped: Reals

    def rounded(self, tensors: Integers, places: Integers) -> Reals:
        """Summed squared error of what lies within, of tensors and scales by places [J]: [J, Z]."""
        errors = np.zeros((len(tensors), self.where.shape[-1]))
        if self.side.is_empty:
            return errors
        for start in range(0, len(tensors), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            of = tensors[part], places[part]
            errors[part] = self._rounded(
                of[0], self.scales[of][:, None], self.reached[of], self.where[of]
            )
        return errors

    def _rounded(self, tensors: Integers, step: Reals, reached: Reals, where: Integers) -> Reals:
        most, rows = int(where.max()), np.arange(len(tensors))[:, None]
        ends = _rounding(self.side.edges[tensors, : most + 1] / step)
        running = _running(self.side.density[tensors, :most], ends)
        part = _rounding(reached / step) - ends[rows, where]
        density = self.side.density[tensors[:, None], where]
        errors: Reals = (running[rows, where] + density * part) * (step**3 / 12.0)
        return errors


def _running(density: Reals, ends: Reals) -> Reals:
    """Density times the derivative of what is given at the edges, integrated up to each."""
    running: Reals = np.zeros_like(ends)
    np.cumsum(density * (ends[..., 1:] - ends[..., :-1]), axis=-1, out=running[..., 1:])
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
