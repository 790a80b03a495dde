"""What a network computes with in the place of its own weights and biases, found on samples.

Weights that are not rounded to the nearest, but so that what their layers make changes least;
biases that make up for what was rounded; weights that equalization gave other scales.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import bias_correction, columns, damping, numerics
from mlq.dialect import weights as stored
from mlq.errors import UsageError
from mlq.frontends.specs import TensorSpec
from mlq.network import Layer, Network
from mlq.numerics import QuantParams
from mlq.precision import BYTE_BITS, Precision
from mlq.ranges import Ranges
from mlq.reconstruction import Moments, reconstruct
from mlq.simulation import Simulation

Array = NDArray[Any]
Arrays = dict[tuple[str, int], Array]
Biases = dict[tuple[str, str], Array]
Read = tuple[Array, QuantParams | None]

FILE = "rounding.npz"
# Another one where the same samples give other weights, so that no search goes on with old ones.
METHOD = 5
# Samples whose windows weights are rounded for: there are few windows in one of a deep layer.
_SAMPLES = 128
# The first samples, so many and a fifth at most, are those that layers are tried on alone and bits
# are searched by: what was fitted to them would seem to lose less than it does.
_APART, _APART_SHARE = 16, 5
# Inputs [N, 3, H, W] are pictures.
_PICTURE, _COLOURS = 4, 3


@dataclass(frozen=True)
class Rounding:
    """By key and bits, weights in float as they are stored, and their scales [O]; biases [O].

    Biases are by key and precision: they make up for what activations shift, too. A weight that is
    not there is rounded to the nearest. `equalized` are weights and biases that take the place of
    the network's own, by key, before anything is rounded.
    """

    weights: Arrays = field(default_factory=dict)
    scales: Arrays = field(default_factory=dict)
    biases: Biases = field(default_factory=dict)
    equalized: Mapping[str, Array] = field(default_factory=dict)

    @property
    def refines(self) -> bool:
        """Whether some weight or bias depends on the precision of its layer."""
        return bool(self.weights or self.biases)

    def of(self, network: Network) -> Network:
        """The network, where mlq-insert-casts finds the rounded weights beside the others."""
        if not self._named():
            return network
        store = network.weights.copy()
        for name, array in self._named():
            store[name] = array
        return replace(network, weights=store)

    def files(self) -> dict[str, bytes | str]:
        """What `recalled` reads, by its name; nothing where nothing was found."""
        if not self._named():
            return {}
        stream = io.BytesIO()
        np.savez(stream, **dict(self._named()))  # type: ignore[arg-type]  # keys are array names
        return {FILE: stream.getvalue()}

    def _named(self) -> list[tuple[str, Array]]:
        return [
            *self.equalized.items(),
            *((stored.rounded(*key), array) for key, array in self.weights.items()),
            *((stored.scales(*key), array) for key, array in self.scales.items()),
            *((stored.corrected(*key), array) for key, array in self.biases.items()),
        ]


def recalled(network: Network, file: Path) -> Network:
    """The network with the rounded weights of a file that `Rounding.files` made, if it is there.

    UsageError for one of before, which names biases by the bits of weights.
    """
    if not file.is_file():
        return network
    store, biases = network.weights.copy(), {layer.bias for layer in network.layers if layer.bias}
    old = {stored.rounded(bias, bits) for bias in biases for bits in range(1, BYTE_BITS + 1)}
    with np.load(file, allow_pickle=False) as arrays:
        if old & set(arrays):
            raise UsageError(f"{file}: is of an older mlq; quantize the network again")
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
    corrected: Mapping[str, Sequence[str]] | None = None,
    network: Network | None = None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _layers: None,
) -> Rounding:
    """Round each layer's weight for each of its `precisions` and what it reads (`reconstruct`).

    Those that differ in their activations share a weight, fitted to the widest. Of `corrected`
    precisions the weights stay the nearest, and biases make up for what that shifts
    (`bias_correction`). Few pictures (inputs of three channels) are mirrored, too. `network`
    takes the batches, by default the simulation's. A weight that several layers share stays as it
    is. DiagnosticError where the float network has an op that numpy cannot compute.
    """
    network, corrected = network or simulation.network, corrected or {}
    keys = [key for layer in network.layers for key in (layer.weight, layer.bias) if key]
    layers = [
        layer
        for layer in network.layers
        if layer.product is not None
        and (precisions.get(layer.name) or corrected.get(layer.name))
        and all(keys.count(key) == 1 for key in (layer.weight, layer.bias) if key)
    ]
    if not layers:
        return Rounding()
    others = fitted_samples(samples)
    seen = fitting_batches(batches, samples)
    pictures = all(map(_is_picture, network.model.inputs))
    if pictures and others < _SAMPLES and any(precisions.values()):
        seen, others = mirrored(seen), 2 * others
    windows = columns.gather(network, seen, others, seed=seed)
    found = Rounding({}, {}, {})
    for layer in layers:
        fit = _Fit(layer, windows[layer.name], simulation, ranges, network)
        fit.round([Precision.parse(each) for each in precisions.get(layer.name, ())], found)
        fit.correct([Precision.parse(each) for each in corrected.get(layer.name, ())], found)
        advance(1)
    return found


def fitting_batches(batches: Iterable[Sequence[Array]], samples: int) -> Iterator[Sequence[Array]]:
    """The batches that something may be fitted to, of so many samples in all.

    They are those after the first, which layers are tried on alone and bits are searched by.
    """
    return _after(_apart(samples), batches)


def fitted_samples(available: int) -> int:
    """How many samples are looked at, of those there are."""
    return min(available - _apart(available), _SAMPLES)


def _apart(available: int) -> int:
    return min(_APART, available // _APART_SHARE)


def _after(samples: int, batches: Iterable[Sequence[Array]]) -> Iterator[Sequence[Array]]:
    """The batches without the first ones, of so many samples or fewer."""
    for batch in batches:
        if len(batch[0]) > samples:
            yield batch
        else:
            samples -= len(batch[0])


def _is_picture(input: TensorSpec) -> bool:
    return len(input.shape) == _PICTURE and input.shape[1] == _COLOURS


def mirrored(batches: Iterable[Sequence[Array]]) -> Iterator[Sequence[Array]]:
    """Each batch of pictures, then the same in a mirror: few samples show twice as much."""
    for batch in batches:
        yield batch
        yield [np.ascontiguousarray(each[..., ::-1]) for each in batch]


@dataclass(frozen=True)
class _Fit:
    """A layer, and the windows [G, K, N] that it reads in float."""

    layer: Layer
    windows: Array
    simulation: Simulation
    ranges: Ranges
    network: Network

    def round(self, precisions: Sequence[Precision], found: Rounding) -> None:
        """Add the weight at each number of bits, its scales, and a bias for each precision."""
        key, axis = self.layer.weight or "", self.layer.weight_axis
        for bits in dict.fromkeys(each.weight_bits for each in precisions):
            alike = [each for each in precisions if each.weight_bits == bits]
            read = self._read(max(alike, key=lambda each: each.activation_bits))
            biased = self.layer.bias is not None
            moments = Moments.of(*read, biased=biased, damping=self._damping)
            made = reconstruct(self._weight, moments, bits=bits, axis=axis)
            found.weights[key, bits] = made.simulated
            found.scales[key, bits] = np.asarray(made.params.scale, np.float32)
            for each in alike:
                self._move_bias(each, made.simulated, self._read(each), found)

    def correct(self, precisions: Sequence[Precision], found: Rounding) -> None:
        """Add the layer's bias for each of the precisions, in which its weight is the nearest."""
        for each in precisions:
            weight = self.simulation.stored_weight(self.layer, str(each))
            self._move_bias(each, weight, (self.windows, self._storage(each)), found)

    def _read(self, precision: Precision) -> Read:
        """Windows that a rounded weight is to make the most of, and how they are then stored."""
        storage = self._storage(precision)
        if precision.activation_bits < BYTE_BITS:
            return self.windows, storage
        # What these clip are outliers of a few windows; to make up for them ruins all others.
        return numerics.fake_quantize(self.windows, storage), None

    @cached_property
    def _damping(self) -> float:
        return damping.least_error(self.windows, centred=self.layer.bias is not None)

    @property
    def _weight(self) -> Array:
        return self.simulation.network.weights[self.layer.weight or ""]

    def _storage(self, precision: Precision) -> QuantParams:
        return self.simulation.stored_activation(self.layer.flows[0], precision, self.ranges)

    def _move_bias(self, precision: Precision, weight: Array, read: Read, found: Rounding) -> None:
        """Add the bias that makes up for what `weight`, and storing what is read, shift."""
        if self.layer.bias is not None:
            axis = self.layer.weight_axis
            moved = bias_correction.shift(self._weight, weight, *read, axis=axis)
            bias = self.network.weights[self.layer.bias] + moved
            found.biases[self.layer.bias, str(precision)] = bias
