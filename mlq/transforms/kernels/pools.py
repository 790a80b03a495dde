"""max_pool2d and avg_pool2d on kernels."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Literal

import numpy as np

from mlq import numerics
from mlq.dialect import build
from mlq.dialect.ops import AvgPool2dOp, MaxPool2dOp
from mlq.kernels import library
from mlq.kernels.finishing import Finish, Numbers
from mlq.kernels.image import NO_MARGIN
from mlq.kernels.library import Device
from mlq.numerics.windows import counted
from mlq.transforms.kernels.images import BLOCK, Images, Lower, constant, kind_of, unfit
from mlq.transforms.linalg.epilogue import params_of

_I32_LIMIT = 1 << 31


def max_pool2d(op: MaxPool2dOp, isa: Device, images: Images) -> Lower | str:
    """The greatest of each window; what is beyond the image is replaced by what is in it."""
    reason = None if params_of(op.input) is None else unfit(isa, op.input, op.output)
    if reason is None and list(op.dilations) != [1, 1]:
        reason = "has dilated windows"
    if reason is not None:
        return reason
    images.need(op.input, NO_MARGIN)
    return partial(_max_pool, op, isa)


def avg_pool2d(op: AvgPool2dOp, isa: Device, images: Images) -> Lower | str:
    """The mean of each window, into which the margin counts as zeros."""
    params, result = params_of(op.input), [] if params_of(op.output) is None else [op.output]
    reason = None if kind_of(op.input) == "f16" else unfit(isa, op.input, *result)
    if reason is None and params is not None and prod(op.kernel) * params.limits[1] >= _I32_LIMIT:
        reason = "adds up more than 32 bits hold"
    if reason is not None:
        return reason
    top, left, bottom, right = op.pads
    below, beyond = op.ceil_pads
    images.need(op.input, (top, left, bottom + below, right + beyond))
    return partial(_mean_pool, op, isa)


def _max_pool(op: MaxPool2dOp, isa: Device, images: Images) -> None:
    source, output = images.read(op.input, BLOCK), images.result(op.output)
    pads = tuple(op.pads)[:2]
    kernel = library.of(isa, sized=images.sized).max_pool(
        isa=isa,
        input=source.image,
        output=output,
        window=tuple(op.kernel),
        strides=tuple(op.strides),
        pads=pads,
        kind=kind_of(op.output),
    )
    images.call(kernel, [source.value, images.zero_of(op.output)], op.output, output)


def _mean_pool(op: AvgPool2dOp, isa: Device, images: Images) -> None:
    source, output = images.read(op.input, BLOCK), images.result(op.output)
    input, params = params_of(op.input), params_of(op.output)
    keys = ("kernel", "strides", "pads", "ceil_pads", "count_include_pad")
    counts = counted(op.input.type.shape[1:3], **build.attributes_of(op, *keys))
    scale, bias = (1 / counts).astype(np.float32), np.zeros(counts.size, np.int32)
    if input is not None:
        scale = numerics.pool_scale(counts, input, params)
        zero = isa.storage_of(kind_of(op.input)).stored(input.zero_point[0])
        bias -= zero * int(np.prod(op.kernel))
    sums: Literal["i32", "f32"] = "f32" if input is None else "i32"
    finish = Finish(kind_of(op.output), sums, guarded=True)
    kernel = library.of(isa).mean_pool(
        isa=isa,
        input=source.image,
        output=output,
        window=tuple(op.kernel),
        strides=tuple(op.strides),
        pads=tuple(op.pads)[:2],
        finish=finish,
        scales=scale.size,
        kind=kind_of(op.input),
    )
    numbers = Numbers() if params is None else Numbers(params.zero_point[0], *params.limits)
    key = f"{build.name_of(op) or 'mean'}.coefficients"
    values = numbers.with_channels(finish, bias, scale.reshape(-1), isa.storage_of)
    images.call(kernel, [source.value, constant(key, values)], op.output, output)
