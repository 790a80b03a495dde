"""What every mlq op demands of itself; each function answers with a complaint, or None.

The complaint continues the sentence "'mlq.<op>' op ...", and carries the op's location.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_mlir.dialects import quant
from torch_mlir.ir import F32Type, RankedTensorType, StringAttr, Type, Value

from mlq.dialect import shapes

Complaint = str | None

ACTIVATIONS = ("none", "relu", "clip")


def quantize(op: Any) -> Complaint:
    wrong = _expect_float(op.input, "operand") or _expect_quantized(op.output, "result")
    return wrong or _same_shape(op.input, op.output)


def dequantize(op: Any) -> Complaint:
    wrong = _expect_quantized(op.input, "operand") or _expect_float(op.output, "result")
    return wrong or _same_shape(op.input, op.output)


def requantize(op: Any) -> Complaint:
    wrong = _expect_quantized(op.input, "operand") or _expect_quantized(op.output, "result")
    return wrong or _same_shape(op.input, op.output)


def weight(op: Any) -> Complaint:
    if not op.key.value:
        return "must name an entry of the weight store, its key is empty"
    if not RankedTensorType(op.output.type).has_static_shape:
        return f"must have a static shape, got {op.output.type}"
    return _well_quantized(op.output, "result")


def conv2d(op: Any) -> Complaint:
    complaint = _precisions(op, op.input, op.weight) or _layout(op) or _activation(op)
    if complaint is not None:
        return complaint
    layout, groups = op.layout.value, op.groups.value
    x, w = _shape(op.input), _shape(op.weight)
    if len(x) != 4 or len(w) != 4:
        return f"takes 4-D input and weight, got {op.input.type} and {op.weight.type}"
    channels, per_group = x[shapes.CHANNEL[layout]], w[shapes.INPUT_CHANNEL[layout]]
    if channels != per_group * groups:
        return f"has {channels} input channels, but {groups} groups of {per_group} in its weight"
    expected = shapes.conv2d(
        x,
        w,
        strides=list(op.strides),
        pads=list(op.pads),
        dilations=list(op.dilations),
        layout=layout,
    )
    return _bias(op, w[shapes.OUTPUT_CHANNEL[layout]]) or _expect_shape(op.output, expected)


def matmul(op: Any) -> Complaint:
    complaint = _precisions(op, op.lhs, op.rhs) or _activation(op)
    if complaint is not None:
        return complaint
    transposed = bool(op.transpose_rhs.value)
    lhs, rhs = _shape(op.lhs), _shape(op.rhs)
    if len(rhs) != 2 or len(lhs) < 2:
        return f"takes [..., M, K] and a 2-D right side, got {op.lhs.type} and {op.rhs.type}"
    if lhs[-1] != rhs[1 if transposed else 0]:
        return f"does not contract: {op.lhs.type} with {op.rhs.type}"
    expected = shapes.matmul(lhs, rhs, transpose_rhs=transposed)
    return _bias(op, expected[-1]) or _expect_shape(op.output, expected)


def add(op: Any) -> Complaint:
    if is_quantized(op.lhs) != is_quantized(op.rhs):
        return f"mixes precisions: {op.lhs.type} and {op.rhs.type}"
    return (
        _activation(op)
        or _well_quantized(op.lhs, "left operand")
        or _well_quantized(op.rhs, "right operand")
        or _result_storage(op, op.lhs)
        or _same_shape(op.lhs, op.rhs)
        or _same_shape(op.lhs, op.output)
    )


def max_pool2d(op: Any) -> Complaint:
    expected = shapes.pool2d(
        _shape(op.input),
        kernel=list(op.kernel),
        strides=list(op.strides),
        pads=list(op.pads),
        dilations=list(op.dilations),
        layout=op.layout.value,
    )
    return _layout(op) or _same_element(op.input, op.output) or _expect_shape(op.output, expected)


def avg_pool2d(op: Any) -> Complaint:
    pads, ceil = list(op.pads), list(op.ceil_pads)
    expected = shapes.pool2d(
        _shape(op.input),
        kernel=list(op.kernel),
        strides=list(op.strides),
        pads=[pads[0], pads[1], pads[2] + ceil[0], pads[3] + ceil[1]],
        layout=op.layout.value,
    )
    return (
        _layout(op)
        or _well_quantized(op.input, "operand")
        or _result_storage(op, op.input)
        or _expect_shape(op.output, expected)
    )


def concat(op: Any) -> Complaint:
    axis, sides = op.axis.value, [_shape(op.lhs), _shape(op.rhs)]
    others = [shape[:axis] + shape[axis + 1 :] for shape in sides]
    if others[0] != others[1]:
        return f"cannot join {op.lhs.type} and {op.rhs.type} along axis {axis}"
    return (
        _same_element(op.lhs, op.output)
        or _same_element(op.rhs, op.output)
        or _expect_shape(op.output, shapes.concat(sides, axis=axis))
    )


def reshape(op: Any) -> Complaint:
    before, after = _shape(op.input), _shape(op.output)
    dynamic = [shape.count(shapes.DYNAMIC) for shape in (before, after)]
    if max(dynamic) > 1 or shapes.elements(before) != shapes.elements(after):
        return f"cannot turn {op.input.type} into {op.output.type}"
    return _same_element(op.input, op.output)


def transpose(op: Any) -> Complaint:
    permutation, shape = list(op.permutation), _shape(op.input)
    if sorted(permutation) != list(range(len(shape))):
        return f"permutation {permutation} does not fit {op.input.type}"
    return _expect_shape(op.output, [shape[i] for i in permutation]) or _well_quantized(
        op.output, "result"
    )


def pad(op: Any) -> Complaint:
    shape, low, high = _shape(op.input), list(op.low), list(op.high)
    if not len(shape) == len(low) == len(high):
        return f"needs a low and a high padding for each axis of {op.input.type}"
    return _same_element(op.input, op.output) or _expect_shape(
        op.output, shapes.pad(shape, low=low, high=high)
    )


def slice(op: Any) -> Complaint:  # the op's own name, as in ONNX
    shape = _shape(op.input)
    if not len(shape) == len(list(op.offsets)) == len(list(op.sizes)) == len(list(op.strides)):
        return f"needs an offset, a size and a stride for each axis of {op.input.type}"
    expected = [whole if size == -1 else size for whole, size in zip(shape, op.sizes, strict=True)]
    return _same_element(op.input, op.output) or _expect_shape(op.output, expected)


def activate(op: Any) -> Complaint:
    return _activation(op) or _same_element(op.input, op.output) or _same_shape(op.input, op.output)


def observe(op: Any) -> Complaint:
    if op.bins.value < 1 or op.max_elements.value < 1:
        return "needs at least one bin and one element"
    return _expect_float(op.input, "operand") or _expect_shape(op.statistics, [2 + op.bins.value])


def fake_quantize(op: Any) -> Complaint:
    table = _shape(op.table)
    if len(table) != 2 or table[1] != 4 or op.row.value >= table[0]:
        return f"row {op.row.value} is not in a table [L, 4], which is {op.table.type}"
    return _expect_float(op.input, "operand") or _same_shape(op.input, op.output)


def compare(op: Any) -> Complaint:
    if op.max_elements.value < 1:
        return "needs at least one element"
    return (
        _expect_float(op.reference, "reference")
        or _expect_float(op.value, "value")
        or _same_shape(op.reference, op.value)
        or _expect_shape(op.energies, [2])
    )


def is_quantized(value: Value | Type) -> bool:
    """Whether a tensor stores quantized integers."""
    return isinstance(_element(value), quant.QuantizedType)


def _element(value: Value | Type) -> Type:
    type_ = value if isinstance(value, Type) else value.type
    return type_.element_type if isinstance(type_, RankedTensorType) else type_


def _shape(value: Value) -> list[int]:
    return list(value.type.shape)


def _expect_float(value: Value, role: str) -> Complaint:
    if isinstance(_element(value), F32Type):
        return None
    return f"{role} must have element type f32, got {_element(value)}"


def _expect_quantized(value: Value, role: str) -> Complaint:
    if not is_quantized(value):
        return f"{role} must have a !quant element type, got {_element(value)}"
    return _well_quantized(value, role)


def _well_quantized(value: Value, role: str) -> Complaint:
    """Check what MLIR's quant types do not: the zero points, and the length of the axis."""
    element = _element(value)
    if isinstance(element, quant.UniformQuantizedPerAxisType):
        axis, count, shape = element.quantized_dimension, len(element.scales), _shape(value)
        if axis >= len(shape) or shape[axis] != count:
            return f"{role} has {count} scales on axis {axis}, which does not fit {value.type}"
        zero_points: Sequence[int] = list(element.zero_points)
    elif isinstance(element, quant.UniformQuantizedType):
        zero_points = [element.zero_point]
    else:
        return None
    low, high = element.storage_type_min, element.storage_type_max
    for zero_point in zero_points:
        if not low <= zero_point <= high:
            return f"{role} has zero point {zero_point} outside of its storage [{low}, {high}]"
    return None


