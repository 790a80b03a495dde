"""What every mlq op demands of itself; each function answers with a complaint, or None.

The complaint continues the sentence "'mlq.<op>' op ...", and carries the op's location.
"""

from __future__ import annotations

from typing import Any

from torch_mlir.ir import RankedTensorType, Value

from mlq.dialect import demands, quant, shapes
from mlq.dialect.demands import Complaint
from mlq.numerics import nonlinear


def quantize(op: Any) -> Complaint:
    wrong = demands.expect_float(op.input, "operand") or demands.expect_reduced(op.output, "result")
    return wrong or demands.same_shape(op.input, op.output)


def dequantize(op: Any) -> Complaint:
    wrong = demands.expect_reduced(op.input, "operand") or demands.expect_float(op.output, "result")
    return wrong or demands.same_shape(op.input, op.output)


def requantize(op: Any) -> Complaint:
    wrong = demands.expect_quantized(op.input, "operand") or demands.expect_quantized(
        op.output, "result"
    )
    return wrong or demands.same_shape(op.input, op.output)


def weight(op: Any) -> Complaint:
    if not op.key.value:
        return "must name an entry of the weight store, its key is empty"
    if not RankedTensorType(op.output.type).has_static_shape:
        return f"must have a static shape, got {op.output.type}"
    return demands.well_quantized(op.output, "result")


def conv2d(op: Any) -> Complaint:
    complaint = (
        _precisions(op, op.input, op.weight)
        or demands.known_layout(op)
        or demands.known_activation(op)
    )
    if complaint is not None:
        return complaint
    layout, groups = op.layout.value, op.groups.value
    x, w = demands.shape_of(op.input), demands.shape_of(op.weight)
    if len(x) != 4 or len(w) != 4:
        return f"takes 4-D input and weight, got {op.input.type} and {op.weight.type}"
    channels, per_group = x[shapes.CHANNEL[layout]], w[shapes.INPUT_CHANNEL[layout]]
    if channels != per_group * groups:
        return f"has {channels} input channels, but {groups} groups of {per_group} in its weight"
    expected = shapes.conv2d(x, w, layout=layout, **_lists(op, "strides", "pads", "dilations"))
    return _bias(op, w[shapes.OUTPUT_CHANNEL[layout]]) or demands.expect_shape(op.output, expected)


def matmul(op: Any) -> Complaint:
    complaint = _precisions(op, op.lhs, op.rhs) or demands.known_activation(op)
    if complaint is not None:
        return complaint
    transposed = bool(op.transpose_rhs.value)
    lhs, rhs = demands.shape_of(op.lhs), demands.shape_of(op.rhs)
    if len(rhs) != 2 or len(lhs) < 2:
        return f"takes [..., M, K] and a 2-D right side, got {op.lhs.type} and {op.rhs.type}"
    if lhs[-1] != rhs[1 if transposed else 0]:
        return f"does not contract: {op.lhs.type} with {op.rhs.type}"
    expected = shapes.matmul(lhs, rhs, transpose_rhs=transposed)
    return _bias(op, expected[-1]) or demands.expect_shape(op.output, expected)


def batch_matmul(op: Any) -> Complaint:
    lhs, rhs = demands.shape_of(op.lhs), demands.shape_of(op.rhs)
    contracted = rhs[-1 if op.transpose_rhs.value else -2]
    if len(lhs) != 4 or lhs[:2] != rhs[:2] or lhs[-1] != contracted:
        return f"does not contract matrix by matrix: {op.lhs.type} with {op.rhs.type}"
    params = quant.params_of(op.rhs.type.element_type)
    if params is not None and params.zero_point[0] * 2 != sum(params.limits):
        return f"has a right side that is not symmetric about its zero point: {op.rhs.type}"
    expected = shapes.matmul(lhs, rhs, transpose_rhs=bool(op.transpose_rhs.value))
    return _mixed(op) or demands.expect_shape(op.output, expected)


def add(op: Any) -> Complaint:
    return _sides(op) or demands.same_shape(op.lhs, op.rhs)


def mul(op: Any) -> Complaint:
    left, right = demands.shape_of(op.lhs), demands.shape_of(op.rhs)
    if not shapes.broadcasts(right, left):
        return f"cannot repeat {op.rhs.type} along axes of size 1 to fit {op.lhs.type}"
    return _sides(op)


