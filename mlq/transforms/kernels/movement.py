"""concat of channels, resample, resize_nearest, pad, slice and transpose on kernels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import Value

from mlq import numerics
from mlq.dialect import build
from mlq.dialect.ops import (
    ConcatOp,
    PadOp,
    ResampleOp,
    ReshapeOp,
    ResizeNearestOp,
    SliceOp,
    TransposeOp,
)
from mlq.kernels import library
from mlq.kernels.image import NO_MARGIN
from mlq.kernels.isa import Isa
from mlq.kernels.library import Device
from mlq.kernels.resampling import Resample
from mlq.transforms.concatenation import is_continued, parts_of
from mlq.transforms.kernels.images import (
    BLOCK,
    WORD,
    Images,
    Lower,
    constant,
    image_of,
    kind_of,
    unfit,
)
from mlq.transforms.linalg.constants import Constant
from mlq.transforms.linalg.epilogue import params_of

_IMAGE = 4
_ROWS_WITH_COLUMNS = [0, 2, 1, 3]

_Pairs: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]


def concat(op: ConcatOp, isa: Device, images: Images) -> Lower | str:
    """Channels side by side, those of the concats it continues too, so that each is copied once."""
    if op.output.type.rank != _IMAGE or op.axis.value != _IMAGE - 1:
        return "joins something other than the channels of images"
    if is_continued(op):
        return "is continued by another concat"
    parts = parts_of(op)
    reason = None if params_of(op.output) is None else unfit(isa, op.output, *parts)
    channels = [_bytes_of(op) * image_of(each).channels for each in parts]
    reason = reason or library.unfit_concat(isa, channels)
    if reason is None and kind_of(op.output) == "f16" and image_of(op.output).channels % WORD:
        reason = "joins channels that would leave some of the result's as they were"
    if reason is not None:
        return reason
    for part in parts:
        images.need(part, NO_MARGIN)
    return partial(_concat, op, isa, parts)


def pad(op: PadOp, isa: Device, images: Images) -> Lower | str:
    """An image in the midst of one number."""
    low, high = list(op.low), list(op.high)
    if op.input.type.rank != _IMAGE or low[0] or high[0] or min(*low, *high) < 0:
        return "pads something other than an image, or cuts it"
    return _moved(op, isa, images, size=tuple(build.shape_of(op.input)[1:]), place=tuple(low[1:]))


def slice(op: SliceOp, isa: Device, images: Images) -> Lower | str:  # the op's own name
    """Every n-th pixel of a part of an image."""
    offsets, strides = list(op.offsets), list(op.strides)
    if op.input.type.rank != _IMAGE or strides[0] != 1 or strides[3] != 1:
        return "takes every n-th of something other than pixels"
    if build.shape_of(op.input)[0] != build.shape_of(op.output)[0]:
        return "takes a part of the batch"
    size, steps = tuple(build.shape_of(op.output)[1:]), tuple(strides[1:3])
    return _moved(op, isa, images, size=size, first=tuple(offsets[1:]), steps=steps)


def transpose(op: TransposeOp, isa: Device, images: Images) -> Lower | str:
    """Rows of an image become columns, as of heads and tokens; on GPUs any axes but the batch."""
    batch, *axes = op.permutation
    if isinstance(isa, Isa) and [batch, *axes] != _ROWS_WITH_COLUMNS:
        return "moves something other than pixels"
    if batch or len(axes) != _IMAGE - 1:
        return "moves something other than an image"
    turned = tuple(axis - 1 for axis in axes)
    return _moved(op, isa, images, size=tuple(build.shape_of(op.output)[1:]), axes=turned)


def _moved(op: Any, isa: Device, images: Images, **part: Any) -> Lower | str:
    """A part of an image, wherever it comes to be."""
    reason = None if params_of(op.input) is None else unfit(isa, op.input, op.output)
    if reason is not None:
        return reason
    images.need(op.input, NO_MARGIN)
    return partial(_move, op, isa, part)


def _move(op: Any, isa: Device, part: dict[str, Any], images: Images) -> None:
    source, kind = images.read(op.input), kind_of(op.output)
    # What is read in another shape only had better be dense.
    is_reshaped = all(isinstance(use.owner.opview, ReshapeOp) for use in op.output.uses)
    fills_words = not isinstance(isa, Isa) and is_reshaped
    output = images.result(op.output, WORD if fills_words else BLOCK)
    kernel = library.of(isa).move(isa=isa, input=source.image, output=output, kind=kind, **part)
    value = np.float32(op.value.value if isinstance(op, PadOp) else 0.0)
    params, zero = params_of(op.output), images.zero(op.output)
    around = int(value.view(np.int32))
    if kind == "f16":
        around = int(numerics.real.to_f16(np.asarray(value)).view(np.int16))
    if params is not None:
        around = isa.storage_of(kind).stored(int(numerics.quantize(np.asarray(value), params)))
    numbers = constant("surroundings", np.array([zero, around], np.int32))
    images.call(kernel, [source.value, numbers], op.output, output)


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


def resample(op: ResampleOp, isa: Device, images: Images) -> Lower | str:
    """Pixels of floats between others, if each is between two along each axis."""
    if not isinstance(isa, Isa):
        return "is of floats"
    known = [Constant.of(each) for each in (op.rows, op.columns)]
    pairs = [None if each is None else _neighbours(each.array) for each in known]
    if None in pairs:
        return "makes pixels of other sums than of two neighbours"
    images.need(op.input, NO_MARGIN)
    return partial(_resample, op, isa, [each for each in pairs if each is not None])


def _neighbours(matrix: NDArray[Any]) -> _Pairs | None:
    """Of each row the two columns whose shares make up one, and the second's; None for others."""
    count, size = matrix.shape
    # Where one column is all there is, it is the second, and has all.
    second = size - 1 - np.argmax(matrix[:, ::-1] != 0, axis=1)
    first, every = np.maximum(second - 1, 0), np.arange(count)
    shares = matrix[every, second]
    made = np.zeros_like(matrix)
    made[every, first] = 1 - shares
    made[every, second] = shares
    places = np.stack([first, second], axis=1).astype(np.int32)
    return (places, shares.astype(np.float32)) if np.allclose(made, matrix, atol=1e-6) else None


def _resample(op: ResampleOp, isa: Isa, pairs: list[_Pairs], images: Images) -> None:
    source, output = images.read(op.input), images.result(op.output)
    places, shares = zip(*pairs, strict=True)
    name = build.name_of(op) or "resample"
    operands = [
        source.value,
        constant(f"{name}.places", np.concatenate(places).reshape(-1)),
        constant(f"{name}.shares", np.concatenate(shares)),
    ]
    images.call(Resample(isa, source.image, output), operands, op.output, output)


def _bytes_of(op: ConcatOp) -> int:
    """As how many elements of a kernel one counts: f16 are moved as two u8."""
    return 2 if kind_of(op.output) == "f16" else 1


def _concat(op: ConcatOp, isa: Device, parts: list[Value], images: Images) -> None:
    each, least = _bytes_of(op), WORD if kind_of(op.output) == "f16" else BLOCK
    sources, output = [images.read(part) for part in parts], images.result(op.output, least)
    *inputs, made = (
        replace(image, channels=each * image.channels)
        for image in (*(source.image for source in sources), output)
    )
    kernel = library.of(isa).concat(
        isa=isa,
        inputs=tuple(inputs),
        channels=tuple(each * image_of(part).channels for part in parts),
        output=made,
        kind="u8" if each > 1 else kind_of(op.output),
    )
    operands = [source.value for source in sources]
    images.call(kernel, [*operands, images.zero_of(op.output)], op.output, output)
