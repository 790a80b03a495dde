"""Dequantize one layer at a time, in the order of each metric.

    python benchmarks/dequantization.py [NETWORK ...]

QuantuneV2's figure 3 (arXiv 2501.07161): from all layers in int8, the layer that a metric calls
most sensitive becomes float, then the next. KL to float is that of the simulation, where a plan is
a table and weights, so that no point of a curve needs a compiler. What is measured is kept in
benchmarks/out/dequantization. Prints the area under each curve: 1 is the loss of all-int8 at every
number of float layers, so that less is better; `random` is the mean of three orders.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import replace

import networks
import numpy as np
import oracle

from mlq import analysis
from mlq.recipe import METRICS
from mlq.simulation import uniform

FOLDER = networks.OUT / "dequantization"
# The six local metrics, then ours, then layers tried alone on a few samples and on all.
ORDERS = {
    name: METRICS[name]
    for name in (
        "sqnr",
        "sqnr-delta",
        "mse",
        "weight-sqnr",
        "weight-sqnr-delta",
        "weight-mse",
        "own-share",
        "propagated",
        "combined",
        "output-typical",
        "output-expected",
    )
} | {"O1": "oracle_kl_mnat"}
SEEDS = 3
POINTS = 13
SAMPLES = 200
Curve = list[tuple[int, float]]


def orders(found: oracle.Measured) -> dict[str, list[list[str]]]:
    """By name, the orders in which layers become float; several for random."""
    chosen = {name: [found.order(key)] for name, key in ORDERS.items()}
    names = sorted(found.order("oracle_kl_mnat"))
    shuffled = [random.Random(seed).sample(names, len(names)) for seed in range(SEEDS)]  # noqa: S311 -- an order to compare with, no secret
    return chosen | {"random": shuffled}


def curves(network: networks.Network) -> dict[str, Curve]:
    """KL (milli-nats) by number of float layers, for each order."""
    file = FOLDER / f"{network.name}.json"
    if not file.exists():
        found = oracle.measured(network)
        divergence = _divergence(network)
        drawn = {
            name: _mean([_curve(each, divergence) for each in several])
            for name, several in orders(found).items()
        }
        FOLDER.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(drawn))
    return {
        name: [(int(k), kl) for k, kl in curve]
        for name, curve in json.loads(file.read_text()).items()
    }


def area(curve: Curve) -> float:
    """Area under a curve, both axes from 0 to 1."""
    counts, values = np.array(curve, np.float64).T
    return float(np.trapezoid(values / values[0], counts / counts[-1]))


def _curve(order: list[str], divergence: Callable[[frozenset[str]], float]) -> Curve:
    counts = sorted({int(each) for each in np.linspace(0, len(order), POINTS)})
    return [(count, divergence(frozenset(order[count:]))) for count in counts]


def _mean(several: list[Curve]) -> Curve:
    kls = np.mean([[kl for _, kl in curve] for curve in several], axis=0)
    return [(count, float(kl)) for (count, _), kl in zip(several[0], kls, strict=True)]


def _divergence(network: networks.Network) -> Callable[[frozenset[str]], float]:
    """KL with these layers in int8; the same set is simulated once."""
    subject = oracle.subject_of(network)
    simulation = analysis.simulate(subject)
    observations = analysis.observe(subject, simulation)
    choice = analysis.choose_ranges(subject, observations, simulation)
    few = replace(observations, outputs=observations.outputs[: SAMPLES // subject.batch])
    base = uniform(subject.network, oracle.BASE, subject.allowed)
    known: dict[frozenset[str], float] = {}
    found = analysis.Analysis(
        subject, simulation, few, choice, oracle.measured(network).sensitivities
    )

    def divergence(integer: frozenset[str]) -> float:
        if integer not in known:
            known[integer] = found.divergence({name: base[name] for name in sorted(integer)})
        return known[integer]

    return divergence


def main() -> None:
    """Print the area under each curve, a row for each order."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks (default: all)")
    for network in networks.find(parser.parse_args().names):
        print(network.name)
        for name, curve in curves(network).items():
            print(f"  {name:20}{area(curve):6.3f}", flush=True)


if __name__ == "__main__":
    main()
