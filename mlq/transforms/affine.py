"""Per-channel affine maps `scale * x + shift`: batch norms, and arithmetic with constants."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import (
    BlockArgument,
    F32Type,
    InsertionPoint,
    Location,
    Operation,
    OpView,
    RankedTensorType,
    Value,
)

from mlq.dialect import bridge, build
from mlq.dialect.locations import names_of
from mlq.dialect.ops import BatchMatmulOp, Conv2dOp, MatmulOp, ReshapeOp
from mlq.dialect.shapes import DYNAMIC
from mlq.transforms import constants
from mlq.transforms.base import skip
from mlq.transforms.cleaning import clean, ops_of
from mlq.transforms.linear import Linear, rebuilt
from mlq.transforms.raising.node import Node, kind_of

Doubles = NDArray[np.float64]

ARITHMETIC = ("Add", "Sub", "Mul", "Div")
CHANNEL_AXIS, MATRIX_RANK, IMAGE_RANK = 1, 2, 4


@dataclass(frozen=True)
class Affine:
    """`scale * input + shift`: arrays that broadcast to the input, in float64 until folded."""

    input: Value
    tensor: RankedTensorType
    scale: Doubles
    shift: Doubles

    @property
    def factor(self) -> float | None:
        """What the map multiplies by, if it is one number, finite, and all that it does."""
        alone = self.scale.size == 1 and not self.shift.any() and np.isfinite(self.scale).all()
        return float(self.scale.reshape(())) if alone else None

    def along(self, axis: int) -> tuple[Doubles, Doubles] | None:
        """Scale and shift as vectors over an axis; None if they vary along another one."""
        shape = [1] * self.tensor.rank
        shape[axis] = self.tensor.shape[axis]
        vectors = []
        for array in (self.scale, self.shift):
            missing = len(shape) - array.ndim
            if missing < 0 or (array.size > 1 and [1] * missing + list(array.shape) != shape):
                return None
            vectors.append(np.broadcast_to(array.reshape(-1), shape[axis]))
        return vectors[0], vectors[1]


def of(op: OpView) -> Affine | None:
    """The map that an ONNX node is; None if it is none, or not of floats with constants."""
    kind = kind_of(op)
    with np.errstate(divide="ignore", invalid="ignore"):  # `absorb` says what came of it
        if kind == "BatchNormalization":
            return _batch_norm(Node(op))
        return _arithmetic(kind, Node(op)) if kind in ARITHMETIC else None


def unscaled(node: Node, index: int) -> tuple[Value, float]:
    """An activation operand of a node, before one number multiplies it, and the number."""
    value = node.operand(index)
    found = None if isinstance(value, BlockArgument) else of(value.owner.opview)
    factor = None if found is None else found.factor
    if found is None or factor is None:
        return node.activation(index), 1.0
    return bridge.to_builtin(found.input), factor


def absorb(module: Operation, kinds: Collection[str], *, convolve: bool) -> None:
    """Take the maps among the ONNX nodes of these kinds into the linear op before each.

    With `convolve`, one that has none there becomes a depthwise 1x1 convolution.
    """
    for op in ops_of(module):
        found = of(op) if kind_of(op) in kinds else None
        if found is None:
            continue
        if not (np.isfinite(found.scale).all() and np.isfinite(found.shift).all()):
            skip(op, "it divides by zero")
            continue
        with InsertionPoint(op), op.location:
            made = _folded(op, found)
            if isinstance(made, str) and convolve:
                made = _as_convolution(op, found)
            if isinstance(made, str):
                skip(op, made)
                continue
            op.operation.results[0].replace_all_uses_with(bridge.from_builtin(made))
        op.operation.erase()
    clean(module)


def _batch_norm(node: Node) -> Affine | None:
    statistics = [constants.array_of(node.operand(i)) for i in range(1, 5)]
    tensor = _floats(node.operand(0))
    unknown = any(array is None for array in statistics)
    if tensor is None or unknown or node.attribute("training_mode", 0):
        return None
    gain, offset, mean, variance = (np.asarray(array, np.float64) for array in statistics)
    scale = gain / np.sqrt(variance + node.attribute("epsilon", 1e-5))
    shape = [-1] + [1] * (tensor.rank - CHANNEL_AXIS - 1)
    shift = offset - mean * scale
    return Affine(node.operand(0), tensor, scale.reshape(shape), shift.reshape(shape))


def _arithmetic(kind: str, node: Node) -> Affine | None:
    left, right = (constants.array_of(node.operand(i)) for i in (0, 1))
    if (left is None) == (right is None) or (kind == "Div" and right is None):
        return None
    index, array = (0, right) if left is None else (1, left)
    tensor = _floats(node.operand(index))
    if tensor is None:
        return None
    constant = np.asarray(array, np.float64)
    scale: NDArray[np.float64] = np.ones((), np.float64)
    shift: NDArray[np.float64] = np.zeros((), np.float64)
    if kind in {"Mul", "Div"}:
        scale = constant if kind == "Mul" else 1.0 / constant
    else:
        shift = -constant if kind == "Sub" and index == 0 else constant
        scale = -scale if kind == "Sub" and index == 1 else scale
    return Affine(node.operand(index), tensor, scale, shift)


def _folded(op: OpView, affine: Affine) -> Value | str:
    """The op before the map with the map in its weight and bias, or why that cannot be."""
    value, reshaped = _behind(affine.input)
    producer: Any = None if value is None else value.owner.opview
    if isinstance(producer, BatchMatmulOp):
        return _multiplied(op, producer, affine)
    is_conv = isinstance(producer, Conv2dOp)
    if not is_conv and (reshaped is not None or not isinstance(producer, MatmulOp)):
        return "it follows no convolution or matrix product whose only use it is"
    if producer.residual is not None or build.Activation.of(producer).kind != "none":
        return "what it follows has an activation or a residual already"
    vectors = affine.along(CHANNEL_AXIS if is_conv else affine.tensor.rank - 1)
    if vectors is None:
        return "it varies along another axis than the channels"
    with Location.fused([producer.location, op.location]):
        made = _scaled(producer, *vectors)
        return _shaped(made.output, list(affine.tensor.shape))


def _multiplied(op: OpView, producer: BatchMatmulOp, affine: Affine) -> Value | str:
    """The product of two activations with the number that multiplies it."""
    if affine.factor is None or build.Activation.of(producer).kind != "none":
        return "it does more to a product of activations than to multiply it by one number"
    with Location.fused([producer.location, op.location]):
        alpha, turned = affine.factor * producer.alpha.value, bool(producer.transpose_rhs.value)
        made = build.batch_matmul(producer.lhs, producer.rhs, transpose_rhs=turned, alpha=alpha)
        return _shaped(made, list(affine.tensor.shape))


def _behind(value: Value) -> tuple[Value | None, ReshapeOp | None]:
    """The mlq value whose only use, perhaps reshaped, is `value`."""
    behind = bridge.source(value, bridge.FROM)
    if behind is None or isinstance(behind, BlockArgument):
        return None, None
    uses = [value, behind]
    reshaped = behind.owner.opview
    if not isinstance(reshaped, ReshapeOp):
        return (behind, None) if _used_once(uses) else (None, None)
    before = reshaped.input
    if isinstance(before, BlockArgument) or not _used_once([*uses, before]):
        return None, None
    keeps_channels = build.shape_of(before)[:2] == build.shape_of(behind)[:2]
    if not keeps_channels and not isinstance(before.owner.opview, BatchMatmulOp):
        return None, None
    return before, reshaped


def _scaled(producer: Linear, scale: Doubles, shift: Doubles) -> OpView:
    """`producer` with `scale` in its weight, and bias `scale * bias + shift`."""
    is_conv = isinstance(producer, Conv2dOp)
    weight = producer.weight if is_conv else producer.rhs
    key, array = constants.key_of(weight), constants.known(weight)
    if (scale != 1.0).any():
        columns = not is_conv and not producer.transpose_rhs.value
        factor = scale if columns else scale.reshape([-1] + [1] * (array.ndim - 1))
        weight, key = constants.keep(f"{key}:bn", array * factor), f"{key}:bn"
    if producer.bias is not None:
        shift = shift + constants.known(producer.bias) * scale
    return rebuilt(producer, weight=weight, bias=constants.keep(f"{key}:bias", shift))


def _as_convolution(op: OpView, affine: Affine) -> Value | str:
    """The map as a depthwise 1x1 convolution, or the reason why that cannot be."""
    shape = list(affine.tensor.shape)
    if not MATRIX_RANK <= len(shape) <= IMAGE_RANK or DYNAMIC in shape[1:]:
        return "only 2-D, 3-D and 4-D inputs of known size have channels"
    vectors = affine.along(CHANNEL_AXIS)
    if vectors is None:
        return "it varies along another axis than the channels"
    if _is_amid_nodes(op, affine.input):
        return "it stands between ONNX nodes, which stay float"
    scale, shift = vectors
    name = next(iter(names_of(op.location)), "affine")
    image = _shaped(bridge.to_builtin(affine.input), shape + [1] * (IMAGE_RANK - len(shape)))
    made = build.conv2d(
        image,
        constants.keep(f"{name}:scale", scale.reshape(-1, 1, 1, 1)),
        bias=constants.keep(f"{name}:shift", shift),
        groups=shape[CHANNEL_AXIS],
    )
    return _shaped(made, shape)


def _is_amid_nodes(op: OpView, input: Value) -> bool:
    """Whether what is read and what reads are ONNX nodes, as about the scores of attention."""
    readers = [use.owner.operation.name for use in op.operation.results[0].uses]
    made = not isinstance(input, BlockArgument) and input.owner.operation.name != bridge.FROM
    return made and bool(readers) and bridge.TO not in readers and "func.return" not in readers


def _floats(value: Value) -> RankedTensorType | None:
    """The type of a tensor of floats of known rank; None for others."""
    tensor = bridge.builtin_of(value.type)
    return tensor if tensor is not None and isinstance(tensor.element_type, F32Type) else None


def _shaped(value: Value, shape: list[int]) -> Value:
    return value if build.shape_of(value) == shape else build.reshape(value, shape)


def _used_once(values: list[Value]) -> bool:
    return all(len(list(value.uses)) == 1 for value in values)
