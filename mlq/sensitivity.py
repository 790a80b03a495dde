"""Inference 2: everything quantized, the float network in lockstep, local metrics in the module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mlq import metrics
from mlq.calibration import Advance, Batch
from mlq.network import Layer
from mlq.ranges import Ranges
from mlq.sensitivities import LayerSensitivity, Sensitivities
from mlq.simulation import Array, Assignment, Simulation, uniform

# What trying layers alone may cost, in passes over the samples; more samples than these add little.
_MOST_PASSES = 5
_ENOUGH_SAMPLES = 16
DEFAULT_METRIC = "activation_sqnr_delta_db"


def measure(
    batches: Iterable[Batch],
    simulation: Simulation,
    ranges: Ranges,
    *,
    precisions: Sequence[str],
    supported: Mapping[str, Sequence[str]],
    metric: str = DEFAULT_METRIC,
    advance: Advance = lambda _samples: None,
) -> Sensitivities:
    """One pass over the samples: local metrics of every layer at every candidate precision.

    The energies are summed inside the module; SQNR and MSE come from their totals. `kl_mnat` is
    that of the first precision on all layers. Source: QuantuneV2 (arXiv 2501.07161), reading D1.
    """
    network = simulation.network
    assignments = [uniform(network, precision, supported) for precision in precisions]
    energies = np.zeros((len(precisions), len(network.compared), 2))
    divergence, samples = 0.0, 0
    for batch in batches:
        results = simulation.lockstep(batch, ranges, assignments)
        outputs, measured = results[: -energies.size], results[-energies.size :]
        energies += np.array([float(each) for each in measured]).reshape(energies.shape)
        quantized = outputs[len(outputs) // (len(precisions) + 1)]
        divergence += metrics.kl_mnat(outputs[0], quantized) * len(batch[0])
        samples += len(batch[0])
        advance(len(batch[0]))
    found = {}
    for layer in network.layers:
        own = [index for index, each in enumerate(precisions) if each in supported[layer.name]]
        candidates = {
            precisions[index]: _weight_metrics(simulation, layer, precisions[index])
            | _activation_metrics(
                layer, dict(zip(network.compared, energies[index], strict=True)), samples
            )
            for index in own
        }
        found[layer.name] = LayerSensitivity(
            op=layer.kind, macs=layer.macs, params=layer.params, candidates=candidates
        )
    _add_shares(found, precisions)
    return Sensitivities(
        samples=samples, metric=metric, kl_mnat=max(divergence / samples, 0.0), layers=found
    )


def try_alone(
    known: Sensitivities,
    batches: Iterable[Batch],
    references: Sequence[Array],
    simulation: Simulation,
    ranges: Ranges,
    *,
    advance: Advance = lambda _layers: None,
) -> Sensitivities:
    """Add `output_error`: the energy that a layer alone, quantized, changes the output by.

    Noise is additive, so this predicts any mix. It takes a run for each layer and precision, on as
    few samples as keeps them all below `_MOST_PASSES` passes over the calibration samples.
    """
    runs = sum(len(layer.candidates) for layer in known.layers.values())
    few: list[tuple[Batch, Array]] = []
    for batch, reference in zip(batches, references, strict=False):
        taken = sum(len(each) for _, each in few) + len(reference)
        if few and (taken * runs > _MOST_PASSES * known.samples or taken > _ENOUGH_SAMPLES):
            break
        few.append(([np.array(array) for array in batch], reference))
    found = {}
    for name, layer in known.layers.items():
        candidates = {
            precision: each
            | {"output_error": _output_error(simulation, ranges, {name: precision}, few)}
            for precision, each in layer.candidates.items()
        }
        found[name] = layer.model_copy(update={"candidates": candidates})
        advance(1)
    samples = runs * sum(len(each) for _, each in few)
    return known.model_copy(update={"layers": found, "samples_alone": samples})


def _output_error(
    simulation: Simulation,
    ranges: Ranges,
    assignment: Assignment,
    few: Sequence[tuple[Batch, Array]],
) -> float:
    """Energy of the difference over energy of the float output."""
    noise = signal = 0.0
    for batch, reference in few:
        exact = reference.astype(np.float64)
        value = simulation.run(batch, ranges, assignment)[0]
        noise += float(np.sum(np.square(value - exact)))
        signal += float(np.sum(np.square(exact)))
    return noise / signal if signal else noise


def _weight_metrics(simulation: Simulation, layer: Layer, precision: str) -> dict[str, float]:
    """SQNR (dB) and MSE of a layer's weight; a layer without one loses nothing there."""
    if layer.weight is None:
        return {"weight_sqnr_db": metrics.MOST_DB, "weight_mse": 0.0}
    weight = simulation.network.weights[layer.weight]
    stored = simulation.stored_weight(layer, precision)
    return {
        "weight_sqnr_db": metrics.bounded(metrics.sqnr_db(weight, stored)),
        "weight_mse": metrics.mse(weight, stored),
    }


def _activation_metrics(
    layer: Layer, energies: dict[tuple[str, str], Array], samples: int
) -> dict[str, float]:
    """SQNR and MSE of the layer's result, and how much SQNR it lost between operands and result."""
    signal, noise = (float(each) for each in energies[layer.name, "output"])
    entering = np.sum([energies[layer.name, flow.role] for flow in layer.flows], axis=0)
    before = metrics.bounded(metrics.decibels(*entering.tolist()))
    after = metrics.bounded(metrics.decibels(signal, noise))
    return {
        "activation_sqnr_db": after,
        "activation_sqnr_delta_db": after - before,
        "activation_mse": noise / (samples * layer.output_elements),
    }


def _add_shares(found: dict[str, LayerSensitivity], precisions: Sequence[str]) -> None:
    """Add `noise_share`: noise-to-signal a layer adds, over what all add at the first precision."""
    added = {
        precision: {
            name: _added_noise(layer.candidates[precision])
            for name, layer in found.items()
            if precision in layer.candidates
        }
        for precision in precisions
    }
    total = sum(added[precisions[0]].values()) or 1.0
    for precision, shares in added.items():
        for name, value in shares.items():
            found[name].candidates[precision]["noise_share"] = value / total


def _added_noise(metrics_: Mapping[str, float]) -> float:
    """Noise-to-signal of a layer's result less that of its operands, never negative."""
    after = metrics_["activation_sqnr_db"]
    before = after - metrics_["activation_sqnr_delta_db"]
    return float(max(10 ** (-after / 10) - 10 ** (-before / 10), 0.0))
