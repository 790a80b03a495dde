"""Layers: the ops that have a precision, what flows into them, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch_mlir.ir import (
    BlockArgument,
    DictAttr,
    FloatAttr,
    OpView,
    StringAttr,
    Value,
)

from mlq.dialect import quant, shapes
from mlq.dialect.build import EXTREMES, NAME, PRECISION, RANGE, name_of, shape_of
from mlq.dialect.ops import (
    ActivateOp,
    AddOp,
    AvgPool2dOp,
    BatchMatmulOp,
    ConcatOp,
    Conv2dOp,
    MatmulOp,
    MaxPool2dOp,
    MulOp,
    NonlinearityOp,
    PadOp,
    ReshapeOp,
    ResizeNearestOp,
    SliceOp,
    TransposeOp,
    WeightOp,
)
from mlq.precision import BYTE_BITS, F16, W8A8, Precision

LAYERS: tuple[type[OpView], ...] = (
    Conv2dOp,
    MatmulOp,
    BatchMatmulOp,
    AddOp,
    MulOp,
    AvgPool2dOp,
    NonlinearityOp,
)

# Ops that only move (or clamp, or choose among) elements: quantization commutes with them exactly.
MOVES: tuple[type[OpView], ...] = (
    ActivateOp,
    ConcatOp,
    MaxPool2dOp,
    PadOp,
    ReshapeOp,
    ResizeNearestOp,
    SliceOp,
    TransposeOp,
)

# Which operands of a layer are activations that quantization stores; the first is the main one.
_ACTIVATIONS: dict[type[OpView], tuple[str, ...]] = {
    Conv2dOp: ("input", "residual"),
    MatmulOp: ("lhs", "residual"),
    BatchMatmulOp: ("lhs", "rhs"),
    AddOp: ("lhs", "rhs"),
    MulOp: ("lhs", "rhs"),
    AvgPool2dOp: ("input",),
    NonlinearityOp: ("input",),
}
_WEIGHT: dict[type[OpView], str] = {Conv2dOp: "weight", MatmulOp: "rhs"}
WEIGHT_OPERAND, BIAS_OPERAND = 1, 2
_F16_MOST = 65504.0


@dataclass(frozen=True)
class Flow:
    """One activation operand of a layer: its role there, the value, and its place.

    `centred` says that its storage must be symmetric about zero, as that of a weight is.
    """

    role: str
    value: Value
    index: int
    centred: bool = False


def is_layer(op: OpView) -> bool:
    """Whether a plan may choose a precision for this op: it has a kind that knows, and a name."""
    return isinstance(op, LAYERS) and name_of(op) is not None


def is_argument(value: Value) -> bool:
    """Whether a value enters through the function's signature."""
    return isinstance(value, BlockArgument)


def kind_of(op: OpView) -> str:
    """The op kind that targets and reports use: `conv2d`, `matmul`, `add`, `mul`, ..."""
    return str(op.operation.name).removeprefix("mlq.")


def form_of(op: OpView) -> str:
    """The form of a convolution that runs at a speed of its own: pointwise, depthwise, or ""."""
    if not isinstance(op, Conv2dOp):
        return ""
    weight, layout = shape_of(op.weight), op.layout.value
    if 1 < op.groups.value == weight[_out_channel(op)]:
        return "depthwise"
    kernel = [weight[axis] for axis in shapes.KERNEL[layout]]
    return "pointwise" if kernel == [1, 1] and list(op.strides) == [1, 1] else ""


def activations_of(op: OpView) -> list[Flow]:
    """The activation operands of a layer, absent residuals left out."""
    last = len(op.operation.operands) - 1
    places = {"input": 0, "lhs": 0, "rhs": 1, "residual": last}
    by_matrix = isinstance(op, BatchMatmulOp)
    flows = (
        Flow(role, getattr(op, role), places[role], by_matrix and role == "rhs")
        for role in _ACTIVATIONS[type(op)]
    )
    return [flow for flow in flows if flow.value is not None]


def weight_of(op: OpView) -> Value | None:
    """The weight operand of a layer; None for layers without."""
    return getattr(op, _WEIGHT[type(op)]) if type(op) in _WEIGHT else None


