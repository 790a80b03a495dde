"""A recurrent cell of floats over a whole sequence, step by step, as one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith, vector
from torch_mlir.ir import Value

from mlq.kernels import code, lanes
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.functions import sigmoid, tanh
from mlq.kernels.isa import Isa

Cell = Literal["LSTM", "GRU", "RNN"]
GATES: dict[Cell, int] = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""Products of a hidden unit, in ONNX's order: input, output, forget, cell; update, reset, new."""

_SUMS = 8  # that are added to at once: as many as hide how long an addition takes


@dataclass(frozen=True)
class Recurrence:
    """ONNX LSTM, GRU or RNN of `hidden` units, whose inputs were multiplied by weights before.

    Each of one or two directions and each of `batch` sequences has a workgroup of its own. A GRU
    resets what it multiplied (`linear_before_reset`); an RNN takes the hyperbolic tangent.
    """

    isa: Isa
    cell: Cell
    steps: int
    batch: int
    hidden: int
    directions: int = 1
    backwards: bool = False

    @property
    def label(self) -> str:
        """As `lstm_49x1x64`, of two directions `lstm_49x1x2x64`."""
        middle = "2x" if self.directions > 1 else "back_" if self.backwards else ""
        return f"{self.cell.lower()}_{self.steps}x{self.batch}x{middle}{self.hidden}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Products of the inputs, [T, N, D, gates, H]; weights, biases; states before; results."""
        counts = [
            self.steps * self.rows * self.gates * self.hidden,
            self.directions * self.vectors * self.hidden * self.gates * self.isa.lanes,
            self.directions * self.padded,
            self.rows * self.hidden,
            self.rows * self.hidden,
            self.made + 2 * self.rows * self.padded,
        ]
        return tuple(Buffer("f32", each) for each in counts)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Directions, and sequences."""
        return self.directions, self.batch, 1

    @property
    def gates(self) -> int:
        """Products of a hidden unit."""
        return GATES[self.cell]

    @property
    def rows(self) -> int:
        """States at a time: of each direction, of each sequence."""
        return self.directions * self.batch

    @property
    def vectors(self) -> int:
        """Vectors of hidden units, of which the last may not be full."""
        return -(-self.hidden // self.isa.lanes)

    @property
    def padded(self) -> int:
        """Hidden units in whole vectors: as the last states are written, behind all others."""
        return self.vectors * self.isa.lanes

    @property
    def made(self) -> int:
        """Elements of the hidden states of all steps: [T, D, N, H]."""
        return self.steps * self.rows * self.hidden

    def packed(self, weights: NDArray[Any]) -> NDArray[np.float32]:
        """Recurrent weights [D, gates * H, H] in the order in which they are read."""
        apart = weights.reshape(self.directions, self.gates, self.hidden, self.hidden)
        beyond = self.padded - self.hidden
        padded = np.pad(apart, [(0, 0), (0, 0), (0, beyond), (0, 0)])
        shape = self.directions, self.gates, self.vectors, self.isa.lanes, self.hidden
        return padded.reshape(shape).transpose(0, 2, 4, 1, 3).astype(np.float32).reshape(-1)

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup: states that were given, then step by step."""
        _Sequence(self, memory, group).emit()


class _Sequence:
    """One direction of one sequence."""

    def __init__(self, kernel: Recurrence, memory: Sequence[Value], group: Sequence[Index]) -> None:
        self.kernel = kernel
        self.inputs, self.weights, self.biases, *self.before, self.results = memory
        self.direction, self.sequence = group[:2]
        self.row = code.plus(code.times(self.direction, kernel.batch), self.sequence)
        first = code.times(self.row, kernel.padded)
        self.states = [
            code.plus(first, kernel.made + i * kernel.rows * kernel.padded) for i in (0, 1)
        ]

    def emit(self) -> None:
        for given, state in zip(self.before, self.states, strict=True):
            self._copy(given, code.times(self.row, self.kernel.hidden), state)
        code.loop(0, self.kernel.steps, 1, self._step)

    def _copy(self, source: Value, at: Index, state: Index) -> None:
        """Whole vectors of a state."""
        size = self.kernel.isa.lanes

        def vectors(first: Index, count: int) -> None:
            found = lanes.loaded(source, code.plus(at, first), count, size)
            code.store(found, self.results, code.plus(state, first))

        whole = self.kernel.hidden // size * size
        code.loop(0, whole, size, lambda i: vectors(i, size))
        if rest := self.kernel.hidden - whole:
            vectors(whole, rest)

    def _step(self, number: Index) -> None:
        kernel, last = self.kernel, self.kernel.steps - 1
        back = code.plus(last, code.times(number, -1))
        time = back if kernel.backwards else number
        if kernel.directions > 1:  # 0 forwards, 1 backwards
            turned = code.plus(back, code.times(number, -1))
            time = code.plus(number, code.times(self.direction, turned))
        width = kernel.gates * kernel.hidden
        read = code.plus(code.times(time, kernel.batch), self.sequence)
        read = code.plus(code.times(read, kernel.directions), self.direction)
        written = code.times(code.plus(code.times(time, kernel.rows), self.row), kernel.hidden)
        step = _Step(self, code.times(read, width), written)
        whole, at_once = kernel.hidden // kernel.isa.lanes, max(_SUMS // kernel.gates, 1)
        done = whole // at_once * at_once
        code.loop(0, done, at_once, lambda i: step.block(i, at_once))
        if whole > done:
            step.block(done, whole - done)
        if rest := kernel.hidden - whole * kernel.isa.lanes:
            step.block(whole, 1, rest)
        self._copy(self.results, written, self.states[0])


