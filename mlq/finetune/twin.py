"""A network at the GRAPH contract in torch, op by op, as `mlq.reference` computes it in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from mlq.dialect import build, functions, layers, ops
from mlq.dialect.shapes import DYNAMIC, slices
from mlq.errors import DiagnosticError
from mlq.network import Network, walked
from mlq.numerics import nonlinear

Tensor = Any
Quantize = Callable[[str, str, Tensor], Tensor]
"""A layer's operand (layer, role, value) as the layer reads it."""

Compute = Callable[[list[Tensor], Quantize], Tensor]


class Twin:
    """Runs batches of any size; `parameters` are the weights and biases by key, leaves of torch."""

    def __init__(self, network: Network) -> None:
        self.parameters: dict[str, Tensor] = {}
        self._steps: list[tuple[Compute, list[int], int]] = []
        walked(network, lambda function: self._read(function, network))

    def __call__(self, inputs: list[Tensor], quantize: Quantize) -> Tensor:
        """The network's first output."""
        values: dict[int, Tensor] = dict(enumerate(inputs))
        for compute, operands, result in self._steps:
            values[result] = compute([values[i] for i in operands], quantize)
        return values[self._output]

    def _read(self, function: Any, network: Network) -> None:
        numbers: dict[Any, int] = {}
        block = functions.body_of(function)
        for argument in block.arguments:
            numbers[argument] = len(numbers)
        *body, end = block.operations
        for op in body:
            numbers[op.operation.results[0]] = len(numbers)
            operands = [numbers[value] for value in op.operation.operands]
            compute = self._computing(op.operation.opview, network)
            self._steps.append((compute, operands, numbers[op.operation.results[0]]))
        self._output = numbers[end.operation.operands[0]]

    def _computing(self, op: Any, network: Network) -> Compute:
        if isinstance(op, ops.WeightOp):
            key = str(op.key.value)
            array = torch.from_numpy(network.weights[key].copy())
            self.parameters.setdefault(key, array)
            return lambda _values, _quantize: self.parameters[key]
        made = _MAKERS.get(type(op))
        if made is None:
            raise DiagnosticError(op, "cannot be fine-tuned: it is no op of mlq")
        return made(op)


def _bounded(op: Any) -> Callable[[Tensor], Tensor]:
    activation = build.Activation.of(op)
    low, high = activation.low, activation.high
    return lambda x: x.clamp(low, high)


def _operands(op: Any) -> tuple[str, list[tuple[str, int]], bool]:
    """The layer's name, the roles and places of its activations, and whether it has a bias."""
    flows = [(flow.role, flow.index) for flow in layers.activations_of(op)]
    return build.name_of(op) or "", flows, getattr(op, "bias", None) is not None


