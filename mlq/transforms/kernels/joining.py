"""Calls of kernels, one after the other, as one call of a joined kernel where that is faster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Operation, RankedTensorType, Value

from mlq.kernels import code
from mlq.kernels.executable import Buffer, Executables
from mlq.kernels.gpu import joining
from mlq.kernels.gpu.isa import Gpu
from mlq.kernels.gpu.joining import Joined, Span, Step, size_of
from mlq.kernels.gpu.planning import Room
from mlq.kernels.gpu.threads import Threaded
from mlq.kernels.library import Device
from mlq.transforms.kernels.images import constant
from mlq.transforms.linalg.constants import Constant

_ALIGNMENT = 64  # bytes


@dataclass(frozen=True)
class _Call:
    """A call, by its result, of a kernel; and the kernel of one cluster's share of the batch."""

    made: Value
    kernel: Threaded
    share: Threaded

    @property
    def values(self) -> list[Value]:
        """What its buffers hold, in their order."""
        return [*list(self.made.owner.operands)[: len(self.share.buffers) - 1], self.made]


def join(module: Operation, executables: Executables, isa: Device) -> None:
    """Join calls in all functions, for a device whose workgroups can wait for each other."""
    if not isinstance(isa, Gpu) or not isa.cluster:
        return
    for function in module.regions[0].blocks[0]:
        if isinstance(function, func.FuncOp) and not function.is_external:
            _drop_unread(function, executables)
            clusters = joining.clusters_for(_batch_of(function))
            room = joining.room_of(isa, clusters)
            for run in list(_runs(function, executables, clusters, room)):
                last = run[-1].made.owner
                with InsertionPoint(last), last.location:
                    _replace(run, executables, isa, clusters)


def _drop_unread(function: func.FuncOp, executables: Executables) -> None:
    """Erase what other ops would see of images that only kernels read."""
    for op in reversed(list(function.entry_block)):
        unread = op.results and not any(list(result.uses) for result in op.results)
        if unread and op.results[0] not in executables.made:
            op.erase()


def _batch_of(function: func.FuncOp) -> int:
    """The first size of the first input."""
    shapes = [each.shape for each in function.type.inputs if isinstance(each, RankedTensorType)]
    return int(shapes[0][0]) if shapes and shapes[0] else 1


def _runs(
    function: func.FuncOp, executables: Executables, clusters: int, room: Room
) -> Iterator[list[_Call]]:
    """Calls, two at least, between which nothing reads what they make."""
    run: list[_Call] = []
    batch = _batch_of(function)
    for op in list(function.entry_block):
        made = next(iter(op.results), None)
        kernel = None if made is None else executables.made.get(made)
        share = kernel.share(batch, clusters, room) if isinstance(kernel, Threaded) else None
        call = None
        if share is not None and joining.is_worth(kernel, share):
            call = _Call(made, kernel, share)
        if call is not None:
            run.append(call)
        elif any(each.made in list(op.operands) for each in run):
            if len(run) > 1:
                yield run
            run = []
    if len(run) > 1:
        yield run


def _replace(
    run: Sequence[_Call], executables: Executables, isa: Gpu, clusters: int
) -> None:
    """Call the joined kernel; what others read of the run are its results."""
    memory = _Memory(run, clusters)
    joined = Joined(
        isa=isa,
        steps=tuple(memory.steps()),
        buffers=tuple(Buffer("i8", size) for size in memory.sizes),
        results=len(memory.results) + 1,
        clusters=clusters,
    )
    made = [call.made for call in run]
    scratch = RankedTensorType.get([memory.sizes[-1]], code.element("i8"))
    types = [*(value.type for value in memory.results), scratch]
    operands = [*memory.inputs, constant("joined", memory.constants)]
    found = executables.replace(made, joined, operands, *types)
    for old, new in zip(memory.results, found, strict=False):
        old.replace_all_uses_with(new)
    executables.erase(made)


