"""How many words an operand takes from DRAM through a double-buffered SRAM, as SCALE-Sim counts.

SCALE-Sim (v2 and v3, `memory/read_buffer_estimate_bw.py`, bandwidth mode CALC) gathers the words
that an array asks for until they fill half of the SRAM, then hands that half over and forgets
what was in it: a cache that is emptied whenever it is full. Every word that is not in it is one
DRAM read. Here the same count is made from the order of the requests alone: exactly where each
pass asks for every word once, and window by window where windows overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlq.hardware.layer import Layer

Indices: TypeAlias = NDArray[np.int64]

# SCALE-Sim divides an SRAM into so many sets and gathers in half of them.
_SETS = 100
# Channels that are looked at together; fewer would be more exact and take longer.
_CHANNELS = 16


def capacity(sram_words: int) -> int:
    """Words that are gathered before they are forgotten."""
    return max(sram_words // _SETS, 1) * (_SETS // 2)


def reads_of_sweeps(sweeps: Iterable[tuple[int, int]], room: int) -> int:
    """DRAM reads of sweeps that each ask for so many distinct words, in one order, repeatedly.

    `sweeps` are (words, repeats); no two sweeps share a word. `room` is what `capacity` says.
    """
    reads = level = 0
    for words, repeats in sweeps:
        before_full = room - level
        if words < before_full:
            reads, level = reads + words, level + words
        elif words >= room or repeats == 1:
            reads, level = reads + words * repeats, (words * repeats - before_full) % room
        else:
            reads, level = reads + before_full + words, words
    return reads


class Order(NamedTuple):
    """How an array asks for all windows of an input: so many of one axis at a time.

    "pixels": the elements of these pixels' windows one after the other; "window": all pixels'
    values of these window elements. Each of those asked for at a time comes `lag` cycles later.
    """

    axis: Literal["pixels", "window"]
    tile: int
    lag: int


def reads_of_windows(layer: Layer, order: Order, passes: int, room: int) -> int:
    """DRAM reads of one group's input over so many passes of all its windows."""
    unlike = _distinct(layer)
    if unlike * layer.channels < room:
        return unlike * layer.channels
    if unlike == layer.pixels * layer.kernel[0] * layer.kernel[1]:
        return reads_of_sweeps([(unlike * layer.channels, passes)], room)
    words, asked = _requests(layer, order)
    return _replay(_distances(asked), words, passes, room)


def _positions(layer: Layer) -> Indices:
    """Input position that pixel p (axis 0) takes for window position k (axis 1)."""
    width = layer.extent[1]
    pixel, tap = (
        [np.arange(size, dtype=np.int64) * step for size, step in zip(sizes, steps, strict=True)]
        for sizes, steps in ((layer.output, layer.strides), (layer.kernel, layer.dilations))
    )
    corner = (pixel[0][:, None] * width + pixel[1][None, :]).reshape(-1, 1)
    return corner + (tap[0][:, None] * width + tap[1][None, :]).reshape(1, -1)


def _distinct(layer: Layer) -> int:
    """How many input positions windows touch; windows are the product of their two axes."""
    touched = 1
    for size, stride, kernel, dilation in zip(
        layer.output, layer.strides, layer.kernel, layer.dilations, strict=True
    ):
        starts = np.arange(size)[:, None] * stride
        touched *= len(np.unique(starts + np.arange(kernel)[None, :] * dilation))
    return touched


def _requests(layer: Layer, order: Order) -> tuple[int, Indices]:
    """One pass as (words per request, what each request asks for, in the order of time).

    A request is for some neighbouring channels of one input position.
    """
    positions = _positions(layer)
    words = math.gcd(layer.channels, order.tile if order.axis == "window" else _CHANNELS)
    parts = np.arange(layer.channels // words, dtype=np.int64)
    # Axis 0: pixels; axis 1: the window, in so many words a step.
    atoms = (positions[:, :, None] * len(parts) + parts).reshape(len(positions), -1)
    if order.axis == "pixels":
        blocks = [atoms[i : i + order.tile].T for i in range(0, len(atoms), order.tile)]
        return words, np.concatenate([_skewed(block, words, order.lag) for block in blocks])
    step = order.tile // words
    blocks = [atoms[:, i : i + step] for i in range(0, atoms.shape[1], step)]
    return words, np.concatenate([_skewed(block, 1, order.lag * words) for block in blocks])


def _skewed(block: Indices, cycles: int, lag: int) -> Indices:
    """Read a block off row by row, `cycles` apart, each column `lag` after the one before it."""
    if not lag:
        return block.ravel()
    rows, columns = block.shape
    lanes = np.arange(columns)[None, :]
    times = np.arange(rows)[:, None] * cycles + lanes * lag
    return block.ravel()[np.argsort((times * columns + lanes).ravel())]


def _distances(asked: Indices) -> Indices:
    """How many requests ago, passes repeating without end, each request was last made."""
    order = np.argsort(asked, kind="stable")
    first = np.flatnonzero(np.diff(asked[order], prepend=-1))
    last = np.append(first[1:], len(order)) - 1
    before = np.empty_like(order)
    before[1:] = order[:-1]
    before[first] = order[last] - len(order)
    distances = np.empty_like(order)
    distances[order] = order - before
    return distances


def _replay(distances: Indices, words: int, passes: int, room: int) -> int:
    """Reads of all passes: a request misses if it was last made before the cache was emptied."""
    length, fit = len(distances), -(-room // words)
    total, at, reads = length * passes, 0, 0
    spans: dict[int, int] = {}
    while at < total:
        phase = at % length
        if phase not in spans:
            spans[phase] = _span(distances, phase, fit)
        span = spans[phase]
        if at + span >= total or span > length:
            return (reads + _missed(distances, phase, min(total - at, length))) * words
        reads, at = reads + fit, at + span
    return reads * words


def _span(distances: Indices, phase: int, fit: int) -> int:
    """Requests, beginning at `phase`, until `fit` of them have missed; over a pass if never."""
    length, size = len(distances), min(2 * fit, len(distances))
    while True:
        misses = np.cumsum(_misses(distances, phase, size))
        if misses[-1] >= fit:
            return int(np.searchsorted(misses, fit)) + 1
        if size == length:
            return length + 1
        size = min(2 * size, length)


def _missed(distances: Indices, phase: int, size: int) -> int:
    return int(np.count_nonzero(_misses(distances, phase, size)))


def _misses(distances: Indices, phase: int, size: int) -> NDArray[np.bool_]:
    """Which of `size` requests from `phase` on miss a cache that is empty before them."""
    wrapped = np.concatenate(
        [distances[phase : phase + size], distances[: max(phase + size - len(distances), 0)]]
    )
    return wrapped > np.arange(size)
