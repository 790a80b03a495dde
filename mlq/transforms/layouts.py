"""NHWC for images: which ops have a layout, which suit any, and what becomes of them in it.

A line [N, C, W] that a reshape makes of an image of one row, or an image of it, is that image.
"""

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
    ResampleOp,
    ReshapeOp,
    ResizeNearestOp,
    SliceOp,
    TransposeOp,
)

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
TO_NCW = (0, 2, 1)
TO_HWIO = (2, 3, 1, 0)
IMAGE_RANK = 4  # axes of a tensor that has a layout
LINE_RANK = 3

_BY_LAYOUT = (Conv2dOp, MaxPool2dOp, AvgPool2dOp, ResampleOp, ResizeNearestOp)
# Ops that mean the same in any layout, once their attributes that count axes follow.
_BY_ELEMENT = (
    ActivateOp,
    AddOp,
    CompareOp,
    DequantizeOp,
    FakeQuantizeOp,
    MulOp,
    NonlinearityOp,
    ObserveOp,
    QuantizeOp,
    RequantizeOp,
)
IN_ANY = (*_BY_ELEMENT, ConcatOp, PadOp, SliceOp)
_PER_AXIS = {"low", "high", "offsets", "sizes", "strides"}


def wanted_images(ops: list[OpView]) -> set[Value]:
    """The images that reach a convolution or a pool through ops that any layout suits."""
    wanted: set[Value] = set()
    for op in reversed(ops):
        results = op.operation.results
        suits = isinstance(op, IN_ANY) or is_line(op)
        if has_layout(op) or (suits and any(r in wanted for r in results)):
            wanted.update(op.operation.operands[i] for i in images_of(op))
    return wanted


def images_of(op: OpView) -> list[int]:
    """Which operands of an op on images are images, or lines: not weights, not tables."""
    ranks = {IMAGE_RANK, LINE_RANK} if isinstance(op, _BY_ELEMENT) or is_line(op) else {IMAGE_RANK}
    return [
        i
        for i, value in enumerate(op.operation.operands)
        if value.type.rank in ranks
        and not (isinstance(op, Conv2dOp) and i == layers.WEIGHT_OPERAND)
    ]


def is_line(op: OpView) -> bool:
    """Whether the op makes a line [N, C, W] of an image [N, C, 1, W], or the other way round."""
    if not isinstance(op, ReshapeOp):
        return False
    line, image = sorted((list(each.type.shape) for each in (op.input, op.output)), key=len)
    return len(line) == LINE_RANK and image == as_image(line)


def as_image(line: Sequence[int]) -> list[int]:
    """The shape of the image that a line is."""
    return [*line[:2], 1, *line[2:]]


def has_layout(op: OpView) -> bool:
    """Whether the op is one for NCHW images only, and still on such."""
    return isinstance(op, _BY_LAYOUT) and op.layout.value == "nchw"


def is_point(image: Value) -> bool:
    """Whether an image in NCHW has one pixel, so that its elements have one order in any layout."""
    return set(image.type.shape[2:]) == {1}


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
    if type_.rank not in (IMAGE_RANK, LINE_RANK):
        return type_
    image = type_.shape if type_.rank == IMAGE_RANK else as_image(type_.shape)
    shape = [image[axis] for axis in TO_NHWC]
    return RankedTensorType.get(shape, element_after(type_.element_type, TO_NHWC))


def element_after(element: Type, order: Sequence[int]) -> Type:
    """An element type after its tensor's axes were reordered: the quantized axis goes along."""
    params = quant.params_of(element)
    if params is None or params.axis is None:
        return element
    return quant.type_of(replace(params, axis=list(order).index(params.axis)))
