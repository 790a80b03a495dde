"""What a surrogate is told: facts that any network has, and the knobs of a configuration.

Features of networks are a mapping, so that trials from elsewhere can come with fewer; a surrogate
uses those that all its networks have. Counts are of the first column of Quantune's table of
features (arXiv 2202.05048); the statistics of tensors are mlq's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlq.calibration import Observations
from mlq.calibrators import Observation, keep_percentile
from mlq.network import Network
from mlq.precision import CALIBRATORS, GRANULARITIES, ROUNDINGS, SCHEMES
from mlq.tuning.space import METHODS, MIXED, Configuration

Features = Mapping[str, float]
Matrix = NDArray[np.float64]

# A tensor's span over that of all but a thousandth of its values says how far outliers reach.
_PERCENTILE = 99.9
# No channel can lose more bits than it has.
_BITS = 8
_ONE_HOT = (
    ("scheme", SCHEMES),
    ("calibrator", CALIBRATORS),
    ("granularity", GRANULARITIES),
    ("mixed", MIXED),
    ("rounding", ROUNDINGS),
    ("methods", METHODS),
)
# What a forecast says of a configuration (see mlq.tuning.forecasts), as `encode_noise` lists it.
NOISE = ("rounding", "clipping", "weights", "channels")
# What the columns of `encode` are called.
COLUMNS = ("samples", *(f"{knob} {value}" for knob, values in _ONE_HOT for value in values))


def describe(network: Network, observations: Observations) -> dict[str, float]:
    """The features of a network; MACs and parameters as decimal logarithms, spreads in octaves."""
    layers = network.layers
    forms = [layer.form for layer in layers]
    outliers = [_outliers(each) for each in observations.tensors.values()]
    spreads = [
        _spread(network.weights[layer.weight], layer.weight_axis)
        for layer in layers
        if layer.weight is not None
    ]
    return {
        "layers": float(len(layers)),
        "convs": float(sum(layer.kind == "conv2d" for layer in layers)),
        "depthwise": float(forms.count("depthwise")),
        "pointwise": float(forms.count("pointwise")),
        "skips": float(sum(len(layer.flows) > 1 for layer in layers)),
        "float_ops": float(len(network.float_ops)),
        "params": float(np.log10(sum(layer.params for layer in layers) + 1)),
        "macs": float(np.log10(sum(layer.macs for layer in layers) + 1)),
        "signed": float(np.mean([each.minimum < 0.0 for each in observations.tensors.values()])),
        "outliers": float(np.mean(outliers)),
        "most_outliers": float(np.max(outliers)),
        "channel_spread": float(np.mean(spreads, dtype=np.float64)) if spreads else 0.0,
        "most_channel_spread": max(spreads, default=0.0),
    }


def encode(configurations: Sequence[Configuration]) -> Matrix:
    """One row a configuration: the logarithm of its calibration samples, then one-hot knobs."""
    rows = [
        [
            float(np.log10(each.samples)),
            *(float(getattr(each, knob) == value) for knob, values in _ONE_HOT for value in values),
        ]
        for each in configurations
    ]
    return np.array(rows, np.float64)


def encode_noise(rows: Sequence[Mapping[str, float]]) -> Matrix:
    """One row a configuration: its noise by `NOISE`; NaN, a missing value, for what is unknown."""
    table = [[row.get(name, np.nan) for name in NOISE] for row in rows]
    return np.array(table, np.float64).reshape(len(rows), len(NOISE))


def _outliers(observed: Observation) -> float:
    """Octaves from the span of nearly all values to that of all."""
    low, high = keep_percentile(observed, percentile=_PERCENTILE)
    least, most = observed.span
    return float(np.log2((most - least) / (high - low))) if high > low else 0.0


def _spread(weight: NDArray[np.floating], axis: int) -> float:
    """Mean octaves from a channel's greatest magnitude to the tensor's: bits lost per tensor."""
    others = tuple(each for each in range(weight.ndim) if each != axis % weight.ndim)
    greatest = np.abs(weight).max(axis=others)
    octaves = np.log2(greatest.max() / greatest[greatest > 0.0])
    return float(np.minimum(octaves, _BITS).mean()) if len(octaves) else 0.0
