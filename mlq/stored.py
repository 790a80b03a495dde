"""A network as a configuration stores it, known without compiling or running anything."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from mlq import numerics
from mlq.network import Flow, Layer, Network
from mlq.precision import F16, F32, Granularity, Precision, Scheme
from mlq.ranges import Ranges

Array = NDArray[Any]
Assignment = Mapping[str, str]
"""Precision by layer name; a layer that is absent is f32."""

_RESIDUAL_BITS = 8
_TABLES = 4  # are kept: what chains in lockstep take turns with


class StoredNetwork:
    """A network as a configuration stores it: what becomes of activations and weights.

    Nothing is compiled, and nothing is run.
    """

    def __init__(
        self,
        network: Network,
        *,
        scheme: Scheme = "asymmetric",
        granularity: Granularity = "per_axis",
    ) -> None:
        self.network = network
        self._scheme, self._granularity = scheme, granularity
        self._rows = [(layer, flow) for layer in network.layers for flow in layer.flows]
        self._stored: dict[tuple[str, int], Array] = {}
        self._rounded: Mapping[tuple[str, int], Array] = {}
        self._narrow: Mapping[int, Ranges] = {}
        self._refinement = self._origin = b""
        self._biases: Mapping[tuple[str, str], Array] = {}
        self._tables: list[tuple[Ranges, Assignment, NDArray[np.float32]]] = []

    def configured(self, scheme: Scheme, granularity: Granularity) -> Self:
        """The same with another scheme and granularity; a simulation shares module and executables.

        What is shared is not for use by both at once; only the last one's weights stay bound.
        """
        other = copy.copy(self)
        vars(other).update(_scheme=scheme, _granularity=granularity, _stored={}, _tables=[])
        return other

    def reweighted(self, network: Network) -> Self:
        """The same for a network that differs in its weights alone; shared as in `configured`."""
        other, digest, weights = copy.copy(self), hashlib.sha256(), network.weights
        for key in [key for key in weights if weights[key] is not self.network.weights[key]]:
            digest.update(key.encode() + np.ascontiguousarray(weights[key]).tobytes())
        vars(other).update(network=network, _origin=digest.digest())
        return other.refined({}, {}, {})

    def refined(
        self,
        narrow: Mapping[int, Ranges],
        weights: Mapping[tuple[str, int], Array],
        biases: Mapping[tuple[str, str], Array],
    ) -> Self:
        """The same with more care for few bits; shared as in `configured`.

        `narrow` has ranges for activations of so many bits, in the place of those for all bits;
        `weights` (by key and bits) and `biases` (by key and precision) those of better rounding.
        """
        other, digest = self.clipped(narrow), hashlib.sha256(self._origin)
        for key, array in sorted([*weights.items(), *biases.items()], key=lambda of: str(of[0])):
            digest.update(repr(key).encode() + np.ascontiguousarray(array).tobytes())
        vars(other).update(_refinement=digest.digest(), _stored={})
        vars(other).update(_rounded=dict(weights), _biases=dict(biases))
        return other

    def clipped(self, narrow: Mapping[int, Ranges]) -> Self:
        """The same with these ranges for activations of few bits; weights stay bound."""
        other = copy.copy(self)
        vars(other).update(_narrow=dict(narrow), _tables=[])
        return other

    @property
    def narrow(self) -> Mapping[int, Ranges]:
        """Ranges of activations of few bits, where refined."""
        return self._narrow

    @property
    def operands(self) -> list[tuple[Layer, Flow]]:
        """Layer and activation of each row of the table."""
        return list(self._rows)

    def table(self, ranges: Ranges, assignment: Assignment) -> NDArray[np.float32]:
        """Rows (scale, zero_point, qmin, qmax) of every activation that a layer reads: [L, 4].

        A residual is stored in what the layers that made it compute in, as by mlq-insert-casts.
        """
        for known, assigned, table in self._tables:
            if known is ranges and assigned == assignment:
                return table
        table = np.zeros((len(self._rows), 4), np.float32)
        for row, (layer, flow) in zip(table, self._rows, strict=True):
            precision = Precision.parse(assignment.get(layer.name, "f32"))
            made = _made_in(flow.sources, assignment) if flow.role == "residual" else set()
            if F32 in {precision, *made}:
                continue
            stored = self.stored_activation(flow, precision, ranges)
            is_half = F16 in {precision, *made}
            row[:] = numerics.F16_ROW if is_half else numerics.table_row(stored)
        self._tables = [(ranges, dict(assignment), table), *self._tables][:_TABLES]
        return table

    def stored_activation(
        self, flow: Flow, precision: Precision, ranges: Ranges
    ) -> numerics.QuantParams:
        """How a layer's precision stores an activation; a residual, only added, keeps 8 bits."""
        bits = precision.stored_bits(centred=flow.centred)
        bits = max(bits, _RESIDUAL_BITS) if flow.role == "residual" else bits
        kept, scheme = self._narrow.get(bits, ranges).tensors[flow.tensor].kept(bits), self._scheme
        return numerics.choose_params(*kept, bits=bits, scheme=scheme, centred=flow.centred)

    def simulated_weights(self, assignment: Assignment, suffix: str) -> dict[str, Array]:
        """Each layer's weight and bias at its precision, by the keys that a chain reads."""
        found: dict[str, Array] = {}
        for layer in self.network.layers:
            precision = assignment.get(layer.name, "f32")
            if layer.weight is not None:
                found[f"{layer.weight}{suffix}"] = self.stored_weight(layer, precision)
            if layer.bias is not None:
                found[f"{layer.bias}{suffix}"] = self.stored_bias(layer, precision)
        return found

    def stored_bias(self, layer: Layer, name: str) -> Array:
        """The layer's bias in the precision called `name`: its own, unless refined."""
        assert layer.bias is not None
        return self._biases.get((layer.bias, name), self.network.weights[layer.bias])

    def stored_weight(self, layer: Layer, name: str) -> Array:
        """The layer's weight as the precision called `name` stores it, in float."""
        assert layer.weight is not None
        weight, precision = self.network.weights[layer.weight], Precision.parse(name)
        if precision == F32:
            return weight
        # Those of f16 are not integers of as many bits.
        key = (layer.weight, 0 if precision == F16 else precision.weight_bits)
        if key in self._rounded:
            return self._rounded[key]
        if key not in self._stored:
            self._stored[key] = (
                numerics.fake_quantize_row(weight, np.array(numerics.F16_ROW, np.float32))
                if precision == F16
                else numerics.fake_quantize(weight, self.weight_params(layer, precision))
            )
        return self._stored[key]

    def weight_params(self, layer: Layer, precision: Precision) -> numerics.QuantParams:
        """How the layer's weight is stored in a precision of integers."""
        assert layer.weight is not None
        return numerics.weight_params(
            self.network.weights[layer.weight],
            bits=precision.weight_bits,
            granularity=self._granularity,
            axis=layer.weight_axis,
            scheme=self._scheme,
        )


def _made_in(sources: Sequence[str], assignment: Assignment) -> set[Precision]:
    """What the layers that make a tensor compute in; f32 where others do."""
    return {Precision.parse(assignment.get(name, "f32")) for name in sources} or {F32}
