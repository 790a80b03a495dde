"""Where precisions meet in a QUANTIZED module: casts, and results that are never rounded."""

from __future__ import annotations

from collections.abc import Iterator

from torch_mlir.dialects import func
from torch_mlir.ir import Operation, OpView, Value

from mlq.casts import Border
from mlq.dialect import bridge, build, functions, layers, quant
from mlq.dialect.locations import names_of
from mlq.dialect.ops import DequantizeOp, QuantizeOp, RequantizeOp, WeightOp

_CASTS: tuple[type[OpView], ...] = (QuantizeOp, DequantizeOp, RequantizeOp)
RESULT = "(result)"
"""Who reads what the network returns."""


def borders(module: Operation) -> tuple[Border, ...]:
    """Every border of the module's @main, in its order."""
    ops = functions.ops_of(functions.main_of(module))
    return tuple(border for op in ops for border in _borders_of(op))


def _borders_of(op: OpView) -> Iterator[Border]:
    if isinstance(op, _CASTS) and not isinstance(_owner(op.input), WeightOp):
        kind = str(op.operation.name).removeprefix("mlq.")
        yield _border(kind, op.input, op.output, list(_readers(op.output)))
    elif isinstance(op, layers.LAYERS) and quant.is_quantized(op.operation.operands[0].type):
        readers = list(_readers(op.output, stored_alike=True))
        if readers and not quant.is_quantized(op.output.type):
            yield _border("unrounded", op.output, op.output, readers, before="i32")


def _border(
    kind: str, value: Value, cast: Value, readers: list[OpView], *, before: str = ""
) -> Border:
    return Border(
        kind=kind,
        tensor=_name(value),
        producer=_name(_made(value)),
        consumers=tuple(dict.fromkeys(map(_called, readers))),
        before=before or quant.storage_name(value.type),
        after=quant.storage_name(cast.type),
    )


def _readers(value: Value, *, stored_alike: bool = False) -> Iterator[OpView]:
    """The ops that compute with a tensor, seen through those that move or cast it, in their order.

    With `stored_alike` only those that read it as it is stored.
    """
    for use in reversed(list(value.uses)):
        reader = use.owner.opview
        if not _passes(reader):
            yield reader
        elif not (stored_alike and isinstance(reader, _CASTS)):
            yield from _readers(reader.operation.results[0], stored_alike=stored_alike)


def _made(value: Value) -> Value:
    """The tensor that was computed, seen through ops that only move or cast one."""
    owner = _owner(value)
    if owner is None or not _passes(owner) or len(owner.operation.operands) > 1:
        return value
    return _made(owner.operation.operands[0])


def _passes(op: OpView) -> bool:
    moves = isinstance(op, (*layers.MOVES, *_CASTS))
    return moves or op.operation.name in {bridge.FROM, bridge.TO}


def _owner(value: Value) -> OpView | None:
    return None if layers.is_argument(value) else value.owner.opview


def _name(value: Value) -> str:
    """What a tensor is called: by its `mlq.name`, or after the ONNX node that made it."""
    known = layers.tensor_name(value)
    if known:
        return known
    made = _made(value)
    if made != value:
        return _name(made)
    owner = _owner(value)
    return "(input)" if owner is None else _called(owner)


def _called(op: OpView) -> str:
    if isinstance(op, func.ReturnOp):
        return RESULT
    known = build.name_of(op)
    return known or next(iter(names_of(op.location)), str(op.operation.name))
