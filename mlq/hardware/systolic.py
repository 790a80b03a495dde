"""A systolic array with double-buffered SRAMs, cycle for cycle as SCALE-Sim counts.

The product of a layer has three axes: its pixels, its filters, and the window that one output sums
over. The dataflow lays two of them on the rows and columns of the array, fold by fold; the third
passes through it in time. Checked against the `scalesim` package by benchmarks/scalesim_golden.py.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Literal, NamedTuple

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from mlq.hardware.base import Traffic
from mlq.hardware.caching import Order, capacity, reads_of_sweeps, reads_of_windows
from mlq.hardware.layer import Layer
from mlq.values import Part

Axis = Literal["pixels", "filters", "window"]
# The axes on the rows, on the columns, and in time.
_AXES: dict[str, tuple[Axis, Axis, Axis]] = {
    "os": ("pixels", "filters", "window"),
    "ws": ("window", "filters", "pixels"),
    "is": ("window", "pixels", "filters"),
}


class Array(Part):
    """The processing elements, and how they use words narrower than `word_bits`.

    `fixed`: not at all, a narrow word only takes less memory. `bit_serial`: a multiplication takes
    as many steps as its operands have bits (Loom), relative to a whole word's. `bit_parallel`: an
    element splits into lanes (Bit Fusion) that hold several filters' weights and take several
    elements of the window at once; as many as serve the layer best, for a fold of more of them
    may not fit the SRAM. Wider words take several passes in each.
    """

    rows: PositiveInt
    columns: PositiveInt
    dataflow: Literal["os", "ws", "is"]
    scaling: Literal["fixed", "bit_serial", "bit_parallel"] = "fixed"
    word_bits: PositiveInt = 8


class Memory(Part):
    """SRAM of each operand in KiB, half of it filled while the other half is used; and DRAM."""

    input_kib: PositiveInt
    weight_kib: PositiveInt
    output_kib: PositiveInt
    dram_bytes_per_cycle: PositiveFloat


class Energy(Part):
    """Picojoules of a whole-word multiplication, and of a byte from SRAM and from DRAM."""

    mac_pj: NonNegativeFloat
    sram_pj_per_byte: NonNegativeFloat
    dram_pj_per_byte: NonNegativeFloat


class Words(NamedTuple):
    """Words of each operand that pass some place in the memory hierarchy."""

    input: int
    weight: int
    output: int


class Use(NamedTuple):
    """How an array computes a layer: bits of its words, and words that an element takes at once."""

    weight_bits: int
    activation_bits: int
    weight_lanes: int
    activation_lanes: int


class SystolicArray(Part):
    """A device that is one systolic array; a layer takes the longer of computing and moving."""

    kind: Literal["systolic"] = "systolic"
    name: str = ""
    summary: str
    clock_mhz: PositiveFloat
    array: Array
    memory: Memory
    energy: Energy

    def cycles(self, layer: Layer, weight_bits: int = 8, activation_bits: int = 8) -> int:
        """Cycles of computing without a stall: SCALE-Sim's, where words are whole ones.

        Like SCALE-Sim's it is the number of the last cycle of each group, counted from 0.
        """
        return _cycles(self.array, layer, self._use(layer, weight_bits, activation_bits))

    def dram_words(self, layer: Layer, weight_bits: int = 8, activation_bits: int = 8) -> Words:
        """Words read from and written to DRAM, those of SCALE-Sim (partial sums are written)."""
        use = self._use(layer, weight_bits, activation_bits)
        return _dram_words(self.array, self.memory, layer, use)

    def sram_words(self, layer: Layer, weight_bits: int = 8, activation_bits: int = 8) -> Words:
        """Words that the array asks its SRAMs for, and gives them."""
        folds = _folds(self.array, layer, self._use(layer, weight_bits, activation_bits))
        return Words(
            layer.pixels * layer.window * folds["filters"] * layer.groups,
            layer.weights * folds["pixels"],
            layer.outputs * folds["window"],
        )

    def memory_traffic(self, layer: Layer, weight_bits: int, activation_bits: int) -> Traffic:
        """Bytes from and to DRAM; outputs are stored in the bits of the layer's activations."""
        words = self.dram_words(layer, weight_bits, activation_bits)
        return _bytes(words, weight_bits, activation_bits)

    def latency_us(self, layer: Layer, weight_bits: int, activation_bits: int) -> float:
        """The longer of computing and moving, which double buffering lets overlap."""
        use = self._use(layer, weight_bits, activation_bits)
        return _busy(self.array, self.memory, layer, use) / self.clock_mhz

    def energy_uj(self, layer: Layer, weight_bits: int, activation_bits: int) -> float:
        """Multiplications (in proportion to both widths), SRAM and DRAM accesses."""
        share = weight_bits * activation_bits / self.array.word_bits**2
        if self.array.scaling == "fixed":
            share = max(share, 1.0)
        words = self.sram_words(layer, weight_bits, activation_bits)
        sram = _bytes(words, weight_bits, activation_bits).total
        dram = self.memory_traffic(layer, weight_bits, activation_bits).total
        spent = layer.macs * share * self.energy.mac_pj
        spent += sram * self.energy.sram_pj_per_byte + dram * self.energy.dram_pj_per_byte
        return spent * 1e-6

    def _use(self, layer: Layer, weight_bits: int, activation_bits: int) -> Use:
        return _best_use(self.array, self.memory, layer, weight_bits, activation_bits)


