"""Between builtin tensors, on which mlq ops work, and the torch types of ops mlq does not know."""

from __future__ import annotations

from torch_mlir.ir import (
    BlockArgument,
    InsertionPoint,
    Operation,
    OpView,
    RankedTensorType,
    Type,
    Value,
)

from mlq.dialect.shapes import DYNAMIC

FROM, TO = "torch_c.from_builtin_tensor", "torch_c.to_builtin_tensor"
_NONE = "torch.constant.none"


def builtin_of(vtensor: Type) -> RankedTensorType | None:
    """The builtin tensor type of `!torch.vtensor<[..], ..>`; None where the rank is unknown."""
    text = str(vtensor).removeprefix("!torch.vtensor<[").removesuffix(">")
    sizes, separator, element = text.rpartition("],")
    if not separator or "<" in sizes:
        return None
    if element.startswith(("si", "ui")):
        element = element[1:]  # builtin integers carry no sign
    shape = [DYNAMIC if size == "?" else int(size) for size in sizes.split(",") if size]
    return RankedTensorType.get(shape, Type.parse(element))


def vtensor_of(tensor: RankedTensorType) -> Type:
    """The torch type of a builtin tensor of floats."""
    sizes = ",".join("?" if size == DYNAMIC else str(size) for size in tensor.shape)
    return Type.parse(f"!torch.vtensor<[{sizes}],{tensor.element_type}>")


def to_builtin(value: Value) -> Value:
    """See a torch value as a builtin tensor; what was one before is found again."""
    behind = source(value, FROM)
    if behind is not None:
        return behind
    if isinstance(value, BlockArgument):
        return _create_to(value)
    # One bridge behind each op, under the op's name, serves all who come later.
    for use in value.uses:
        if use.owner.operation.name == TO:
            use.owner.operation.move_after(value.owner.operation)
            return use.owner.operation.result
    with InsertionPoint.after(value.owner), value.owner.location:
        return _create_to(value)


def from_builtin(value: Value) -> Value:
    """See a tensor of floats as a torch value."""
    vtensor = vtensor_of(value.type)
    return Operation.create(FROM, results=[vtensor], operands=[value]).result


def is_none(value: Value) -> bool:
    """Whether a torch value stands for an operand that an ONNX node leaves out."""
    return not isinstance(value, BlockArgument) and value.owner.operation.name == _NONE


def source(value: Value, bridge: str) -> Value | None:
    """What a value was before it went over the `bridge`; None if it did not."""
    if isinstance(value, BlockArgument) or value.owner.operation.name != bridge:
        return None
    return value.owner.operation.operands[0]


def cancel(bridge: OpView) -> None:
    """Take out a bridge that leads back where its operand came from.

    What stood there may know more of its sizes than the bridge did.
    """
    op = bridge.operation
    origin = source(op.operands[0], TO if op.name == FROM else FROM)
    if origin is not None:
        op.result.replace_all_uses_with(origin)
        op.erase()


def _create_to(value: Value) -> Value:
    return Operation.create(TO, results=[builtin_of(value.type)], operands=[value]).result
