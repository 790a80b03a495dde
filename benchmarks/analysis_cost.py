"""What calibration and sensitivity cost, in passes of the float module over the same samples.

    python benchmarks/analysis_cost.py [NETWORK ...] [--rounds N] [--on eval]     (all by default)

CPU time of one thread, compilation left out: the float network in the same batches, then the float
network that observes itself, the comparison of calibrators, and the float and the quantized network
in lockstep; with --precisions f32,w8a8,w8a16 two quantized ones. Each round does all of it; the
ratios are medians over rounds. `same` is all of it in float passes of the module that is measured
with, which quantizes by a table: with all layers in float. With --on eval the
evaluation samples take the place of the calibration samples: more of them, to spread over what does
not depend on their number.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from networks import Network, find

from mlq import calibration, runtime, sensitivity, targets
from mlq.analysis import Subject, choose_ranges, simulate
from mlq.frontends.data import load_data
from mlq.network import load
from mlq.progress import Stages
from mlq.recipe import resolve
from mlq.simulation import uniform
from mlq.targets.iree import compile_module
from mlq.transforms.pipelines import lowering

T = TypeVar("T")


def spent(call: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds of a call, and what it returned."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def measure(
    network: Network, samples: Path, precisions: str, rounds: int
) -> tuple[float, list[float]]:
    """CPU seconds of the float network, and each stage and all in passes; medians over rounds."""
    device, recipe = targets.by_name("x86"), resolve({"precisions": precisions})
    specs = load(network.model, batch=1).sample_specs
    data = load_data(str(samples), specs, model_path=network.model)
    subject = Subject.of(network.model, data, device, recipe, Stages(visible=False))
    batches = list(subject.batches())
    plain = subject.network.transform(lowering(device.features))
    vmfb = compile_module(plain.text, device, embed=False)
    executable = runtime.load(vmfb, parameters=plain.weights)
    executable.run(*batches[0])
    simulation = simulate(subject, at_once=1)
    base = uniform(subject.network, "w8a8", subject.allowed)
    one = calibration.observe(subject.network, simulation.observed(batches[:1]))
    ranges = calibration.ranges_by("minmax", one, scheme="asymmetric")
    simulation.run(batches[0], ranges, base)
    integer = recipe.reduced_precisions()
    next(simulation.lockstep(batches, ranges, [base] * len(integer)))

    def once() -> list[float]:
        plainly, _ = spent(lambda: [executable.run(*batch) for batch in batches])
        # The first call packs weights.
        next(simulation.observed(batches))
        calibrating, observations = spent(
            lambda: calibration.observe(subject.network, simulation.observed(batches))
        )
        # Each round loads the modules and weighs and packs the weights anew, as a first one does.
        simulation.release()
        choosing, choice = spent(lambda: choose_ranges(subject, observations, simulation))
        comparing, _ = spent(
            lambda: sensitivity.measure(
                batches, simulation, choice.ranges, precisions=integer, supported=subject.allowed
            )
        )
        # The first call packs weights.
        simulation.run(batches[0], choice.ranges, {})
        same, _ = spent(lambda: list(simulation.each(batches, choice.ranges, {})))
        return [plainly, same, calibrating, choosing, comparing]

    seconds = np.array([once() for _ in range(rounds)])
    parts = seconds[:, 2:]
    together = parts.sum(axis=1, keepdims=True) / seconds[:, :2]
    ratios = np.median(np.hstack([parts / seconds[:, :1], together]), axis=0)
    return float(np.median(seconds[:, 0])), ratios.tolist()


def main() -> None:
    """Print a row a network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["all"])
    parser.add_argument("--precisions", default="f32,w8a8", help="default: f32,w8a8")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--on", choices=("calib", "eval"), default="calib", help="samples (calib)")
    arguments = parser.parse_args()
    columns = ("calibrate", "calibrator", "sensitivity", "all", "same")
    print(f"{'network':30} {'float':>9} " + " ".join(f"{each:>10}" for each in columns))
    for network in find(arguments.networks):
        samples = network.calib if arguments.on == "calib" else network.eval
        one, parts = measure(network, samples, arguments.precisions, arguments.rounds)
        row = " ".join(f"{part:>10.2f}" for part in parts)
        print(f"{network.name:30} {one:>7.2f} s {row}", flush=True)


if __name__ == "__main__":
    main()
