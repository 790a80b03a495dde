"""What the quantized inference saw: how much each layer loses at each precision."""

from __future__ import annotations

import math

from pydantic import NonNegativeFloat, NonNegativeInt

from mlq.errors import PlanError
from mlq.values import Part, Value


class LayerSensitivity(Part):
    """One layer: what it costs, and for each candidate precision its metrics by name."""

    op: str
    macs: NonNegativeInt
    params: NonNegativeInt
    candidates: dict[str, dict[str, float]]


class Sensitivities(Value):
    """The sensitivities of a network's layers, and what quantizing all of them costs.

    `kl_mnat` is the mean KL divergence of the all-quantized network's softmax from the float one,
    in milli-nats, over the calibration `samples`; `metric` is the one allocation is to use.
    `samples_alone` counts the samples that trying layers alone took.
    """

    samples: NonNegativeInt
    metric: str
    kl_mnat: NonNegativeFloat
    samples_alone: NonNegativeInt = 0
    layers: dict[str, LayerSensitivity]


def noise_from_sensitivities(
    sensitivities: Sensitivities, metric: str | None = None, *, base: str = "w8a8"
) -> dict[str, dict[str, float]]:
    """Predict the milli-nats of KL that each layer adds at each precision it could have.

    Quantization noise is additive over layers (measured on five networks: the sum of what layers
    cost alone is 0.92 to 1.02 of what they cost together), so the KL of the all-quantized network
    is shared out in proportion to `metric` (by default the one the sensitivities name) at the
    precision `base`, and a plan's noise is the sum over its layers. f32 adds nothing. Metrics in
    dB are turned into noise-to-signal first, so that precisions compare; a metric that is already a
    share must be one of the same whole at every precision. PlanError if a layer lacks the metric.
    """
    metric = metric or sensitivities.metric
    energies = {
        name: {
            precision: _energy(metrics, metric, f"{name}: {precision}")
            for precision, metrics in layer.candidates.items()
        }
        for name, layer in sensitivities.layers.items()
    }
    # A layer that cannot have `base` took part in the all-quantized network at its noisiest.
    total = sum(each.get(base, max(each.values())) for each in energies.values() if each)
    unit = sensitivities.kl_mnat / total if total > 0.0 else 0.0
    return {
        name: {"f32": 0.0} | {precision: unit * energy for precision, energy in each.items()}
        for name, each in energies.items()
    }


def _energy(metrics: dict[str, float], metric: str, where: str) -> float:
    """Turn a metric into something additive and never negative: energy, or noise-to-signal."""
    if metric not in metrics:
        raise PlanError(
            f"sensitivities: {where}: has no metric {metric!r};"
            f" choose one of {', '.join(sorted(metrics)) or 'none'}"
        )
    value = metrics[metric]
    if metric == "activation_sqnr_delta_db":
        # What the layer adds to the noise it is given: noise-to-signal of its output less input's.
        output = _noise_to_signal(metrics.get("activation_sqnr_db", 0.0))
        return max(output - output / _noise_to_signal(value), 0.0)
    if metric.endswith("_db"):
        return _noise_to_signal(value)
    return max(value, 0.0)


def _noise_to_signal(sqnr_db: float) -> float:
    return math.pow(10.0, -sqnr_db / 10.0)
