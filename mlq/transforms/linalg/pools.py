"""max_pool2d and avg_pool2d: reductions over windows in NHWC."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from torch_mlir.dialects import arith
from torch_mlir.dialects import linalg as upstream
from torch_mlir.ir import F32Type, IntegerType, OpView, Value

from mlq import numerics
from mlq.dialect import build, linalg
from mlq.dialect.linalg import Size
from mlq.dialect.ops import AvgPool2dOp, MaxPool2dOp
from mlq.errors import DiagnosticError
from mlq.numerics.windows import counted
from mlq.transforms.linalg.arithmetic import Coefficients, centred
from mlq.transforms.linalg.epilogue import Stored, finish, params_of, varying

_I32_LIMIT = 1 << 31


def max_pool2d(op: MaxPool2dOp, stored: Stored) -> Value:
    """The greatest of each window, of storage or of reals; padding is the least there is."""
    params = params_of(op.input)
    least = -np.inf if params is None else np.iinfo(params.dtype).min
    x = _padded(op, stored(op.input), op.pads, least)
    unsigned = params is not None and not params.signed
    pooling = upstream.pooling_nhwc_max_unsigned if unsigned else upstream.pooling_nhwc_max
    element = x.type.element_type
    init = linalg.filled(_sizes(op, x), element, least)
    window = linalg.empty(list(op.kernel), element)
    return pooling(x, window, outs=[init], strides=list(op.strides), dilations=list(op.dilations))


def avg_pool2d(op: AvgPool2dOp, stored: Stored) -> Value:
    """The mean of each window: a sum of what lies above the zero point, times 1 / count."""
    params = params_of(op.input)
    zero = 0.0 if params is None else params.zero_point[0]
    top, left, bottom, right = op.pads
    beyond = list(op.ceil_pads)
    pads = [top, left, bottom + beyond[0], right + beyond[1]]
    x = _padded(op, stored(op.input), pads, zero)
    element = F32Type.get() if params is None else _wide_enough(op, params)
    sizes = _sizes(op, x)

    def body(value: Value, *rest: Value) -> Value:
        if params is None:
            return arith.addf(rest[-1], value)
        return arith.addi(rest[-1], centred(value, params, element))

    init = linalg.filled(sizes, element, 0)
    if list(sizes[1:3]) == [1, 1] and list(op.kernel) == x.type.shape[1:3]:
        total = linalg.generic("n c | h w", [(x, "n, h, w, c")], (init, "n, 0, 0, c"), body)
    else:
        y, x_at = (f"{at} * {s} + {k}" for at, k, s in zip("yx", "hw", op.strides, strict=True))
        window = linalg.empty(list(op.kernel), element)
        total = linalg.generic(
            "n y x c | h w",
            [(x, f"n, {y}, {x_at}, c"), (window, "h, w")],
            (init, "n, y, x, c"),
            body,
        )
    return finish(op, total, stored, scale=_scale(op))


def _wide_enough(op: AvgPool2dOp, params: numerics.QuantParams) -> IntegerType:
    """The integer that holds the sum of a window."""
    most = prod(op.kernel) * (params.limits[1] - params.limits[0])
    return linalg.integer_type(32 if most < _I32_LIMIT else 64)


def _scale(op: AvgPool2dOp) -> Coefficients:
    """What turns sums into means: for each position, as windows at the borders count less."""
    counts = counted(
        op.input.type.shape[1:3],
        list(op.kernel),
        list(op.strides),
        list(op.pads),
        list(op.ceil_pads),
        count_include_pad=bool(build.attributes_of(op, "count_include_pad")["count_include_pad"]),
    )
    params = params_of(op.input)
    if params is None:
        return varying(1.0 / counts, "d1, d2")
    return varying(numerics.pool_scale(counts, params, params_of(op.output)), "d1, d2")


def _padded(op: OpView, x: Value, pads: Sequence[int], padding: float) -> Value:
    if op.layout.value != "nhwc":
        raise DiagnosticError(op, "is in layout nchw; run mlq-assign-layout before this pass")
    top, left, bottom, right = pads
    return linalg.pad(x, [0, top, left, 0], [0, bottom, right, 0], padding)


def _sizes(op: OpView, x: Value) -> list[Size]:
    _, height, width, channels = op.output.type.shape
    if height < 0 or width < 0:
        raise DiagnosticError(op, "has an image of unknown size; only the batch may be dynamic")
    return [linalg.sizes_of(x)[0], height, width, channels]
