"""quantize on a kernel, where the network's input enters."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch_mlir.ir import BlockArgument, OpView, Value

from mlq.dialect import build
from mlq.dialect.ops import Conv2dOp, QuantizeOp, TransposeOp
from mlq.dialect.shapes import DYNAMIC
from mlq.kernels.casting import QuantizeImage
from mlq.kernels.finishing import Finish, Numbers
from mlq.kernels.isa import Isa
from mlq.transforms.kernels.images import WORD, Images, Lower, constant, unfit
from mlq.transforms.linalg.epilogue import params_of

_TO_NHWC = [0, 2, 3, 1]


def quantize(op: QuantizeOp, isa: Isa, _images: Images) -> Lower | str:
    """An image of few channels, turned from NCHW and quantized at once."""
    planes, params = _planes(op.input), params_of(op.output)
    if planes is None or DYNAMIC in build.shape_of(op.output):
        return "is no image of few channels in NCHW"
    if params is None or unfit(op.output):
        return "does not make u8"
    if not all(_is_convolved(use.owner.opview) for use in op.output.uses):
        return "is read by more than convolutions"
    return partial(_quantize, op, isa, planes)


def _is_convolved(op: OpView) -> bool:
    return isinstance(op, Conv2dOp) and op.groups.value == 1


def _planes(value: Value) -> Value | None:
    """The image in NCHW that a transpose makes NHWC of."""
    if isinstance(value, BlockArgument) or not isinstance(value.owner.opview, TransposeOp):
        return None
    transpose = value.owner.opview
    few = value.type.rank == len(_TO_NHWC) and value.type.shape[3] <= WORD
    return transpose.input if few and list(transpose.permutation) == _TO_NHWC else None


def _quantize(op: QuantizeOp, isa: Isa, planes: Value, images: Images) -> None:
    params, output = params_of(op.output), images.result(op.output, WORD)
    assert params is not None
    finish = Finish("u8", guarded=True)
    kernel = QuantizeImage(isa, build.shape_of(planes)[1], output, finish)
    scale = np.array(params.scale, np.float32)
    numbers = Numbers(params.zero_point[0]).with_channels(finish, np.zeros(1, np.int32), scale)
    name = build.name_of(op) or "input"
    operands = [planes, constant(f"{name}.quantization", numbers)]
    images.call(kernel, operands, op.output, output)
