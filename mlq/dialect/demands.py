"""What verifiers of mlq ops demand of types, shapes and attributes, each with its complaint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch_mlir.dialects import quant
from torch_mlir.ir import F16Type, F32Type, OpView, RankedTensorType, StringAttr, Type, Value

from mlq.dialect import shapes

Complaint = str | None

ACTIVATIONS = ("none", "relu", "clip")


def verified(check: Callable[[Any], Complaint]) -> Callable[[type], type]:
    """Give an op class a verifier: `check` answers with a complaint, or None."""

    def verify_invariants(op: OpView) -> bool:
        complaint = check(op)
        if complaint is not None:
            op.location.emit_error(f"'{op.operation.name}' op {complaint}")
        return complaint is None

    def attach(cls: Any) -> Any:
        cls.verify_invariants = staticmethod(verify_invariants)
        # `ext` attaches a verifier only where it finds both methods.
        cls.verify_region_invariants = staticmethod(lambda _op: True)
        return cls

    return attach


def is_quantized(value: Value | Type) -> bool:
    """Whether a tensor stores quantized integers."""
    return isinstance(element_of(value), quant.QuantizedType)


def element_of(value: Value | Type) -> Type:
    type_ = value if isinstance(value, Type) else value.type
    return type_.element_type if isinstance(type_, RankedTensorType) else type_


def shape_of(value: Value) -> list[int]:
    return list(value.type.shape)


def expect_float(value: Value, role: str) -> Complaint:
    if isinstance(element_of(value), F32Type):
        return None
    return f"{role} must have element type f32, got {element_of(value)}"


def is_half(value: Value | Type) -> bool:
    """Whether a tensor stores f16."""
    return isinstance(element_of(value), F16Type)


def expect_reduced(value: Value, role: str) -> Complaint:
    """Quantized integers, or f16."""
    return None if is_half(value) else expect_quantized(value, role)


def expect_quantized(value: Value, role: str) -> Complaint:
    if not is_quantized(value):
        return f"{role} must have a !quant element type, got {element_of(value)}"
    return well_quantized(value, role)


def well_quantized(value: Value, role: str) -> Complaint:
    """Check what MLIR's quant types do not: the zero points, and the length of the axis."""
    element = element_of(value)
    if isinstance(element, quant.UniformQuantizedPerAxisType):
        axis, count, shape = element.quantized_dimension, len(element.scales), shape_of(value)
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


def result_storage(op: Any, input: Value) -> Complaint:
    """An op of f32 has a result of f32, one of f16 may have f16, an integer op any."""
    reduced = is_quantized(op.output) or (is_half(op.output) and not is_half(input))
    if reduced and not is_quantized(input):
        return f"computes in float, so its result cannot be {op.output.type}"
    return well_quantized(op.output, "result")


def known_layout(op: Any) -> Complaint:
    if op.layout.value in shapes.SPATIAL:
        return None
    return f"layout must be one of {sorted(shapes.SPATIAL)}, got {op.layout.value!r}"


def known_activation(op: Any) -> Complaint:
    kind = StringAttr(op.activation.kind).value  # a parameter comes back as a plain Attribute
    if kind in ACTIVATIONS:
        return None
    return f"activation must be one of {', '.join(ACTIVATIONS)}, got {kind!r}"


def same_shape(one: Value, other: Value) -> Complaint:
    return expect_shape(other, shape_of(one))


def same_element(one: Value, other: Value) -> Complaint:
    if element_of(one) == element_of(other):
        return well_quantized(other, "result")
    return f"moves elements, so {one.type} cannot become {other.type}"


def expect_shape(value: Value, expected: Sequence[int]) -> Complaint:
    if shape_of(value) == list(expected):
        return None
    wanted = "x".join("?" if n == shapes.DYNAMIC else str(n) for n in expected)
    return f"should have shape {wanted}, got {value.type}"
