"""The calibrator of each tensor, chosen by what its readers lose alone: no gain over one for all.

    python benchmarks/calibrator_by_tensor.py [NETWORK ...]

All layers in w8a8, simulated. KL to float (milli-nats) on the evaluation images, with ranges of

auto        one calibrator, the one that `auto` picks
best        one calibrator, the best of the four on these very images: what no rule can know
own         of each tensor the calibrator with which those layers that read it lose least alone
            (the geometric mean over batches of own error over signal, in lockstep), on all
            calibration samples
own, total  the same by sums over samples, which a few samples decide
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import methods
import networks
import numpy as np
import oracle
from numpy.typing import NDArray

from mlq import calibration, metrics
from mlq.analysis import Prepared, Subject
from mlq.methods import prepare
from mlq.precision import CALIBRATORS
from mlq.ranges import Ranges
from mlq.recipe import resolve
from mlq.simulation import uniform

Losses = NDArray[np.float64]
"""By calibrator and compared pair: geometric mean and sum of a layer's own loss."""


def subject_of(network: networks.Network) -> Subject:
    """The network and all of its calibration samples."""
    subject = oracle.subject_of(network)
    return replace(subject, recipe=resolve({"effort": "quick", "precisions": "f32,w8a8"}))


def own_losses(found: Prepared, ranges: Ranges) -> dict[str, tuple[float, float]]:
    """By layer, its own error over its signal: the geometric mean over batches, and of sums."""
    simulation, subject = found.simulation, found.subject
    base = uniform(subject.network, oracle.BASE, subject.allowed)
    ratios, sums = [], np.zeros((len(simulation.compared), 2))
    for *_, measured in simulation.lockstep(subject.batches(), ranges, [base]):
        energies = measured.astype(np.float64).reshape(sums.shape)
        ratios.append((energies[:, 1] + 1e-30) / (energies[:, 0] + 1e-30))
        sums += energies
    typical = np.exp(np.mean(np.log(ratios), axis=0))
    whole = sums[:, 1] / (sums[:, 0] + 1e-30)
    return {
        layer: (float(typical[at]), float(whole[at]))
        for at, (layer, role) in enumerate(simulation.compared)
        if role == "own"
    }


def by_tensor(
    found: Prepared, ranges: dict[str, Ranges], losses: dict[str, dict[str, float]]
) -> Ranges:
    """Of each tensor the range of the calibrator with which its readers lose least."""
    chosen = {}
    for name in next(iter(ranges.values())).tensors:
        readers = [
            layer.name
            for layer in found.subject.network.layers
            if any(flow.tensor == name for flow in layer.flows)
        ]
        lost = {each: sum(losses[each][reader] for reader in readers) for each in ranges}
        chosen[name] = ranges[min(lost, key=lost.__getitem__)].tensors[name]
    return next(iter(ranges.values())).model_copy(update={"tensors": chosen})


def row(network: networks.Network) -> dict[str, float]:
    """KL by what chose the ranges."""
    found = prepare(subject_of(network))
    samples = network.samples(network.eval)
    base = uniform(found.subject.network, oracle.BASE, found.subject.allowed)
    exact = methods.logits(found, samples.inputs, {})
    ranges: dict[str, Ranges] = {
        each: calibration.ranges_by(each, found.observations, scheme="asymmetric")
        for each in CALIBRATORS
    }

    def divergence(chosen: Ranges) -> float:
        choice = replace(found.choice, ranges=chosen)
        value = methods.logits(replace(found, choice=choice), samples.inputs, base)
        return metrics.kl_mnat(exact, value)

    alone = {each: divergence(known) for each, known in ranges.items()}
    losses = {each: own_losses(found, known) for each, known in ranges.items()}
    kept = [{n: {k: v[at] for k, v in each.items()} for n, each in losses.items()} for at in (0, 1)]
    return {
        "auto": alone[found.choice.ranges.calibrator],
        "best": min(alone.values()),
        "own": divergence(by_tensor(found, ranges, kept[0])),
        "own, total": divergence(by_tensor(found, ranges, kept[1])),
    }


def main() -> None:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks (default: all)")
    print(f"{'network':30}{'auto':>10}{'best':>10}{'own':>10}{'own, total':>12}")
    for network in networks.find(parser.parse_args().names):
        found = row(network)
        cells = "".join(f"{found[each]:10.2f}" for each in ("auto", "best", "own"))
        print(f"{network.name:30}{cells}{found['own, total']:12.2f}", flush=True)


if __name__ == "__main__":
    main()
