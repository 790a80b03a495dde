"""An ONNX node as raising sees it: attributes, constants and shapes as Python values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import (
    ArrayAttr,
    Attribute,
    F32Type,
    FloatAttr,
    IntegerAttr,
    OpView,
    RankedTensorType,
    StringAttr,
    Value,
)

from mlq.dialect import bridge, shapes
from mlq.transforms import constants

_ATTRIBUTE = "torch.onnx."


class UnsupportedNodeError(Exception):
    """A node that mlq has no op for; the message says why, in words for the user."""


def unsupported(reason: str) -> NoReturn:
    """Give up raising a node, for `reason`."""
    raise UnsupportedNodeError(reason)


@dataclass(frozen=True)
class Node:
    """A `torch.operator "onnx.X"`; `UnsupportedNodeError` comes out of what it cannot answer."""

    op: OpView

    @property
    def kind(self) -> str:
        """The ONNX operator: "Conv", "Relu", ..."""
        return kind_of(self.op) or ""

    def attribute(self, name: str, default: Any) -> Any:
        """A node attribute as a Python value, `default` where the node does not say."""
        attributes = self.op.operation.attributes
        key = _ATTRIBUTE + name
        return _python(attributes[key]) if key in attributes else default

    def has(self, index: int) -> bool:
        """Whether the node has this operand; ONNX may leave out optional ones."""
        operands = self.op.operation.operands
        return index < len(operands) and str(operands[index].type) != "!torch.none"

    def operand(self, index: int) -> Value:
        """The operand, of torch type."""
        return self.op.operation.operands[index]

    def array(self, index: int, what: str) -> NDArray[Any]:
        """The operand's constant."""
        found = constants.array_of(self.operand(index))
        return unsupported(f"its {what} is computed at run time") if found is None else found

    def integers(self, name: str, index: int) -> list[int] | None:
        """Integers that newer opsets take as operand and older ones as attribute."""
        if self.has(index):
            return [int(i) for i in np.ravel(self.array(index, name))]
        values = self.attribute(name, None)
        return [values] if isinstance(values, int) else values

    def tensor(self, index: int = 0) -> RankedTensorType:
        """The type of an activation operand: floats of known rank."""
        return _floats(self.operand(index), "input")

    def shape(self, index: int = 0) -> list[int]:
        """The shape of an activation operand; only axis 0, the batch, may be dynamic."""
        shape = list(self.tensor(index).shape)
        if shapes.DYNAMIC in shape[1:]:
            unsupported(
                "a size other than the batch is known only at run time, unless --sizes says it"
            )
        return shape

    def result_shape(self) -> list[int] | None:
        """The shape that shape inference gave the result; None where it found no rank."""
        declared = bridge.builtin_of(self.op.operation.results[0].type)
        return None if declared is None else list(declared.shape)

    def activation(self, index: int = 0) -> Value:
        """An activation operand as a builtin tensor of floats."""
        value = self.operand(index)
        _floats(value, "input")
        if constants.array_of(value) is not None:
            unsupported("an input of it is a constant")
        return bridge.to_builtin(value)


def kind_of(op: OpView) -> str | None:
    """The ONNX operator behind a `torch.operator`; None for other ops."""
    operation = op.operation
    if operation.name != "torch.operator":
        return None
    return str(StringAttr(operation.attributes["name"]).value).removeprefix("onnx.")


def _floats(value: Value, what: str) -> RankedTensorType:
    found = bridge.builtin_of(value.type)
    if found is None:
        unsupported(f"the rank of its {what} is known only at run time")
    if not isinstance(found.element_type, F32Type):
        unsupported(f"its {what} is of {found.element_type}, not of 32-bit floats")
    return found


def _python(attribute: Attribute) -> Any:
    if isinstance(attribute, ArrayAttr):
        return [_python(each) for each in attribute]
    if isinstance(attribute, (IntegerAttr, FloatAttr, StringAttr)):
        return attribute.value
    return attribute
