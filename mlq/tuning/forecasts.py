"""What a configuration is expected to lose, known before anything is run in it.

The float pass over the calibration samples says what every activation holds, and the weights are
there. So the noise of storing each of them is computed, not measured: how much energy rounding and
clipping take, in parts of the tensor's own. A range that was learned from one sample is judged by
the histogram of all samples, which shows what it clips. How far a layer's noise reaches is not
asked: every layer counts the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlq import numerics
from mlq.network import Layer
from mlq.precision import Granularity, Precision, Scheme
from mlq.squared_error import Spreads
from mlq.stored import StoredNetwork
from mlq.tuning.features import NOISE
from mlq.tuning.mixing import PRECISION, Calibrated, Mixing
from mlq.tuning.space import SPACES, Configuration
from mlq.tuning.trials import Forecast

# Noise in parts of the signal that is taken for none: far below what storing 16 bits costs.
_NONE = 1e-9
_IDENTITY_DIGITS = 12


class _Weight(NamedTuple):
    """A stored weight: noise to signal, the mean of that over channels, a hash of its scales."""

    noise: float
    channels: float
    digest: bytes


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
        self._sums = cache(self._added)
        self._configured = cache(self._stored.configured)
        self._weights = cache(self._all_weights)
        self._activation = cache(self._one_activation)
        self._weight = cache(self._one_weight)

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

    @cached_property
    def _least(self) -> NDArray[np.float64]:
        """The least of each noise among the configurations of Quantune's space."""
        points = SPACES["quantune96"].fitted(self._samples).points()
        least: NDArray[np.float64] = np.min([self._sums(point) for point in points], axis=0)
        return least

    @cached_property
    def _spreads(self) -> Mapping[str, Spreads]:
        """The values of every tensor, over all samples."""
        observed = self._calibrated.observations(self._samples).tensors
        return {name: Spreads([each.cumulative]) for name, each in observed.items()}

    def _added(self, configuration: Configuration) -> NDArray[np.float64]:
        """Noise by `NOISE`, added up over layers."""
        stored = self._configured(configuration.scheme, configuration.granularity)
        total = np.zeros(len(NOISE))
        for row, (_, flow) in zip(self._table(configuration), stored.operands, strict=True):
            if row.any():
                total[:2] += self._activation(flow.tensor, *row.tolist())
        weights = self._weights(configuration.scheme, configuration.granularity)
        for name in self._mixing.decision(configuration).assignment:
            if name in weights:
                total[2:] += weights[name].noise, weights[name].channels
        return np.maximum(total, _NONE)

    def _identity(self, configuration: Configuration) -> str:
        """A hash of how everything is stored, and of all that changes weights or biases."""
        digest = hashlib.sha256(self._table(replace(configuration, methods="none")).tobytes())
        weights = self._weights(configuration.scheme, configuration.granularity)
        for name in sorted(self._mixing.decision(configuration).assignment):
            digest.update(name.encode() + (weights[name].digest if name in weights else b""))
        if (configuration.rounding, configuration.methods) != ("nearest", "none"):
            digest.update(str(configuration).encode())
        return digest.hexdigest()[:_IDENTITY_DIGITS]

    def _table(self, configuration: Configuration) -> NDArray[np.float32]:
        stored = self._configured(configuration.scheme, configuration.granularity)
        assignment = self._mixing.decision(configuration).assignment
        return stored.table(self._calibrated.ranges(configuration), assignment)

    def _one_activation(
        self, tensor: str, scale: float, zero_point: float, low: float, high: float
    ) -> tuple[float, float]:
        """Rounding and clipping noise of a row of the table, in parts of the tensor's energy."""
        spread = self._spreads[tensor]
        below, levels, only = int(zero_point - low), int(high - low), np.array([0])
        stored = spread.stored(np.array([[scale]]), np.array([[below]]), levels)
        errors, energy = (stored.rounded(only, only), stored.clipped), spread.energy.item() or 1.0
        kept, clipped = (max(each.item(), 0.0) / energy for each in errors)
        return kept, clipped

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