def _precisions(op: Any, input: Value, weight: Value) -> Complaint:
    """All operands f32, or input, weight and bias quantized; a residual may be either then."""
    kinds = [is_quantized(v) for v in (input, weight, op.bias) if v is not None]
    if any(kinds) and not all(kinds):
        return f"mixes precisions: {', '.join(str(v.type) for v in op.operation.operands)}"
    if op.residual is not None and is_quantized(op.residual) and not all(kinds):
        return f"is float, but its residual is {op.residual.type}"
    for role, value in (("input", input), ("weight", weight), ("bias", op.bias)):
        if value is not None and (complaint := _well_quantized(value, role)):
            return complaint
    if op.residual is not None and (
        complaint := _well_quantized(op.residual, "residual") or _same_shape(op.residual, op.output)
    ):
        return complaint
    return _result_storage(op, input)


def _result_storage(op: Any, input: Value) -> Complaint:
    """A float op has a float result; an integer op has either."""
    if is_quantized(op.output) and not is_quantized(input):
        return f"computes in float, so its result cannot be {op.output.type}"
    return _well_quantized(op.output, "result")


def _layout(op: Any) -> Complaint:
    if op.layout.value in shapes.SPATIAL:
        return None
    return f"layout must be one of {sorted(shapes.SPATIAL)}, got {op.layout.value!r}"


def _activation(op: Any) -> Complaint:
    kind = StringAttr(op.activation.kind).value  # a parameter comes back as a plain Attribute
    if kind in ACTIVATIONS:
        return None
    return f"activation must be one of {', '.join(ACTIVATIONS)}, got {kind!r}"


def _bias(op: Any, channels: int) -> Complaint:
    if op.bias is None or _shape(op.bias) == [channels]:
        return None
    return f"bias must have {channels} elements, got {op.bias.type}"


def _same_shape(one: Value, other: Value) -> Complaint:
    return _expect_shape(other, _shape(one))


def _same_element(one: Value, other: Value) -> Complaint:
    if _element(one) == _element(other):
        return _well_quantized(other, "result")
    return f"moves elements, so {one.type} cannot become {other.type}"


def _expect_shape(value: Value, expected: Sequence[int]) -> Complaint:
    if _shape(value) == list(expected):
        return None
    wanted = "x".join("?" if n == shapes.DYNAMIC else str(n) for n in expected)
    return f"should have shape {wanted}, got {value.type}"