def nonlinearity(op: Any) -> Complaint:
    try:
        nonlinear.parse(op.function.value)
    except ValueError as error:
        return f"has no function: {error}"
    params = quant.params_of(op.input.type.element_type)
    if demands.is_quantized(op.input) and (params is None or not nonlinear.is_looked_up(params)):
        return f"looks up integers of at most 12 bits, got {op.input.type}"
    return (
        demands.well_quantized(op.input, "operand")
        or demands.result_storage(op, op.input)
        or demands.same_shape(op.input, op.output)
    )


def max_pool2d(op: Any) -> Complaint:
    windows = _lists(op, "kernel", "strides", "pads", "dilations")
    expected = shapes.pool2d(demands.shape_of(op.input), layout=op.layout.value, **windows)
    return (
        demands.known_layout(op)
        or demands.same_element(op.input, op.output)
        or demands.expect_shape(op.output, expected)
    )


def avg_pool2d(op: Any) -> Complaint:
    pads, ceil = list(op.pads), list(op.ceil_pads)
    expected = shapes.pool2d(
        demands.shape_of(op.input),
        kernel=list(op.kernel),
        strides=list(op.strides),
        pads=[pads[0], pads[1], pads[2] + ceil[0], pads[3] + ceil[1]],
        layout=op.layout.value,
    )
    return (
        demands.known_layout(op)
        or demands.well_quantized(op.input, "operand")
        or demands.result_storage(op, op.input)
        or demands.expect_shape(op.output, expected)
    )


def concat(op: Any) -> Complaint:
    axis, sides = op.axis.value, [demands.shape_of(op.lhs), demands.shape_of(op.rhs)]
    others = [shape[:axis] + shape[axis + 1 :] for shape in sides]
    if others[0] != others[1]:
        return f"cannot join {op.lhs.type} and {op.rhs.type} along axis {axis}"
    return (
        demands.same_element(op.lhs, op.output)
        or demands.same_element(op.rhs, op.output)
        or demands.expect_shape(op.output, shapes.concat(sides, axis=axis))
    )


def reshape(op: Any) -> Complaint:
    before, after = demands.shape_of(op.input), demands.shape_of(op.output)
    dynamic = [shape.count(shapes.DYNAMIC) for shape in (before, after)]
    if max(dynamic) > 1 or shapes.elements(before) != shapes.elements(after):
        return f"cannot turn {op.input.type} into {op.output.type}"
    return demands.same_element(op.input, op.output)


def transpose(op: Any) -> Complaint:
    permutation, shape = list(op.permutation), demands.shape_of(op.input)
    if sorted(permutation) != list(range(len(shape))):
        return f"permutation {permutation} does not fit {op.input.type}"
    return demands.expect_shape(
        op.output, [shape[i] for i in permutation]
    ) or demands.well_quantized(op.output, "result")


def pad(op: Any) -> Complaint:
    shape, low, high = demands.shape_of(op.input), list(op.low), list(op.high)
    if not len(shape) == len(low) == len(high):
        return f"needs a low and a high padding for each axis of {op.input.type}"
    return demands.same_element(op.input, op.output) or demands.expect_shape(
        op.output, shapes.pad(shape, low=low, high=high)
    )


def resample(op: Any) -> Complaint:
    image, rows, columns = map(demands.shape_of, (op.input, op.rows, op.columns))
    axes = shapes.SPATIAL[op.layout.value]
    if len(image) != 4 or [*rows[1:], *columns[1:]] != [image[axis] for axis in axes]:
        return f"takes an image, and matrices of its height and width, got {op.input.type}"
    expected = shapes.replaced(image, axes, (rows[0], columns[0]))
    wrong = demands.known_layout(op) or demands.expect_float(op.input, "operand")
    return wrong or demands.expect_shape(op.output, expected)


def resize_nearest(op: Any) -> Complaint:
    factors = list(op.factors)
    if len(factors) != 2 or min(factors) < 1 or len(demands.shape_of(op.input)) != 4:
        return f"takes two factors of at least 1 and an image, got {factors} and {op.input.type}"
    expected = shapes.resize(demands.shape_of(op.input), factors, layout=op.layout.value)
    return (
        demands.known_layout(op)
        or demands.same_element(op.input, op.output)
        or demands.expect_shape(op.output, expected)
    )


