"""A network executed op by op in numpy: what every device must compute.

It runs GRAPH and QUANTIZED modules, in either layout, with `mlq.numerics`; ONNX nodes that are no
ops of mlq by ONNX's own reference. Slow for a compiler's taste, but each integer is right by
construction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import numerics
from mlq.dialect import build, functions, layers, ops, quant, shapes, weights
from mlq.errors import DiagnosticError
from mlq.frontends import evaluating
from mlq.numerics import QuantParams, nonlinear
from mlq.numerics.sampling import energies, row_step, statistics, subsampling_step

Array = NDArray[Any]
Store = Mapping[str, Array]

_TO_NCHW, _TO_NHWC, _TO_OIHW = (0, 3, 1, 2), (0, 2, 3, 1), (3, 2, 0, 1)


def run(
    program: Any,
    inputs: Sequence[Array] | Mapping[str, Array],
    store: Store | None = None,
    *,
    given: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Every named tensor of a module's `@main`, or of a function: storage integers or floats.

    `inputs` are in order, or by `mlq.name`; weights are those of `store`, or the bound ones. The
    results are under the names of the ops that make them, and of the arguments. Raises
    DiagnosticError at a node that ONNX's reference cannot compute.

    `given` are named tensors as something else made them, such as a device: each op then computes
    on those, so that what it yields is right or wrong by itself, and ops that are not mlq's are
    passed by.
    """
    function = program.operation.opview
    if function.operation.name == "builtin.module":
        function = functions.main_of(function.operation)
    block = functions.body_of(function)
    names = [layers.tensor_name(argument) for argument in block.arguments]
    arrays = evaluating.in_order(inputs, names)
    machine = Machine(store)
    machine.values.update(zip(block.arguments, arrays, strict=True))
    found = {name: array for name, array in zip(names, arrays, strict=True) if name is not None}
    for op in list(block.operations)[:-1]:
        name = build.name_of(op)
        if given is None or machine.can_execute(op):
            results = machine.execute(op.operation.opview)
            machine.values.update(zip(op.operation.results, results, strict=True))
            if name is not None:
                found[name] = results[0]
        if given is not None and name is not None and name in given:
            machine.values[op.operation.results[0]] = given[name]
    return found


class Machine:
    """The tensors of a function so far, by the value that stands for them."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self.values: dict[Any, Array] = {}

    def __getitem__(self, value: Any) -> Array:
        """A tensor; of f16 in f32, in which ops compute."""
        return numerics.real.to_f32(self.values[value])

    def weight(self, key: str) -> Array:
        return (weights.current() if self._store is None else self._store)[key]

    def can_execute(self, op: Any) -> bool:
        """Whether the op is mlq's, or a cast to storage."""
        return type(op) in _EXECUTE or op.operation.name == "quant.scast"

    def image(self, op: Any, value: Any) -> Array:
        """A tensor in NCHW, whatever the op's layout."""
        array = self[value]
        return array.transpose(_TO_NCHW) if _is_nhwc(op) else array

    def execute(self, op: Any) -> list[Array]:
        """The results of one op, of an ONNX node by ONNX's own reference."""
        execute = _EXECUTE.get(type(op))
        if execute is None:
            return evaluating.execute(op, [self[each] for each in op.operation.operands])
        results = execute(op, self)
        several = results if isinstance(results, list) else [results]
        pairs = zip(several, op.operation.results, strict=True)
        return [numerics.real.to_f16(x) if quant.is_half(to.type) else x for x, to in pairs]


def _is_nhwc(op: Any) -> bool:
    return "layout" in op.attributes and op.layout.value == "nhwc"


def _laid_out(op: Any, image: Array) -> Array:
    return image.transpose(_TO_NHWC) if _is_nhwc(op) else image


def _params(value: Any) -> QuantParams | None:
    return quant.params_of(build.element_of(value))


def _demanded(value: Any) -> QuantParams:
    params = _params(value)
    if params is None:
        raise DiagnosticError(value.owner, f"has no numerics for {value.type}")
    return params


