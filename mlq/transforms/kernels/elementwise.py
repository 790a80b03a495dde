"""add, mul and nonlinearity on kernels."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch_mlir.ir import OpView, Value

from mlq import numerics
from mlq.dialect import build
from mlq.dialect.ops import AddOp, MulOp, NonlinearityOp
from mlq.kernels import library
from mlq.kernels.finishing import Finish, Numbers
from mlq.kernels.image import NO_MARGIN
from mlq.kernels.isa import Isa
from mlq.kernels.library import Device
from mlq.numerics import QuantParams
from mlq.transforms.kernels.images import (
    BLOCK,
    Images,
    Lower,
    constant,
    image_of,
    kind_of,
    unfit,
)
from mlq.transforms.linalg.epilogue import bounds_of, params_of


def pairwise(op: AddOp | MulOp, isa: Device, images: Images) -> Lower | str:
    """A sum or a product of bytes; the right side may be one pixel that is repeated."""
    stored = [op.lhs, op.rhs, *([] if params_of(op.output) is None else [op.output])]
    reason = _unfit(isa, *stored)
    if reason is None and not _repeats(op):
        reason = "repeats something other than a pixel"
    if reason is not None or not isinstance(isa, Isa):
        return reason or "is on a GPU"
    for side in (op.lhs, op.rhs):
        images.need(side, NO_MARGIN)
    return partial(_pairwise, op, isa)


def nonlinearity(op: NonlinearityOp, isa: Device, images: Images) -> Lower | str:
    """Bytes that a table has for bytes."""
    reason = _unfit(isa, op.input, op.output)
    if reason is not None or not isinstance(isa, Isa):
        return reason or "is on a GPU"
    images.need(op.input, NO_MARGIN)
    return partial(_lookup, op, isa)


def _unfit(isa: Device, *values: Value) -> str | None:
    reason = unfit(isa, *values) or library.unfit_elementwise(isa)
    if reason is None and any(kind_of(value) != "u8" for value in values):
        return "is of words"
    return reason


def _repeats(op: AddOp | MulOp) -> bool:
    """Whether rhs has the channels of lhs, and its pixels, or one."""
    lhs, rhs = image_of(op.lhs), image_of(op.rhs)
    of_one_shape = build.shape_of(op.lhs) == build.shape_of(op.rhs)
    a_point = op.lhs.type.rank == op.rhs.type.rank and rhs.pixels == 1
    return lhs.channels == rhs.channels and (of_one_shape or a_point)


def _pairwise(op: AddOp | MulOp, isa: Isa, images: Images) -> None:
    lhs, rhs = (images.read(side, BLOCK) for side in (op.lhs, op.rhs))
    output, left, right = images.result(op.output), params_of(op.lhs), params_of(op.rhs)
    assert left is not None
    assert right is not None
    finish, numbers = finish_of(op, params_of(op.output))
    zeros = [isa.storage.stored(each.zero_point[0]) for each in (left, right)]
    kernel = library.of(isa).pairwise(
        isa=isa,
        operation="add" if isinstance(op, AddOp) else "mul",
        lhs=lhs.image,
        rhs=rhs.image,
        output=output,
        finish=finish,
    )
    values = numbers.with_channels(
        finish, np.array(zeros, np.int32), _scales(op, left, right), isa.storage_of
    )
    coefficients = constant(f"{build.name_of(op) or 'pairwise'}.coefficients", values)
    images.call(kernel, [lhs.value, rhs.value, coefficients], op.output, output)


def _scales(op: AddOp | MulOp, left: QuantParams, right: QuantParams) -> numerics.Reals:
    """Of both terms of a sum, or of a product."""
    output = params_of(op.output)
    if isinstance(op, MulOp):
        return np.full(2, numerics.product_scale(left, right, output))
    unit = 1.0 if output is None else output.scale[0]
    return np.array([left.scale[0] / unit, right.scale[0] / unit], np.float32)


def finish_of(op: OpView, output: QuantParams | None) -> tuple[Finish, Numbers]:
    """What becomes of sums of integers, which may be of any size, and the numbers for it."""
    low, high = bounds_of(op)
    if output is None:
        return Finish("f32", low=low > -np.inf, high=high < np.inf), Numbers(0, low, high)
    least, most = numerics.activation_bounds(output, (low, high))
    storage = output.dtype
    finish = Finish(
        kind_of(op.results[0]),
        low=least > np.iinfo(storage).min,
        high=most < np.iinfo(storage).max,
        guarded=True,
    )
    return finish, Numbers(output.zero_point[0], least, most)


def _lookup(op: NonlinearityOp, isa: Isa, images: Images) -> None:
    source, output = images.read(op.input, BLOCK), images.result(op.output)
    input = params_of(op.input)
    assert input is not None
    function = numerics.nonlinear.parse(op.function.value)
    table = numerics.nonlinear.table(function, input, params_of(op.output)).astype(np.uint8)
    # What memory holds for a byte is the byte less an offset, on either side.
    offset = isa.storage.offset
    held = np.roll(table, -offset) - np.uint8(offset)
    kernel = library.of(isa).lookup(isa=isa, input=source.image, output=output)
    key = f"{build.name_of(op) or 'function'}.table"
    arranged = constant(key, isa.tables.arranged(held).view(np.int8))
    operands = [source.value, arranged, images.zero_of(op.output)]
    images.call(kernel, operands, op.output, output)
