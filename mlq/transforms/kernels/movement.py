"""concat, where it joins channels, and resize_nearest on kernels."""

from __future__ import annotations

from functools import partial

from torch_mlir.ir import Value

from mlq.dialect.ops import ConcatOp, ResizeNearestOp
from mlq.kernels import library
from mlq.kernels.image import NO_MARGIN
from mlq.kernels.library import Device
from mlq.transforms.kernels.images import BLOCK, Images, Lower, image_of, kind_of, unfit
from mlq.transforms.linalg.epilogue import params_of
from mlq.transforms.linalg.movement import parts_of

_IMAGE = 4


def concat(op: ConcatOp, isa: Device, images: Images) -> Lower | str:
    """Channels side by side, those of the concats it continues too, so that each is copied once."""
    parts = parts_of(op)
    if op.output.type.rank != _IMAGE or op.axis.value != _IMAGE - 1:
        return "joins something other than the channels of images"
    users = [use.owner.opview for use in op.output.uses]
    if any(isinstance(user, ConcatOp) and op.output not in parts_of(user) for user in users):
        return "is continued by another concat"
    reason = None if params_of(op.output) is None else unfit(isa, op.output, *parts)
    reason = reason or library.unfit_concat(isa, [image_of(each).channels for each in parts])
    if reason is not None:
        return reason
    for part in parts:
        images.need(part, NO_MARGIN)
    return partial(_concat, op, isa, parts)


def resize_nearest(op: ResizeNearestOp, isa: Device, images: Images) -> Lower | str:
    """Pixels of an image over and over."""
    reason = None if params_of(op.input) is None else unfit(isa, op.input, op.output)
    reason = reason or library.unfit_elementwise(isa)
    if reason is not None:
        return reason
    images.need(op.input, NO_MARGIN)
    return partial(_resize, op, isa)


def _resize(op: ResizeNearestOp, isa: Device, images: Images) -> None:
    source, output = images.read(op.input, BLOCK), images.result(op.output)
    kernel = library.of(isa).resize(
        isa=isa,
        input=source.image,
        output=output,
        factors=tuple(op.factors),
        kind=kind_of(op.output),
    )
    images.call(kernel, [source.value, images.zero_of(op.output)], op.output, output)


def _concat(op: ConcatOp, isa: Device, parts: list[Value], images: Images) -> None:
    sources, output = [images.read(each) for each in parts], images.result(op.output, BLOCK)
    kernel = library.of(isa).concat(
        isa=isa,
        inputs=tuple(source.image for source in sources),
        channels=tuple(image_of(each).channels for each in parts),
        output=output,
        kind=kind_of(op.output),
    )
    operands = [source.value for source in sources]
    images.call(kernel, [*operands, images.zero_of(op.output)], op.output, output)
