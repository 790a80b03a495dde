"""A kernel as `hal.executable.source`, a call of it as `flow.dispatch`; IREE's ops, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch_mlir.dialects import arith, func, tensor
from torch_mlir.ir import (
    ArrayAttr,
    Attribute,
    Block,
    DenseI32ArrayAttr,
    IndexType,
    InsertionPoint,
    IntegerAttr,
    Location,
    MemRefType,
    Operation,
    ShapedType,
    StringAttr,
    SymbolRefAttr,
    Type,
    Value,
)

from mlq.kernels import code, sized
from mlq.kernels.code import Index
from mlq.kernels.sized import Size, Sized

_ALIGNMENT = 64
_AXES = 3
# The axis of a grid along which images lie.
_IMAGES = 2
# Elements of a buffer whose size is known at run time: at most so many.
_ENOUGH = 1 << 30


@dataclass(frozen=True)
class Buffer:
    """What a kernel reads or writes: so many elements of a type."""

    element: str
    count: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * int(self.element[1:]) // 8


# What fills a margin, twice: a constant of one element would become part of IREE's `main`, which
# then copies it to a GPU, and records all that follows anew, in each call.
MARGIN_VALUE = Buffer("i32", 2)


class Kernel(Protocol):
    """A description of one kernel: equal descriptions are one kernel."""

    @property
    def label(self) -> str:
        """What it computes, as a part of a symbol."""

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """What it reads, and last what it writes."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Workgroups along three axes; none waits for another."""

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of workgroup `group` on `memory`, a flat memref for each buffer."""


@runtime_checkable
class Several(Protocol):
    """A kernel that makes several results."""

    @property
    def results(self) -> int:
        """How many of its buffers, the last ones, it writes."""


@runtime_checkable
class Threads(Protocol):
    """A kernel whose workgroups have threads: its code is that of one thread."""

    @property
    def attributes(self) -> dict[str, Attribute]:
        """What the compiler must know of its function."""


class Executables:
    """The kernels that a module calls; its code gets there with the first call."""

    def __init__(self, module: Operation) -> None:
        self._top = module.regions[0].blocks[0]
        self._symbols: dict[tuple[Kernel, bool], str] = {}
        self._block: Block | None = None
        self._numbers: dict[tuple[int, str], Value] = {}
        self.calls: list[tuple[str, str]] = []
        self.made: dict[Value, Kernel] = {}
        self._sources: dict[str, Operation] = {}

    def dispatch(
        self,
        kernel: Kernel,
        operands: Sequence[Value],
        result: Type,
        caller: str = "",
        *,
        workers: Value | None = None,
    ) -> Value:
        """Call a kernel on tensors, whatever their shapes: it knows where elements are.

        One whose sizes are known at run time gets them as well, and its grid. Where the first axis
        of `result` is dynamic, the kernel is that of one sample and called for as many. With
        `workers` there are so many along the first axis: none leave the result undefined. `calls`
        remembers for which layer, the `caller`, it was; `made`, which kernel made a result.
        """
        many = result.is_dynamic_dim(0)
        name = self._symbol(sized.form(kernel), many=many)
        self.calls.append((caller, name))
        sizes = [self._number(number, "i32") for number in sized.numbers(kernel)]
        grid = [self._number(number, "index") for number in kernel.grid if sizes]
        if workers is not None and grid:
            grid[0] = workers
        batches = [each for each in operands if each.type.is_dynamic_dim(0)]
        counts = [tensor.dim(each, code.index(0)) for each in batches]
        if many:
            grid[_IMAGES:] = [code.index(code.times(counts[0], kernel.grid[_IMAGES]))]
        segments = [len(grid), len(sizes) + len(operands), len(counts), int(many)]
        given = [*grid, *sizes, *operands, *counts, *counts[:1]]
        made = dispatch(name, given, [result], segments).result
        self.made[made] = kernel
        return made

    def replace(
        self, calls: Sequence[Value], kernel: Kernel, operands: Sequence[Value], *results: Type
    ) -> list[Value]:
        """Call a kernel of several results, which takes over what `calls` do."""
        name, old = self._symbol(kernel, many=False), {_callee(call) for call in calls}
        made = dispatch(name, operands, results)
        self.calls = [(layer, name if each in old else each) for layer, each in self.calls]
        return list(made.results)

    def erase(self, calls: Sequence[Value]) -> None:
        """Erase calls that nothing reads, and the kernels that are called no more."""
        gone = {_callee(call) for call in calls}
        for call in reversed(calls):
            del self.made[call]
            call.owner.erase()
        for name in sorted(gone - {_callee(call) for call in self.made}):
            self._sources.pop(name).erase()
            self._symbols = {key: each for key, each in self._symbols.items() if each != name}

    def _number(self, number: int, name: str) -> Value:
        """A constant at the beginning of the function, the same one for all its calls."""
        block = InsertionPoint.current.block
        if self._block is None or block != self._block:
            self._block, self._numbers = block, {}
        if (number, name) not in self._numbers:
            with InsertionPoint.at_block_begin(block):
                made = code.index(number) if name == "index" else code.constant(number, name)
            self._numbers[number, name] = made
        return self._numbers[number, name]

    def _symbol(self, kernel: Kernel, *, many: bool) -> str:
        """The kernel's name, with a number where another kernel has its label."""
        if (kernel, many) not in self._symbols:
            alike = sum(other.label == kernel.label for other, _ in self._symbols)
            name = f"{kernel.label}_{alike + 1}" if alike else kernel.label
            with InsertionPoint.at_block_begin(self._top), Location.name(name):
                self._sources[name] = _define(kernel, name, many=many)
            self._symbols[kernel, many] = name
        return self._symbols[kernel, many]


