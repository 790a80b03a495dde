"""Reads the commands of a network from IREE's program at the end of its phase `hal`.

There a network of known sizes is a straight list: dispatch these workgroups of that kernel on those
buffers; fill; copy. Nothing is left to compute but constants.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mlq.errors import CompileError
from mlq.targets.program import Copy, Dispatch, Fill, Program, Span, Tensor

_RESOURCE = re.compile(r'^\s+(?:"([^"]+)"|([\w.$-]+)): "0x([0-9A-Fa-f]*)"', re.MULTILINE)
_MAIN, _VIEW = "main", "!hal.buffer_view"
_ALIGNMENT_BYTES = 8  # hexadecimal digits of a resource's alignment, before its content
_ELEMENTS = {
    "f32": "float32",
    "i8": "int8",
    "ui8": "uint8",
    "si8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
}


def read_program(text: str) -> Program:
    """The commands of `@main` in a module at the end of phase `hal`."""
    from iree.compiler import ir

    resources = {a or b: bytes.fromhex(c[_ALIGNMENT_BYTES:]) for a, b, c in _RESOURCE.findall(text)}
    with ir.Context(), ir.Location.unknown():
        module = ir.Module.parse(text)
        reader = _Reader(resources)
        for op in module.body.operations:
            if op.operation.name == "util.initializer" and _stores_buffer(op):
                reader.run(op)
        named = {
            ir.StringAttr(op.attributes["sym_name"]).value: op
            for op in module.body.operations
            if op.operation.name == "util.func"
        }
        # The calls stand in the function, or in the one that it calls and waits for.
        reader.run(named.get(f"{_MAIN}$async", named[_MAIN]))
    return reader.finished()


def _stores_buffer(op: Any) -> bool:
    return any(
        each.operation.name == "util.global.store"
        and str(each.operation.operands[0].type) == "!hal.buffer"
        for block in op.regions[0].blocks
        for each in block.operations
    )


class _Reader:
    """Follows one path through a function; whatever has no entry below has no part in it."""

    def __init__(self, resources: Mapping[str, bytes]) -> None:
        self.program = Program()
        self._resources = resources
        self._globals: dict[str, Any] = {}
        self._inputs: dict[int, Tensor] = {}
        self._arguments = 0
        self._values: dict[Any, Any] = {}

    def run(self, function: Any) -> None:
        blocks = list(function.regions[0].blocks)
        block = blocks[0]
        for index, argument in enumerate(block.arguments):
            self._values[argument] = index
        self._arguments = sum(str(each.type) == _VIEW for each in block.arguments)
        while block is not None:
            block = self._follow(block)

    def finished(self) -> Program:
        """The program, its inputs in the order of the function's arguments."""
        for index in range(self._arguments):
            if index not in self._inputs:
                raise CompileError(f"input {index} is never read; a program has no place for it")
            self.program.inputs.append(self._inputs[index])
        return self.program

    def _follow(self, block: Any) -> Any:
        """Read a block; the one that it goes on to, None at the end."""
        for op in block.operations:
            name = op.operation.name
            if name in {"cf.br", "cf.cond_br"}:
                return self._branch(op)
            step = _STEPS.get(name)
            if step is not None:
                step(self, op)
            elif name not in _IGNORED:
                raise CompileError(f"a program without runtime cannot do {name} (IREE's op)")
        return None

    def _branch(self, op: Any) -> Any:
        operands = list(op.operation.operands)
        if op.operation.name == "cf.br":
            return self._enter(op.operation.successors[0], operands)
        sizes = _segments(op)
        taken = bool(self._values[operands[0]])
        passed = operands[1 : 1 + sizes[1]] if taken else operands[1 + sizes[1] :]
        return self._enter(op.operation.successors[0 if taken else 1], passed)

    def _enter(self, block: Any, passed: Sequence[Any]) -> Any:
        for argument, value in zip(block.arguments, passed, strict=True):
            self._values[argument] = self._values.get(value)
        return block

    def _get(self, op: Any) -> list[Any]:
        return [self._values.get(operand) for operand in op.operation.operands]

    def _set(self, op: Any, *values: Any) -> None:
        for result, value in zip(op.operation.results, values, strict=False):
            self._values[result] = value

    def constant(self, op: Any) -> None:
        value = op.attributes["value"]
        self._set(op, getattr(value, "value", None))

    def load(self, op: Any) -> None:
        self._set(op, self._globals.get(_symbol(op)))

    def store(self, op: Any) -> None:
        self._globals[_symbol(op)] = self._get(op)[0]

    def bytes_of(self, op: Any) -> None:
        self._set(op, b"".join(_pieces(op.attributes["value"], self._resources)))

    def import_(self, op: Any) -> None:
        source, offset, length = self._get(op)[-3:]
        span = self.program.buffer(length)
        self.program.constants[span.buffer] = source[offset : offset + length]
        self._set(op, True, span)  # noqa: FBT003 -- the op's own flag: the import succeeded

    def allocate(self, op: Any) -> None:
        self._set(op, self.program.buffer(self._get(op)[-1]))

    def same(self, op: Any) -> None:
        self._set(op, *self._get(op))

    def checked(self, op: Any) -> None:
        """An input: the shape that it is checked for is the one it has."""
        index, element, _, *shape = self._get(op)
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(element).itemsize
        self._inputs[index] = Tensor(self.program.buffer(size), tuple(shape), element)

    def input(self, op: Any) -> None:
        self._set(op, self._inputs[self._get(op)[0]].span)

    def part(self, op: Any) -> None:
        span, offset, length = self._get(op)
        self._set(op, _part(span, offset, length))

    def element(self, op: Any) -> None:
        from iree.compiler import ir

        type_ = str(ir.TypeAttr(op.attributes["type"]).value)
        if type_ not in _ELEMENTS:
            raise CompileError(f"a program without runtime has no inputs or results of {type_}")
        self._set(op, _ELEMENTS[type_])

    def kernel(self, op: Any) -> None:
        self._set(op, str(op.attributes["entry_point"]).rpartition("::@")[2].strip('"'))

    def dispatch(self, op: Any) -> None:
        groups = _grouped(self._get(op), _segments(op))
        (kernel,), *counts = groups[2:6]
        constants, buffers, offsets, lengths = groups[6:10]
        spans = tuple(map(_part, buffers, offsets, lengths))
        x, y, z = (count[0] for count in counts)
        self.program.commands.append(Dispatch(kernel, (x, y, z), tuple(constants), spans))

    def fill(self, op: Any) -> None:
        buffer, offset, length, pattern = self._get(op)[-4:]
        width = list(op.operation.operands)[-1].type.width // 8
        raw = (pattern % (1 << 8 * width)).to_bytes(width, "little")
        self.program.commands.append(Fill(_part(buffer, offset, length), raw))

    def copy(self, op: Any) -> None:
        source, source_offset, target, offset, length = self._get(op)[-5:]
        self.program.commands.append(
            Copy(_part(source, source_offset, length), _part(target, offset, length))
        )

    def view(self, op: Any) -> None:
        span, offset, length, element, _, *shape = self._get(op)
        self._set(op, Tensor(_part(span, offset, length), tuple(shape), element))

    def result(self, op: Any) -> None:
        """Results: what was made, or inputs as they came; an initializer has none."""
        self.program.outputs += [
            each if isinstance(each, Tensor) else self._inputs[each] for each in self._get(op)
        ]


