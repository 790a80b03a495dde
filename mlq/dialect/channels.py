"""Which channels of a network can be scaled only together, and which not at all.

A positive factor on a channel passes through what moves elements, through pools, sums and relu; the
layers that make and read the channel can take it into their weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import OpView, Value

from mlq.dialect import bridge, build, functions, layers, norms
from mlq.dialect.ops import (
    ActivateOp,
    AddOp,
    AvgPool2dOp,
    ConcatOp,
    Conv2dOp,
    MatmulOp,
    MaxPool2dOp,
    PadOp,
    ReshapeOp,
    SliceOp,
    WeightOp,
)

_IMAGE_RANK = 4
Channels = NDArray[np.int64]
"""A number for each channel of a tensor; channels of one number have one factor."""


@dataclass(frozen=True)
class Layer:
    """A multiplication whose weight can take factors in: its name, and what it reads and makes.

    `inputs` has the channels in the order of the weight's groups, so that group g of G reads the
    g-th part of them.
    """

    name: str
    inputs: Channels
    outputs: Channels


@dataclass(frozen=True)
class Norm:
    """What scales and shifts a tensor's last axis: keys of weights [C] that take factors in."""

    weights: tuple[str, ...]
    outputs: Channels


@dataclass(frozen=True)
class Scaling:
    """The channels of a network by number.

    `layers` and `norms` make and read them. `fixed` [count] says which can have no factor but 1,
    `most` [count] what a channel is clipped to (infinity where nothing does); `tensors` are those
    that layers read, by name.
    """

    layers: tuple[Layer, ...]
    norms: tuple[Norm, ...]
    tensors: dict[str, Channels]
    fixed: NDArray[np.bool_] = field(repr=False)
    most: NDArray[np.float64] = field(repr=False)


def scaling(function: Any) -> Scaling:
    """Number the channels of a function at GRAPH, in NCHW."""
    walk = _Walk()
    for argument in functions.body_of(function).arguments:
        walk.fix(argument)
    for op in functions.ops_of(function):
        walk.follow(op)
    for value in functions.results_of(function):
        walk.fix(value)
    return walk.found()


class _Walk:
    """Channels so far: `parents` is a forest, whose roots are the channels that differ."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._fixed: set[int] = set()
        self._most: dict[int, float] = {}
        self._of: dict[Value, Channels] = {}
        self._layers: list[Layer] = []
        self._norms: list[Norm] = []
        self._tensors: dict[str, Channels] = {}

    def of(self, value: Value) -> Channels:
        """The channels of a tensor, new ones when it is seen for the first time."""
        if value not in self._of:
            self._of[value] = self._new(_count(value))
        return self._of[value]

    def fix(self, value: Value) -> None:
        """Let no channel of a tensor have a factor."""
        self._fixed.update(self.of(value).tolist())

    def follow(self, op: OpView) -> None:
        """Number what an op makes."""
        if layers.is_layer(op):
            for flow in layers.activations_of(op):
                name = layers.tensor_name(flow.value)
                if name is not None:
                    self._tensors[name] = self.of(flow.value)
        rule = _RULES.get(type(op))
        if rule is not None:
            rule(op, self)
            return
        if op.operation.name == bridge.TO and self._normed(op):
            return
        for value in (*op.operation.operands, *op.operation.results):
            if hasattr(value.type, "shape"):
                self.fix(value)

    def same(self, op: OpView, made: Channels | None = None) -> None:
        """The op's result has the channels of its first operand, or these."""
        self._of[op.operation.results[0]] = (
            self.of(op.operation.operands[0]) if made is None else made
        )

    def joined(self, one: Value, other: Value) -> None:
        """Two tensors that are added up have the same factors."""
        if list(one.type.shape) != list(other.type.shape):
            self.fix(one)
            self.fix(other)
            return
        for left, right in zip(self.of(one).tolist(), self.of(other).tolist(), strict=True):
            self._parents[self._root(left)] = self._root(right)

    def multiplied(self, op: OpView, read: Value, made: Value) -> None:
        """What is read and made is another matter, if the weight is the layer's own constant."""
        if layers.weight_key(layers.weight_of(op)) is None or not layers.is_layer(op):
            self.fix(read)
            self.fix(made)
            return
        self._layers.append(Layer(build.name_of(op) or "", self.of(read), self.of(made)))

    def _normed(self, op: OpView) -> bool:
        """Whether the op's result is that of a norm, whose constants take factors in."""
        made = op.operation.results[0]
        weights = norms.scaled_by(op.operation.operands[0])
        if weights is None or axis_of(len(build.shape_of(made))) != -1:
            return False
        self._norms.append(Norm(weights, self.of(made)))
        return True

    def clamped(self, op: OpView) -> None:
        """Only zero, and a bound above that no factor moves, may clamp what is scaled."""
        activation, made = build.Activation.of(op), op.operation.results[0]
        if activation.low not in (0.0, -inf) or activation.high <= 0.0:
            self.fix(made)
        elif activation.high < inf:
            for channel in self.of(made).tolist():
                self._most[channel] = min(activation.high, self._most.get(channel, inf))

    def padded(self, count: tuple[int, int], within: Channels) -> Channels:
        """Channels with new ones before and after, which have no factor."""
        before, after = (self._new(each) for each in count)
        self._fixed.update((*before.tolist(), *after.tolist()))
        return np.concatenate([before, within, after])

    def found(self) -> Scaling:
        """Everything, under one number for each root."""
        roots = np.array([self._root(each) for each in range(len(self._parents))], np.int64)
        _, number = np.unique(roots, return_inverse=True)
        count = int(number.max(initial=-1)) + 1
        fixed, most = np.zeros(count, np.bool_), np.full(count, inf)
        fixed[number[sorted(self._fixed)]] = True
        for channel, bound in self._most.items():
            most[number[channel]] = min(bound, most[number[channel]])
        return Scaling(
            tuple(
                Layer(each.name, number[each.inputs], number[each.outputs]) for each in self._layers
            ),
            tuple(Norm(each.weights, number[each.outputs]) for each in self._norms),
            {name: number[channels] for name, channels in self._tensors.items()},
            fixed,
            most,
        )

    def _new(self, count: int) -> Channels:
        first = len(self._parents)
        self._parents += range(first, first + count)
        return np.arange(first, first + count)

    def _root(self, channel: int) -> int:
        while self._parents[channel] != channel:
            self._parents[channel] = self._parents[self._parents[channel]]
            channel = self._parents[channel]
        return channel