@dataclass(frozen=True)
class _Step:
    """One step: where its inputs are, and its hidden states will be."""

    of: _Sequence
    read: Index
    written: Index

    def block(self, first: Index, count: int, units: int | None = None) -> None:
        """So many vectors from the `first` on, or the first units of one vector."""
        kernel, size = self.of.kernel, self.of.kernel.isa.lanes
        units = size if units is None else units
        vectors = [code.plus(first, i) for i in range(count)]
        sums = self._products(vectors, [each for v in vectors for each in self._begun(v, units)])
        for i, place in enumerate(vectors):
            mine, at = sums[i * kernel.gates : (i + 1) * kernel.gates], code.times(place, size)
            made = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[kernel.cell](
                mine, at, units
            )
            code.store(made, self.of.results, code.plus(self.written, at), units)

    def _input(self, gate: int, at: Index, units: int) -> Value:
        place = code.plus(self.read, code.plus(at, gate * self.of.kernel.hidden))
        return lanes.loaded(self.of.inputs, place, units, self.of.kernel.isa.lanes)

    def _begun(self, number: Index, units: int) -> list[Value]:
        """What products with the last states are added to; of a GRU's new states, biases."""
        kernel, at = self.of.kernel, code.times(number, self.of.kernel.isa.lanes)
        if kernel.cell != "GRU":
            return [self._input(gate, at, units) for gate in range(kernel.gates)]
        place = code.plus(code.times(self.of.direction, kernel.padded), at)
        bias = code.load(self.of.biases, place, kernel.isa.lanes)
        return [self._input(0, at, units), self._input(1, at, units), bias]

    def _products(self, vectors: Sequence[Index], sums: Sequence[Value]) -> list[Value]:
        """Sums of all gates of these vectors, to which the last hidden states were added."""
        of, kernel, size = self.of, self.of.kernel, self.of.kernel.isa.lanes
        each = kernel.gates * size
        start = code.times(of.direction, kernel.vectors)
        places = [code.times(code.plus(start, v), kernel.hidden * each) for v in vectors]

        def unit(k: Index, *sums: Value) -> list[Value]:
            state = code.splat(code.scalar(of.results, code.plus(of.states[0], k)), size)
            at = [code.plus(place, code.times(k, each)) for place in places]
            weights = [
                code.load(of.weights, code.plus(a, g * size), size)
                for a in at
                for g in range(kernel.gates)
            ]
            return [vector.fma(state, w, s) for w, s in zip(weights, sums, strict=True)]

        return code.loop(0, kernel.hidden, 1, unit, sums)

    def _state(self, which: int, at: Index) -> tuple[Value, Index]:
        place = code.plus(self.of.states[which], at)
        return code.load(self.of.results, place, self.of.kernel.isa.lanes), place

    def _lstm(self, sums: Sequence[Value], at: Index, _units: int) -> Value:
        taken, shown, kept, new = sums
        cell, place = self._state(1, at)
        added = arith.mulf(sigmoid(taken), tanh(new))
        cell = vector.fma(sigmoid(kept), cell, added)
        code.store(cell, self.of.results, place)
        return arith.mulf(sigmoid(shown), tanh(cell))

    def _gru(self, sums: Sequence[Value], at: Index, units: int) -> Value:
        kept, reset, product = sums
        new = tanh(vector.fma(sigmoid(reset), product, self._input(2, at, units)))
        state, _ = self._state(0, at)
        return vector.fma(sigmoid(kept), arith.subf(state, new), new)

    def _rnn(self, sums: Sequence[Value], _at: Index, _units: int) -> Value:
        return tanh(sums[0])
