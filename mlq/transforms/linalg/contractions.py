"""conv2d, matmul, batch_matmul: contractions whose results one elementwise op finishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch_mlir.dialects import linalg as upstream
from torch_mlir.ir import F32Type, OpView, Value

from mlq.dialect import linalg
from mlq.dialect.linalg import Size
from mlq.dialect.ops import BatchMatmulOp, Conv2dOp, MatmulOp
from mlq.errors import DiagnosticError
from mlq.transforms.linalg.arithmetic import in_f32
from mlq.transforms.linalg.constants import Constant
from mlq.transforms.linalg.epilogue import Stored, params_of
from mlq.transforms.linalg.product import Product, product_of, product_of_activations

# What IREE's matrix products want of a shape to be fast (measured on AVX-512, IREE 3.13): rows in
# eights, columns in 64s, or in 32s if floats are made inside of the loops. The rest is padding.
_ROWS, _COLUMNS = 8, 64
_FEW_COLUMNS = 256


def conv2d(op: Conv2dOp, stored: Stored) -> Value:
    """A convolution in NHWC: rows of pixels times a matrix, or windows padded with zero points."""
    if op.layout.value != "nhwc":
        raise DiagnosticError(op, "is in layout nchw; run mlq-assign-layout before this pass")
    x, w, groups = stored(op.input), stored(op.weight), op.groups.value
    sizes = [linalg.sizes_of(x)[0], *_known(op, op.output.type.shape[1:3]), w.type.shape[3]]
    pointwise = groups == 1 and list(w.type.shape)[:2] == [1, 1] and not any(op.pads)
    inside = pointwise and _tiled(w.type.shape[3])[1]
    product = product_of(op, op.input, op.weight, stored, floats=groups == 1, inside=inside)
    if pointwise:
        acc = _pointwise(op, product, x, w, sizes)
    elif groups == 1 and product.is_float:
        image = _apart(_padded(op, product.in_float(x), 0), padded=any(op.pads))
        acc = _named(upstream.conv_2d_nhwc_hwcf, op, product, (image, w), sizes)
    elif groups == 1:
        y, x_at = _window(op)
        image = (_padded(op, x, product.padding), f"n, {y}, {x_at}, i")
        loops = "n y x o | h w i"
        acc = product.sum(loops, [image, (w, "h, w, i, o")], sizes, "n, y, x, o")
    else:
        acc = _grouped(op, product, (_padded(op, x, product.padding), w), sizes)
    return product.finished(op, acc, stored, axis=3)


def matmul(op: MatmulOp, stored: Stored) -> Value:
    """A matrix product; leading axes of the left side are rows like any other."""
    lhs, known, transposed = stored(op.lhs), Constant.of(op.rhs), bool(op.transpose_rhs.value)
    *leading, inner = linalg.sizes_of(lhs)
    columns, inside = _tiled(op.output.type.shape[-1])
    product = product_of(op, op.lhs, op.rhs, stored, floats=True, inside=inside)
    if known is not None:
        matrix = _with_columns(known.transposed([1, 0]) if transposed else known, columns)
        transposed = False
    else:
        matrix = stored(op.rhs)
    rows = linalg.reshape(lhs, [linalg.product(leading), inner])
    acc = _rows_times(product, rows, matrix, "n, k" if transposed else "k, n")
    columns = op.output.type.shape[-1]
    acc = linalg.reshape(_part(acc, linalg.sizes_of(acc)[0], columns), [*leading, columns])
    return product.finished(op, acc, stored, axis=len(leading))


def batch_matmul(op: BatchMatmulOp, stored: Stored) -> Value:
    """A matrix product for each pair of matrices, which IREE tiles if they have but one number."""
    lhs, rhs = stored(op.lhs), stored(op.rhs)
    *leading, rows = linalg.sizes_of(lhs)[:3]
    sizes = [linalg.product(leading), rows, op.output.type.shape[3]]
    left, right = (linalg.reshape(x, [sizes[0], *x.type.shape[2:]]) for x in (lhs, rhs))
    at = "b, p, k" if op.transpose_rhs.value else "b, k, p"
    product = product_of_activations(op.lhs, op.rhs)
    acc = product.sum("b m p | k", [(left, "b, m, k"), (right, at)], sizes, "b, m, p")
    made = product.finished(op, acc, stored, axis=2)
    # IREE 3.13 fuses the scaling of scores with their softmax, and fails if these are exposed, too.
    made = linalg.barrier(made) if params_of(op.output) is None else made
    return linalg.reshape(made, [*leading, *sizes[1:]])


def _pointwise(op: Conv2dOp, product: Product, x: Value, w: Value, sizes: Sequence[Size]) -> Value:
    """A convolution that looks at one pixel: a matrix product of the pixels that strides leave.

    IREE computes a strided 1x1 convolution pixel by pixel, fifty times slower.
    """
    inner, columns = w.type.shape[2:]
    known = Constant.of(op.weight)
    matrix = linalg.reshape(w, [inner, columns])
    if known is not None:
        matrix = _with_columns(known.reshaped([inner, columns]), _tiled(columns)[0])
    if list(op.strides) != [1, 1]:
        x = linalg.slice(x, [0] * 4, [*sizes[:3], inner], [1, *op.strides, 1])
    rows = linalg.reshape(x, [linalg.product(sizes[:3]), inner])
    acc = _rows_times(product, rows, matrix, "k, n")
    return linalg.reshape(_part(acc, linalg.sizes_of(acc)[0], columns), sizes)


def _rows_times(product: Product, rows: Value, matrix: Value, at: str) -> Value:
    """Rows [M, K] times a matrix, the rows padded to what runs fast and cut again."""
    count, columns = linalg.sizes_of(rows)[0], matrix.type.shape[at.split(", ").index("n")]
    missing = -count % _ROWS if isinstance(count, int) and count > _ROWS else 0
    rows = linalg.pad(rows, [0, 0], [missing, 0], product.padding)
    if product.is_float and product.centre:
        rows = product.in_float(rows)
    sizes = [linalg.sizes_of(rows)[0], columns]
    acc = product.sum("m n | k", [(rows, "m, k"), (matrix, at)], sizes, "m, n")
    return _part(acc, count, columns)


def _tiled(columns: int) -> tuple[int, bool]:
    """How many columns to compute for `columns`, and whether to make floats inside of the loops."""
    if columns % 96 == 48:  # noqa: PLR2004 -- three tiles of 16, an odd number of times
        return columns, False
    tile = _COLUMNS if columns > _FEW_COLUMNS else _COLUMNS // 2
    padded = -(-columns // tile) * tile
    return padded, padded > tile and padded % _COLUMNS != 0


def _with_columns(matrix: Constant, columns: int) -> Value:
    """A known matrix with zeros behind its columns."""
    missing = columns - matrix.array.shape[1]
    return in_f32((matrix.padded([0, missing]) if missing else matrix).value())


def _part(acc: Value, rows: Size, columns: int) -> Value:
    """The first rows and columns of a matrix.

    IREE would cut the operands of the product instead, but for the barrier.
    """
    if list(acc.type.shape) == list(linalg.tensor_type([rows, columns], F32Type.get()).shape):
        return acc
    return linalg.slice(linalg.barrier(acc), [0, 0], [rows, columns], [1, 1])


def _grouped(
    op: Conv2dOp, product: Product, operands: tuple[Value, Value], sizes: Sequence[Size]
) -> Value:
    """A convolution in groups, which are loops of their own; depthwise, they are the only ones."""
    (x, w), (y, x_at) = operands, _window(op)
    groups, (height, width, inner, channels) = op.groups.value, w.type.shape
    if inner == 1 and channels == groups:
        kernel = linalg.reshape(w, [height, width, channels])
        if product.is_float:
            return _named(upstream.depthwise_conv_2d_nhwc_hwc, op, product, (x, kernel), sizes)
        image = (x, f"n, {y}, {x_at}, c")
        return product.sum("n y x c | h w", [image, (kernel, "h, w, c")], sizes, "n, y, x, c")
    image = linalg.reshape(x, [*linalg.sizes_of(x)[:3], groups, inner])
    kernel = linalg.reshape(w, [height, width, inner, groups, channels // groups])
    acc = product.sum(
        "n y x g o | h w i",
        [(image, f"n, {y}, {x_at}, g, i"), (kernel, "h, w, i, g, o")],
        [*sizes[:3], groups, channels // groups],
        "n, y, x, g, o",
    )
    return linalg.reshape(acc, sizes)


def _named(
    convolution: Callable[..., Value],
    op: Conv2dOp,
    product: Product,
    operands: tuple[Value, Value],
    sizes: Sequence[Size],
) -> Value:
    """A named float convolution: IREE has schedules for these and none for their generic form.

    It makes floats of a weight in i8 by itself, where it reads them.
    """
    init = linalg.filled(sizes, product.element, 0.0)
    strides, dilations = list(op.strides), list(op.dilations)
    return convolution(*operands, outs=[init], strides=strides, dilations=dilations)


def _apart(image: Value, *, padded: bool) -> Value:
    """The image in memory: what makes it would be fused into the windows, each pixel many times.

    Padding keeps it apart already.
    """
    return image if padded else linalg.barrier(image)


def _window(op: Conv2dOp) -> list[str]:
    """Where a window's element is in the padded image: index expressions for rows and columns."""
    return [
        f"{at} * {stride} + {k} * {dilation}"
        for at, k, stride, dilation in zip("yx", "hw", op.strides, op.dilations, strict=True)
    ]


def _padded(op: Conv2dOp, x: Value, padding: float) -> Value:
    top, left, bottom, right = op.pads
    return linalg.pad(x, [0, top, left, 0], [0, bottom, right, 0], padding)


def _known(op: OpView, shape: Sequence[int]) -> list[int]:
    if any(n < 0 for n in shape):
        raise DiagnosticError(op, "has an image of unknown size; only the batch may be dynamic")
    return list(shape)