def dispatch(
    name: str, given: Sequence[Value], results: Sequence[Type], segments: Sequence[int] = ()
) -> Operation:
    """Call an executable; all that is given are its operands, but for what `segments` say."""
    attributes = {
        "entry_points": ArrayAttr.get([SymbolRefAttr.get([name, name])]),
        "operandSegmentSizes": DenseI32ArrayAttr.get([*segments] or [0, len(given), 0, 0]),
    }
    return Operation.create("flow.dispatch", list(results), list(given), attributes)


def _callee(call: Value) -> str:
    """The kernel that made a result."""
    (entry,) = call.owner.attributes["entry_points"]
    return str(entry.value[0])


def _define(kernel: Kernel, name: str, *, many: bool) -> Operation:
    results = kernel.results if isinstance(kernel, Several) else 1
    reads, count = len(kernel.buffers) - results, len(sized.numbers(kernel))
    layout = layout_of(reads, results, constants=count)
    grid = [None if i in _given_axes(kernel, many=many) else n for i, n in enumerate(kernel.grid)]
    with defined(name, layout, grid) as source:
        _function(kernel, name, layout, many=many)
    return source


@contextmanager
def defined(name: str, layout: Attribute, grid: Sequence[int | None]) -> Iterator[Operation]:
    """An executable whose functions are written meanwhile; None is what calls say of a grid."""
    names = {"sym_name": StringAttr.get(name), "sym_visibility": StringAttr.get("private")}
    source = Operation.create("hal.executable.source", attributes=names, regions=1)
    with InsertionPoint(source.regions[0].blocks.append()):
        names |= {"sym_visibility": StringAttr.get("public"), "layout": layout}
        export = Operation.create("hal.executable.export", attributes=names, regions=2)
        types = [Type.parse("!hal.device"), *(IndexType.get() for n in grid if n is None)]
        count = export.regions[0].blocks.append(*types, arg_locs=[Location.current] * len(types))
        with InsertionPoint(count):
            given = iter(list(count.arguments)[1:])
            sizes = [next(given) if n is None else code.index(n) for n in grid]
            Operation.create("hal.return", operands=sizes)
        inner = Operation.create("builtin.module", regions=1)
        with InsertionPoint(inner.regions[0].blocks.append()):
            yield source
        Operation.create("hal.executable.source_end")


def _given_axes(kernel: Kernel, *, many: bool) -> range:
    """The axes of a kernel's grid of which calls say how long they are."""
    return range(0 if isinstance(kernel, Sized) else _IMAGES if many else _AXES, _AXES)


def _function(kernel: Kernel, name: str, layout: Attribute, *, many: bool) -> None:
    function = func.FuncOp(name, ([], []))
    if isinstance(kernel, Threads):
        for key, value in kernel.attributes.items():
            function.attributes[key] = value
    with InsertionPoint(function.add_entry_block()):
        sizes = [_given(i, layout) for i in range(len(sized.numbers(kernel)))]
        given = _given_axes(kernel, many=many)
        known, buffers = not given, enumerate(kernel.buffers)
        memory = [_bound(i, buffer, layout, is_known=known) for i, buffer in buffers]
        group = [_place("id", i) if i in given or n > 1 else 0 for i, n in enumerate(kernel.grid)]
        sized.filled(kernel, iter(sizes)).emit(memory, group)
        func.ReturnOp([])


def _given(number: int, layout: Attribute) -> Size:
    """A size that comes with a call."""
    place = IntegerAttr.get(IndexType.get(), number)
    word = Operation.create(
        "hal.interface.constant.load",
        results=[code.element("i32")],
        attributes={"layout": layout, "ordinal": place},
    )
    return Size(arith.index_castui(IndexType.get(), word.result))


def _bound(number: int, buffer: Buffer, layout: Attribute, *, is_known: bool) -> Value:
    count = IndexType.get()
    size = buffer.count if is_known else ShapedType.get_dynamic_size()
    return Operation.create(
        "hal.interface.binding.subspan",
        results=[MemRefType.get([size], code.element(buffer.element))],
        operands=[code.index(0), *[code.index(_ENOUGH)] * (not is_known)],
        attributes={
            "layout": layout,
            "binding": IntegerAttr.get(count, number),
            "alignment": IntegerAttr.get(count, _ALIGNMENT),
            "operandSegmentSizes": DenseI32ArrayAttr.get([1, int(not is_known)]),
        },
    ).result


def bound(number: int, size: int, layout: Attribute) -> Value:
    """The memory of a binding, of so many bytes."""
    return _bound(number, Buffer("i8", size), layout, is_known=True)


def workers() -> list[Value]:
    """Workgroups along each axis, of a kernel that is told its grid with each call."""
    return [_place("count", axis) for axis in range(_AXES)]


def _place(what: str, axis: int) -> Value:
    return Operation.create(
        f"hal.interface.workgroup.{what}",
        results=[IndexType.get()],
        attributes={"dimension": IntegerAttr.get(IndexType.get(), axis)},
    ).result


def layout_of(reads: int, writes: int, *, constants: int = 0) -> Attribute:
    """Bindings that a kernel reads, then those that it writes; numbers that come with a call."""
    # Indirect, as IREE's own: commands are recorded once, not by each call for its buffers.
    kinds = ['"ReadOnly|Indirect"'] * reads + ["Indirect"] * writes
    each = ", ".join(f"#hal.pipeline.binding<storage_buffer, {kind}>" for kind in kinds)
    listed = f"constants = {constants}, bindings" if constants else "bindings"
    return Attribute.parse(f"#hal.pipeline.layout<{listed} = [{each}], flags = Indirect>")
