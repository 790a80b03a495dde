"""NHWC for images: which ops have a layout, which suit any, and what becomes of them in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch_mlir.ir import (
    Operation,
    OpResult,
    OpView,
    RankedTensorType,
    StringAttr,
    Type,
    Value,
)

from mlq.dialect import build, layers, quant
from mlq.dialect.ops import (
    ActivateOp,
    AddOp,
    AvgPool2dOp,
    CompareOp,
    ConcatOp,
    Conv2dOp,
    DequantizeOp,
    FakeQuantizeOp,
    MaxPool2dOp,
    MulOp,
    NonlinearityOp,
    ObserveOp,
    PadOp,
    QuantizeOp,
    RequantizeOp,
    ResizeNearestOp,
    SliceOp,
    TransposeOp,
)

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
TO_HWIO = (2, 3, 1, 0)
IMAGE_RANK = 4  # axes of a tensor that has a layout

_BY_LAYOUT = (Conv2dOp, MaxPool2dOp, AvgPool2dOp, ResizeNearestOp)
# Ops that mean the same in any layout, once their attributes that count axes follow.
IN_ANY = (
    ActivateOp,
    AddOp,
    CompareOp,
    ConcatOp,
    DequantizeOp,
    FakeQuantizeOp,
    MulOp,
    NonlinearityOp,
    ObserveOp,
    PadOp,
    QuantizeOp,
    RequantizeOp,
    SliceOp,
)
_PER_AXIS = {"low", "high", "offsets", "sizes", "strides"}


def wanted_images(ops: list[OpView]) -> set[Value]:
    """The images that reach a convolution or a pool through ops that any layout suits."""
    wanted: set[Value] = set()
    for op in reversed(ops):
        results = op.operation.results
        if has_layout(op) or (isinstance(op, IN_ANY) and any(r in wanted for r in results)):
            wanted.update(op.operation.operands[i] for i in images_of(op))
    return wanted


def images_of(op: OpView) -> list[int]:
    """Which operands of an op on images are images: not weights, not tables."""
    return [
        i
        for i, value in enumerate(op.operation.operands)
        if value.type.rank == IMAGE_RANK
        and not (isinstance(op, Conv2dOp) and i == layers.WEIGHT_OPERAND)
    ]


def has_layout(op: OpView) -> bool:
    """Whether the op is one for NCHW images only, and still on such."""
    return isinstance(op, _BY_LAYOUT) and op.layout.value == "nchw"


def is_point(image: Value) -> bool:
    """Whether an image in NCHW has one pixel, so that its elements have one order in any layout."""
    return list(image.type.shape)[2:] == [1, 1]


def like(op: OpView, operands: Sequence[Value], types: Sequence[Type]) -> Operation:
    """The op on other operands, with its attributes, those that count axes in NHWC order."""
    attributes = dict(op.operation.attributes.items())
    if "layout" in attributes:
        attributes["layout"] = StringAttr.get("nhwc")
    elif isinstance(op, ConcatOp):
        attributes["axis"] = build.integer(TO_NHWC.index(op.axis.value))
    elif isinstance(op, PadOp | SliceOp):
        for key in _PER_AXIS & attributes.keys():
            values = list(getattr(op, key))
            attributes[key] = build.array([values[axis] for axis in TO_NHWC])
    return Operation.create(
        op.operation.name, results=list(types), operands=list(operands), attributes=attributes
    )


def transposed(value: Value, order: Sequence[int], element: Type) -> Value:
    """`value` in another order of axes, through a transpose that it may come from."""
    source = value
    if isinstance(value, OpResult) and isinstance(value.owner.opview, TransposeOp):
        source, before = value.owner.opview.input, list(value.owner.opview.permutation)
        order = [before[axis] for axis in order]
    if list(order) == list(range(len(order))) and source.type.element_type == element:
        return source
    return build.transpose(source, order, element)


def type_in_nhwc(type_: Type) -> Type:
    """The type of an image after its axes were reordered; other tensors' types as they are."""
    if type_.rank != IMAGE_RANK:
        return type_
    shape = [type_.shape[axis] for axis in TO_NHWC]
    return RankedTensorType.get(shape, element_after(type_.element_type, TO_NHWC))


def element_after(element: Type, order: Sequence[int]) -> Type:
    """An element type after its tensor's axes were reordered: the quantized axis goes along."""
    params = quant.params_of(element)
    if params is None or params.axis is None:
        return element
    return quant.type_of(replace(params, axis=list(order).index(params.axis)))
