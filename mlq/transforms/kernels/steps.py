"""Many kernels as one executable: workers that are awake go from one kernel to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from torch_mlir.dialects import arith, func, memref, scf
from torch_mlir.ir import (
    FunctionType,
    IndexType,
    InsertionPoint,
    IntegerAttr,
    Location,
    MemRefType,
    Operation,
    OpView,
    StringAttr,
    TypeAttr,
    UnitAttr,
    Value,
)

from mlq.kernels import code
from mlq.kernels.executable import bound, defined, layout_of
from mlq.transforms.base import walk

_SUBSPAN, _PLACE = "hal.interface.binding.subspan", "hal.interface.workgroup.id"
_AXES = 3
_LINE = 16  # i32 of a line of the cache, so that one step's counts slow down no other's
_WORKERS = 16  # at most; those that come late find nothing left to do

COUNTS = 4 * _LINE
"""Bytes that count the workgroups of a step."""


@dataclass(frozen=True)
class Kernel:
    """An executable that can be a step: its function, its workgroups, what its buffers are."""

    source: OpView
    function: func.FuncOp
    grid: tuple[int, ...]
    buffers: tuple[MemRefType, ...]

    @classmethod
    def of(cls, source: OpView) -> Kernel | None:
        """None where sizes are only known at run time."""
        export, module, _ = source.operation.regions[0].blocks[0].operations
        count, (function,) = export.regions[0].blocks[0], module.regions[0].blocks[0]
        if len(count.arguments) > 1:
            return None
        *_, end = count.operations
        grid = tuple(_attribute(each.owner, "value") for each in end.operands)
        places = [op for op in walk(function.operation) if op.operation.name.startswith("hal.")]
        known = {op.operation.name for op in places} <= {_SUBSPAN, _PLACE}
        spans = [op.operation for op in places if op.operation.name == _SUBSPAN]
        buffers = {_attribute(op, "binding"): op.results[0].type for op in spans}
        if not known or sorted(buffers) != [*range(len(buffers))]:
            return None
        return cls(source, function, grid, tuple(buffers[i] for i in sorted(buffers)))

    @property
    def name(self) -> str:
        """Of its function."""
        return str(self.function.name.value)

    @property
    def groups(self) -> int:
        """All its workgroups."""
        return prod(self.grid)

    def define(self, name: str) -> None:
        """Write its function again: of its buffers and a workgroup's place."""
        made = self.function.operation.clone()
        types = [*self.buffers, *[IndexType.get()] * _AXES]
        block = made.regions[0].blocks[0]
        *memory, x, y, z = (block.add_argument(each, made.location) for each in types)
        for op in walk(made):
            if op.operation.name == _SUBSPAN:
                given = memory[_attribute(op.operation, "binding")]
            elif op.operation.name == _PLACE:
                given = (x, y, z)[_attribute(op.operation, "dimension")]
            else:
                continue
            op.operation.results[0].replace_all_uses_with(given)
            op.operation.erase()
        made.attributes["sym_name"] = StringAttr.get(name)
        made.attributes["sym_visibility"] = StringAttr.get("private")
        made.attributes["no_inline"] = UnitAttr.get()
        made.attributes["function_type"] = TypeAttr.get(FunctionType.get(types, []))


def _attribute(op: Operation, name: str) -> int:
    return int(IntegerAttr(op.attributes[name]).value)


@dataclass(frozen=True)
class Span:
    """Where a step's buffer is: in which of the bindings, from which byte on."""

    binding: int
    first: int


@dataclass(frozen=True)
class Step:
    """A kernel and where its buffers are."""

    kernel: Kernel
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Joined:
    """Steps one after the other, in each of which all workers take part.

    Bindings are of bytes: so many `reads`, then counts, zero at first, then what is written. A
    worker takes the next workgroup of a step that nobody has; if there is none, it waits for those
    that others have. It never waits for a worker that has not begun: there may be no other.
    """

    steps: tuple[Step, ...]
    sizes: tuple[int, ...]
    reads: int

    def define(self, name: str) -> None:
        """Write the executable."""
        layout = layout_of(self.reads, len(self.sizes) - self.reads)
        most = min(_WORKERS, max(step.kernel.groups for step in self.steps))
        with defined(name, layout, (most, 1, 1)):
            for each in {step.kernel.name: step.kernel for step in self.steps}.values():
                each.define(_within(name, each))
            function = func.FuncOp(name, ([], []))
            with InsertionPoint(function.add_entry_block()):
                self._emit(name, [bound(i, size, layout) for i, size in enumerate(self.sizes)])
                func.ReturnOp([])

    def _emit(self, name: str, memory: Sequence[Value]) -> None:
        """All steps, unless the last is done."""
        type_ = MemRefType.get([len(self.steps) * _LINE], code.element("i32"))
        counts = memref.view(type_, memory[self.reads], code.index(0), [])
        *_, last = turns = [
            _Turn(step, _within(name, step.kernel), counts, i * _LINE)
            for i, step in enumerate(self.steps)
        ]
        op = scf.IfOp(last.is_open()[0])
        with InsertionPoint(op.then_block):
            for turn in turns:
                turn.take(memory)
                if turn is not last:
                    _while(turn.is_open, lambda _done: None)
            scf.YieldOp([])


def _within(name: str, kernel: Kernel) -> str:
    """What a kernel's function is called in an executable: another may have it, too."""
    return f"{name}_{kernel.name}"


@dataclass(frozen=True)
class _Turn:
    """A step's turn, and where its counts are: of workgroups that were taken, and are done."""

    step: Step
    function: str
    counts: Value
    taken: int

    def is_open(self) -> tuple[Value, Value]:
        """Whether not all its workgroups are done, and how many are."""
        done = self._count(self.taken + 1, 0)
        return arith.cmpi(arith.CmpIPredicate.ne, done, self._limit()), done

    def take(self, memory: Sequence[Value]) -> None:
        """Compute one workgroup after the other, as long as there are any that nobody has."""
        kernel = self.step.kernel
        buffers = [
            memref.view(type_, memory[span.binding], code.index(span.first), [])
            for type_, span in zip(kernel.buffers, self.step.spans, strict=True)
        ]

        def next_one() -> tuple[Value, Value]:
            number = self._count(self.taken, 1)
            return arith.cmpi(arith.CmpIPredicate.ult, number, self._limit()), number

        def compute(number: Value) -> None:
            rest, x = code.split(arith.index_cast(IndexType.get(), number), kernel.grid[0])
            z, y = code.split(rest, kernel.grid[1])
            func.CallOp([], self.function, [*buffers, *map(code.index, (x, y, z))])
            self._count(self.taken + 1, 1)

        _while(next_one, compute)

    def _limit(self) -> Value:
        return code.constant(self.step.kernel.groups, "i32")

    def _count(self, place: int, more: int) -> Value:
        """Add to a count; what it was before. All see what was written before they see the sum."""
        return memref.atomic_rmw(
            arith.AtomicRMWKind.addi, code.constant(more, "i32"), self.counts, [code.index(place)]
        )


def _while(condition: Callable[[], tuple[Value, Value]], body: Callable[[Value], None]) -> None:
    """As long as a condition holds, `body` of the number that comes with it."""
    number = code.element("i32")
    op = scf.WhileOp([number], [])
    with InsertionPoint(op.before.blocks.append()):
        holds, value = condition()
        scf.ConditionOp(holds, [value])
    block = op.after.blocks.append(number, arg_locs=[Location.current])
    with InsertionPoint(block):
        body(block.arguments[0])
        scf.YieldOp([])
