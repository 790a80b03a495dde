"""batch_matmul on kernels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch_mlir.ir import RankedTensorType, Value

from mlq import numerics
from mlq.dialect import build
from mlq.dialect.ops import AvgPool2dOp, BatchMatmulOp, Conv2dOp, MaxPool2dOp
from mlq.dialect.shapes import DYNAMIC
from mlq.kernels import code, library
from mlq.kernels.batch_matmul import ZEROS, BatchMatmul, Pack
from mlq.kernels.finishing import SAFE, Finish, Numbers
from mlq.kernels.gpu import batch_matmul as on_gpus
from mlq.kernels.gpu import tensor_cores
from mlq.kernels.gpu.isa import Gpu
from mlq.kernels.image import NO_MARGIN, Image
from mlq.kernels.isa import Isa
from mlq.kernels.library import Device
from mlq.numerics import QuantParams
from mlq.transforms.kernels.elementwise import finish_of
from mlq.transforms.kernels.images import Images, Lower, constant, is_open, kind_of, unfit
from mlq.transforms.linalg.epilogue import params_of

_I32_LIMIT = 1 << 31
_WITH_MARGINS = (AvgPool2dOp, Conv2dOp, MaxPool2dOp)


def batch_matmul(op: BatchMatmulOp, isa: Device, images: Images) -> Lower | str:
    """A matrix product for each pair of matrices, of bytes or of floats."""
    lower: Lower
    reason, margin = _unfit(op), NO_MARGIN
    if isinstance(isa, Isa):
        reason, lower = reason or _unfit_integers(op, isa), partial(_batch_matmul, op, isa)
        margin = margin if params_of(op.lhs) is None else ZEROS
    else:
        reason, lower = reason or _unfit_on_gpu(op, isa), partial(_batch_matmul_on_gpu, op, isa)
    if reason is not None:
        return reason
    images.need(op.lhs, margin)
    images.need(op.rhs, NO_MARGIN)
    return lower


def _unfit(op: BatchMatmulOp) -> str | None:
    if any(isinstance(use.owner.opview, _WITH_MARGINS) for use in op.output.uses):
        return "multiplies activations, and is read as an image"
    return None


def _unfit_on_gpu(op: BatchMatmulOp, isa: Gpu) -> str | None:
    return unfit(isa, *_stored(op)) or _overflow(op)


def _unfit_integers(op: BatchMatmulOp, isa: Isa) -> str | None:
    lhs, rhs = params_of(op.lhs), params_of(op.rhs)
    if lhs is None or rhs is None:
        return None
    reason = unfit(isa, *_stored(op))
    if reason is None and (kind_of(op.lhs), kind_of(op.rhs)) == ("u8", "u16"):
        reason = "multiplies bytes by words of 16 bits"
    least = library.least_weight(isa.wide, kind_of(op.lhs)) if reason is None else 0
    if reason is None and rhs.limits[0] - rhs.zero_point[0] < least:
        reason = "multiplies activations whose products need more than 16 bits"
    return reason or _overflow(op)


def _stored(op: BatchMatmulOp) -> list[Value]:
    """What must be integers: both sides, and the result unless that is of reals."""
    return [op.lhs, op.rhs, *([] if params_of(op.output) is None else [op.output])]


def _overflow(op: BatchMatmulOp) -> str | None:
    lhs, rhs = params_of(op.lhs), params_of(op.rhs)
    if lhs is not None and rhs is not None and _bound(op, lhs, rhs) >= _I32_LIMIT:
        return "may overflow an accumulator of 32 bits"
    return None


def _batch_matmul(op: BatchMatmulOp, isa: Isa, images: Images) -> None:
    lhs, rhs, output = images.read(op.lhs), images.read(op.rhs), images.result(op.output)
    product = BatchMatmul(**_description(op, isa, lhs.image, output), kind=kind_of(op.lhs))
    stored = params_of(op.rhs)
    pack = Pack(
        product=product,
        source=_matrices(rhs.image),
        kind=kind_of(op.rhs),
        depth=build.shape_of(op.lhs)[-1],
        turned=bool(op.transpose_rhs.value),
        zero=images.zero(op.rhs),
        factor=op.alpha.value if stored is None else 1.0,
    )
    buffer = pack.buffers[-1]
    sizes = [DYNAMIC, buffer.count] if is_open(op.rhs) else [buffer.count]
    made = RankedTensorType.get(sizes, code.element(buffer.element))
    packed = images.dispatch(pack, [rhs.value], made)
    coefficients = _coefficients(op, isa, product.padded)
    images.call(product, [lhs.value, packed, coefficients], op.output, output)


def _batch_matmul_on_gpu(op: BatchMatmulOp, isa: Gpu, images: Images) -> None:
    lhs, rhs, output = images.read(op.lhs), images.read(op.rhs), images.result(op.output)
    product = on_gpus.batch_matmul(tensor_cores.conv(**_description(op, isa, lhs.image, output)))
    pack = on_gpus.Pack(
        isa=isa,
        product=product,
        source=_matrices(rhs.image),
        depth=build.shape_of(op.lhs)[-1],
        turned=bool(op.transpose_rhs.value),
        zero=images.zero(op.rhs),
        left_zero=images.zero(op.lhs),
    )
    order = constant(f"{build.name_of(op)}.order", pack.order)
    given = [rhs.value, order, _coefficients(op, isa, product.conv.padded)]
    made = RankedTensorType.get([pack.items], code.element("i32"))
    packed = images.dispatch(pack, given, made)
    images.call(product, [lhs.value, packed], op.output, output)


def _description(op: BatchMatmulOp, isa: Device, lhs: Image, output: Image) -> dict[str, Any]:
    """What is multiplied, and what becomes of it."""
    return {
        "isa": isa,
        "input": _matrices(lhs),
        "output": _matrices(output),
        "residual": None,
        "channels": build.shape_of(op.output)[-1],
        "window": (1, 1),
        "strides": (1, 1),
        "dilations": (1, 1),
        "pads": (0, 0),
        "groups": 1,
        "finish": _finish(op)[0],
    }


def _coefficients(op: BatchMatmulOp, isa: Device, channels: int) -> Value:
    """Those of so many channels, without biases."""
    finish, numbers = _finish(op)
    bias = np.zeros(channels, np.int32)
    scale = np.full(channels, _scale(op), np.float32)
    values = numbers.with_channels(finish, bias, scale, isa.storage_of)
    return constant(f"{build.name_of(op)}.coefficients", values)


def _matrices(image: Image) -> Image:
    """Images whose rows are matrices, as so many images of one row."""
    return replace(image, batch=image.batch * image.height, height=1)


def _bound(op: BatchMatmulOp, lhs: QuantParams, rhs: QuantParams) -> int:
    """The greatest magnitude of a sum of products."""
    (low, high), zero = lhs.limits, lhs.zero_point[0]
    (_, most), middle = rhs.limits, rhs.zero_point[0]
    return build.shape_of(op.lhs)[-1] * max(high - zero, zero - low) * (most - middle)


def _finish(op: BatchMatmulOp) -> tuple[Finish, Numbers]:
    """What becomes of sums, and the numbers for it."""
    lhs, rhs = params_of(op.lhs), params_of(op.rhs)
    finish, numbers = finish_of(op, params_of(op.output))
    if lhs is None or rhs is None:
        return replace(finish, sums="f32"), numbers
    greatest = _bound(op, lhs, rhs) * float(abs(_scale(op)[0]))
    return replace(finish, guarded=finish.guarded and greatest > SAFE), numbers


def _scale(op: BatchMatmulOp) -> numerics.Reals:
    """What a sum of products is multiplied by."""
    lhs, rhs = params_of(op.lhs), params_of(op.rhs)
    if lhs is None or rhs is None:
        return np.ones(1, np.float32)
    return numerics.accumulator_scale(lhs, rhs, params_of(op.output), factor=op.alpha.value)
