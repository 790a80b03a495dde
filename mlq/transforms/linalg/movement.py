"""Ops that move storage: concat, reshape, transpose, pad, resize_nearest, slice; and resample."""

from __future__ import annotations

import numpy as np
from torch_mlir.dialects import arith, tensor
from torch_mlir.ir import F32Type, RankedTensorType, Value

from mlq import numerics
from mlq.dialect import linalg
from mlq.dialect.linalg import Size
from mlq.dialect.ops import (
    ConcatOp,
    PadOp,
    ResampleOp,
    ReshapeOp,
    ResizeNearestOp,
    SliceOp,
    TransposeOp,
    WeightOp,
)
from mlq.dialect.shapes import DYNAMIC
from mlq.errors import DiagnosticError
from mlq.transforms.concatenation import is_continued, parts_of
from mlq.transforms.linalg.arithmetic import storage_type
from mlq.transforms.linalg.constants import Constant
from mlq.transforms.linalg.epilogue import Stored, params_of


def weight(op: WeightOp, _stored: Stored) -> Value:
    """The same entry of the weight store, typed as it is stored."""
    params, type_ = params_of(op.output), op.output.type
    if params is not None:
        type_ = RankedTensorType.get(type_.shape, storage_type(params))
    return WeightOp(op.key, type_).output


def concat(op: ConcatOp, stored: Stored) -> Value:
    """Operands side by side, those of the concats it continues too, so that each is copied once."""
    parts = [op.lhs, op.rhs] if is_continued(op) else parts_of(op)
    inputs = [stored(each) for each in parts]
    result = RankedTensorType.get(op.output.type.shape, inputs[0].type.element_type)
    return tensor.concat(result, op.axis.value, inputs)


def reshape(op: ReshapeOp, stored: Stored) -> Value:
    """The same elements in another shape; nothing moves."""
    value, shape = stored(op.input), op.output.type.shape
    dynamic = [n for n in linalg.sizes_of(value) if not isinstance(n, int)]
    sizes: list[Size] = [dynamic[0] if n == DYNAMIC else n for n in shape]
    return linalg.reshape(value, sizes)


def transpose(op: TransposeOp, stored: Stored) -> Value:
    """Axes in another order, done now for a weight."""
    known = Constant.of(op.output)
    if known is not None:
        return known.value()
    return linalg.transpose(stored(op.input), list(op.permutation))


def pad(op: PadOp, stored: Stored) -> Value:
    """The value, or the integer that stores it, around the input."""
    params, value = params_of(op.input), op.value.value
    if params is not None:
        value = int(numerics.quantize(np.asarray(value, np.float32), params))
    return linalg.pad(stored(op.input), list(op.low), list(op.high), value)


def resize_nearest(op: ResizeNearestOp, stored: Stored) -> Value:
    """Rows and pixels repeated along axes of their own, which are then merged into them."""
    x, (down, right) = stored(op.input), op.factors
    if op.layout.value != "nhwc":
        raise DiagnosticError(op, "is in layout nchw; run mlq-assign-layout before this pass")
    batch, height, width, channels = linalg.sizes_of(x)
    sizes = [batch, height, down, width, right, channels]
    made = linalg.elementwise([(x, "d0, d1, d3, d5")], x.type.element_type, sizes, lambda q: q)
    return linalg.reshape(made, [batch, *op.output.type.shape[1:]])


def resample(op: ResampleOp, stored: Stored) -> Value:
    """Rows are joined first, then columns: two products with matrices."""
    if op.layout.value != "nhwc":
        raise DiagnosticError(op, "is in layout nchw; run mlq-assign-layout before this pass")
    made, element = stored(op.input), F32Type.get()
    batch, *_, channels = linalg.sizes_of(made)
    _, height, width, _ = op.output.type.shape

    def body(x: Value, share: Value, total: Value) -> Value:
        return arith.addf(total, arith.mulf(x, share))

    for share, sizes, at in (
        (op.rows, [batch, height, made.type.shape[2], channels], ("n, k, x, c", "y, k")),
        (op.columns, [batch, height, width, channels], ("n, y, k, c", "x, k")),
    ):
        inputs = [(made, at[0]), (stored(share), at[1])]
        output = linalg.filled(sizes, element, 0.0), "n, y, x, c"
        made = linalg.generic("n y x c | k", inputs, output, body)
    return made


def slice(op: SliceOp, stored: Stored) -> Value:  # the op's own name, as in ONNX
    """A strided part."""
    value = stored(op.input)
    whole = linalg.sizes_of(value)
    sizes = [n if size == -1 else size for n, size in zip(whole, op.sizes, strict=True)]
    return linalg.slice(value, list(op.offsets), sizes, list(op.strides))
