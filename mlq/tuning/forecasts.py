"""What a configuration is expected to lose, known before anything is run in it.

The float pass over the calibration samples says what every activation holds, and the weights are
there. So the noise of storing each of them is computed, not measured: how much energy rounding and
clipping take, in parts of the tensor's own. A range that was learned from one sample is judged by
the histogram of all samples, which shows what it clips. How far a layer's noise reaches is not
asked: every layer counts the same.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlq import numerics
from mlq.network import Layer
from mlq.precision import GRANULARITIES, SCHEMES, Granularity, Precision, Scheme
from mlq.squared_error import Spreads
from mlq.stored import StoredNetwork
from mlq.tuning.features import NOISE
from mlq.tuning.mixing import PRECISION, Calibrated, Mixing
from mlq.tuning.space import SPACES, Configuration
from mlq.tuning.trials import Forecast

Reals = NDArray[np.float64]

# Noise in parts of the signal that is taken for none: far below what storing 16 bits costs.
_NONE = 1e-9
_IDENTITY_DIGITS = 12


class _Weight(NamedTuple):
    """A stored weight: noise to signal, the mean of that over channels, a hash of its scales."""

    noise: float
    channels: float
    digest: bytes


class _Row(NamedTuple):
    """A row of the table, and whose activation it stores."""

    tensor: str
    scale: float
    zero_point: float
    low: float
    high: float

    @property
    def levels(self) -> int:
        """How many steps lie between the least and the greatest integer."""
        return int(self.high - self.low)


class Forecasts:
    """Forecasts for configurations of one network with so many calibration samples.

    The noise of a configuration is, added up over its integer layers and by name:

    rounding, clipping  of the activations that they read, noise to signal each
    weights             of their weights, noise to signal
    channels            the same for each output channel, the mean over channels

    each in octaves above the least that a configuration of Quantune's space has.
    """

    def __init__(self, calibrated: Calibrated, mixing: Mixing, samples: int) -> None:
        self._calibrated, self._mixing, self._samples = calibrated, mixing, samples
        self._stored = StoredNetwork(calibrated.network)
        self._known: dict[Configuration, Forecast] = {}
        # Many configurations share the one half of what they store or the other.
        self._sums = cache(self._added)
        self._table, self._activation_noise = (
            cache(self._one_table),
            cache(self._noise_of_activations),
        )
        self._weights, self._weight_noise = cache(self._all_weights), cache(self._noise_of_weights)
        self._configured = cache(self._stored.configured)
        self._weight = cache(self._one_weight)
        self._rows: dict[_Row, Reals] = {}

    def of(self, configuration: Configuration) -> Forecast:
        """The forecast, without methods; where the allocator chooses, of what it starts from.

        What that computes is not known, so it has no identity then.
        """
        if configuration not in self._known:
            chosen = configuration.mixed == "quantunev2"
            mixed = "none" if chosen else configuration.mixed
            plain = replace(configuration, mixed=mixed, methods="none")
            octaves = np.log2(self._sums(plain) / self._least)
            noise = dict(zip(NOISE, octaves.tolist(), strict=True))
            identity = "" if chosen else self._identity(configuration)
            self._known[configuration] = Forecast(noise, identity)
        return self._known[configuration]

    def store_weights(self) -> None:
        """Store the weights in every way, which needs no samples."""
        for scheme, granularity in itertools.product(SCHEMES, GRANULARITIES):
            self._weights(scheme, granularity)

    @cached_property
    def _least(self) -> Reals:
        """The least of each noise among the configurations of Quantune's space."""
        points = SPACES["quantune96"].fitted(self._samples).points()
        least: Reals = np.min([self._sums(point) for point in points], axis=0)
        return least

    @cached_property
    def _spreads(self) -> tuple[list[str], Spreads]:
        """Names of the tensors, and their values over all samples."""
        observed = self._calibrated.observations(self._samples).tensors
        return list(observed), Spreads([each.cumulative for each in observed.values()])

    def _added(self, configuration: Configuration) -> Reals:
        """Noise by `NOISE`, added up over layers."""
        plain = replace(configuration, rounding="nearest", methods="none")
        activations = self._activation_noise(replace(plain, granularity="per_axis"))
        weights = self._weight_noise(replace(plain, samples=1, calibrator="minmax"))
        total: Reals = np.maximum(np.concatenate([activations, weights]), _NONE)
        return total

    def _identity(self, configuration: Configuration) -> str:
        """A hash of how everything is stored, and of all that changes weights or biases."""
        plain = replace(configuration, rounding="nearest", methods="none")
        digest = hashlib.sha256(self._table(replace(plain, granularity="per_axis")).tobytes())
        weights = self._weights(configuration.scheme, configuration.granularity)
        for name in sorted(self._mixing.decision(configuration).assignment):
            digest.update(name.encode() + (weights[name].digest if name in weights else b""))
        if plain != configuration:
            digest.update(str(configuration).encode())
        return digest.hexdigest()[:_IDENTITY_DIGITS]

    def _one_table(self, configuration: Configuration) -> NDArray[np.float32]:
        stored = self._configured(configuration.scheme, configuration.granularity)
        assignment = self._mixing.decision(configuration).assignment
        return stored.table(self._calibrated.ranges(configuration), assignment)

    def _noise_of_activations(self, configuration: Configuration) -> Reals:
        """Rounding and clipping noise of all activations that integer layers read."""
        operands, total = self._stored.operands, np.zeros(2)
        pairs = zip(self._table(configuration), operands, strict=True)
        rows = [_Row(flow.tensor, *row.tolist()) for row, (_, flow) in pairs if row.any()]
        unknown = {row for row in rows if row not in self._rows}
        while unknown:
            # One of each tensor: it is calls of numpy that take time, not what they do.
            alike = next(iter(unknown)).levels
            some = {row.tensor: row for row in unknown if row.levels == alike}
            self._rows.update(self._noises(some, alike))
            unknown -= set(some.values())
        for row in rows:
            total += self._rows[row]
        return total

    def _noises(self, rows: Mapping[str, _Row], levels: int) -> dict[_Row, Reals]:
        """Rounding and clipping noise by rows, in parts of their tensors' energies."""
        names, spreads = self._spreads
        scales, below = np.ones((len(names), 1)), np.zeros((len(names), 1), np.int64)
        chosen = np.array([names.index(name) for name in rows])
        scales[chosen, 0] = [row.scale for row in rows.values()]
        below[chosen, 0] = [int(row.zero_point - row.low) for row in rows.values()]
        stored = spreads.stored(scales, below, levels)
        kept = stored.rounded(chosen, np.zeros_like(chosen))[:, 0]
        errors = np.maximum(np.stack([kept, stored.clipped[chosen, 0, 0]], axis=1), 0.0)
        energy = spreads.energy[chosen, None]
        found = errors / np.where(energy == 0.0, 1.0, energy)
        return dict(zip(rows.values(), found, strict=True))

    def _noise_of_weights(self, configuration: Configuration) -> Reals:
        """Noise of the weights of all integer layers, by layer and by channel."""
        weights = self._weights(configuration.scheme, configuration.granularity)
        total = np.zeros(2)
        for name in self._mixing.decision(configuration).assignment:
            if name in weights:
                total += weights[name].noise, weights[name].channels
        return total

    def _all_weights(self, scheme: Scheme, granularity: Granularity) -> dict[str, _Weight]:
        """The stored weights by layer."""
        stored, precision = self._configured(scheme, granularity), Precision.parse(PRECISION)
        layers = [layer for layer in self._stored.network.layers if layer.weight is not None]
        return {
            each.name: self._weight(each, stored.weight_params(each, precision)) for each in layers
        }

    def _one_weight(self, layer: Layer, params: numerics.QuantParams) -> _Weight:
        assert layer.weight is not None
        weight = self._stored.network.weights[layer.weight]
        rows = np.moveaxis(weight, layer.weight_axis, 0).reshape(
            weight.shape[layer.weight_axis], -1
        )
        change = np.moveaxis(numerics.fake_quantize(weight, params) - weight, layer.weight_axis, 0)
        change = change.reshape(rows.shape)
        noise, signal = (np.einsum("ij,ij->i", x, x, dtype=np.float64) for x in (change, rows))
        channels = np.divide(noise, signal, out=np.zeros_like(noise), where=signal > 0.0)
        whole = float(noise.sum() / (signal.sum() or 1.0))
        digest = hashlib.sha256(repr(params).encode()).digest()
        return _Weight(whole, float(channels.mean()), digest)
