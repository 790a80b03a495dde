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
    """A sum or a product of integers; the right side may be one pixel that is repeated."""
    reason = _unfit(isa, op.lhs, op.rhs, op.output)
    if reason is None and not _repeats(op):
        reason = "repeats something other than a pixel"
    if reason is not None or not isinstance(isa, Isa):
        return reason or "is on a GPU"
    for side in (op.lhs, op.rhs):
        images.need(side, NO_MARGIN)
    return partial(_pairwise, op, isa)


def nonlinearity(op: NonlinearityOp, isa: Device, images: Images) -> Lower | str:
    """What a table has for integers."""
    reason = _unfit(isa, op.input, op.output)
    if reason is not None or not isinstance(isa, Isa):
        return reason or "is on a GPU"
    images.need(op.input, NO_MARGIN)
    return partial(_lookup, op, isa)


def _unfit(isa: Device, *values: Value) -> str | None:
    """Why there is no kernel; the last value is the result, which may be of floats."""
    *operands, result = values
    stored = operands if kind_of(result) == "f32" else values
    return unfit(isa, *stored) or library.unfit_elementwise(isa)


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
    kinds = kind_of(op.lhs), kind_of(op.rhs)
    params = zip(kinds, (left, right), strict=True)
    zeros = [isa.storage_of(kind).stored(each.zero_point[0]) for kind, each in params]
    kernel = library.of(isa).pairwise(
        isa=isa,
        operation="add" if isinstance(op, AddOp) else "mul",
        lhs=lhs.image,
        rhs=rhs.image,
        output=output,
        finish=finish,
        kinds=kinds,
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
    table = numerics.nonlinear.table(function, input, params_of(op.output))
    kinds = kind_of(op.input), kind_of(op.output)
    if kinds == ("u8", "u8"):
        # What memory holds for a byte is the byte less an offset, on either side.
        offset = isa.storage.offset
        held = np.roll(table.astype(np.uint8), -offset) - np.uint8(offset)
        table = isa.tables.arranged(held).view(np.int8)
    elif kinds[1] != "f32":
        offset = isa.storage_of(kinds[1]).offset
        table = (table.astype(np.int32) - offset).astype(isa.element(kinds[1]).replace("i", "int"))
    kernel = library.of(isa).lookup(
        isa=isa, input=source.image, output=output, kinds=kinds, entries=len(table)
    )
    arranged = constant(f"{build.name_of(op) or 'function'}.table", table)
    operands = [source.value, arranged, images.zero_of(op.output)]
    images.call(kernel, operands, op.output, output)
