"""At which level of the IR to quantize: casts, loss and latency of all-int8 at each.

    python benchmarks/levels.py [NETWORK ...] [--seconds 4]

QuantuneV2's figure 4 (arXiv 2501.07161). `onnx` quantizes each node on its own, `folded` after
batch norms and biases are folded, `fused` whole groups. KL (milli-nats) is that of the simulation
over the calibration samples, latency the median CPU time of a call of the compiled artifacts,
called in turn. What is measured is kept in benchmarks/out/levels.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any

import networks
import numpy as np
import oracle

from mlq import analysis, planning, runtime, targets
from mlq.latency import time_for
from mlq.network import load
from mlq.ranges import Ranges
from mlq.recipe import resolve
from mlq.simulation import uniform
from mlq.targets.base import Target
from mlq.variant import build

FOLDER = networks.OUT / "levels"


def rows(network: networks.Network, seconds: float) -> dict[str, dict[str, float]]:
    """By level: layers, casts, KL and milliseconds."""
    file = FOLDER / f"{network.name}.json"
    if not file.exists():
        target, found, calls = targets.by_name("x86"), dict[str, dict[str, float]](), []
        for level in oracle.LEVELS:
            found[level], ranges = _loss(network, level)
            casts, vmfb = _artifact(network, level, ranges, target)
            found[level] |= casts
            calls.append(_call(network, vmfb))
        for level, latency in zip(found, time_for(calls, seconds=seconds), strict=True):
            found[level]["ms"] = latency.cpu_p50
        FOLDER.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
    content: dict[str, dict[str, float]] = json.loads(file.read_text())
    return content


def _loss(network: networks.Network, level: str) -> tuple[dict[str, float], Ranges]:
    """Layers and KL of all-int8 at a level, and the ranges for it."""
    subject = oracle.subject_of(network, level)
    simulation = analysis.simulate(subject)
    observations = analysis.observe(subject, simulation)
    choice = analysis.choose_ranges(subject, observations, simulation)
    found = analysis.measure(subject, observations, simulation, choice)
    base = uniform(subject.network, oracle.BASE, subject.allowed)
    return {"layers": float(len(base)), "kl": found.divergence(base)}, choice.ranges


def _artifact(
    network: networks.Network, level: str, ranges: Ranges, target: Target
) -> tuple[dict[str, float], bytes]:
    """Casts of the all-int8 network, and its artifact."""
    graph = load(network.model, batch=1, ir_level=level)
    allowed = planning.supported(graph, target, [oracle.BASE])
    plan = planning.uniform_plan(graph, resolve({"ir_level": level}), oracle.BASE, allowed)
    variant = build(graph, plan, ranges, target)
    counts = variant.casts().model_dump(exclude={"borders"})
    return {kind: float(count) for kind, count in counts.items()}, variant.vmfb


def _call(network: networks.Network, vmfb: bytes) -> Any:
    executable = runtime.load(vmfb)
    sample = network.samples(network.calib).inputs[:1]
    return partial(executable.run, np.ascontiguousarray(sample))


def main() -> None:
    """Print a row for each network and level."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks (default: all)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing a network")
    arguments = parser.parse_args()
    for network in networks.find(arguments.names):
        for level, row in rows(network, arguments.seconds).items():
            print(network.name, level, {key: round(value, 3) for key, value in row.items()})


if __name__ == "__main__":
    main()
