"""Calls of kernels, one after the other, as one call of a joined kernel where that is faster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Operation, RankedTensorType, Value

from mlq.dialect import functions
from mlq.kernels import code
from mlq.kernels.executable import Buffer, Executables
from mlq.kernels.gpu import joining
from mlq.kernels.gpu.isa import Gpu
from mlq.kernels.gpu.joining import Joined, Span, Step
from mlq.kernels.gpu.threads import Threaded
from mlq.kernels.library import Device
from mlq.transforms.kernels.images import constant
from mlq.transforms.kernels.places import ALIGNMENT, first_free, packed, rounded
from mlq.transforms.linalg.constants import Constant

_BUFFERS = 16  # that IREE takes


@dataclass(frozen=True)
class _Call:
    """A call of a kernel, and the kernel of one cluster's share of the batch."""

    made: Value
    kernel: Threaded
    share: Threaded

    @property
    def values(self) -> list[Value]:
        """What the buffers hold, in their order."""
        return [*list(self.made.owner.operands)[: len(self.kernel.buffers) - 1], self.made]


def join(module: Operation, executables: Executables, isa: Device) -> None:
    """Join calls in all functions, for a device whose workgroups can wait for each other."""
    if not isinstance(isa, Gpu) or not isa.cluster:
        return
    for function in [op for op in module.regions[0].blocks[0] if isinstance(op, func.FuncOp)]:
        _drop_unread(function, executables)
        clusters = joining.clusters_for(_batch_of(function))
        runs = list(_runs(function, executables, isa, clusters))
        for part in [part for run in runs for part in _parts(run, clusters)]:
            if len(part) > 1:
                _replace(part, executables, isa, clusters)


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
    function: func.FuncOp, executables: Executables, isa: Gpu, clusters: int
) -> Iterator[list[_Call]]:
    """Calls that had better be joined; nothing between reads what they make."""
    run: list[_Call] = []
    batch, room = _batch_of(function), joining.room_of(isa, clusters)
    for op in list(function.entry_block):
        made = next(iter(op.results), None)
        kernel = executables.made.get(made)
        share = kernel.share(batch, clusters, room) if isinstance(kernel, Threaded) else None
        if isinstance(kernel, Threaded) and share and joining.is_worth(kernel, share):
            run.append(_Call(made, kernel, share))
        elif any(value == call.made for value in functions.read_by(op) for call in run):
            yield run
            run = []
    yield run


def _parts(run: Sequence[_Call], clusters: int) -> Iterator[Sequence[_Call]]:
    """A run in parts, each of which has as many buffers as a kernel may have."""
    while run:
        count = len(run)
        while len(_Memory(run[:count], clusters).sizes) > _BUFFERS:
            count -= 1
        yield run[:count]
        run = run[count:]


def _replace(run: Sequence[_Call], executables: Executables, isa: Gpu, clusters: int) -> None:
    """Call the joined kernel; what others read of the run are its results."""
    memory = _Memory(run, clusters)
    joined = Joined(
        isa=isa,
        steps=tuple(memory.steps()),
        buffers=tuple(Buffer("i8", size) for size in memory.sizes),
        results=len(memory.results) + 1,
        clusters=clusters,
    )
    made, last = [call.made for call in run], run[-1].made.owner
    scratch = RankedTensorType.get([memory.sizes[-1]], code.element("i8"))
    types = [*(value.type for value in memory.results), scratch]
    with InsertionPoint(last), last.location:
        operands = [*memory.inputs, constant("joined", memory.constants)]
        found = executables.replace(made, joined, operands, *types)
    for old, new in zip(memory.results, found, strict=False):
        old.replace_all_uses_with(new)
    executables.erase(made)


class _Memory:
    """Where the values of a run are: its inputs, one buffer of constants, its results, scratch.

    Each cluster has a part of the scratch for itself, in which values take turns.
    """

    def __init__(self, run: Sequence[_Call], clusters: int) -> None:
        self._run = run
        inside = {call.made for call in run}
        last: dict[Value, int] = {}
        whole: dict[Value, int] = {}
        for i, call in enumerate(run):
            last |= dict.fromkeys(call.values, i)
            whole |= zip(call.values, (each.size for each in call.kernel.buffers), strict=True)
        outside = [value for value in whole if value not in inside]
        known = {value: each for value in outside if (each := Constant.of(value)) is not None}
        self.inputs = [value for value in outside if value not in known]
        self.results = [
            call.made
            for call in run
            if any(next(iter(use.owner.results), None) not in inside for use in call.made.uses)
        ]
        self._spans: dict[Value, Span] = {}
        for i, value in enumerate([*self.inputs, None, *self.results]):
            if value is not None:
                self._spans[value] = Span(i, 0, whole[value] // clusters)
        self.constants, firsts = packed(each.array for each in known.values())
        for value, first in zip(known, firsts, strict=True):
            self._spans[value] = Span(len(self.inputs), first, 0)
        own = self._scratch(last)
        ends = [whole[value] for value in self.results]
        inputs = [whole[value] for value in self.inputs]
        self.sizes = [*inputs, len(self.constants), *ends, own * clusters]

    def _scratch(self, last: dict[Value, int]) -> int:
        """Give each value the first free place of a cluster's scratch; how many bytes that is."""
        held: dict[Value, tuple[int, int]] = {}
        for i, call in enumerate(self._run):
            size = rounded(call.share.buffers[-1].size)
            first = first_free(size, (place for each, place in held.items() if last[each] >= i))
            if call.made not in self._spans:
                held[call.made] = first, first + size
        own = max((high for _, high in held.values()), default=ALIGNMENT)
        number = len(self.inputs) + 1 + len(self.results)
        self._spans |= {value: Span(number, first, own) for value, (first, _) in held.items()}
        return own

    def steps(self) -> Iterator[Step]:
        """The shares; one waits that reads what was written since, or writes what was touched."""
        touched: list[tuple[Span, int, bool]] = []
        for call in self._run:
            spans = tuple(self._spans[value] for value in call.values)
            sizes = (each.size for each in call.share.buffers)
            here = list(
                zip(spans, sizes, (value == call.made for value in call.values), strict=True)
            )
            waits = any(_collide(one, other) for one in touched for other in here)
            touched = here if waits else [*touched, *here]
            yield Step(call.share, spans, waits)


def _collide(one: tuple[Span, int, bool], other: tuple[Span, int, bool]) -> bool:
    """Whether two accesses, of which one writes, touch the same bytes of a buffer."""
    (left, size, writes), (right, more, also) = one, other
    apart = left.first + size <= right.first or right.first + more <= left.first
    return (writes or also) and left.buffer == right.buffer and not apart
