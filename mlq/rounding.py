"""Weights that are not rounded to the nearest, but so that what their layers make changes least."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import columns
from mlq.dialect import weights as stored
from mlq.network import Layer, Network
from mlq.precision import Precision
from mlq.ranges import Ranges
from mlq.reconstruction import Moments, Rounded, reconstruct
from mlq.simulation import Simulation

Array = NDArray[Any]
Arrays = Mapping[tuple[str, int], Array]

FILE = "rounding.npz"
# Samples whose windows weights are rounded for.
_SAMPLES = 32


@dataclass(frozen=True)
class Rounding:
    """By key and bits: weights in float as they are stored, their scales [O], and biases [O].

    A weight that is not there is rounded to the nearest.
    """

    weights: Arrays = field(default_factory=dict)
    scales: Arrays = field(default_factory=dict)
    biases: Arrays = field(default_factory=dict)

    def of(self, network: Network) -> Network:
        """The network, where mlq-insert-casts finds the rounded weights beside the others."""
        if not self.weights:
            return network
        store = network.weights.copy()
        for name, array in self._named():
            store[name] = array
        return replace(network, weights=store)

    def files(self) -> dict[str, bytes | str]:
        """What `recalled` reads, by its name; nothing where nothing was rounded."""
        if not self.weights:
            return {}
        stream = io.BytesIO()
        np.savez(stream, **dict(self._named()))  # type: ignore[arg-type]  # keys are array names
        return {FILE: stream.getvalue()}

    def _named(self) -> list[tuple[str, Array]]:
        parts = ((stored.rounded, self.weights), (stored.scales, self.scales))
        return [
            (name(key, bits), array)
            for name, arrays in (*parts, (stored.rounded, self.biases))
            for (key, bits), array in arrays.items()
        ]


def recalled(network: Network, file: Path) -> Network:
    """The network with the rounded weights of a file that `Rounding.files` made, if it is there."""
    if not file.is_file():
        return network
    store = network.weights.copy()
    with np.load(file, allow_pickle=False) as arrays:
        for name in arrays:
            store[name] = arrays[name]
    return replace(network, weights=store)


def round_weights(
    batches: Iterable[Sequence[Array]],
    samples: int,
    simulation: Simulation,
    ranges: Ranges,
    precisions: Mapping[str, Sequence[str]],
    *,
    network: Network | None = None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _layers: None,
) -> Rounding:
    """Round each layer's weight for each of its `precisions` and what it reads (`reconstruct`).

    `network` takes the batches, by default the simulation's. A weight that several layers share
    stays as it is. DiagnosticError where the float network has an op that numpy cannot compute.
    """
    network = network or simulation.network
    shared = [layer.weight for layer in network.layers]
    layers = [
        layer
        for layer in network.layers
        if layer.product is not None
        and precisions.get(layer.name)
        and shared.count(layer.weight) == 1
    ]
    if not layers:
        return Rounding()
    windows = columns.gather(network, batches, min(samples, _SAMPLES), seed=seed)
    rounding: tuple[dict[tuple[str, int], Array], ...] = ({}, {}, {})
    for layer in layers:
        for precision in map(Precision.parse, precisions[layer.name]):
            made = _rounded(layer, precision, windows[layer.name], simulation, ranges)
            key, bits = layer.weight or "", precision.weight_bits
            rounding[0][key, bits] = made.simulated
            rounding[1][key, bits] = np.asarray(made.params.scale, np.float32)
            if layer.bias is not None:
                rounding[2][layer.bias, bits] = network.weights[layer.bias] + made.shift
        advance(1)
    return Rounding(*rounding)


def _rounded(
    layer: Layer, precision: Precision, windows: Array, simulation: Simulation, ranges: Ranges
) -> Rounded:
    """A layer's weight at a precision, for the windows [G, K, N] that it reads."""
    storage = simulation.stored_activation(layer.flows[0], precision.activation_bits, ranges)
    moments = Moments.of(windows, storage, biased=layer.bias is not None)
    assert layer.weight is not None
    weight = simulation.network.weights[layer.weight]
    return reconstruct(weight, moments, bits=precision.weight_bits, axis=layer.weight_axis)
