"""How long `mlq quantize` takes, and what it does meanwhile, with nothing cached.

    python benchmarks/stages.py [NETWORK ...] [--samples N]                       (all by default)

By the clock; `mlq` and `compilers` are CPU seconds of the process and of those that it started.
Then the stages of the report that took a second or more. Calibrated on the first samples, checked
on the evaluation samples.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time

from networks import Network, find

import mlq


def cpu(whose: int) -> float:
    """CPU seconds until now."""
    spent = resource.getrusage(whose)
    return spent.ru_utime + spent.ru_stime


def measure(network: Network, samples: int) -> str:
    """A row of the table."""
    who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    before, start = [cpu(each) for each in who], time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MLQ_CACHE"] = cache
        made = mlq.quantize(network.model, network.calib, eval=network.eval, samples=samples)
    wall = time.perf_counter() - start
    own, compilers = (cpu(each) - was for each, was in zip(who, before, strict=True))
    stages = [f"{each.name} {each.seconds:.0f}" for each in made.report.stages if each.seconds >= 1]
    return f"{network.name:30}{wall:6.0f}{own:6.0f}{compilers:11.0f}  {', '.join(stages)}"


def main() -> None:
    """Print a row a network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["all"])
    parser.add_argument("--samples", type=int, default=100, help="calibration samples (100)")
    arguments = parser.parse_args()
    print(f"{'network':30}{'s':>6}{'mlq':>6}{'compilers':>11}  stages")
    for network in find(arguments.networks):
        print(measure(network, arguments.samples), flush=True)


if __name__ == "__main__":
    main()