def axis_of(rank: int) -> int:
    """The axis of the channels: 1 of an image in NCHW, else the last."""
    return 1 if rank == _IMAGE_RANK else -1


def _count(value: Value) -> int:
    """Channels of a tensor; 1 for a scalar, and where it is not known how many."""
    shape = build.shape_of(value)
    return max(shape[axis_of(len(shape))], 1) if shape else 1


def _conv2d(op: Any, walk: _Walk) -> None:
    walk.multiplied(op, op.input, op.output)
    _finish(op, walk)


def _matmul(op: Any, walk: _Walk) -> None:
    walk.multiplied(op, op.lhs, op.output)
    _finish(op, walk)


def _finish(op: Any, walk: _Walk) -> None:
    if op.residual is not None:
        walk.joined(op.residual, op.output)
    walk.clamped(op)


def _add(op: Any, walk: _Walk) -> None:
    walk.joined(op.lhs, op.rhs)
    walk.same(op)
    walk.clamped(op)


def _activate(op: Any, walk: _Walk) -> None:
    walk.same(op)
    walk.clamped(op)


def _concat(op: Any, walk: _Walk) -> None:
    rank = len(op.output.type.shape)
    if op.axis.value != axis_of(rank) % rank:
        for value in (op.lhs, op.rhs, op.output):
            walk.fix(value)
        return
    walk.same(op, np.concatenate([walk.of(op.lhs), walk.of(op.rhs)]))


def _reshape(op: Any, walk: _Walk) -> None:
    """[N, C, H, W] to [N, C H W]; other shapes mix channels."""
    before, after = build.shape_of(op.input), build.shape_of(op.output)
    if len(before) != _IMAGE_RANK or after[1:] != [prod(before[1:])]:
        walk.fix(op.input)
        walk.fix(op.output)
        return
    walk.same(op, np.repeat(walk.of(op.input), prod(before[2:])))


def _pad(op: Any, walk: _Walk) -> None:
    if op.value.value != 0.0 or len(list(op.low)) != _IMAGE_RANK:
        walk.fix(op.input)
        walk.fix(op.output)
        return
    walk.same(op, walk.padded((list(op.low)[1], list(op.high)[1]), walk.of(op.input)))


def _slice(op: Any, walk: _Walk) -> None:
    if len(list(op.offsets)) != _IMAGE_RANK:
        walk.fix(op.input)
        walk.fix(op.output)
        return
    first, size, step = (list(each)[1] for each in (op.offsets, op.sizes, op.strides))
    kept = walk.of(op.input)
    walk.same(op, kept if size < 0 else kept[first : first + (size - 1) * step + 1 : step])


_RULES: dict[type[OpView], Callable[[Any, _Walk], None]] = {
    ActivateOp: _activate,
    AddOp: _add,
    AvgPool2dOp: lambda op, walk: walk.same(op),
    ConcatOp: _concat,
    Conv2dOp: _conv2d,
    MatmulOp: _matmul,
    MaxPool2dOp: lambda op, walk: walk.same(op),
    PadOp: _pad,
    ReshapeOp: _reshape,
    SliceOp: _slice,
    WeightOp: lambda _op, _walk: None,
}
