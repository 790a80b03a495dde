"""quantize on kernels: where the network's input enters, where floats become integers or f16."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch_mlir.ir import BlockArgument, OpView, Value

from mlq.dialect import build, quant
from mlq.dialect.ops import Conv2dOp, QuantizeOp, TransposeOp
from mlq.kernels import library
from mlq.kernels.finishing import Finish, Numbers
from mlq.kernels.image import NO_MARGIN
from mlq.kernels.library import Device
from mlq.transforms.kernels.images import WORD, Images, Lower, constant, kind_of, unfit
from mlq.transforms.linalg.epilogue import params_of

_TO_NHWC = [0, 2, 3, 1]


def quantize(op: QuantizeOp, isa: Device, images: Images) -> Lower | str:
    """An image; one of few channels is turned from NCHW at the same time."""
    reason = None if quant.is_half(op.output.type) else unfit(isa, op.output)
    if reason is not None:
        return reason
    planes = _planes(op.input)
    readers = [use.owner.opview for use in op.output.uses]
    if planes is not None and all(map(_is_convolved, readers)):
        kind = kind_of(op.output)
        plain = all(each.dilations[1] == 1 for each in readers)
        if plain and all(
            library.saves_padding(isa, build.shape_of(each.weight), each.strides[1], kind=kind)
            for each in readers
        ):
            images.unpadded.add(op.output)
        return partial(_quantize_planes, op, isa, planes)
    images.need(op.input, NO_MARGIN)
    return partial(_quantize, op, isa)


def _is_convolved(op: OpView) -> bool:
    return isinstance(op, Conv2dOp) and op.groups.value == 1


def _planes(value: Value) -> Value | None:
    """The image in NCHW that a transpose makes NHWC of."""
    if isinstance(value, BlockArgument) or not isinstance(value.owner.opview, TransposeOp):
        return None
    transpose = value.owner.opview
    few = value.type.rank == len(_TO_NHWC) and value.type.shape[3] <= WORD
    return transpose.input if few and list(transpose.permutation) == _TO_NHWC else None


def _quantize_planes(op: QuantizeOp, isa: Device, planes: Value, images: Images) -> None:
    output = images.result(op.output, WORD)
    kernel = library.of(isa).quantize_image(
        isa=isa, channels=build.shape_of(planes)[1], output=output, finish=_finish(op)
    )
    images.call(kernel, [planes, _coefficients(op, isa)], op.output, output)


def _quantize(op: QuantizeOp, isa: Device, images: Images) -> None:
    source, output = images.read(op.input), images.result(op.output)
    channels = build.shape_of(op.output)[-1]
    kernel = library.of(isa).quantize(
        isa=isa, input=source.image, output=output, channels=channels, finish=_finish(op)
    )
    images.call(kernel, [source.value, _coefficients(op, isa)], op.output, output)


def _finish(op: QuantizeOp) -> Finish:
    return Finish(kind_of(op.output), guarded=True)


def _coefficients(op: QuantizeOp, isa: Device) -> Value:
    params, numbers = params_of(op.output), Numbers()
    scale = np.array([1.0] if params is None else params.scale, np.float32)
    if params is not None:
        numbers = Numbers(params.zero_point[0], *params.limits)
    values = numbers.with_channels(_finish(op), np.zeros(1, np.int32), scale, isa.storage_of)
    return constant(f"{build.name_of(op) or 'input'}.quantization", values)
