"""Histograms of a tensor's values: gathered batch by batch, in constant memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.errors import DataError
from mlq.ranges import Histogram

Reals = NDArray[np.float64]
Counts = NDArray[np.int64]

BINS = 1024
# Values on a bound (a ReLU's zeros) are put into this part of the bin that the bound ends.
_SLIVER = 1.0 / 1024
# Bins are not made finer than float64 can number exactly from zero on.
_FINEST = 2.0**-40


class HistogramAccumulator:
    """Merges the batches' histograms of one tensor into one, with exact extremes.

    Bins are powers of two wide and start at zero, so that growing the range merges whole bins and
    loses nothing, and so that zero is always a border between two bins.
    """

    def __init__(self, name: str, bins: int = BINS) -> None:
        self.name = name
        self.minimum = math.inf
        self.maximum = -math.inf
        self._bins = bins
        self._exponent = -1074  # of the bin width: that of the least float64, so any range grows it
        self._first = 0  # number of the first bin, counted from zero
        self._counts: Counts = np.zeros(0, np.int64)
        self._edges: Reals = np.zeros(1)

    def add(self, minimum: float, maximum: float, counts: NDArray[np.integer[Any]]) -> None:
        """Merge one batch: `counts` of equal bins over [minimum, maximum], the last one closed.

        DataError names the tensor when the batch held a NaN or an infinity.
        """
        minimum, maximum = float(minimum), float(maximum)
        if not (math.isfinite(minimum) and math.isfinite(maximum) and minimum <= maximum):
            raise DataError(
                f"{self.name}: takes NaN or infinity on the calibration samples;"
                f" look at the samples, their preprocessing and the weights before it"
            )
        if not (self.minimum <= minimum and maximum <= self.maximum):
            self.minimum = min(self.minimum, minimum)
            self.maximum = max(self.maximum, maximum)
            self._grow()
        width = math.ldexp(1.0, self._exponent)
        if minimum == maximum:
            # Every value lies on one point: the bin that holds it, or the last one below its end.
            bin_of = min(math.floor(minimum / width) - self._first, len(self._counts) - 1)
            self._counts[bin_of] += int(counts.sum(dtype=np.int64))
            return
        batch: Reals = np.arange(len(counts) + 1, dtype=np.float64)
        batch *= (maximum - minimum) / len(counts)
        batch += minimum
        batch[-1] = maximum
        edges, cumulative = gather_bounds(batch, counts)
        # The bins from the one that holds the least value to the one that holds the greatest.
        reached = math.ceil(maximum / width) - self._first
        first = min(math.floor(minimum / width) - self._first, reached - 1)
        # Cutting the running total to integers keeps every count whole and their sum exact.
        grid = self._edges[first : reached + 1]
        totals = np.interp(grid, edges, cumulative).astype(np.int64)
        self._counts[first:reached] += totals[1:] - totals[:-1]

    def histogram(self) -> Histogram:
        """The histogram of all batches; DataError if there was none."""
        if not len(self._counts):
            raise DataError(f"{self.name}: no calibration sample reached this tensor")
        width = math.ldexp(1.0, self._exponent)
        return Histogram(
            low=self._first * width,
            high=(self._first + len(self._counts)) * width,
            counts=tuple(self._counts.tolist()),
        )

    def _grow(self) -> None:
        """Widen the bins until [minimum, maximum] fits, and move the counts over."""
        reach = max(-self.minimum, self.maximum, self.maximum - self.minimum)
        finest = max((self.maximum - self.minimum) / self._bins, reach * _FINEST)
        exponent = max(self._exponent, math.frexp(finest)[1] - 1) if finest else self._exponent
        first, count = self._cover(exponent)
        while count > self._bins:
            exponent += 1
            first, count = self._cover(exponent)
        grown = np.zeros(count, np.int64)
        moved = (self._first + np.arange(len(self._counts))) >> min(exponent - self._exponent, 62)
        # A constant on the border of two bins went into the upper; it may now be the range's end.
        np.add.at(grown, np.minimum(moved - first, count - 1), self._counts)
        self._exponent, self._first, self._counts = exponent, first, grown
        edges = np.arange(first, first + count + 1, dtype=np.float64)
        self._edges = np.multiply(edges, math.ldexp(1.0, exponent), dtype=np.float64)

    def _cover(self, exponent: int) -> tuple[int, int]:
        """Which bin of width 2^exponent is the first to cover the range, and how many do."""
        width = math.ldexp(1.0, exponent)
        first = math.floor(self.minimum / width)
        return first, max(math.ceil(self.maximum / width) - first, 1)


def gather_bounds(edges: Reals, counts: NDArray[np.integer[Any]]) -> tuple[Reals, Reals]:
    """Running totals at `edges`, with what piles up on the two bounds put right beside them.

    An activation function leaves many values exactly on its bounds; what the first and last bin
    hold beyond their neighbours is taken to lie there. Returns edges and totals for np.interp.
    """
    bins = len(counts)
    if bins < 2:  # noqa: PLR2004 - one bin has no neighbour to compare with
        return edges, np.array([0.0, *np.cumsum(counts, dtype=np.float64)])
    where, totals = np.empty(bins + 3), np.empty(bins + 3)
    where[0], where[2:-2], where[-1] = edges[0], edges[1:-1], edges[-1]
    where[1] = edges[0] + (edges[1] - edges[0]) * _SLIVER
    where[-2] = edges[-1] - (edges[-1] - edges[-2]) * _SLIVER
    np.cumsum(counts[:-1], out=totals[2:-2])
    totals[0], totals[-1] = 0.0, totals[-3] + float(counts[-1])
    totals[1] = max(float(counts[0]) - float(counts[1]), 0.0)
    totals[-2] = totals[-1] - max(float(counts[-1]) - float(counts[-2]), 0.0)
    return where, totals
