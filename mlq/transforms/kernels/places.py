"""Places of bytes in memory that many values share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes, of which each place begins at a multiple."""


def rounded(size: int) -> int:
    """Bytes up to where the next place may begin."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def first_free(size: int, taken: Iterable[tuple[int, int]]) -> int:
    """Where the first gap of so many bytes is between places, each from a byte to another."""
    first = 0
    for low, high in sorted(taken):
        if first + size <= low:
            break
        first = max(first, high)
    return first


def packed(arrays: Iterable[NDArray[Any]]) -> tuple[NDArray[np.int8], list[int]]:
    """The bytes of arrays one after the other, and where each begins."""
    parts: list[NDArray[np.int8]] = [np.zeros(0, np.int8)]
    places, end = list[int](), 0
    for array in arrays:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.int8)
        places.append(end)
        parts.append(np.pad(raw, (0, rounded(len(raw)) - len(raw))))
        end += len(parts[-1])
    return np.concatenate(parts), places
