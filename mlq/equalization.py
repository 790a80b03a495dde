"""Cross-layer equalization: channels of one tensor made alike, so that one scale suits them all.

The result of a layer is stored with one scale; a channel that is always small gets few of its
steps. A factor s on a channel passes relu, pools and sums, so the layer that makes the channel can
divide its weight and bias by s, and those that read it multiply theirs by s, and the float network
computes what it did (Nagel et al. 2019, Data-Free Quantization, section 4.1). Weights have scales
of their own for each output channel, so what is to be made alike are the activations, at the cost
of the readers' weights. Where a layer norm makes the channels its scale and bias take the factors
in, which is SmoothQuant's migration (Xiao et al. 2023).

A clip (relu6) is no obstacle to channels that stay below its bound: they keep a factor that leaves
them there, with room for what the samples do not show; those that reach it keep their scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import columns
from mlq.dialect.channels import Channels, Scaling, axis_of, scaling
from mlq.dialect.channels import Layer as Reader
from mlq.network import Network, evaluator, walked
from mlq.precision import Granularity, Precision

Array = NDArray[Any]
Reals = NDArray[np.float64]

# Samples that say how large channels are.
_SAMPLES = 32
# How much larger than on the samples a channel may grow before a clip meets it.
_ROOM = 2.0
# Factors are spread^a / reach^b: how large a channel is within its tensor, and its weights within
# the rows of those who read it.
_POWERS = tuple((a, b) for b in (0.0, 0.5) for a in (0.0, 0.25, 0.5, 0.75, 1.0) if a >= b)
_SWEEPS = 2
_ROUNDING_NOISE = 1.0 / 12.0


@dataclass(frozen=True)
class Statistics:
    """What samples say of channels, by tensor: greatest magnitude and mean square, [C] each."""

    greatest: Mapping[str, Reals]
    energy: Mapping[str, Reals]


def samples(available: int) -> int:
    """How many samples are looked at, of those there are."""
    return min(available, _SAMPLES)


def equalize(
    network: Network,
    batches: Iterable[Sequence[Array]],
    precision: Precision,
    *,
    granularity: Granularity = "per_axis",
    advance: Callable[[int], None] = lambda _samples: None,
) -> dict[str, Array]:
    """Weights and biases, by key, in which the channels of `network` are made alike.

    Of each set of channels that lie in one tensor the factors are those, of a few, with which the
    layers around lose least when stored in `precision`. DiagnosticError where the float network has
    an op that numpy cannot compute.
    """
    found: list[Scaling] = []
    walked(network, lambda function: found.append(scaling(function)))
    channels = _without_shared(network, found[0])
    problem = _Problem(
        network, channels, observed(network, channels, batches, advance), precision, granularity
    )
    return problem.solved()


def observed(
    network: Network,
    channels: Scaling,
    batches: Iterable[Sequence[Array]],
    advance: Callable[[int], None] = lambda _samples: None,
) -> Statistics:
    """Statistics of the tensors that layers read, over the first samples."""
    greatest, energy = dict[str, Reals](), dict[str, Reals]()
    with evaluator(network) as tensors_of:
        for batch in columns.first(batches, _SAMPLES):
            values = tensors_of(batch)
            for name in channels.tensors:
                x = np.abs(np.moveaxis(values[name], axis_of(values[name].ndim), -1))
                rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
                most = rows.max(axis=0)
                greatest[name] = np.maximum(greatest.get(name, most), most)
                energy[name] = energy.get(name, 0.0) + np.mean(np.square(rows), axis=0)
            advance(len(batch[0]))
    return Statistics(greatest, energy)


def _without_shared(network: Network, channels: Scaling) -> Scaling:
    """The same, in which channels at a weight or bias that several layers have are fixed."""
    keys = [key for layer in network.layers for key in (layer.weight, layer.bias) if key]
    keys += [key for norm in channels.norms for key in norm.weights]
    for norm in channels.norms:
        if any(keys.count(key) > 1 for key in norm.weights):
            channels.fixed[norm.outputs] = True
    named = {layer.name: layer for layer in network.layers}
    for each in channels.layers:
        layer = named[each.name]
        if any(keys.count(key) > 1 for key in (layer.weight, layer.bias) if key):
            channels.fixed[each.inputs] = channels.fixed[each.outputs] = True
    return channels


class _Problem:
    """The factors of all channels, and the layers that lose by them."""

    def __init__(
        self,
        network: Network,
        channels: Scaling,
        seen: Statistics,
        precision: Precision,
        granularity: Granularity,
    ) -> None:
        self._network, self._channels, self._seen = network, channels, seen
        self._precision, self._granularity = precision, granularity
        self._layers = {layer.name: layer for layer in network.layers}
        count = len(channels.fixed)
        self.factors = np.ones(count)
        self._spread, self._reach = np.zeros(count), np.zeros(count)
        greatest = np.zeros(count)
        for name, numbers in channels.tensors.items():
            most = seen.greatest[name]
            np.maximum.at(self._spread, numbers, most / max(float(most.max()), 1e-30))
            np.maximum.at(greatest, numbers, most)
        for each in channels.layers:
            np.maximum.at(self._reach, each.inputs, self._columns(each))
        # A channel that is never more than zero says nothing; one that is clipped keeps its scale.
        self._free = (
            ~channels.fixed & (self._spread > 0.0) & (greatest < channels.most * (1 - 1e-6))
        )
        self._least = np.where(np.isfinite(channels.most), _ROOM * greatest / channels.most, 0.0)

    def solved(self) -> dict[str, Array]:
        """Weights and biases by key, of the layers where something changed."""
        groups = _groups(self._channels)
        around = [
            [each for each in self._channels.layers if _touch(each, group)] for group in groups
        ]
        for _ in range(_SWEEPS):
            for group, nearby in zip(groups, around, strict=True):
                self._settle(group[self._free[group]], nearby)
        return self._arrays()

    def _settle(self, group: Channels, nearby: list[Reader]) -> None:
        """Give the channels of a group the factors with which the layers nearby lose least."""
        if len(group) == 0 or not nearby:
            return
        tried = []
        for a, b in _POWERS:
            self.factors[group] = self._shaped(group, a, b)
            tried.append((sum(map(self._loss, nearby)), (a, b)))
        self.factors[group] = self._shaped(group, *min(tried)[1])

    def _shaped(self, group: Channels, a: float, b: float) -> Reals:
        if a == b == 0.0:
            return np.ones(len(group))
        reach = np.maximum(self._reach[group], 1e-3)
        factors = np.maximum(self._spread[group], 1e-3) ** a / reach**b
        capped = np.isfinite(self._channels.most[group])
        # Where a clip ties channels to the scale they have, the largest keep theirs.
        bounded: Reals = np.where(
            capped, np.maximum(factors, np.minimum(self._least[group], 1.0)), factors
        )
        return bounded

    def _columns(self, reader: Reader) -> Reals:
        """By input, the greatest weight within its row, relative to the row's greatest: [K]."""
        rows = self._rows(reader)
        size = np.abs(rows).max(axis=(2, 3), keepdims=True)
        columns: Reals = (np.abs(rows) / np.maximum(size, 1e-30)).max(axis=(1, 3))
        return columns.reshape(-1)

    def _rows(self, reader: Reader) -> Reals:
        """The weight as [groups, outputs, inputs, kernel] in float64."""
        layer = self._layers[reader.name]
        rows = np.moveaxis(self._network.weights[layer.weight or ""], layer.weight_axis, 0)
        outputs, inputs = len(reader.outputs), len(reader.inputs)
        groups = inputs // rows.shape[1]
        return rows.reshape(groups, outputs // groups, inputs // groups, -1).astype(np.float64)

    def _scaled(self, reader: Reader) -> Reals:
        rows = self._rows(reader)
        entering = self.factors[reader.inputs].reshape(rows.shape[0], 1, -1, 1)
        leaving = self.factors[reader.outputs].reshape(rows.shape[0], -1, 1, 1)
        scaled: Reals = rows * entering / leaving
        return scaled

    def _loss(self, reader: Reader) -> float:
        """Noise of the layer's result over its energy, were inputs uncorrelated."""
        rows, name = self._scaled(reader), self._layers[reader.name].flows[0].tensor
        factors = self.factors[reader.inputs]
        greatest = self._seen.greatest[name] / factors
        energy = (self._seen.energy[name] / np.square(factors)).reshape(rows.shape[0], 1, -1, 1)
        squares = np.square(rows)
        leaving = np.square(self.factors[reader.outputs].reshape(rows.shape[0], -1, 1, 1))
        signal = float(np.sum(squares * leaving * energy))
        steps = (1 << self._precision.activation_bits) - 1
        stored = (float(greatest.max()) / steps) ** 2 * float(np.sum(squares * leaving))
        over = (2, 3) if self._granularity == "per_axis" else (0, 1, 2, 3)
        most = (1 << self._precision.weight_bits - 1) - 1
        widths = np.square(np.abs(rows).max(axis=over, keepdims=True) / most) * leaving
        rounded = float(np.sum(np.broadcast_to(widths, rows.shape) * energy))
        return _ROUNDING_NOISE * (stored + rounded) / max(signal, 1e-30)

    def _arrays(self) -> dict[str, Array]:
        found = dict[str, Array]()
        for each in self._channels.layers:
            layer = self._layers[each.name]
            if np.all(self.factors[each.inputs] == 1.0) and np.all(
                self.factors[each.outputs] == 1.0
            ):
                continue
            weight = self._network.weights[layer.weight or ""]
            first = np.moveaxis(weight, layer.weight_axis, 0)
            scaled = self._scaled(each).reshape(first.shape).astype(np.float32)
            found[layer.weight or ""] = np.ascontiguousarray(
                np.moveaxis(scaled, 0, layer.weight_axis)
            )
            if layer.bias is not None:
                bias = self._network.weights[layer.bias] / self.factors[each.outputs]
                found[layer.bias] = bias.astype(np.float32)
        for norm in self._channels.norms:
            factors = self.factors[norm.outputs]
            if np.any(factors != 1.0):
                found |= {
                    key: (self._network.weights[key] / factors).astype(np.float32)
                    for key in norm.weights
                }
        return found


def _groups(channels: Scaling) -> list[Channels]:
    """Numbers that lie in one tensor, or in two that have a number in common."""
    sets: list[set[int]] = []
    for numbers in channels.tensors.values():
        here = set(numbers.tolist())
        apart = [each for each in sets if not each & here]
        sets = [*apart, here.union(*(each for each in sets if each & here))]
    return [np.array(sorted(each), np.int64) for each in sets]


def _touch(reader: Reader, group: Channels) -> bool:
    return bool(np.isin(reader.inputs, group).any() or np.isin(reader.outputs, group).any())