def slice(op: Any) -> Complaint:  # the op's own name, as in ONNX
    shape = demands.shape_of(op.input)
    if not len(shape) == len(list(op.offsets)) == len(list(op.sizes)) == len(list(op.strides)):
        return f"needs an offset, a size and a stride for each axis of {op.input.type}"
    expected = [whole if size == -1 else size for whole, size in zip(shape, op.sizes, strict=True)]
    return demands.same_element(op.input, op.output) or demands.expect_shape(op.output, expected)


def activate(op: Any) -> Complaint:
    return (
        demands.known_activation(op)
        or demands.same_element(op.input, op.output)
        or demands.same_shape(op.input, op.output)
    )


def observe(op: Any) -> Complaint:
    if op.bins.value < 1 or op.max_elements.value < 1:
        return "needs at least one bin and one element"
    return demands.expect_float(op.input, "operand") or demands.expect_shape(
        op.statistics, [2 + op.bins.value]
    )


def fake_quantize(op: Any) -> Complaint:
    table = demands.shape_of(op.table)
    if len(table) != 2 or table[1] != 4 or op.row.value >= table[0]:
        return f"row {op.row.value} is not in a table [L, 4], which is {op.table.type}"
    return demands.expect_float(op.input, "operand") or demands.same_shape(op.input, op.output)


def compare(op: Any) -> Complaint:
    if op.max_elements.value < 1:
        return "needs at least one element"
    return (
        demands.expect_float(op.reference, "reference")
        or demands.expect_float(op.value, "value")
        or _same_but_for_rows(op.reference, op.value)
        or demands.expect_shape(op.energies, [2])
    )


def _same_but_for_rows(reference: Value, value: Value) -> Complaint:
    """One shape; of images, in whatever layout, the second may have fewer rows."""
    pairs = list(zip(demands.shape_of(reference), demands.shape_of(value), strict=False))
    fewer = [more > n > 0 for more, n in pairs[1:]]
    unlike = sum(more != n for more, n in pairs)
    if reference.type.rank == value.type.rank == 4 and unlike == sum(fewer) <= 1:
        return None
    return demands.same_shape(reference, value)


def _precisions(op: Any, input: Value, weight: Value) -> Complaint:
    """All operands f32, input and weight f16, or quantized with the bias; a residual no more."""
    kinds = [demands.is_quantized(v) for v in (input, weight, op.bias) if v is not None]
    halves = [demands.is_half(v) for v in (input, weight)]
    if any(kinds) != all(kinds) or any(halves) != all(halves):
        return f"mixes precisions: {', '.join(str(v.type) for v in op.operation.operands)}"
    if op.residual is not None and demands.is_half(op.residual) and not any(kinds + halves):
        return f"is of f32, but its residual is {op.residual.type}"
    if op.residual is not None and demands.is_quantized(op.residual) and not all(kinds):
        return f"is float, but its residual is {op.residual.type}"
    for role, value in (("input", input), ("weight", weight), ("bias", op.bias)):
        if value is not None and (complaint := demands.well_quantized(value, role)):
            return complaint
    if op.residual is not None and (
        complaint := demands.well_quantized(op.residual, "residual")
        or demands.same_shape(op.residual, op.output)
    ):
        return complaint
    return demands.result_storage(op, input)


def _lists(op: Any, *names: str) -> dict[str, list[int]]:
    return {name: list(getattr(op, name)) for name in names}


def _sides(op: Any) -> Complaint:
    """Both operands f32 or both quantized, and a result with the shape of the left one."""
    return _mixed(op) or demands.same_shape(op.lhs, op.output)


def _mixed(op: Any) -> Complaint:
    """Both operands f32, f16 or quantized, and a result that is no more than they are."""
    kinds = [(demands.is_quantized(v), demands.is_half(v)) for v in (op.lhs, op.rhs)]
    if kinds[0] != kinds[1]:
        return f"mixes precisions: {op.lhs.type} and {op.rhs.type}"
    return (
        demands.known_activation(op)
        or demands.well_quantized(op.lhs, "left operand")
        or demands.well_quantized(op.rhs, "right operand")
        or demands.result_storage(op, op.lhs)
    )


def _bias(op: Any, channels: int) -> Complaint:
    if op.bias is None or demands.shape_of(op.bias) == [channels]:
        return None
    return f"bias must have {channels} elements, got {op.bias.type}"
