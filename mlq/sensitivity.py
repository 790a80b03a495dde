"""Inference 2: everything quantized, the float network in lockstep, local metrics in the module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlq import metrics
from mlq.calibration import Advance, Batch
from mlq.network import Layer
from mlq.propagation import Energies, own_metrics
from mlq.ranges import Ranges
from mlq.sensitivities import LayerSensitivity, Sensitivities
from mlq.simulation import Simulation, uniform
from mlq.stored import Array, Assignment

# What a batch without any noise counts for in a mean of logarithms.
_LEAST_ENERGY = 1e-30
# Elements of outputs that wait to be compared: calls of numpy take longer than what they do.
_WAITING = 1 << 14
DEFAULT_METRIC = "combined_error"


@dataclass(frozen=True)
class _Seen:
    """What the lockstep measured: energies [precisions, compared, 2] and the KL of the first.

    `typical` is the geometric mean over batches. A total is that of the few samples that lie
    beyond the calibrated ranges; what most samples lose is what a layer is to be judged by.
    """

    totals: Array
    typical: Array
    kl_mnat: float
    samples: int


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

    The energies are summed inside the module. `kl_mnat` is that of the first precision on all
    layers. Source of SQNR, its delta and MSE: QuantuneV2 (arXiv 2501.07161), readings D1 and D2;
    docs/quantunev2.md has every formula.
    """
    network = simulation.network
    assignments = [uniform(network, precision, supported) for precision in precisions]
    seen = _see(batches, simulation, ranges, assignments, advance)
    candidates: dict[str, dict[str, dict[str, float]]] = {each.name: {} for each in network.layers}
    base = _named(simulation, seen.typical[0])
    for precision, totals, typical in zip(precisions, seen.totals, seen.typical, strict=True):
        layers = [layer for layer in network.layers if precision in supported[layer.name]]
        energies = _named(simulation, totals)
        own = {
            name: each
            for (name, role), each in _named(simulation, typical).items()
            if role == "own"
        }
        alone = own_metrics(network, base, own)
        for layer in layers:
            local = _local_metrics(simulation, layer, precision, energies, seen.samples)
            candidates[layer.name][precision] = local | alone.get(layer.name, {})
    _add_shares(candidates, precisions)
    found = {
        layer.name: LayerSensitivity(
            op=layer.kind, macs=layer.macs, params=layer.params, candidates=candidates[layer.name]
        )
        for layer in network.layers
    }
    return Sensitivities(samples=seen.samples, metric=metric, kl_mnat=seen.kl_mnat, layers=found)


def _see(
    batches: Iterable[Batch],
    simulation: Simulation,
    ranges: Ranges,
    assignments: Sequence[Assignment],
    advance: Advance,
) -> _Seen:
    """Run the float network and the simulated ones, one for each assignment, over the samples."""
    totals = np.zeros((len(assignments), len(simulation.compared), 2))
    logarithms = np.zeros_like(totals)
    losses, samples, done = list[float](), 0, 0
    waiting: list[tuple[Array, Array, Array]] = []

    def add() -> None:
        """Add up the batches that wait, all at once."""
        *outputs, measured = map(np.stack, zip(*waiting, strict=True))
        energies = measured.astype(np.float64).reshape(-1, *totals.shape)
        np.add.reduce([totals, *energies], out=totals)
        np.add.reduce([logarithms, *np.log(np.maximum(energies, _LEAST_ENERGY))], out=logarithms)
        found = metrics.divergences_mnat(*outputs).reshape(len(waiting), -1).mean(axis=1)
        losses.extend(np.maximum(found, 0.0).tolist())
        waiting.clear()

    size = simulation.network.batch
    for *outputs, measured in simulation.lockstep(batches, ranges, assignments):
        waiting.append((outputs[0], outputs[len(outputs) // (len(assignments) + 1)], measured))
        samples, done = samples + size, done + 1
        if len(waiting) * outputs[0].size >= _WAITING:
            add()
        advance(size)
    if waiting:
        add()
    divergence = sum(each * (samples // done) for each in losses) / samples
    return _Seen(totals, np.exp(logarithms / done), divergence, samples)


def _named(simulation: Simulation, energies: Array) -> Energies:
    return dict(zip(simulation.compared, energies.tolist(), strict=True))


def _local_metrics(
    simulation: Simulation, layer: Layer, precision: str, energies: Energies, samples: int
) -> dict[str, float]:
    """SQNR, its delta and MSE, of the layer's weight and of its result."""
    weight = _weight_metrics(simulation, layer, precision)
    activation = _activation_metrics(layer, energies, samples)
    # A layer without a weight has but its operands to be compared with.
    delta = activation["activation_sqnr_delta_db"]
    if layer.weight is not None:
        delta = activation["activation_sqnr_db"] - weight["weight_sqnr_db"]
    return {**weight, **activation, "weight_sqnr_delta_db": delta}


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


def _activation_metrics(layer: Layer, energies: Energies, samples: int) -> dict[str, float]:
    """SQNR and MSE of the layer's result, and how much SQNR it lost between operands and result."""
    signal, noise = energies[layer.name, "output"]
    entering = np.sum([energies[layer.name, flow.role] for flow in layer.flows], axis=0)
    before = metrics.bounded(metrics.decibels(*entering.tolist()))
    after = metrics.bounded(metrics.decibels(signal, noise))
    return {
        "activation_sqnr_db": after,
        "activation_sqnr_delta_db": after - before,
        "activation_mse": noise / (samples * layer.output_elements),
    }


def _add_shares(
    candidates: Mapping[str, dict[str, dict[str, float]]], precisions: Sequence[str]
) -> None:
    """Add `noise_share`: noise-to-signal a layer adds, over what all add at the first precision."""
    base = precisions[0]
    total = sum(_added_noise(each[base]) for each in candidates.values() if base in each) or 1.0
    for found in candidates.values():
        for each in found.values():
            each["noise_share"] = _added_noise(each) / total


def _added_noise(metrics_: Mapping[str, float]) -> float:
    """Noise-to-signal of a layer's result less that of its operands, never negative."""
    after = metrics_["activation_sqnr_db"]
    before = after - metrics_["activation_sqnr_delta_db"]
    return float(max(10 ** (-after / 10) - 10 ** (-before / 10), 0.0))