def constants_of(op: OpView) -> dict[int, Value]:
    """Weight and bias of a layer, as far as it has them, by the place of the operand."""
    found = {WEIGHT_OPERAND: weight_of(op), BIAS_OPERAND: getattr(op, "bias", None)}
    return {place: value for place, value in found.items() if value is not None}


def weight_key(value: Value | None) -> str | None:
    """The weight store's key behind a value, or None if it is no `mlq.weight`."""
    if value is None or is_argument(value):
        return None
    owner = value.owner.opview
    return str(owner.key.value) if isinstance(owner, WeightOp) else None


def weight_axis(op: OpView) -> int:
    """The axis of the weight that counts output channels."""
    if isinstance(op, MatmulOp):
        return 0 if op.transpose_rhs.value else 1
    return _out_channel(op)


def precision_of(op: OpView) -> str:
    """The precision that the plan stamped on a layer; f32 without a stamp."""
    attributes = op.operation.attributes
    return StringAttr(attributes[PRECISION].name).value if PRECISION in attributes else "f32"


def tensor_name(value: Value) -> str | None:
    """The `mlq.name` of a tensor: that of the op that makes it, or of the function argument."""
    attributes = _attributes_of(value)
    return StringAttr(attributes[NAME]).value if NAME in attributes else None


def overflows_f16(op: OpView) -> bool:
    """Whether a layer reads what is beyond f16, as far as that was calibrated."""
    ranges = (range_of(flow.value, F16.activation_bits) for flow in activations_of(op))
    most = max((max(map(abs, known)) for known in ranges if known is not None), default=0.0)
    return most > _F16_MOST


def made_in(value: Value) -> set[Precision | None]:
    """F16, W8A8 for all integers, None for f32: what the layers that make a tensor compute in.

    Seen through what only moves it.
    """
    owner = None if is_argument(value) else value.owner.opview
    if isinstance(owner, LAYERS):
        main = owner.operation.operands[0].type
        return {F16 if quant.is_half(main) else W8A8 if quant.is_quantized(main) else None}
    if isinstance(owner, MOVES):
        return set().union(*map(made_in, owner.operation.operands))
    return {None}


def range_of(value: Value, bits: int) -> tuple[float, float] | None:
    """The reals of a tensor that storage of so many bits keeps (see TensorRange.kept)."""
    attributes = _attributes_of(value)
    if RANGE not in attributes:
        return None
    wide = bits > BYTE_BITS and EXTREMES in attributes
    attribute = attributes[EXTREMES if wide else RANGE]
    return FloatAttr(attribute.low).value, FloatAttr(attribute.high).value


def macs(op: OpView) -> int:
    """Multiply-accumulates of a layer for one sample; a dynamic batch counts as one."""
    if isinstance(op, Conv2dOp):
        weight = shape_of(op.weight)
        per_output = prod(weight) // weight[_out_channel(op)]
        return shapes.elements(shape_of(op.output)) * per_output
    if isinstance(op, MatmulOp | BatchMatmulOp):
        return shapes.elements(shape_of(op.output)) * shape_of(op.lhs)[-1]
    return 0


def params(op: OpView) -> int:
    """Weights and biases of a layer."""
    values = [weight_of(op), getattr(op, "bias", None)]
    return sum(prod(shape_of(v)) for v in values if v is not None)


def _out_channel(op: OpView) -> int:
    return shapes.OUTPUT_CHANNEL[op.layout.value]


def _attributes_of(value: Value) -> Any:
    if isinstance(value, BlockArgument):
        return _argument_attributes(value)
    return value.owner.attributes


def _argument_attributes(argument: BlockArgument) -> dict[str, Any]:
    function = argument.owner.owner
    if "arg_attrs" not in function.attributes:
        return {}
    attributes = DictAttr(function.attributes["arg_attrs"][argument.arg_number])
    return {named.name: named.attr for named in attributes}


def attribution(program: Sequence[OpView]) -> list[str]:
    """The layer each op's time is put to: itself, the first to read what is only moved, or none."""
    readers, found = dict[Value, str](), list[str]()
    for op in reversed(program):
        reader = next((readers.get(each, "") for each in op.operation.results), "")
        name = reader if isinstance(op, MOVES) else name_of(op) or ""
        found.append(name)
        if name or reader:
            readers.update(dict.fromkeys(op.operands, name or reader))
    return found[::-1]
