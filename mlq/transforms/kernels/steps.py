"""Many kernels as one executable: workers that are awake go from one kernel to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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

from mlq.kernels import code, grain
from mlq.kernels.code import Index
from mlq.kernels.executable import bound, defined, layout_of
from mlq.transforms.base import walk

_SUBSPAN, _PLACE = "hal.interface.binding.subspan", "hal.interface.workgroup.id"
_AXES = 3
_LINE = 8  # i64 of a line of the cache, so that one step's counts slow down no other's
_WORKERS = 16  # at most; those that come late find nothing left to do
# What was taken from the first on, from the last on, and what is done: from which bit of a count.
_COUNT, _END, _DONE = "i64", 20, 40
_ARRIVED = 1  # in the first step's line: how many workers have come
_MOST = (1 << _END) - _WORKERS  # workgroups that can be counted: each worker asks once too often

COUNTS = 8 * _LINE
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
        """None where sizes are only known at run time, or there are too many workgroups."""
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
        if not known or sorted(buffers) != [*range(len(buffers))] or prod(grid) > _MOST:
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
    that others have. It never waits for a worker that has not begun: there may be no other. Every
    other worker begins at the last workgroup, so that each finds in its cache what it made.
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
        type_ = MemRefType.get([len(self.steps) * _LINE], code.element(_COUNT))
        counts = memref.view(type_, memory[self.reads], code.index(0), [])
        *_, last = turns = [
            _Turn(step, _within(name, step.kernel), counts, i * _LINE)
            for i, step in enumerate(self.steps)
        ]
        op = scf.IfOp(last.is_open())
        with InsertionPoint(op.then_block):
            # Workgroups come to workers in no order that is known.
            number = turns[0].count(_number(1), _ARRIVED)
            is_odd = arith.trunci(code.element("i1"), number)
            for turn in turns:
                turn.take(memory, is_odd)
                if turn is not last:
                    _spin_while(turn.is_open)
            scf.YieldOp([])


def _within(name: str, kernel: Kernel) -> str:
    """What a kernel's function is called in an executable: another may have it, too."""
    return f"{name}_{kernel.name}"


@dataclass(frozen=True)
class _Turn:
    """A step's turn, and where its count is: of what was taken from either end, and what is done.

    A worker counts what it takes and what it has done since at once, with one number that says
    from which end: lines of the cache that it shares with others are far.
    """

    step: Step
    function: str
    counts: Value
    place: int

    def is_open(self) -> Value:
        """Whether not all its workgroups are done."""
        done = arith.shrui(self.count(_number(0)), _number(_DONE))
        return arith.cmpi(arith.CmpIPredicate.ne, done, self._limit())

    def take(self, memory: Sequence[Value], is_odd: Value) -> None:
        """Compute one workgroup after the other, as long as there are any that nobody has."""
        kernel = self.step.kernel
        buffers = [
            memref.view(type_, memory[span.binding], code.index(span.first), [])
            for type_, span in zip(kernel.buffers, self.step.spans, strict=True)
        ]
        one = arith.select(is_odd, _number(1 << _END), _number(1))
        one_more = arith.addi(one, _number(1 << _DONE))

        def compute(number: Value) -> Value:
            place: Index = arith.index_cast(IndexType.get(), number)
            group: list[Index] = [0] * _AXES
            for axis in grain.order(kernel.grid):
                place, group[axis] = code.split(place, kernel.grid[axis])
            group[2] = place
            func.CallOp([], self.function, [*buffers, *map(code.index, group)])
            return one_more

        _while(partial(self._next, is_odd), compute, one)

    def _next(self, is_odd: Value, more: Value) -> tuple[Value, Value]:
        """Whether there is a workgroup that nobody has, and which."""
        count, field = self.count(more), _number((1 << _END) - 1)
        low, high = arith.andi(count, field), arith.andi(arith.shrui(count, _number(_END)), field)
        behind = arith.subi(self._limit(), high)
        number = arith.select(is_odd, arith.subi(behind, _number(1)), low)
        return arith.cmpi(arith.CmpIPredicate.slt, low, behind), number

    def _limit(self) -> Value:
        return _number(self.step.kernel.groups)

    def count(self, more: Value, which: int = 0) -> Value:
        """Add to the count; what it was before. All see what was written before they see a sum."""
        return memref.atomic_rmw(
            arith.AtomicRMWKind.addi, more, self.counts, [code.index(self.place + which)]
        )


def _number(value: int) -> Value:
    return code.constant(value, _COUNT)


def _while(
    condition: Callable[[Value], tuple[Value, Value]], body: Callable[[Value], Value], first: Value
) -> None:
    """As long as a condition on a number holds, `body` of what comes with it makes the next."""
    number = code.element(_COUNT)
    op = scf.WhileOp([number], [first])
    before = op.before.blocks.append(number, arg_locs=[Location.current])
    with InsertionPoint(before):
        holds, value = condition(*before.arguments)
        scf.ConditionOp(holds, [value])
    after = op.after.blocks.append(number, arg_locs=[Location.current])
    with InsertionPoint(after):
        scf.YieldOp([body(*after.arguments)])


def _spin_while(condition: Callable[[], Value]) -> None:
    op = scf.WhileOp([], [])
    with InsertionPoint(op.before.blocks.append()):
        scf.ConditionOp(condition(), [])
    with InsertionPoint(op.after.blocks.append()):
        scf.YieldOp([])
