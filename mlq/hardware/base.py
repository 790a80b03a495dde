"""What every hardware model answers: time, energy and memory traffic of a layer at given bits."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mlq.hardware.layer import Layer


class Traffic(NamedTuple):
    """Bytes that a layer moves between the chip and its DRAM."""

    input: float
    weight: float
    output: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.input + self.weight + self.output


class Hardware(Protocol):
    """A device as a search sees it; weights and activations of a layer have bits of their own."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def summary(self) -> str:
        """One line on what it is."""

    def model_dump_json(self) -> str:
        """All of its description, as text that is equal for equal devices."""

    def latency_us(self, layer: Layer, weight_bits: int, activation_bits: int) -> float:
        """Microseconds that the layer takes."""

    def energy_uj(self, layer: Layer, weight_bits: int, activation_bits: int) -> float:
        """Microjoules that the layer takes."""

    def memory_traffic(self, layer: Layer, weight_bits: int, activation_bits: int) -> Traffic:
        """Bytes that the layer moves from and to DRAM."""


def compulsory(layer: Layer, weight_bits: int, activation_bits: int) -> Traffic:
    """The least traffic of a layer: each operand once."""
    activation = activation_bits / 8
    return Traffic(
        layer.inputs * activation, layer.weights * weight_bits / 8, layer.outputs * activation
    )
