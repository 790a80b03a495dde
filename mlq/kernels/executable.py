"""A kernel as `hal.executable.source`, a call of it as `flow.dispatch`; IREE's ops, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch_mlir.dialects import func
from torch_mlir.ir import (
    ArrayAttr,
    Attribute,
    DenseI32ArrayAttr,
    IndexType,
    InsertionPoint,
    IntegerAttr,
    Location,
    MemRefType,
    Operation,
    StringAttr,
    SymbolRefAttr,
    Type,
    Value,
)

from mlq.kernels import code
from mlq.kernels.code import Index

_ALIGNMENT = 64
_AXES = 3


@dataclass(frozen=True)
class Buffer:
    """What a kernel reads or writes: so many elements of a type."""

    element: str
    count: int


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
class Threads(Protocol):
    """A kernel whose workgroups have threads: its code is that of one thread."""

    @property
    def attributes(self) -> dict[str, Attribute]:
        """What the compiler must know of its function."""


class Executables:
    """The kernels that a module calls; its code gets there with the first call."""

    def __init__(self, module: Operation) -> None:
        self._top = module.regions[0].blocks[0]
        self._symbols: dict[Kernel, str] = {}
        self.calls: list[tuple[str, str]] = []

    def dispatch(
        self, kernel: Kernel, operands: Sequence[Value], result: Type, caller: str = ""
    ) -> Value:
        """Call a kernel on tensors, whatever their shapes: it knows where elements are.

        `calls` remembers for which layer, the `caller`, it was.
        """
        name = self._symbol(kernel)
        self.calls.append((caller, name))
        attributes = {
            "entry_points": ArrayAttr.get([SymbolRefAttr.get([name, name])]),
            "operandSegmentSizes": DenseI32ArrayAttr.get([0, len(operands), 0, 0]),
        }
        made = Operation.create(
            "flow.dispatch", results=[result], operands=list(operands), attributes=attributes
        )
        return made.result

    def _symbol(self, kernel: Kernel) -> str:
        """The kernel's name, with a number where another kernel has its label."""
        if kernel not in self._symbols:
            alike = sum(other.label == kernel.label for other in self._symbols)
            name = f"{kernel.label}_{alike + 1}" if alike else kernel.label
            with InsertionPoint.at_block_begin(self._top), Location.name(name):
                _define(kernel, name)
            self._symbols[kernel] = name
        return self._symbols[kernel]


def _define(kernel: Kernel, name: str) -> None:
    layout = _layout(kernel)
    visible = {"sym_name": StringAttr.get(name), "sym_visibility": StringAttr.get("private")}
    source = Operation.create("hal.executable.source", attributes=visible, regions=1)
    with InsertionPoint(source.regions[0].blocks.append()):
        visible = {"sym_name": StringAttr.get(name), "sym_visibility": StringAttr.get("public")}
        export = Operation.create(
            "hal.executable.export", attributes={**visible, "layout": layout}, regions=2
        )
        device = Type.parse("!hal.device")
        count = export.regions[0].blocks.append(device, arg_locs=[Location.current])
        with InsertionPoint(count):
            Operation.create("hal.return", operands=[code.index(n) for n in kernel.grid])
        inner = Operation.create("builtin.module", regions=1)
        with InsertionPoint(inner.regions[0].blocks.append()):
            _function(kernel, name, layout)
        Operation.create("hal.executable.source_end")


def _function(kernel: Kernel, name: str, layout: Attribute) -> None:
    function = func.FuncOp(name, ([], []))
    if isinstance(kernel, Threads):
        for key, value in kernel.attributes.items():
            function.attributes[key] = value
    with InsertionPoint(function.add_entry_block()):
        memory = [_bound(i, buffer, layout) for i, buffer in enumerate(kernel.buffers)]
        group = [_identity(axis) if kernel.grid[axis] > 1 else 0 for axis in range(_AXES)]
        kernel.emit(memory, group)
        func.ReturnOp([])


def _bound(number: int, buffer: Buffer, layout: Attribute) -> Value:
    count = IndexType.get()
    return Operation.create(
        "hal.interface.binding.subspan",
        results=[MemRefType.get([buffer.count], code.element(buffer.element))],
        operands=[code.index(0)],
        attributes={
            "layout": layout,
            "binding": IntegerAttr.get(count, number),
            "alignment": IntegerAttr.get(count, _ALIGNMENT),
            "operandSegmentSizes": DenseI32ArrayAttr.get([1, 0]),
        },
    ).result


def _identity(axis: int) -> Value:
    return Operation.create(
        "hal.interface.workgroup.id",
        results=[IndexType.get()],
        attributes={"dimension": IntegerAttr.get(IndexType.get(), axis)},
    ).result


def _layout(kernel: Kernel) -> Attribute:
    read = "#hal.pipeline.binding<storage_buffer, ReadOnly>"
    bindings = [read] * (len(kernel.buffers) - 1) + ["#hal.pipeline.binding<storage_buffer>"]
    return Attribute.parse(f"#hal.pipeline.layout<bindings = [{', '.join(bindings)}]>")
