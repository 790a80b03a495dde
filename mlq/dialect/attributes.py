"""Attributes of mlq ops as Python values, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from torch_mlir.ir import (
    Attribute,
    BoolAttr,
    DenseI64ArrayAttr,
    F32Type,
    F64Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    Operation,
    OpView,
    StringAttr,
)

from mlq.dialect import namespace

NAME, PRECISION, RANGE, EXTREMES, SENSITIVITY = (
    "mlq.name",
    "mlq.precision",
    "mlq.range",
    "mlq.extremes",
    "mlq.sensitivity",
)
ANNOTATIONS = (PRECISION, RANGE, EXTREMES, SENSITIVITY)
"""What plans and measurements write on the ops, and on the arguments, of a network."""


@dataclass(frozen=True)
class Activation:
    """What an op does to its result before it stores it: clamp it to [low, high] (reals)."""

    kind: str = "none"
    low: float = -inf
    high: float = inf

    @classmethod
    def relu(cls) -> Activation:
        """Clamp below at zero (ONNX Relu)."""
        return cls("relu", 0.0, inf)

    @classmethod
    def clip(cls, low: float, high: float) -> Activation:
        """Clamp to [low, high] (ONNX Clip)."""
        return cls("clip", low, high)

    @classmethod
    def of(cls, op: OpView) -> Activation:
        """The activation that `op` carries in its attribute."""
        attribute = op.attributes["activation"]
        kind = StringAttr(attribute.kind).value
        if kind == "none":
            return cls()
        low, high = FloatAttr(attribute.low).value, FloatAttr(attribute.high).value
        return cls(kind, low, inf if kind == "relu" else high)

    @property
    def bounds(self) -> tuple[float, float]:
        """The reals that it lets through."""
        return self.low, self.high

    def then(self, other: Activation) -> Activation:
        """This activation followed by `other`, as one."""
        if other.kind == "none" or self.kind == "none":
            return self if other.kind == "none" else other
        low, high = (min(max(bound, other.low), other.high) for bound in (self.low, self.high))
        return Activation("relu" if (low, high) == (0.0, inf) else "clip", low, high)

    def attribute(self) -> namespace.ActivationAttr:
        """`#mlq.activation<kind, low, high>`."""
        f32 = F32Type.get()
        low, high = (0.0, 0.0) if self.kind == "none" else (self.low, self.high)
        made: namespace.ActivationAttr = namespace.ActivationAttr.get(
            StringAttr.get(self.kind), FloatAttr.get(f32, low), FloatAttr.get(f32, high)
        )
        return made


NO_ACTIVATION = Activation()


def array(values: Sequence[int]) -> DenseI64ArrayAttr:
    """`array<i64: ...>`."""
    return DenseI64ArrayAttr.get([int(v) for v in values])


def integer(value: int) -> IntegerAttr:
    """`value : i64`."""
    return IntegerAttr.get(IntegerType.get_signless(64), value)


def boolean(value: bool) -> Attribute:  # noqa: FBT001 -- as integer() takes an int
    """`true` or `false`; as a plain Attribute, since `ext` takes a falsy one for a missing one."""
    return Attribute(BoolAttr.get(value))


def name_of(op: OpView | Operation) -> str | None:
    """The op's `mlq.name`, by which ranges, sensitivities and plans know it."""
    attributes = op.operation.attributes
    return StringAttr(attributes[NAME]).value if NAME in attributes else None


def range_attribute(low: float, high: float) -> namespace.RangeAttr:
    """`#mlq.range<low, high>`."""
    f64 = F64Type.get()
    made: namespace.RangeAttr = namespace.RangeAttr.get(
        FloatAttr.get(f64, low), FloatAttr.get(f64, high)
    )
    return made


def precision_attribute(name: str) -> namespace.PrecisionAttr:
    """`#mlq.precision<"name">`."""
    made: namespace.PrecisionAttr = namespace.PrecisionAttr.get(StringAttr.get(name))
    return made


def sensitivity_attribute(metric: str, value: float) -> namespace.SensitivityAttr:
    """`#mlq.sensitivity<"metric", value>`."""
    real = FloatAttr.get(F64Type.get(), value)
    made: namespace.SensitivityAttr = namespace.SensitivityAttr.get(StringAttr.get(metric), real)
    return made


def attributes_of(op: OpView, *keys: str) -> dict[str, Any]:
    """Attributes as builder arguments: arrays as lists, integers and strings as themselves."""
    found: dict[str, Any] = {}
    for key in keys:
        attribute = op.attributes[key]
        value = getattr(attribute, "value", None)
        found[key] = list(attribute) if value is None else value
    return found


def all_attributes_of(op: OpView) -> dict[str, Any]:
    """Every attribute of an op, for `Operation.create` of one like it."""
    attributes = op.operation.attributes
    return {name: attributes[name] for name in attributes}
