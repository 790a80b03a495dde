"""ONNX nodes that stay float, and that kernels compute all the same."""

from __future__ import annotations

from functools import partial
from math import prod

from torch_mlir.ir import OpView

from mlq.dialect import bridge
from mlq.dialect.shapes import DYNAMIC
from mlq.kernels import library
from mlq.kernels.isa import Isa
from mlq.kernels.library import Device
from mlq.kernels.softmax import Softmax
from mlq.transforms.kernels import recurrent
from mlq.transforms.kernels.images import Images, Lower
from mlq.transforms.raising.node import Node


def softmax(op: OpView, isa: Device, _images: Images) -> Lower | str:
    """Softmax along the last axis."""
    node = Node(op)
    tensor = bridge.builtin_of(node.operand(0).type)
    if not isinstance(isa, Isa) or not library.computes_reals(isa):
        return "is of floats"
    if tensor is None or tensor.rank == 0 or 0 in tensor.shape:
        return "has no axis"
    batch, *known = tensor.shape if tensor.rank > 1 else [1, *tensor.shape]
    if DYNAMIC in known:
        return "has an axis of unknown size that is not the batch"
    if str(tensor.element_type) != "f32":
        return "is of other floats than f32"
    if node.attribute("axis", -1) not in {-1, tensor.rank - 1}:
        return "is along another axis than the last"
    *rows, size = known
    count = prod(rows) * (1 if batch == DYNAMIC else batch)
    return partial(_softmax, op, Softmax(isa, count, size))


def _softmax(op: OpView, kernel: Softmax, images: Images) -> None:
    value = bridge.to_builtin(op.operation.operands[0])
    source = images.plain(value) if images.is_made(value) else value
    made = images.dispatch(kernel, [source], value.type)
    op.operation.results[0].replace_all_uses_with(bridge.from_builtin(made))


CHOICES = {"Softmax": softmax, **recurrent.CHOICES}
