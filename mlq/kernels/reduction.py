"""How the tiles of a convolution add up products: what one instruction multiplies by what.

A window is read in runs of elements side by side in memory, a run in steps. Sums are registers,
those of a pixel side by side; `vectors` counts the vectors of channels that a tile has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index

Dot = Callable[[Value, Value, Value], Value]
"""`acc + sum of x * w`, over as many elements as one instruction takes to a sum."""


@dataclass(frozen=True)
class Step:
    """What one step reads: `span` elements of each pixel, `stored` weights of each from `at` on.

    Those of a pixel are as far beyond where its window begins as `beyond` says, in two parts.
    """

    image: Value
    windows: Sequence[Index]
    beyond: tuple[Index, Index]
    weights: Value
    at: Index
    span: int
    stored: int

    def place(self, pixel: int) -> Index:
        """Where the elements of a pixel begin."""
        far, near = self.beyond
        return code.plus(code.plus(self.windows[pixel], far), near)

    def pixels(self) -> list[Value]:
        """The elements of each pixel."""
        places = map(self.place, range(len(self.windows)))
        return [code.load(self.image, place, self.span) for place in places]

    def weight(self, number: int, size: int) -> Value:
        """A vector of weights; those of a step follow each other."""
        return code.load(self.weights, code.plus(self.at, number * size), size)


@dataclass(frozen=True)
class Part:
    """Steps of a run that are alike: the first element, how many, what each reads.

    `stored` are the weights of each for one channel, zeros at the end if they are more than it
    reads. It may read beyond the run, too.
    """

    first: int
    steps: int
    span: int
    stored: int


class Reduction(Protocol):
    """One way of adding up."""

    @property
    def ending(self) -> float:
        """Cycles that it takes to make one accumulator vector of sums."""

    @property
    def spans(self) -> tuple[int, ...]:
        """Elements of a pixel that one step may read, the most first."""

    @property
    def beyond(self) -> int:
        """Elements that a step had better read in excess than leave to one of its own."""

    def word(self, span: int) -> int:
        """Weights of one channel that lie side by side among those of a step; it has some such."""

    def registers(self, pixels: int, vectors: int) -> int:
        """Registers that hold a tile, and what is multiplied next."""

    def effort(self, pixels: int, vectors: int, steps: int, pointers: int) -> tuple[float, float]:
        """Multiplying instructions of a tile for each word of four bytes, and loads.

        A run has so many `steps`, and its elements so many `pointers`.
        """

    def unrolled(self, pixels: int, vectors: int, steps: int) -> int:
        """How many of so many steps a loop has, so that LLVM, which loads early, does not spill."""

    def begun(self, biases: Sequence[Value], pixels: int) -> list[Value]:
        """The sums of a tile before the first step."""

    def added(self, sums: Sequence[Value], step: Step) -> list[Value]:
        """The sums of a tile after one step more."""

    def ended(self, sums: Sequence[Value], biases: Sequence[Value]) -> list[Value]:
        """A vector of accumulators for each pixel and vector of channels, and perhaps more."""


def parts(reduction: Reduction, run: int, beyond: int) -> tuple[Part, ...]:
    """The steps in which a run of so many elements is read, and perhaps `beyond` elements more."""
    found, first, excess = [], 0, -run % reduction.spans[0]
    if len(reduction.spans) == 1 and excess <= min(beyond, reduction.beyond):
        run += excess
    for span in reduction.spans:
        word, rest = reduction.word(span), run - first
        for steps, read in ((rest // span, span), (1, rest % span)):
            if steps and read and span - read <= min(beyond, reduction.beyond):
                found.append(Part(first, steps, span, -(-read // word) * word))
                first += steps * read
    assert first >= run
    return tuple(found)


@dataclass(frozen=True)
class Spread:
    """One word of a pixel, in all lanes, by that of as many channels (x86).

    A loop may have as many as `products` before registers run out.
    """

    dot: Dot = field(repr=False, compare=False)
    depth: int
    products: int
    ending: float = 0.0
    beyond: int = 0

    @property
    def spans(self) -> tuple[int, ...]:
        """A word."""
        return (self.depth,)

    def word(self, span: int) -> int:
        """A word of each channel."""
        return span

    def registers(self, pixels: int, vectors: int) -> int:
        """Sums and weights; elements come from memory, and weights if they meet one pixel only."""
        return (pixels + 1) * vectors if pixels > 1 else vectors

    def effort(self, pixels: int, vectors: int, _steps: int, _pointers: int) -> tuple[float, float]:
        """Each pixel by each vector."""
        return pixels * vectors, pixels + vectors

    def unrolled(self, pixels: int, vectors: int, steps: int) -> int:
        """As many as make so many products."""
        most = self.products // (pixels * vectors)
        if steps > most and vectors == 1 < self.depth:
            # LLVM loads the elements of a round first, but for floats, which FMA reads from memory.
            most //= 2
        return next(n for n in (4, 2, 1) if steps % n == 0 and n <= max(1, most))

    def begun(self, biases: Sequence[Value], pixels: int) -> list[Value]:
        """The biases of each pixel."""
        return list(biases) * pixels

    def added(self, sums: Sequence[Value], step: Step) -> list[Value]:
        """Pixel by pixel: the weights stay in registers."""
        done, pixels = list(sums), len(step.windows)
        count = len(sums) // pixels
        lanes = code.lanes_of(done[0]) * step.span
        weights = [step.weight(i, lanes) for i in range(count)]
        for p in range(pixels):
            x = _spread(step.image, step.place(p), step.span, lanes)
            for i, weight in enumerate(weights, p * count):
                done[i] = self.dot(done[i], x, weight)
        return done

    def ended(self, sums: Sequence[Value], _biases: Sequence[Value]) -> list[Value]:
        """They are it."""
        return list(sums)


def _spread(memory: Value, at: Index, count: int, lanes: int) -> Value:
    """`count` elements from memory side by side over and over, in `lanes` lanes."""
    elements = code.load(memory, at, count)
    name = code.element_of(memory)
    word = elements if count == 1 else code.view(elements, f"i{count * int(name[1:])}")
    return code.view(code.splat(code.lane(word, 0), lanes // count), name)
