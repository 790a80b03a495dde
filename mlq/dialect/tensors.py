"""Types and values of tensors in few words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch_mlir.ir import F32Type, InsertionPoint, OpView, RankedTensorType, StringAttr, Type, Value

from mlq.dialect import shapes
from mlq.dialect.attributes import NAME


def tensor(shape: Sequence[int], element: Type | None = None) -> RankedTensorType:
    """A tensor type, of f32 unless told otherwise."""
    return RankedTensorType.get(list(shape), element or F32Type.get())


def named(value: Value, name: str | None) -> Value:
    """Give the op behind `value` its `mlq.name`."""
    if name is not None:
        value.owner.attributes[NAME] = StringAttr.get(name)
    return value


def shape_of(value: Value) -> list[int]:
    """The shape of a tensor value; `shapes.DYNAMIC` where it is not known."""
    return list(value.type.shape)


def elements_of(value: Value) -> int:
    """The number of elements of a tensor, a dynamic axis counted as one."""
    return shapes.elements(shape_of(value))


def element_of(value: Value) -> Type:
    """The element type of a tensor value."""
    return value.type.element_type


@contextmanager
def after(op: OpView) -> Iterator[None]:
    """Insert after `op`, at its location."""
    with InsertionPoint.after(op), op.location:
        yield