def _bytes(words: Words, weight_bits: int, activation_bits: int) -> Traffic:
    activation, weight = activation_bits / 8, weight_bits / 8
    return Traffic(words.input * activation, words.weight * weight, words.output * activation)


def _size(layer: Layer, axis: Axis) -> int:
    sizes = {"pixels": layer.pixels, "filters": layer.filters, "window": layer.window}
    return sizes[axis]


@lru_cache(maxsize=65536)
def _best_use(
    array: Array, memory: Memory, layer: Layer, weight_bits: int, activation_bits: int
) -> Use:
    """The lanes in which the layer takes least time; of equals, the most lanes."""
    lanes: tuple[tuple[int, ...], tuple[int, ...]] = ((1,), (1,))
    if array.scaling == "bit_parallel":
        lanes = _lanes(array, weight_bits), _lanes(array, activation_bits)
    uses = [Use(weight_bits, activation_bits, *each) for each in itertools.product(*lanes)]
    if len(uses) == 1:
        return uses[0]
    return min(uses, key=lambda use: _busy(array, memory, layer, use))


def _lanes(array: Array, bits: int) -> tuple[int, ...]:
    """Numbers of words of so many bits that an element takes at once: powers of two, most first."""
    most = (array.word_bits // bits).bit_length()
    return tuple(1 << i for i in reversed(range(max(most, 1))))


def _tiles(array: Array, use: Use) -> dict[Axis, int]:
    """How much of the axes on the rows and columns one fold takes."""
    rows, columns, _ = _AXES[array.dataflow]
    lanes: dict[Axis, int] = {
        "pixels": 1,
        "filters": use.weight_lanes,
        "window": use.activation_lanes,
    }
    return {rows: array.rows * lanes[rows], columns: array.columns * lanes[columns]}


def _folds(array: Array, layer: Layer, use: Use) -> dict[Axis, int]:
    """How many times each axis is cut; 1 for the one in time."""
    folds: dict[Axis, int] = {_AXES[array.dataflow][2]: 1}
    return folds | {a: -(-_size(layer, a) // n) for a, n in _tiles(array, use).items()}


def _steps(array: Array, layer: Layer, use: Use) -> int:
    """Cycles in which operands enter the array during one fold."""
    axis = _AXES[array.dataflow][2]
    lanes = {"pixels": 1, "filters": use.weight_lanes, "window": use.activation_lanes}[axis]
    steps = -(-_size(layer, axis) // lanes)
    if array.scaling == "bit_serial":
        return -(-steps * use.weight_bits * use.activation_bits // array.word_bits**2)
    wide = (-(-bits // array.word_bits) for bits in (use.weight_bits, use.activation_bits))
    return steps * math.prod(wide)


def _cycles(array: Array, layer: Layer, use: Use) -> int:
    fill = array.rows + array.columns - 2
    if array.dataflow != "os":
        fill += array.rows
    folds = math.prod(_folds(array, layer, use).values())
    return layer.groups * (folds * (fill + _steps(array, layer, use)) - 1)


def _busy(array: Array, memory: Memory, layer: Layer, use: Use) -> float:
    """Cycles until the layer is computed and moved."""
    words = _dram_words(array, memory, layer, use)
    moved = _bytes(words, use.weight_bits, use.activation_bits).total
    return max(_cycles(array, layer, use), moved / memory.dram_bytes_per_cycle)


@lru_cache(maxsize=65536)
def _dram_words(array: Array, memory: Memory, layer: Layer, use: Use) -> Words:
    folds, tiles = _folds(array, layer, use), _tiles(array, use)
    axis: Literal["pixels", "window"] = "window" if array.dataflow == "ws" else "pixels"
    order = Order(axis, tiles[axis], 0 if array.dataflow == "is" else 1)
    room = capacity(memory.input_kib * 8192 // use.activation_bits)
    inputs = reads_of_windows(layer, order, folds["filters"], room)
    sweeps = [(layer.window * layer.filters, folds["pixels"])]
    if array.dataflow == "os":
        widths = [tiles["filters"]] * (folds["filters"] - 1)
        widths.append(layer.filters - sum(widths))
        sweeps = [(layer.window * width, folds["pixels"]) for width in widths]
    weights = reads_of_sweeps(sweeps, capacity(memory.weight_kib * 8192 // use.weight_bits))
    outputs = layer.outputs * folds["window"]
    return Words(inputs * layer.groups, weights * layer.groups, outputs)
