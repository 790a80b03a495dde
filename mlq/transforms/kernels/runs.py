"""Runs of dispatches that one can take the place of, and where their values lie then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

from numpy.typing import NDArray
from torch_mlir.dialects import func
from torch_mlir.ir import (
    ArrayAttr,
    Block,
    DenseI32ArrayAttr,
    FlatSymbolRefAttr,
    IndexType,
    InsertionPoint,
    IntegerAttr,
    Operation,
    OpView,
    RankedTensorType,
    StringAttr,
    SymbolRefAttr,
    Value,
)

from mlq.dialect import functions, weights
from mlq.kernels import code
from mlq.kernels.executable import dispatch
from mlq.transforms import lower_weights
from mlq.transforms.base import walk
from mlq.transforms.kernels.places import ALIGNMENT, first_free, packed, rounded
from mlq.transforms.kernels.steps import COUNTS, Joined, Kernel, Span, Step

DISPATCH, GLOBAL, LOAD = "flow.dispatch", "util.global", "util.global.load"
_RESHAPES = ("tensor.expand_shape", "tensor.collapse_shape")
_SMALL = 1 << 18  # bytes of a constant that is copied beside others; what is larger stays by itself
_BINDINGS = 32  # that IREE takes

Known = Mapping[Value, NDArray[Any]]
"""Constants that may be put together, by the value that is one."""


@dataclass(frozen=True)
class Call:
    """A dispatch of a kernel that can be a step."""

    op: OpView
    kernel: Kernel

    @property
    def made(self) -> Value:
        """Its one result."""
        return self.op.operation.results[0]

    @property
    def values(self) -> list[Value]:
        """What its buffers hold."""
        return [*self.op.operation.operands, self.made]


def callee(op: OpView) -> str:
    """The executable of a dispatch."""
    (entry,) = op.operation.attributes["entry_points"]
    return str(SymbolRefAttr(entry).value[0])


def symbol(op: OpView) -> str:
    """The symbol of a global or an executable."""
    return str(StringAttr(op.operation.attributes["sym_name"]).value)


def loaded(op: OpView) -> str:
    """The global that is loaded."""
    return str(FlatSymbolRefAttr(op.operation.attributes["global"]).value)


def constants(module: Operation) -> Known:
    """Small parameters whose values are known, by where they are loaded."""
    store = weights.current()
    keys = {symbol(op): lower_weights.key_of(op) for op in walk(module, GLOBAL)}
    loads = {op.operation.results[0]: keys[loaded(op)] for op in walk(module, LOAD)}
    arrays = {value: store[key] for value, key in loads.items() if key and key in store}
    return {value: array for value, array in arrays.items() if array.nbytes <= _SMALL}


def bypass_reshapes(module: Operation) -> None:
    """Have dispatches read what they read of tensors before these were reshaped: the same bytes.

    For what else reads them, tensors are reshaped where it does.
    """
    for op in walk(module, DISPATCH):
        for i, value in enumerate(op.operation.operands):
            op.operation.operands[i] = _behind(value)
    reshapes = [op.operation for op in walk(module) if op.operation.name in _RESHAPES]
    for op in reversed(reshapes):
        readers = [use.owner.operation for use in op.results[0].uses]
        if not readers:
            op.erase()
        elif all(reader.block == op.block for reader in readers):
            op.move_before(reduce(lambda a, b: a if a.is_before_in_block(b) else b, readers))


def _behind(value: Value) -> Value:
    """What a tensor of known sizes was before it was reshaped."""
    owner = value.owner
    if isinstance(owner, Block) or owner.name not in _RESHAPES:
        return value
    source = owner.operands[0]
    return _behind(source) if RankedTensorType(source.type).has_static_shape else value


def found(
    function: func.FuncOp, kernels: Mapping[str, Kernel | None], known: Known
) -> Iterator[Sequence[Call]]:
    """Dispatches that can be one, each run as long as bindings allow."""
    for run in list(_dependent(function, kernels)):
        first = 0
        while first < len(run):
            end = len(run)
            while end > first + 1 and len(Memory(run[first:end], known).sizes) > _BINDINGS:
                end -= 1
            yield run[first:end]
            first = end


def _dependent(function: func.FuncOp, kernels: Mapping[str, Kernel | None]) -> Iterator[list[Call]]:
    """Dispatches; nothing between reads what they make."""
    run: list[Call] = []
    made: set[Value] = set()
    for op in function.entry_block.operations:
        kernel = kernels.get(callee(op)) if op.operation.name == DISPATCH else None
        if kernel is not None and _is_static(op):
            run.append(Call(op, kernel))
            made.add(run[-1].made)
        elif not made.isdisjoint(functions.read_by(op)):
            yield run
            run, made = [], set()
    yield run


def _is_static(op: OpView) -> bool:
    """Whether all sizes are known, and one result."""
    grid, _, *dynamic = DenseI32ArrayAttr(op.operation.attributes["operandSegmentSizes"])
    return not grid and not any(dynamic) and len(op.operation.results) == 1


def _bytes(value: Value) -> int:
    type_ = RankedTensorType(value.type)
    return int(prod(type_.shape)) * int(str(type_.element_type)[1:]) // 8


class Memory:
    """What a run reads and makes: inputs, one buffer of constants, counts, results, scratch."""

    def __init__(self, run: Sequence[Call], known: Known) -> None:
        made, ops = {call.made for call in run}, {call.op.operation for call in run}
        last: dict[Value, int] = {}
        for i, call in enumerate(run):
            last |= dict.fromkeys(call.values, i)
        outside = [value for value in last if value not in made]
        together = [value for value in outside if value in known]
        self.inputs = [value for value in outside if value not in known]
        self.constants, firsts = packed(known[value] for value in together)
        self.results = [
            call.made for call in run if {use.owner.operation for use in call.made.uses} - ops
        ]
        reads = len(self.inputs) + bool(together)
        spans = {value: Span(i, 0) for i, value in enumerate(self.inputs)}
        spans |= {v: Span(reads - 1, first) for v, first in zip(together, firsts, strict=True)}
        spans |= {value: Span(reads + 1 + i, 0) for i, value in enumerate(self.results)}
        held: dict[Value, tuple[int, int]] = {}
        for i, call in enumerate(run):
            if call.made not in spans:
                size = rounded(_bytes(call.made))
                first = first_free(size, (held[each] for each in held if last[each] >= i))
                held[call.made] = first, first + size
        scratch = max((end for _, end in held.values()), default=ALIGNMENT)
        number = reads + 1 + len(self.results)
        spans |= {value: Span(number, first) for value, (first, _) in held.items()}
        read = [*map(_bytes, self.inputs), *[len(self.constants)] * bool(together)]
        self.sizes = (*read, len(run) * COUNTS, *map(_bytes, self.results), scratch)
        steps = [Step(call.kernel, tuple(spans[value] for value in call.values)) for call in run]
        self.joined = Joined(tuple(steps), self.sizes, reads)


def replace(run: Sequence[Call], known: Known, name: str, top: Block) -> None:
    """Dispatch the joined kernels; what others read of the run are its results."""
    memory = Memory(run, known)
    counts, scratch = (_type_of(memory.sizes[i]) for i in (memory.joined.reads, -1))
    read, last = list(memory.inputs), run[-1].op.operation
    with last.location:
        with InsertionPoint.at_block_begin(top):
            memory.joined.define(name)
            if together := _type_of(len(memory.constants)) if len(memory.constants) else None:
                key = weights.current().keep(f"{name}.constants", memory.constants)
                lower_weights.declare(f"{name}_constants", key, together)
        with InsertionPoint(last):
            if together:
                read.append(lower_weights.load(f"{name}_constants", together))
            zero = code.constant(0, "i8")
            zeros = Operation.create("flow.tensor.splat", results=[counts], operands=[zero])
            types = [*(value.type for value in memory.results), scratch, counts]
            made = dispatch(name, [*read, zeros.result], types)
            made.attributes["tied_operands"] = _tied(len(types), len(read))
    for old, new in zip(memory.results, made.results, strict=False):
        old.replace_all_uses_with(new)
    for call in reversed(run):
        call.op.operation.erase()


def _type_of(count: int) -> RankedTensorType:
    return RankedTensorType.get([count], code.element("i8"))


def _tied(results: int, operand: int) -> ArrayAttr:
    """The last result takes the place of an operand."""
    numbers = [-1] * (results - 1) + [operand]
    return ArrayAttr.get([IntegerAttr.get(IndexType.get(), each) for each in numbers])