class _Memory:
    """Where a run's values lie: inputs, all constants in one, results, and a place of each cluster.

    In that, values take turns.
    """

    def __init__(self, run: Sequence[_Call], clusters: int) -> None:
        self._run, self._clusters = run, clusters
        inside = {call.made for call in run}
        reads = {value: call for call in run for value in call.values}
        self._last = {value: run.index(call) for value, call in reads.items()}
        outside = [value for value in reads if value not in inside]
        known = {value: found for value in outside if (found := Constant.of(value)) is not None}
        self.inputs = [value for value in outside if value not in known]
        self.results = [each.made for each in run if any(_user(u) not in inside for u in each.made.uses)]
        packed, self._firsts = _packed([each.array for each in known.values()])
        self.constants = packed
        self._firsts = dict(zip(known, self._firsts, strict=True))
        self._scratch, self._apart = self._arranged()

    @property
    def sizes(self) -> list[int]:
        """Bytes of each buffer."""
        whole = {v: size_of(b) for call in self._run for v, b in zip(call.values, call.kernel.buffers, strict=True)}
        ends = [whole[value] for value in self.results]
        inputs = [whole[value] for value in self.inputs]
        return [*inputs, len(self.constants), *ends, max(_ALIGNMENT, self._apart * self._clusters)]

    def steps(self) -> Iterator[Step]:
        """The shares; one waits if it touches what was written, or writes what was touched, since."""
        touched: list[tuple[Span, int, bool]] = []
        for call in self._run:
            buffers = zip(call.values, call.share.buffers, strict=True)
            here = [(self._span(v, b), size_of(b), v == call.made) for v, b in buffers]
            waits = any(_collide(one, other) for one in touched for other in here)
            touched = here if waits else [*touched, *here]
            yield Step(call.share, tuple(span for span, *_ in here), waits)

    def _span(self, value: Value, buffer: Buffer) -> Span:
        if value in self._firsts:
            return Span(len(self.inputs), self._firsts[value], 0)
        if value in self._scratch:
            return Span(len(self.sizes) - 1, self._scratch[value], self._apart)
        number = self.inputs.index(value) if value in self.inputs else len(self.inputs) + 1 + self.results.index(value)
        return Span(number, 0, size_of(buffer))

    def _arranged(self) -> tuple[dict[Value, int], int]:
        """Where in a cluster's place each value begins, the first that is free; and its size."""
        held: dict[Value, tuple[int, int]] = {}
        for i, call in enumerate(self._run):
            if call.made in self.results:
                continue
            size = -(-size_of(call.share.buffers[-1]) // _ALIGNMENT) * _ALIGNMENT
            busy = sorted(place for value, place in held.items() if self._last[value] >= i)
            first = 0
            for low, high in busy:
                if first + size <= low:
                    break
                first = max(first, high)
            held[call.made] = first, first + size
        end = max((high for _, high in held.values()), default=0)
        return {value: low for value, (low, _) in held.items()}, end


def _packed(arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], list[int]]:
    """The bytes of arrays one after the other, and where each begins."""
    raw = [np.ascontiguousarray(each).reshape(-1).view(np.int8) for each in arrays]
    filled = [np.pad(each, (0, -len(each) % _ALIGNMENT)) for each in raw]
    firsts = np.cumsum([0, *map(len, filled)])[:-1].tolist()
    return np.concatenate([*filled, np.zeros(0, np.int8)]), firsts


def _collide(one: tuple[Span, int, bool], other: tuple[Span, int, bool]) -> bool:
    """Whether two accesses, of which one writes, touch the same bytes of a buffer."""
    (left, size, writes), (right, more, also) = one, other
    apart = left.first + size <= right.first or right.first + more <= left.first
    return (writes or also) and left.buffer == right.buffer and not apart


def _user(use: Any) -> Value | None:
    return next(iter(use.owner.results), None)
