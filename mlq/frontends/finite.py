"""Whether numbers are sound: a NaN found here costs a line, found later it costs an evening."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PIECE_BYTES = 1 << 24


def is_finite(array: NDArray[Any]) -> bool:
    """Whether no element is NaN or infinite; a whole `np.memmap` is read in pieces of 16 MB."""
    if array.dtype.kind not in "fc":
        return True
    with np.errstate(all="ignore"):
        # A finite sum has only finite terms; the converse fails on overflow, so then we look.
        return all(
            bool(np.isfinite(piece.sum())) or bool(np.isfinite(piece).all())
            for piece in _pieces(array)
        )


def _pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    step = max(1, _PIECE_BYTES // array.dtype.itemsize)
    if isinstance(array, np.memmap) and array.filename is not None:
        # Read, not through the map: pages touched there would stay in this process's memory.
        for start in range(0, array.size, step):
            count = min(step, array.size - start)
            offset = array.offset + start * array.dtype.itemsize
            yield np.fromfile(array.filename, array.dtype, count, offset=offset)
    else:
        flat = array.reshape(-1)
        for start in range(0, flat.size, step):
            yield flat[start : start + step]