def _bounds(op: Any) -> tuple[float, float]:
    return build.Activation.of(op).bounds


def _quantize(op: Any, at: Machine) -> Array:
    if quant.is_half(op.output.type):
        return at[op.input]
    return numerics.quantize(at[op.input], _demanded(op.output))


def _dequantize(op: Any, at: Machine) -> Array:
    if quant.is_half(op.input.type):
        return at[op.input]
    return numerics.dequantize(at[op.input], _demanded(op.input))


def _requantize(op: Any, at: Machine) -> Array:
    return numerics.requantize(at[op.input], _demanded(op.input), _demanded(op.output))


def _conv2d(op: Any, at: Machine) -> Array:
    keys = build.attributes_of(op, "strides", "pads", "dilations", "groups")
    weight = at[op.weight].transpose(_TO_OIHW) if _is_nhwc(op) else at[op.weight]
    bias = None if op.bias is None else at[op.bias]
    residual = None if op.residual is None else at.image(op, op.residual)
    image, input, stored = at.image(op, op.input), _params(op.input), _params(op.weight)
    if input is None or stored is None:
        real = numerics.real.conv2d(image, weight, bias, **keys)
        return _laid_out(op, _finish_real(op, real, residual))
    acc = numerics.conv2d(image, weight, bias, zero_point=input.zero_point[0], **keys)
    scale = numerics.accumulator_scale(input, stored, _params(op.output)).reshape(1, -1, 1, 1)
    return _laid_out(op, _finish(op, acc, scale, residual))


def _matmul(op: Any, at: Machine) -> Array:
    turned, lhs, rhs = bool(op.transpose_rhs.value), at[op.lhs], at[op.rhs]
    bias, residual = (at.values.get(getattr(op, name, None)) for name in ("bias", "residual"))
    factor = op.alpha.value if isinstance(op, ops.BatchMatmulOp) else 1.0
    left, right = _params(op.lhs), _params(op.rhs)
    if left is None or right is None:
        product = numerics.real.matmul(lhs, rhs, bias, transpose_rhs=turned)
        return _finish_real(op, factor * product, residual)
    acc = numerics.matmul(
        lhs,
        rhs,
        bias,
        zero_point=left.zero_point[0],
        rhs_zero_point=right.zero_point[0],
        transpose_rhs=turned,
    )
    scale = numerics.accumulator_scale(left, right, _params(op.output), factor=factor)
    return _finish(op, acc, scale, residual)


def _finish(op: Any, acc: Array, scale: Array, residual: Array | None) -> Array:
    output = _params(op.output)
    term = None if residual is None else numerics.addend(residual, _params(op.residual), output)
    return numerics.finish(acc, scale, output, bounds=_bounds(op), residual=term)


def _finish_real(op: Any, value: Array, residual: Array | None) -> Array:
    return numerics.clamp(value if residual is None else value + residual, *_bounds(op))


def _add(op: Any, at: Machine) -> Array:
    output = _params(op.output)
    lhs, rhs = (numerics.addend(at[v], _params(v), output) for v in (op.lhs, op.rhs))
    return numerics.add(lhs, rhs, output, bounds=_bounds(op))


def _mul(op: Any, at: Machine) -> Array:
    lhs, rhs, left, right = at[op.lhs], at[op.rhs], _params(op.lhs), _params(op.rhs)
    if left is None or right is None:
        return numerics.clamp(lhs * rhs, *_bounds(op))
    acc = numerics.multiply(lhs, rhs, zero_points=(left.zero_point[0], right.zero_point[0]))
    return _finish(op, acc, numerics.product_scale(left, right, _params(op.output)), None)


def _nonlinearity(op: Any, at: Machine) -> Array:
    function, input, x = nonlinear.parse(op.function.value), _params(op.input), at[op.input]
    if input is None:
        return nonlinear.evaluate(function, x)
    table = nonlinear.table(function, input, _params(op.output))
    found: Array = table[x.view(f"u{x.itemsize}")]
    return found


