"""ONNX LSTM, GRU and RNN on kernels: all inputs are multiplied by weights first, as one matrix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import F32Type, InsertionPoint, OpView, Value

from mlq.dialect import bridge, build, linalg
from mlq.kernels import library
from mlq.kernels.isa import Isa
from mlq.kernels.library import Device
from mlq.kernels.recurrence import GATES, Cell, Recurrence
from mlq.transforms import constants
from mlq.transforms.kernels import products
from mlq.transforms.kernels.images import Images, Lower, constant
from mlq.transforms.raising.node import Node, UnsupportedNodeError, unsupported

_CELLS: dict[str, Cell] = {"LSTM": "LSTM", "GRU": "GRU", "RNN": "RNN"}
_ACTIVATIONS: dict[Cell, list[str]] = {
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "RNN": ["Tanh"],
}
# Operands: the sequence, W, R, B, lengths, initial_h, initial_c and peepholes.
_LENGTHS, _HIDDEN, _CELL, _PEEPHOLES = 4, 5, 6, 7


@dataclass(frozen=True)
class _Weights:
    """What a node multiplies by, and adds: W, R [D, gates * H, ...] and both biases of B."""

    key: str
    inputs: NDArray[Any]
    states: NDArray[Any]
    biases: NDArray[Any]

    def first(self, cell: Cell) -> NDArray[Any]:
        """What is added to products of the inputs: [D, gates * H]."""
        of_inputs, of_states = np.split(self.biases, 2, axis=1)
        added = of_states.copy()
        if cell == "GRU":
            added[:, -(of_states.shape[1] // GATES[cell]) :] = 0.0
        made: NDArray[Any] = of_inputs + added
        return made

    def later(self, kernel: Recurrence) -> NDArray[Any]:
        """What a GRU adds to the products that it resets, in whole vectors."""
        beyond = kernel.padded - kernel.hidden
        padded: NDArray[Any] = np.pad(self.biases[:, -kernel.hidden :], ((0, 0), (0, beyond)))
        return padded.reshape(-1)


@dataclass(frozen=True)
class _Product:
    """All inputs multiplied by weights, and how that is lowered."""

    value: Value
    lower: Lower


def recurrent(op: OpView, isa: Device, images: Images) -> Lower | str:
    """A recurrent node, which begins with a matrix product of its own."""
    if not isinstance(isa, Isa) or not library.computes_reals(isa):
        return "is of floats"
    node = Node(op)
    try:
        kernel, weights = _kernel(node, isa), _weights(node)
    except UnsupportedNodeError as error:
        return str(error)
    with InsertionPoint(op), op.location:
        product = build.matmul(
            bridge.to_builtin(node.operand(0)),
            constants.keep(f"{weights.key}:inputs", np.concatenate(list(weights.inputs))),
            bias=constants.keep(f"{weights.key}:bias", weights.first(kernel.cell).reshape(-1)),
            transpose_rhs=True,
        )
    lower = products.matmul(product.owner.opview, isa, images)
    if isinstance(lower, str):
        return lower
    return partial(_lower, node, kernel, weights, _Product(product, lower))


def _kernel(node: Node, isa: Isa) -> Recurrence:
    cell = _CELLS[node.kind]
    steps, batch, _ = shape = node.shape()
    directions, hidden = node.array(2, "recurrent weight").shape[::2]
    if min(shape) < 1:
        unsupported("the number of steps, or of sequences, is known only at run time")
    if node.attribute("layout", 0) or node.has(_PEEPHOLES) or node.attribute("input_forget", 0):
        unsupported("it has peepholes, coupled gates or sequences first")
    if node.attribute("clip", None) is not None:
        unsupported("it clips what it multiplied")
    if node.has(_LENGTHS) and np.any(node.array(_LENGTHS, "sequences' length") != steps):
        unsupported("its sequences have several lengths")
    if cell == "GRU" and not node.attribute("linear_before_reset", 0):
        unsupported("it resets states before they are multiplied")
    usual = _ACTIVATIONS[cell] * directions
    if [each.capitalize() for each in node.attribute("activations", usual)] != usual:
        unsupported("its functions are not the usual ones")
    backwards = node.attribute("direction", "forward") == "reverse"
    return Recurrence(isa, cell, steps, batch, hidden, directions, backwards)


def _weights(node: Node) -> _Weights:
    inputs, states = node.array(1, "weight"), node.array(2, "recurrent weight")
    none = np.zeros((inputs.shape[0], 2 * inputs.shape[1]), np.float32)
    biases = node.array(3, "bias") if node.has(3) else none
    return _Weights(constants.key_of(node.operand(1)), inputs, states, biases)


def _lower(
    node: Node,
    kernel: Recurrence,
    weights: _Weights,
    product: _Product,
    images: Images,
) -> None:
    """Multiply inputs, call the kernel, and take apart what it made."""
    product.lower(images)
    before = [_state(node, index, kernel, images) for index in (_HIDDEN, _CELL)]
    numbers = [
        constant(f"{weights.key}.recurrent", kernel.packed(weights.states)),
        constant(f"{weights.key}.later", weights.later(kernel)),
    ]
    made = images.dispatch(
        kernel,
        [images.plain(product.value), *numbers, *before],
        linalg.tensor_type([kernel.buffers[-1].count], F32Type.get()),
    )
    states = [kernel.directions, kernel.batch, kernel.hidden]
    found = [_part(made, 0, [kernel.steps, *states])]
    padded = kernel.rows * kernel.padded
    for first in (kernel.made, kernel.made + padded):
        rows = _part(made, first, [*states[:2], kernel.padded])
        found.append(linalg.slice(rows, [0] * 3, states, [1] * 3))
    for result, value in zip(node.op.operation.results, found, strict=False):
        result.replace_all_uses_with(bridge.from_builtin(value))


def _state(node: Node, index: int, kernel: Recurrence, images: Images) -> Value:
    """A state as it was given before the first step: zeros, unless it was."""
    shape = kernel.directions, kernel.batch, kernel.hidden
    if not node.has(index) or (kernel.cell != "LSTM" and index == _CELL):
        return constant("zeros", np.zeros(shape, np.float32))
    value = bridge.to_builtin(node.operand(index))
    return images.plain(value) if images.is_made(value) else value


def _part(made: Value, first: int, shape: list[int]) -> Value:
    size = int(np.prod(shape))
    return linalg.reshape(linalg.slice(made, [first], [size], [1]), shape)


CHOICES = dict.fromkeys(_CELLS, recurrent)
