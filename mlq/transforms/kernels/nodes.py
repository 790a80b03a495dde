"""ONNX nodes that stay float, and that kernels compute all the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod

import numpy as np
from torch_mlir.ir import OpView, Value

from mlq.dialect import bridge
from mlq.dialect.shapes import DYNAMIC
from mlq.kernels import library
from mlq.kernels.executable import Kernel
from mlq.kernels.isa import Isa
from mlq.kernels.layer_norm import LayerNorm
from mlq.kernels.library import Device
from mlq.kernels.softmax import Softmax
from mlq.transforms.kernels import recurrent
from mlq.transforms.kernels.images import Images, Lower, constant
from mlq.transforms.raising.node import Node, UnsupportedNodeError, unsupported

_EPSILON = 1e-5  # where the node does not say


def softmax(op: OpView, isa: Device, _images: Images) -> Lower | str:
    """Softmax along the last axis."""
    try:
        node, cpu = Node(op), _with_floats(isa)
        rows, size = _rows(node)
    except UnsupportedNodeError as error:
        return str(error)
    if _axis(node) != node.tensor().rank - 1:
        return "is along another axis than the last"
    return partial(_call, op, Softmax(cpu, rows, size), ())


def layer_norm(op: OpView, isa: Device, _images: Images) -> Lower | str:
    """LayerNormalization from any axis behind the batch on, with numbers for each element."""
    try:
        node, cpu = Node(op), _with_floats(isa)
        rows, size = _rows(node)
        counts = {prod(node.shape(i)) for i in (1, 2) if node.has(i)}
    except UnsupportedNodeError as error:
        return str(error)
    if counts != {size}:
        return "scales by repeated numbers"
    _, *others = op.operation.results
    if any(list(other.uses) for other in others):
        return "has results besides the norm"
    kernel = LayerNorm(cpu, rows, size, node.attribute("epsilon", _EPSILON))
    return partial(_layer_norm, node, kernel)


def _with_floats(isa: Device) -> Isa:
    if not isinstance(isa, Isa) or not library.computes_reals(isa):
        unsupported("is of floats")
    return isa


def _axis(node: Node) -> int:
    axis, rank = int(node.attribute("axis", -1)), int(node.tensor().rank)
    return axis % max(1, rank)


def _rows(node: Node) -> tuple[int, int]:
    """How many rows there are from the node's axis on, and how long each is.

    Of a batch of any size those of one sample.
    """
    tensor, axis = node.tensor(), _axis(node)
    if tensor.rank == 0 or 0 in tensor.shape:
        unsupported("has no axis")
    first, last = list(tensor.shape[:axis]), list(tensor.shape[axis:])
    if DYNAMIC in first[1:] or DYNAMIC in last:
        unsupported("has an axis of unknown size that is not the batch")
    return prod(1 if size == DYNAMIC else size for size in first), prod(last)


def _layer_norm(node: Node, kernel: LayerNorm, images: Images) -> None:
    """Without shifts, zeros are added."""
    scale = bridge.to_builtin(node.operand(1))
    if node.has(2):
        shift = bridge.to_builtin(node.operand(2))
    else:
        shift = constant("no_shift", np.zeros(kernel.size, np.float32))
    _call(node.op, kernel, (scale, shift), images)


def _call(op: OpView, kernel: Kernel, others: Sequence[Value], images: Images) -> None:
    """Call a kernel of a node's first operand, and of other tensors."""
    value = bridge.to_builtin(op.operation.operands[0])
    given = [images.plain(each) if images.is_made(each) else each for each in (value, *others)]
    made = images.dispatch(kernel, given, value.type)
    op.operation.results[0].replace_all_uses_with(bridge.from_builtin(made))


CHOICES = {"Softmax": softmax, "LayerNormalization": layer_norm, **recurrent.CHOICES}
