"""How tiles add up products on 64-bit Arm, where registers of 16 bytes hold several words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.reduction import Dot, Step

_MOST = 30  # registers of sums, and of elements of two steps, which LLVM loads in pairs
_NEAR = 64  # vectors that the addresses of two at a time reach
_LOOP = 4  # instructions that go with an iteration, without pointers
_PAIRED = 8  # elements of a channel that a matrix product, or one of halves, takes


@dataclass(frozen=True)
class ByElement:
    """A register of each pixel, of which instructions take one word for all lanes (Arm)."""

    dot: Dot = field(repr=False, compare=False)
    depth: int
    ending: float = 0.0
    beyond: int = 0

    @property
    def spans(self) -> tuple[int, ...]:
        """Four words, or what is left of them."""
        return tuple(n * self.depth for n in (4, 2, 1))

    def word(self, _span: int) -> int:
        """A word of each channel."""
        return self.depth

    def registers(self, pixels: int, vectors: int) -> int:
        """Sums, elements, and one vector of weights."""
        return pixels * vectors + pixels + 1

    def effort(self, pixels: int, vectors: int, steps: int, pointers: int) -> tuple[float, float]:
        """Each pixel by each vector; weights are loaded in pairs."""
        unrolled = self.unrolled(pixels, vectors, steps)
        return pixels * vectors, vectors / 2 + _loads(pixels, unrolled, steps, pointers)

    def unrolled(self, pixels: int, vectors: int, steps: int) -> int:
        """As many as there are weights near enough; one where registers are scarce."""
        scarce = pixels * (vectors + 2) > _MOST
        return _divisor(steps, 1 if scarce else _NEAR // (4 * vectors))

    def begun(self, biases: Sequence[Value], pixels: int) -> list[Value]:
        """The biases of each pixel."""
        return list(biases) * pixels

    def added(self, sums: Sequence[Value], step: Step) -> list[Value]:
        """Weight by weight: in the other order LLVM keeps more of them than there are registers."""
        done, pixels = list(sums), step.pixels()
        count, lanes = len(sums) // len(pixels), code.lanes_of(done[0])
        for k in range(step.stored // self.depth):
            words = [_word(x, k, self.depth, lanes) for x in pixels]
            for i in range(count):
                weight = step.weight(k * count + i, lanes * self.depth)
                for p, x in enumerate(words):
                    done[p * count + i] = self.dot(done[p * count + i], x, weight)
        return done

    def ended(self, sums: Sequence[Value], _biases: Sequence[Value]) -> list[Value]:
        """They are it."""
        return list(sums)


@dataclass(frozen=True)
class Pairs:
    """Eight elements of two pixels by eight of two channels (Arm's matrix products).

    The last pixel is taken twice where there is no other.
    """

    dot: Dot = field(repr=False, compare=False)
    ending: float = 1.2
    beyond: int = 4

    @property
    def spans(self) -> tuple[int, ...]:
        """Two times eight, eight, or half of it."""
        return 16, _PAIRED, 4

    def word(self, _span: int) -> int:
        """Eight of each channel."""
        return _PAIRED

    def registers(self, pixels: int, vectors: int) -> int:
        """Sums, elements, those of pairs, and what LLVM loads early."""
        pairs = -(-pixels // 2)
        return 2 * pairs * vectors + pixels + pairs + 4

    def effort(self, pixels: int, vectors: int, steps: int, pointers: int) -> tuple[float, float]:
        """Each pair by each vector; weights are loaded in pairs, pixels joined."""
        pairs = -(-pixels // 2)
        loads = _loads(pixels, self.unrolled(pixels, vectors, steps), steps, pointers)
        return pairs * vectors, vectors / 2 + loads + pairs / 2

    def unrolled(self, pixels: int, vectors: int, steps: int) -> int:
        """As many as there are weights near enough; one where registers are scarce."""
        scarce = pixels * (vectors + 2) > _MOST
        return _divisor(steps, 1 if scarce else _NEAR // (4 * vectors))

    def begun(self, biases: Sequence[Value], pixels: int) -> list[Value]:
        """The biases of two channels, for two pixels."""
        halves = [
            code.shuffle(bias, bias, [first, first + 1] * 2) for bias in biases for first in (0, 2)
        ]
        return halves * -(-pixels // 2)

    def added(self, sums: Sequence[Value], step: Step) -> list[Value]:
        """Weight by weight."""
        done, loaded = list(sums), [_filled(x, _PAIRED) for x in step.pixels()]
        pairs = [(loaded[i], loaded[min(i + 1, len(loaded) - 1)]) for i in range(0, len(loaded), 2)]
        count, size = len(sums) // len(pairs), code.lanes_of(loaded[0])
        for k in range(0, step.stored, _PAIRED):
            mask = [side + k + i for side in (0, size) for i in range(_PAIRED)]
            joined = [code.shuffle(*pair, mask) for pair in pairs]
            for i in range(count):
                weight = step.weight(k // _PAIRED * count + i, 2 * _PAIRED)
                for p, x in enumerate(joined):
                    done[p * count + i] = self.dot(done[p * count + i], x, weight)
        return done

    def ended(self, sums: Sequence[Value], biases: Sequence[Value]) -> list[Value]:
        """Two pairs of channels side by side, pixel by pixel."""
        count, ended = 2 * len(biases), []
        for first in range(0, len(sums), count):
            pairs = [sums[first + i : first + i + 2] for i in range(0, count, 2)]
            # The second pixel first: LLVM then makes the first in place, without a copy.
            second = [code.shuffle(one, other, [2, 3, 6, 7]) for one, other in pairs]
            ended += [code.shuffle(one, other, [0, 1, 4, 5]) for one, other in pairs] + second
        return ended


@dataclass(frozen=True)
class Channels:
    """Sixteen elements of one pixel by as many of one channel, into four sums (plain NEON)."""

    dot: Dot = field(repr=False, compare=False)
    together: Callable[[Sequence[Value]], Value] = field(repr=False, compare=False)
    ending: float = 7.0
    beyond: int = 4

    @property
    def spans(self) -> tuple[int, ...]:
        """A register, a half, or half of it."""
        return 16, _PAIRED, 4

    def word(self, span: int) -> int:
        """All of a channel, as many as one product takes at least."""
        return max(span, _PAIRED)

    def registers(self, pixels: int, vectors: int) -> int:
        """Sums, elements, and weights that LLVM loads early."""
        return 4 * pixels * vectors + pixels + 8 * vectors + 1

    def effort(self, pixels: int, vectors: int, _steps: int, _pointers: int) -> tuple[float, float]:
        """Three instructions for sixteen elements; weights are loaded in pairs."""
        return 3 * pixels * vectors, vectors / 2 + pixels / 4 + (1 + _LOOP) / 4

    def unrolled(self, _pixels: int, _vectors: int, _steps: int) -> int:
        """One."""
        return 1

    def begun(self, biases: Sequence[Value], pixels: int) -> list[Value]:
        """Zeros for each channel."""
        zero = code.splat(code.constant(0, "i32"), code.lanes_of(biases[0]))
        return [zero] * (4 * len(biases) * pixels)

    def added(self, sums: Sequence[Value], step: Step) -> list[Value]:
        """Weight by weight."""
        done, pixels = list(sums), [_filled(x, _PAIRED) for x in step.pixels()]
        count = len(sums) // len(pixels)
        for i in range(count):
            weight = step.weight(i, code.lanes_of(pixels[0]))
            for p, x in enumerate(pixels):
                done[p * count + i] = self.dot(done[p * count + i], x, weight)
        return done

    def ended(self, sums: Sequence[Value], biases: Sequence[Value]) -> list[Value]:
        """Four sums of each channel become one, that of the channel."""
        fours = [self.together(sums[i : i + 4]) for i in range(0, len(sums), 4)]
        return [arith.addi(four, biases[i % len(biases)]) for i, four in enumerate(fours)]


def _loads(pixels: int, unrolled: int, steps: int, pointers: int) -> float:
    """Those of elements for each word, in pairs, and what moves pointers and closes a loop."""
    loop = _LOOP if unrolled < steps else 0
    return (pixels * -(-unrolled // 2) + pointers + loop) / (4 * unrolled)


def _divisor(number: int, most: int) -> int:
    """The greatest that is not above `most`."""
    return next(n for n in range(min(number, max(most, 1)), 0, -1) if number % n == 0)


def _filled(value: Value, least: int) -> Value:
    """A vector with zeros behind it, if it is shorter."""
    if code.lanes_of(value) >= least:
        return value
    zero = code.splat(code.constant(0, code.element_of(value)), least)
    return code.inserted(value, zero, 0)


def _word(value: Value, number: int, depth: int, lanes: int) -> Value:
    """A word of a vector in all lanes, as LLVM knows it for an instruction by element."""
    name = code.element_of(value)
    words = value if depth == 1 else code.view(value, f"i{depth * int(name[1:])}")
    return code.view(code.shuffle(words, words, [number] * lanes), name)
