"""What calibration and sensitivity cost, in passes of the float module over the same samples.

    python benchmarks/analysis_cost.py [NETWORK ...]        (default: all networks of the data set)

CPU time of one thread, compilation left out: the float network in the same batches, then the float
network that observes itself, the comparison of calibrators, and the float and the quantized network
in lockstep. The passes are counted as the report counts them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

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


def measure(network: Network) -> dict[str, float]:
    """CPU seconds by stage for one network; modules are compiled (or found) before the clock."""
    device, recipe = targets.by_name("x86"), resolve({"threads": 1})
    specs = load(network.model, batch=1).sample_specs
    data = load_data(str(network.calib), specs, model_path=network.model)
    subject = Subject.of(network.model, data, device, recipe, Stages(visible=False))
    batches = list(subject.batches())
    plain = subject.network.transform(lowering(device.features))
    vmfb = compile_module(plain.text, device, embed=False)
    executable = runtime.load(vmfb, parameters=plain.weights)
    executable.run(*batches[0])
    instrumented = calibration.instrument(subject.network, device)
    instrumented.run(*batches[0])
    simulation = simulate(subject)
    seconds: dict[str, float] = {}
    seconds["float"], _ = spent(lambda: [executable.run(*batch) for batch in batches])
    seconds["calibrate"], observations = spent(
        lambda: calibration.observe(subject.network, instrumented, batches)
    )
    base = uniform(subject.network, "w8a8", subject.allowed)
    simulation.run(
        batches[0], calibration.ranges_by("minmax", observations, scheme="asymmetric"), base
    )
    seconds["choose calibrator"], choice = spent(
        lambda: choose_ranges(subject, observations, simulation)
    )
    simulation.lockstep(batches[0], choice.ranges, [base])
    seconds["sensitivity"], _ = spent(
        lambda: sensitivity.measure(
            batches, simulation, choice.ranges, precisions=("w8a8",), supported=subject.allowed
        )
    )
    return seconds


def main(names: list[str]) -> None:
    """Print a row a network."""
    networks = find(names)
    columns = ("calibrate", "calibrator", "sensitivity", "all")
    print(f"{'network':30} {'float':>9} " + " ".join(f"{each:>10}" for each in columns))
    for network in networks:
        seconds = measure(network)
        one = seconds.pop("float")
        parts = [value / one for value in seconds.values()]
        row = " ".join(f"{part:>10.2f}" for part in parts)
        print(f"{network.name:30} {one:>7.2f} s {row} {sum(parts):>10.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
