"""Builders: ONNX nodes as the frontend imports them, `torch.operator "onnx.X"`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import (
    ArrayAttr,
    Attribute,
    DenseElementsAttr,
    F32Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    Operation,
    StringAttr,
    Type,
    Value,
)

from mlq.dialect.build import NAME
from mlq.dialect.shapes import DYNAMIC

PREFIX = "torch.onnx."
CONSTANT = "Constant"

_LETTERS = {"f": "f", "i": "si", "u": "ui"}


def element_name(dtype: np.dtype[Any]) -> str:
    """What torch types call the elements of an array: f32, si8, ui8, ..."""
    return f"{_LETTERS[dtype.kind]}{8 * dtype.itemsize}"


def vtensor(shape: Sequence[int], element: str) -> Type:
    """`!torch.vtensor<[shape], element>`; the element is spelled as torch does, with its sign."""
    sizes = ",".join("?" if size == DYNAMIC else str(size) for size in shape)
    return Type.parse(f"!torch.vtensor<[{sizes}],{element}>")


def node(kind: str, operands: Sequence[Value], result: Type, name: str, **attributes: Any) -> Value:
    """The node of ONNX operator `kind` called `name`; attributes are numbers, words, or lists."""
    return Operation.create(
        "torch.operator",
        results=[result],
        operands=list(operands),
        attributes={
            "name": StringAttr.get(f"onnx.{kind}"),
            NAME: StringAttr.get(name),
            **{PREFIX + key: _attribute(value) for key, value in attributes.items()},
        },
    ).result


def constant(array: NDArray[Any], name: str) -> Value:
    """A few numbers that stand in the text; what is large belongs into the weight store."""
    made = Operation.create(
        "torch.operator",
        results=[vtensor(array.shape, element_name(array.dtype))],
        attributes={
            "name": StringAttr.get(f"onnx.{CONSTANT}"),
            NAME: StringAttr.get(name),
            f"{PREFIX}value": DenseElementsAttr.get(array, signless=False, shape=array.shape),
        },
    )
    return made.result


def _attribute(value: Any) -> Attribute:
    if isinstance(value, (list, tuple)):
        return ArrayAttr.get([_attribute(each) for each in value])
    if isinstance(value, float):
        return FloatAttr.get(F32Type.get(), value)
    if isinstance(value, str):
        return StringAttr.get(value)
    return IntegerAttr.get(IntegerType.get_signed(64), int(value))
