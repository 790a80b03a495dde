"""Convolutions, matrix products, sums and the activations that follow them."""

from __future__ import annotations

from math import inf, isnan, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import Value

from mlq.dialect import build, layers
from mlq.dialect.build import Activation
from mlq.dialect.ops import TransposeOp
from mlq.transforms import affine, constants
from mlq.transforms.raising.node import Node, unsupported
from mlq.transforms.raising.windows import IMAGE_RANK, as_image, as_input, windows_of

MATRIX_RANK = 2


def conv(node: Node) -> Value:
    """Conv over images, and over sequences as images of height 1."""
    weight = node.array(1, "weight")
    windows = windows_of(node, weight.shape[2:])
    bias = node.array(2, "bias") if node.has(2) else None
    image = as_image(node.activation())
    if weight.ndim == IMAGE_RANK:
        kernel = constants.kept(node.operand(1), weight)
    else:
        key = f"{constants.key_of(node.operand(1))}:2d"
        kernel = constants.keep(key, np.expand_dims(weight, 2))
    made = build.conv2d(
        image,
        kernel,
        bias=None if bias is None else constants.kept(node.operand(2), bias),
        strides=windows.strides,
        pads=windows.pads,
        dilations=windows.dilations,
        groups=node.attribute("group", 1),
    )
    return as_input(made, node)


def gemm(node: Node) -> Value:
    """Gemm: `alpha` is folded into the weight, `beta` into the bias."""
    if len(node.shape()) != MATRIX_RANK:
        unsupported("its left side is no matrix")
    right = node.array(1, "right side")
    transposed = bool(node.attribute("transB", 0))
    channels = right.shape[0 if transposed else 1]
    bias = None
    if node.has(2):
        addend = node.array(2, "bias")
        if addend.size not in {1, channels} or addend.shape[-1:] not in {(), (1,), (channels,)}:
            unsupported("its bias differs from row to row")
        bias = np.broadcast_to(addend.reshape(-1), (channels,))
    lhs = node.activation()
    if node.attribute("transA", 0):
        lhs = build.transpose(lhs, (1, 0))
    weight = _scaled(node.operand(1), right, node.attribute("alpha", 1.0))
    if bias is None:
        return build.matmul(lhs, weight, transpose_rhs=transposed)
    row = _scaled(node.operand(2), bias, node.attribute("beta", 1.0))
    return build.matmul(lhs, weight, bias=row, transpose_rhs=transposed)


def matmul(node: Node) -> Value:
    """MatMul of an activation by a constant matrix, or of two activations, matrix by matrix."""
    if constants.array_of(node.operand(1)) is None:
        return _by_matrix(node)
    right = node.array(1, "right side")
    if right.ndim != MATRIX_RANK:
        unsupported(f"its right side is {right.ndim}-D, not a matrix")
    if len(node.shape()) < MATRIX_RANK:
        unsupported("its left side is no matrix")
    return build.matmul(node.activation(), constants.kept(node.operand(1), right))


def _by_matrix(node: Node) -> Value:
    """MatMul of activations with the same leading axes, of which mlq's op has two."""
    shapes = node.shape(0), node.shape(1)
    leading = shapes[0][:-2]
    if min(map(len, shapes)) < MATRIX_RANK or leading != shapes[1][:-2]:
        unsupported("its matrices are repeated to fit each other")
    if len(leading) == 0:
        unsupported("its right side is computed at run time")
    (lhs, left), (matrices, right) = affine.unscaled(node, 0), affine.unscaled(node, 1)
    rhs, turned = _rows_of(matrices)
    axes = [leading[0], prod(leading[1:])]
    sides = (_under(axes, side) for side in (lhs, rhs))
    made = build.batch_matmul(*sides, transpose_rhs=turned, alpha=left * right)
    return _under(leading, made)


def _rows_of(matrices: Value) -> tuple[Value, bool]:
    """Matrices as they were before each was transposed, and whether it was.

    Rows move as a whole where they stay rows.
    """
    if layers.is_argument(matrices) or not isinstance(matrices.owner.opview, TransposeOp):
        return matrices, False
    transpose = matrices.owner.opview
    *axes, row, column = transpose.permutation
    if row != len(axes) + 1:
        return matrices, False
    order = [*axes, column, row]
    known = order == list(range(len(order)))
    return transpose.input if known else build.transpose(transpose.input, order), True


def _under(leading: list[int], matrices: Value) -> Value:
    """Matrices under other leading axes."""
    shape = [*leading, *build.shape_of(matrices)[-2:]]
    return matrices if shape == build.shape_of(matrices) else build.reshape(matrices, shape)


def add(node: Node) -> Value:
    """Add of two activations of one shape."""
    if node.tensor(0) != node.tensor(1):
        unsupported("its operands have different shapes")
    return build.add(node.activation(0), node.activation(1))


def relu(node: Node) -> Value:
    """Relu."""
    return build.activate(node.activation(), Activation.relu())


def clip(node: Node) -> Value:
    """Clip; a missing bound is infinite, and where the bounds cross the upper one counts."""
    low = float(node.array(1, "lower bound").item()) if node.has(1) else -inf
    high = float(node.array(2, "upper bound").item()) if node.has(2) else inf
    if isnan(low) or isnan(high):
        unsupported("a bound of it is not a number")
    return _clamped(node.activation(), min(low, high), high)


def bound(node: Node) -> Value:
    """Max and Min of an activation and one number: a Clip with one bound."""
    numbers = [constants.array_of(operand) for operand in node.op.operation.operands]
    known = [number is not None for number in numbers]
    if known not in ([True, False], [False, True]):
        unsupported("its operands are not an activation and a constant")
    index = known.index(True)
    limit = node.array(index, "bound")
    if limit.size != 1 or limit.ndim > len(node.tensor(1 - index).shape) or np.isnan(limit).any():
        unsupported("its bound is not one number")
    low, high = (float(limit.item()), inf) if node.kind == "Max" else (-inf, float(limit.item()))
    return _clamped(node.activation(1 - index), low, high)


def _clamped(value: Value, low: float, high: float) -> Value:
    relu_like = (low, high) == (0.0, inf)
    return build.activate(value, Activation.relu() if relu_like else Activation.clip(low, high))


def _scaled(operand: Value, array: NDArray[Any], factor: float) -> Value:
    """The `mlq.weight` of `factor * array`, which stands behind `operand` when nothing changes."""
    if factor == 1.0 and array.shape == constants.known(operand).shape:
        return constants.kept(operand, array)
    return constants.keep(f"{constants.key_of(operand)}:scaled", array.astype(np.float64) * factor)


LINEAR = {
    "Conv": conv,
    "Gemm": gemm,
    "MatMul": matmul,
    "Add": add,
    "Relu": relu,
    "Clip": clip,
    "Max": bound,
    "Min": bound,
}
