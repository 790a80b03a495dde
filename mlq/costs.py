"""What layers cost on a device: by the target's table, or as measured on this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from mlq.network import Layer
from mlq.targets.base import Target, Work


class Costs(Protocol):
    """What allocation reckons with, in microseconds; `source` says in words where it is from."""

    @property
    def source(self) -> str:
        """For the report."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """All that casts may make."""

    def layer_us(self, layer: Layer, precision: str) -> float:
        """One layer, its input and output stored in `precision`."""

    def cast_us(self, elements: int, precision: str) -> float:
        """Making so many floats what `precision` stores."""


@dataclass(frozen=True)
class TableCosts:
    """The rates of the target's table, by kind of op."""

    target: Target

    @property
    def source(self) -> str:
        """As the table says."""
        return self.target.cost_source

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that the target stores."""
        return tuple(self.target.storage)

    def layer_us(self, layer: Layer, precision: str) -> float:
        """By operations and bytes."""
        return self.target.cost_us(work_of(layer), precision)

    def cast_us(self, elements: int, precision: str) -> float:
        """By bytes."""
        return self.target.cast_us(elements, precision)


@dataclass(frozen=True)
class MeasuredCosts:
    """Microseconds of this network's layers at each precision, measured.

    Casts are by the table; where kernels compute, each is a dispatch of its own.
    """

    table: TableCosts
    layers: Mapping[str, Mapping[str, float]]
    source: str

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that the target stores."""
        return self.table.precisions

    def layer_us(self, layer: Layer, precision: str) -> float:
        """As measured; KeyError for a precision that was not."""
        return self.layers[layer.name][precision]

    def cast_us(self, elements: int, precision: str) -> float:
        """By the table, and what a dispatch costs."""
        overhead = self.table.target.costs.dispatch_us
        return overhead + self.table.cast_us(elements, precision)


def work_of(layer: Layer) -> Work:
    """What a layer asks of a device."""
    return Work(
        kind=layer.kind,
        form=layer.form,
        macs=layer.macs,
        params=layer.params,
        input_elements=sum(flow.elements for flow in layer.flows),
        output_elements=layer.output_elements,
    )
