"""Which axes of two shapes of the same tensor belong together, for reshapes that move nothing."""

from __future__ import annotations

import numpy as np

from mlq.dialect.shapes import DYNAMIC


def groups(before: list[int], after: list[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Which axes of either shape hold the same elements: runs of axes, in pairs.

    Runs of known sizes are matched from both ends; what they leave in between, around a dynamic
    size or of size one, is one run.
    """
    front = _runs(before, after)
    i, j = _axes_in(front)
    back = _runs(before[i:][::-1], after[j:][::-1])[::-1]
    m, n = _axes_in(back)
    middle = (len(before) - i - m, len(after) - j - n)
    runs = [*front, middle, *back]
    if not all(middle) and len(runs) > 1:
        # Axes of size one that only one side has go with a neighbour.
        at = max(len(front) - 1, 0)
        (a, b), (c, d) = runs.pop(at), runs.pop(at)
        runs.insert(at, (a + c, b + d))
    runs = [run for run in runs if all(run)]
    return _numbered([a for a, _ in runs]), _numbered([b for _, b in runs])


def _axes_in(runs: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(a for a, _ in runs), sum(b for _, b in runs)


def _numbered(lengths: list[int]) -> list[list[int]]:
    """Consecutive numbers in lists of these lengths."""
    numbers = iter(range(sum(lengths)))
    return [[next(numbers) for _ in range(length)] for length in lengths]


def _runs(before: list[int], after: list[int]) -> list[tuple[int, int]]:
    """Numbers of axes with equal products, from the start up to a dynamic size."""
    runs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        m, n = i + 1, j + 1
        while (a := product(before[i:m])) != (b := product(after[j:n])) and DYNAMIC not in {a, b}:
            if max(m + (a < b) - len(before), n + (a > b) - len(after)) > 0:
                return runs
            m, n = m + (a < b), n + (a > b)
        if DYNAMIC in {a, b}:
            return runs
        runs.append((m - i, n - j))
        i, j = m, n
    return runs


def product(sizes: list[int]) -> int:
    """The size of an axis that holds all of these."""
    return DYNAMIC if DYNAMIC in sizes else int(np.prod(sizes, dtype=np.int64))