def _resize_nearest(op: Any, at: Machine) -> Array:
    return _laid_out(op, at.image(op, op.input).repeat(op.factors[0], 2).repeat(op.factors[1], 3))


def _resample(op: Any, at: Machine) -> Array:
    return _laid_out(op, at[op.rows] @ at.image(op, op.input) @ at[op.columns].T)


def _max_pool2d(op: Any, at: Machine) -> Array:
    keys = build.attributes_of(op, "kernel", "strides", "pads", "dilations")
    return _laid_out(op, numerics.max_pool2d(at.image(op, op.input), **keys))


def _avg_pool2d(op: Any, at: Machine) -> Array:
    names = ("kernel", "strides", "pads", "ceil_pads", "count_include_pad")
    keys, image, input = build.attributes_of(op, *names), at.image(op, op.input), _params(op.input)
    if input is None:
        return _laid_out(op, numerics.real.avg_pool2d(image, **keys))
    output = _params(op.output)
    acc, counts = numerics.avg_pool2d(image, zero_point=input.zero_point[0], **keys)
    scale = numerics.pool_scale(counts, input, output)
    return _laid_out(op, numerics.finish(acc, scale, output))


def _concat(op: Any, at: Machine) -> Array:
    return np.concatenate([at[v] for v in op.operation.operands], axis=op.axis.value)


def _reshape(op: Any, at: Machine) -> Array:
    return at[op.input].reshape([-1 if n == shapes.DYNAMIC else n for n in op.output.type.shape])


def _transpose(op: Any, at: Machine) -> Array:
    moved: Array = at[op.input].transpose(list(op.permutation))
    return moved


def _pad(op: Any, at: Machine) -> Array:
    params, value = _params(op.input), np.float32(op.value.value)
    padding = value if params is None else numerics.quantize(np.asarray(value), params)
    return np.pad(at[op.input], [*zip(op.low, op.high, strict=True)], constant_values=padding)


def _slice(op: Any, at: Machine) -> Array:
    return at[op.input][shapes.slices(op.offsets, op.sizes, op.strides)]


def _activate(op: Any, at: Machine) -> Array:
    params = _params(op.input)
    if params is None:
        return numerics.clamp(at[op.input], *_bounds(op))
    low, high = numerics.activation_bounds(params, _bounds(op))
    return np.asarray(np.minimum(np.maximum(at[op.input], low), high))


def _observe(op: Any, at: Machine) -> Array:
    step = subsampling_step(build.elements_of(op.input), op.max_elements.value)
    return statistics(at[op.input], step, op.bins.value)


def _fake_quantize(op: Any, at: Machine) -> Array:
    return numerics.fake_quantize_row(at[op.input], at[op.table][op.row.value])


def _compare(op: Any, at: Machine) -> Array:
    step = row_step(op.reference.type.shape, op.max_elements.value)
    return energies(at[op.reference], at[op.value], step)


_EXECUTE: dict[type[Any], Callable[[Any, Machine], Any]] = {
    ops.ActivateOp: _activate,
    ops.AddOp: _add,
    ops.AvgPool2dOp: _avg_pool2d,
    ops.BatchMatmulOp: _matmul,
    ops.CompareOp: _compare,
    ops.ConcatOp: _concat,
    ops.Conv2dOp: _conv2d,
    ops.DequantizeOp: _dequantize,
    ops.FakeQuantizeOp: _fake_quantize,
    ops.MatmulOp: _matmul,
    ops.MaxPool2dOp: _max_pool2d,
    ops.MulOp: _mul,
    ops.NonlinearityOp: _nonlinearity,
    ops.ObserveOp: _observe,
    ops.PadOp: _pad,
    ops.QuantizeOp: _quantize,
    ops.RequantizeOp: _requantize,
    ops.ReshapeOp: _reshape,
    ops.ResampleOp: _resample,
    ops.ResizeNearestOp: _resize_nearest,
    ops.SliceOp: _slice,
    ops.TransposeOp: _transpose,
    ops.WeightOp: lambda op, at: at.weight(op.key.value),
}
