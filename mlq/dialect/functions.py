"""Function bodies: cloning them, and giving a function other arguments and results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch_mlir.dialects import func
from torch_mlir.ir import (
    ArrayAttr,
    Attribute,
    Block,
    DictAttr,
    FunctionType,
    InsertionPoint,
    Location,
    Operation,
    OpView,
    StringAttr,
    TypeAttr,
    Value,
)

from mlq.errors import ContractError

Mapping = dict[Value, Value]


def main_of(module: Operation, name: str = "main") -> func.FuncOp:
    """The function of a network: the module's only public one with a body, `@main`; or another."""
    for op in module.regions[0].blocks[0].operations:
        if isinstance(op, func.FuncOp) and op.name.value == name:
            return op
    raise ContractError(f"the module has no function @{name}; is it a network that mlq imported?")


def keep_public(module: Operation, entry: str) -> None:
    """Make all functions private but `entry`, for symbol-dce to drop; all stay for an empty one.

    ContractError where there is no such function.
    """
    made = [op for op in module.regions[0].blocks[0].operations if isinstance(op, func.FuncOp)]
    if entry and entry not in [op.name.value for op in made]:
        raise ContractError(f"there is no function @{entry} to keep")
    for op in made:
        if entry and op.name.value != entry:
            op.attributes["sym_visibility"] = StringAttr.get("private")


def body_of(function: func.FuncOp) -> Block:
    """The single block of a function."""
    return function.regions[0].blocks[0]


def results_of(function: func.FuncOp) -> list[Value]:
    """What the function returns."""
    return list(return_of(function).operands)


def ops_of(function: func.FuncOp) -> list[OpView]:
    """The ops of a function without its return."""
    return list(body_of(function).operations)[:-1]


def clone_op(op: OpView, mapping: Mapping, others: dict[int, Value]) -> None:
    """Clone an op at the insertion point, on the mapped operands; `mapping` grows by its results.

    `others` are operands, by their place, that are to be others than the mapped ones. What the op's
    regions read of outside is mapped as well.
    """
    clone = op.operation.clone()
    for index, operand in enumerate(op.operation.operands):
        clone.operands[index] = others.get(index, mapping.get(operand, operand))
    for inner in _inside(clone):
        for index, operand in enumerate(inner.operands):
            if operand in mapping:
                inner.operands[index] = mapping[operand]
    mapping.update(zip(op.operation.results, clone.results, strict=True))


def read_by(op: OpView) -> Iterator[Value]:
    """What an op reads, and what its regions do."""
    for each in (op.operation, *_inside(op.operation)):
        yield from each.operands


def _inside(op: Operation) -> Iterator[Operation]:
    """All ops of the regions of an op."""
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield inner.operation
                yield from _inside(inner.operation)


def add_argument(function: func.FuncOp, type_: object, name: str) -> Value:
    """Append an argument called `name`."""
    argument = body_of(function).add_argument(type_, Location.unknown())
    known = list(function.attributes["arg_attrs"]) if "arg_attrs" in function.attributes else []
    count = len(function.type.inputs)
    known += [DictAttr.get({})] * (count - len(known))
    _retype(function, [*function.type.inputs, type_], function.type.results)
    named = DictAttr.get({"mlq.name": StringAttr.get(name)})
    function.attributes["arg_attrs"] = ArrayAttr.get([*known, named])
    return argument


def set_results(function: func.FuncOp, values: Sequence[Value]) -> None:
    """Make the function return `values` instead of what it returned."""
    last = return_of(function)
    with InsertionPoint(last), last.location:
        func.ReturnOp(list(values))
    last.operation.erase()
    _retype(function, function.type.inputs, [value.type for value in values])
    if "res_attrs" in function.attributes:
        del function.attributes["res_attrs"]


def strings(values: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> ArrayAttr:
    """Rows of strings as an attribute; how passes tell stages what results mean."""
    return ArrayAttr.get([ArrayAttr.get([StringAttr.get(text) for text in row]) for row in values])


def rows_of(attribute: Attribute) -> list[tuple[str, ...]]:
    """What `strings` wrote."""
    return [tuple(StringAttr(text).value for text in row) for row in ArrayAttr(attribute)]


def _retype(function: func.FuncOp, inputs: Sequence[object], results: Sequence[object]) -> None:
    type_ = FunctionType.get(list(inputs), list(results))
    function.attributes["function_type"] = TypeAttr.get(type_)


def return_of(function: func.FuncOp) -> OpView:
    """The function's last op."""
    return list(body_of(function).operations)[-1]
