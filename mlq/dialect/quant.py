"""The upstream `quant` dialect: its types as `QuantParams` and back, and its storage cast."""

from __future__ import annotations

from torch_mlir.dialects import quant
from torch_mlir.ir import F16Type, F32Type, IntegerType, Operation, Type, Value

from mlq.numerics import QuantParams


def scast(value: Value, result: Type) -> Operation:
    """See the storage integers of a quantized type, or the other way round (`quant.scast`)."""
    return Operation.create("quant.scast", results=[result], operands=[value])


def params_of(element: Type) -> QuantParams | None:
    """The parameters of a per-tensor or per-axis quantized type over f32; None for other types."""
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    if isinstance(element, quant.UniformQuantizedType):
        scale, zero_point, axis = (element.scale,), (element.zero_point,), None
    elif isinstance(element, quant.UniformQuantizedPerAxisType):
        scale, zero_point = tuple(element.scales), tuple(element.zero_points)
        axis = element.quantized_dimension
    else:
        return None
    if not isinstance(element.expressed_type, F32Type):
        return None
    return QuantParams(
        bits=element.storage_type_integral_width,
        signed=element.is_signed,
        scale=scale,
        zero_point=zero_point,
        axis=axis,
        storage_range=(element.storage_type_min, element.storage_type_max),
    )


def type_of(params: QuantParams) -> Type:
    """The `!quant.uniform` element type that says the same as `params`."""
    storage, f32 = IntegerType.get_signless(params.bits), F32Type.get()
    low, high = params.limits
    flags = 1 if params.signed else 0  # QuantizationFlags::Signed
    if params.axis is None:
        return quant.UniformQuantizedType.get(
            flags, storage, f32, params.scale[0], params.zero_point[0], low, high
        )
    return quant.UniformQuantizedPerAxisType.get(
        flags, storage, f32, list(params.scale), list(params.zero_point), params.axis, low, high
    )


def storage_of(element: Type) -> Type:
    """The signless integer type that a quantized element type is stored in; others as they are."""
    if isinstance(element, quant.QuantizedType):
        return IntegerType.get_signless(element.storage_type_integral_width)
    return element


def is_quantized(type_: Type) -> bool:
    """Whether an element type, or the element type of a tensor type, is quantized."""
    return isinstance(getattr(type_, "element_type", type_), quant.QuantizedType)


def is_half(type_: Type) -> bool:
    """Whether an element type, or the element type of a tensor type, is f16."""
    return isinstance(getattr(type_, "element_type", type_), F16Type)


def is_reduced(type_: Type) -> bool:
    """Whether elements are kept in fewer bits than reals have: as quantized integers, or f16."""
    return is_quantized(type_) or is_half(type_)


def storage_name(type_: Type) -> str:
    """What a tensor of this type is stored in: `u8`, `i8`, `i32`, `f32`, ..."""
    element = getattr(type_, "element_type", type_)
    params = params_of(element)
    return str(element) if params is None else f"{'i' if params.signed else 'u'}{params.bits}"
