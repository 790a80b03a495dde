"""A roofline: a layer takes its overhead plus the longer of computing and moving."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator

from mlq.hardware.base import Traffic, compulsory
from mlq.hardware.layer import Layer
from mlq.precision import Precision
from mlq.values import Part


class Roofline(Part):
    """Peak rates and a memory bandwidth; energy is power times time.

    `giga_macs` holds 1e9 multiply-accumulates per second by precision (`w8a8`, `w4a8`, ...); a
    layer runs in the fastest of them that is at least as wide as its weights and activations.
    """

    kind: Literal["roofline"] = "roofline"
    name: str = ""
    summary: str
    giga_macs: dict[str, PositiveFloat] = Field(min_length=1)
    dram_bytes_per_us: PositiveFloat
    overhead_us: NonNegativeFloat = 0.0
    watts: PositiveFloat

    @field_validator("giga_macs")
    @classmethod
    def _known(cls, rates: dict[str, float]) -> dict[str, float]:
        widths = [Precision.parse(name) for name in rates]
        if not any(wide.weight_bits >= 8 <= wide.activation_bits for wide in widths):  # noqa: PLR2004 - the bits a search begins with
            raise ValueError("needs a rate for w8a8 or wider")
        return rates

    def latency_us(self, layer: Layer, weight_bits: int, activation_bits: int) -> float:
        """Overhead plus the longer of computing and moving."""
        wide = {Precision.parse(name): rate for name, rate in self.giga_macs.items()}
        rate = max(
            rate
            for precision, rate in wide.items()
            if precision.weight_bits >= weight_bits and precision.activation_bits >= activation_bits
        )
        moved = self.memory_traffic(layer, weight_bits, activation_bits).total
        return self.overhead_us + max(layer.macs / (rate * 1e3), moved / self.dram_bytes_per_us)

    def energy_uj(self, layer: Layer, weight_bits: int, activation_bits: int) -> float:
        """Power times time."""
        return self.watts * self.latency_us(layer, weight_bits, activation_bits)

    def memory_traffic(self, layer: Layer, weight_bits: int, activation_bits: int) -> Traffic:
        """Each operand once."""
        return compulsory(layer, weight_bits, activation_bits)
