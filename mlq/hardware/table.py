"""Measured times: what a real device took for each layer shape in each precision."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, field_validator

from mlq.errors import TargetError
from mlq.hardware.base import Traffic, compulsory
from mlq.hardware.layer import Layer
from mlq.precision import Precision
from mlq.values import Part


class Row(Part):
    """One layer shape and its microseconds by precision (`w8a8`, `w4a8`, ...)."""

    layer: Layer
    us: dict[str, PositiveFloat] = Field(min_length=1)

    @field_validator("us")
    @classmethod
    def _known(cls, times: dict[str, float]) -> dict[str, float]:
        return {str(Precision.parse(name)): us for name, us in times.items()}


class Table(Part):
    """A device by what it was measured at; nothing is interpolated. Energy is power times time."""

    kind: Literal["table"] = "table"
    name: str = ""
    summary: str
    watts: PositiveFloat
    rows: tuple[Row, ...] = Field(min_length=1)

    def latency_us(self, layer: Layer, weight_bits: int, activation_bits: int) -> float:
        """The measured time; TargetError says what was measured where this was not."""
        precision = f"w{weight_bits}a{activation_bits}"
        times = next((row.us for row in self.rows if row.layer == layer), {})
        if precision not in times:
            known = f"measured in {', '.join(times)}" if times else "not measured in any precision"
            raise TargetError(
                f"hardware {self.name}: has no time of {layer} in {precision}: {known}; "
                "measure it and add it to the table's rows"
            )
        return times[precision]

    def energy_uj(self, layer: Layer, weight_bits: int, activation_bits: int) -> float:
        """Power times time."""
        return self.watts * self.latency_us(layer, weight_bits, activation_bits)

    def memory_traffic(self, layer: Layer, weight_bits: int, activation_bits: int) -> Traffic:
        """Each operand once: what was measured does not tell."""
        return compulsory(layer, weight_bits, activation_bits)
