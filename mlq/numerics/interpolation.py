"""Where pixels of a resized image lie among those that there were (ONNX Resize, mode linear)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.numerics.affine import Reals

Doubles = NDArray[np.float64]

RULES: dict[str, Callable[[Doubles, float, int, int], Any]] = {
    "half_pixel": lambda x, factor, _size, _count: (x + 0.5) / factor - 0.5,
    "pytorch_half_pixel": lambda x, factor, _size, count: (
        (x + 0.5) / factor - 0.5 if count > 1 else np.zeros_like(x)
    ),
    "align_corners": lambda x, _factor, size, count: x * (size - 1) / max(count - 1, 1),
    "asymmetric": lambda x, factor, _size, _count: x / factor,
}
"""Places, among `size` of them, of `count` that are `factor` times as near: by ONNX's rules."""


def shares(size: int, count: int, factor: float, rule: str) -> Reals:
    """What of each of `size` elements goes into each of `count`: [count, size], two at most.

    Beyond the first and the last there is nothing else.
    """
    places = RULES[rule](np.arange(count, dtype=np.float64), factor, size, count)
    places = np.clip(places, 0.0, size - 1.0)
    first = np.minimum(np.floor(places).astype(np.int64), max(size - 2, 0))
    found, every = np.zeros((count, size), np.float64), np.arange(count)
    found[every, first] = 1.0 - (places - first)
    found[every, np.minimum(first + 1, size - 1)] += places - first
    return found.astype(np.float32)