_STEPS = {
    "arith.constant": _Reader.constant,
    "util.global.load": _Reader.load,
    "util.global.store": _Reader.store,
    "util.buffer.constant": _Reader.bytes_of,
    "util.optimization_barrier": _Reader.same,
    "util.return": _Reader.result,
    "hal.allocator.import": _Reader.import_,
    "hal.allocator.allocate": _Reader.allocate,
    "hal.device.queue.alloca": _Reader.allocate,
    "hal.buffer_view.assert": _Reader.checked,
    "hal.buffer_view.buffer": _Reader.input,
    "hal.buffer_view.create": _Reader.view,
    "hal.buffer.subspan": _Reader.part,
    "hal.element_type": _Reader.element,
    "hal.executable.lookup.function": _Reader.kernel,
    "hal.command_buffer.dispatch": _Reader.dispatch,
    "hal.command_buffer.fill_buffer": _Reader.fill,
    "hal.command_buffer.copy_buffer": _Reader.copy,
    "hal.device.queue.copy": _Reader.copy,
    "hal.device.queue.fill": _Reader.fill,
}
# Devices, fences and the order of commands, which here is that of the text.
_IGNORED = {
    "hal.buffer.assert",
    "hal.buffer_usage",
    "hal.command_buffer.create",
    "hal.command_buffer.execution_barrier",
    "hal.command_buffer.finalize",
    "hal.device.allocator",
    "hal.device.queue.barrier",
    "hal.device.queue.dealloca",
    "hal.device.queue.execute",
    "hal.encoding_type",
    "hal.fence.await",
    "hal.fence.create",
    "hal.fence.join",
    "hal.memory_type",
    "util.null",
    "util.status.check_ok",
}


def _part(span: Span, offset: int, length: int) -> Span:
    return Span(span.buffer, span.offset + offset, length)


def _symbol(op: Any) -> str:
    return str(op.attributes["global"])


def _segments(op: Any) -> list[int]:
    from iree.compiler import ir

    return list(ir.DenseI32ArrayAttr(op.attributes["operandSegmentSizes"]))


def _grouped(values: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    rest = iter(values)
    return [[next(rest) for _ in range(size)] for size in sizes]


def _pieces(attribute: Any, resources: Mapping[str, bytes]) -> Iterator[bytes]:
    """The bytes of a constant, piece by piece where it is composed of several."""
    text = str(attribute)
    composed = re.fullmatch(r"#util\.composite<\d+xi8, \[(.*)\]>", text, re.DOTALL)
    pieces = [text] if composed is None else _split(composed[1])
    for piece in pieces:
        yield _bytes_of(piece, resources)


def _split(text: str) -> Iterator[str]:
    """Attributes one to a line, as the printer has them."""
    for line in text.splitlines():
        if piece := line.strip().rstrip(","):
            yield piece


def _bytes_of(piece: str, resources: Mapping[str, bytes]) -> bytes:
    from iree.compiler import ir

    named = re.match(r'dense_resource<(?:"([^"]+)"|([^>]+))>', piece)
    if named is not None:
        return resources[named[1] or named[2]]
    return np.ascontiguousarray(np.array(ir.DenseElementsAttr(ir.Attribute.parse(piece)))).tobytes()