def _layer(op: Any, product: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Compute:
    name, flows, biased = _operands(op)
    bounded = _bounded(op)
    residual = next((index for role, index in flows if role == "residual"), None)
    first = flows[0][0]

    def compute(values: list[Tensor], quantize: Quantize) -> Tensor:
        x, weight = quantize(name, first, values[0]), quantize(name, "weight", values[1])
        made = product(x, weight, values[2] if biased else None)
        if residual is not None:
            made = made + quantize(name, "residual", values[residual])
        return bounded(made)

    return compute


def _padded(x: Tensor, pads: list[int], value: float = 0.0) -> Tensor:
    top, left, bottom, right = pads
    return functional.pad(x, (left, right, top, bottom), value=value) if any(pads) else x


def _conv2d(op: Any) -> Compute:
    keys = build.attributes_of(op, "strides", "pads", "dilations", "groups")
    pads = keys.pop("pads")
    how = {"stride": keys["strides"], "dilation": keys["dilations"], "groups": keys["groups"]}
    return _layer(op, lambda x, w, b: functional.conv2d(_padded(x, pads), w, b, **how))


def _matmul(op: Any) -> Compute:
    transposed = bool(op.transpose_rhs.value)

    def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        made = x @ (weight.transpose(-1, -2) if transposed else weight)
        return made if bias is None else made + bias

    return _layer(op, product)


def _add(op: Any) -> Compute:
    name, bounded = build.name_of(op) or "", _bounded(op)
    return lambda v, quantize: bounded(quantize(name, "lhs", v[0]) + quantize(name, "rhs", v[1]))


def _mul(op: Any) -> Compute:
    name, bounded = build.name_of(op) or "", _bounded(op)
    return lambda v, quantize: bounded(quantize(name, "lhs", v[0]) * quantize(name, "rhs", v[1]))


def _batch_matmul(op: Any) -> Compute:
    name, bounded, turned = build.name_of(op) or "", _bounded(op), bool(op.transpose_rhs.value)
    factor = op.alpha.value

    def compute(values: list[Tensor], quantize: Quantize) -> Tensor:
        lhs, rhs = quantize(name, "lhs", values[0]), quantize(name, "rhs", values[1])
        return bounded(factor * (lhs @ (rhs.transpose(-1, -2) if turned else rhs)))

    return compute


def _nonlinearity(op: Any) -> Compute:
    name, function = build.name_of(op) or "", nonlinear.parse(op.function.value)

    def compute(values: list[Tensor], quantize: Quantize) -> Tensor:
        given = value = quantize(name, "input", values[0])
        for step in function:
            value = _STEPS[step.name](value, given, *step.numbers)
        return value

    return compute


def _resize_nearest(op: Any) -> Compute:
    down, right = op.factors
    return lambda v, _: v[0].repeat_interleave(down, 2).repeat_interleave(right, 3)


def _resample(_op: Any) -> Compute:
    return lambda v, _: v[1] @ v[0] @ v[2].T


def _avg_pool2d(op: Any) -> Compute:
    name = build.name_of(op) or ""
    keys = build.attributes_of(op, "kernel", "strides", "pads", "ceil_pads", "count_include_pad")
    if any(keys["pads"]) or any(keys["ceil_pads"]):
        raise DiagnosticError(op, "cannot be fine-tuned: an average of padded windows")
    kernel, strides = keys["kernel"], keys["strides"]
    return lambda v, quantize: functional.avg_pool2d(quantize(name, "input", v[0]), kernel, strides)


def _max_pool2d(op: Any) -> Compute:
    keys = build.attributes_of(op, "kernel", "strides", "pads", "dilations")
    pads, how = keys["pads"], (keys["kernel"], keys["strides"])
    dilation, least = keys["dilations"], float("-inf")
    return lambda v, _: functional.max_pool2d(_padded(v[0], pads, least), *how, dilation=dilation)


def _concat(op: Any) -> Compute:
    axis = op.axis.value
    return lambda values, _quantize: torch.cat(values, dim=axis)


def _reshape(op: Any) -> Compute:
    shape = [-1 if size == DYNAMIC else size for size in build.shape_of(op.output)]
    return lambda values, _quantize: values[0].reshape(shape)


def _transpose(op: Any) -> Compute:
    permutation = list(op.permutation)
    return lambda values, _quantize: values[0].permute(permutation)


def _pad(op: Any) -> Compute:
    low, high, value = list(op.low), list(op.high), op.value.value
    widths = [each for pair in zip(low[::-1], high[::-1], strict=True) for each in pair]
    return lambda values, _quantize: functional.pad(values[0], widths, value=value)


def _slice(op: Any) -> Compute:
    chosen = slices(list(op.offsets), list(op.sizes), list(op.strides))
    return lambda values, _quantize: values[0][chosen]


def _activate(op: Any) -> Compute:
    bounded = _bounded(op)
    return lambda values, _quantize: bounded(values[0])


_STEPS: Mapping[str, Callable[..., Tensor]] = {
    "add": lambda v, _, number: v + number,
    "clip": lambda v, _, low, high: v.clamp(low, high),
    "elu": lambda v, _, alpha: functional.elu(v, alpha),
    "erf": lambda v, _: torch.erf(v),
    "hard_sigmoid": lambda v, _, alpha, beta: (alpha * v + beta).clamp(0.0, 1.0),
    "hard_swish": lambda v, _: functional.hardswish(v),
    "leaky_relu": lambda v, _, alpha: functional.leaky_relu(v, alpha),
    "multiply": lambda v, _, number: v * number,
    "sigmoid": lambda v, _: torch.sigmoid(v),
    "softplus": lambda v, _: functional.softplus(v),
    "tanh": lambda v, _: torch.tanh(v),
    "times_input": lambda v, given: v * given,
}

_MAKERS: Mapping[type[Any], Callable[[Any], Compute]] = {
    ops.ActivateOp: _activate,
    ops.AddOp: _add,
    ops.AvgPool2dOp: _avg_pool2d,
    ops.BatchMatmulOp: _batch_matmul,
    ops.ConcatOp: _concat,
    ops.Conv2dOp: _conv2d,
    ops.MatmulOp: _matmul,
    ops.MaxPool2dOp: _max_pool2d,
    ops.MulOp: _mul,
    ops.NonlinearityOp: _nonlinearity,
    ops.PadOp: _pad,
    ops.ReshapeOp: _reshape,
    ops.ResampleOp: _resample,
    ops.ResizeNearestOp: _resize_nearest,
    ops.SliceOp: _slice,
    ops.TransposeOp: _transpose,
}
