"""What compiling takes and what comes out: CPU seconds, bytes of the .vmfb over those of weights.

    python benchmarks/compile_x86.py [NETWORK ...]        (default: all networks of the data set)

Each network all in w8a8 from a random sample's ranges, from ONNX to .vmfb without cached results:
passes run in this process, IREE's compiler in one of its own. Weights are a byte each, biases four.
"""

from __future__ import annotations

import os
import resource
import sys

import numpy as np
from networks import Network, find

from mlq import calibration, planning, targets, variant
from mlq.frontends.data import load_data
from mlq.network import Network as Graph
from mlq.network import load
from mlq.plan import Plan
from mlq.ranges import Ranges
from mlq.recipe import resolve

KINDS = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def seconds() -> np.ndarray:
    """CPU time of this process and of those it waited for."""
    used = [resource.getrusage(kind) for kind in KINDS]
    return np.array([each.ru_utime + each.ru_stime for each in used])


def decided(each: Network) -> tuple[Graph, Plan, Ranges]:
    """The network all in w8a8, in the ranges of a random sample."""
    target, recipe, network = targets.by_name("x86"), resolve({}), load(each.model, batch=1)
    data = load_data("random:1", network.sample_specs, model_path=each.model)
    inputs = [next(data.batches(1))[spec.name] for spec in network.model.inputs]
    executable = calibration.instrument(network, target)
    observations = calibration.observe(network, [executable.run(*inputs)])
    ranges = calibration.ranges_by("minmax", observations, scheme=recipe.scheme)
    allowed = planning.supported(network, target, ["w8a8"])
    return network, planning.uniform_plan(network, recipe, "w8a8", allowed), ranges


def main(names: list[str]) -> None:
    """Print a row a network."""
    target = targets.by_name("x86")
    print(f"{'network':30} {'passes s':>9} {'IREE s':>7} {'vmfb':>11} {'weights':>11} {'ratio':>6}")
    for each in find(names):
        network, plan, ranges = decided(each)
        os.environ["MLQ_CACHE"] = "off"
        before = seconds()
        vmfb = variant.build(load(each.model, batch=1), plan, ranges, target).vmfb
        passes, compiler = seconds() - before
        del os.environ["MLQ_CACHE"]
        weights = [network.weights[layer.weight].size for layer in network.layers if layer.weight]
        biases = [network.weights[layer.bias].size for layer in network.layers if layer.bias]
        stored = sum(weights) + 4 * sum(biases)
        row = f"{passes:9.1f} {compiler:7.1f} {len(vmfb):11,} {stored:11,}"
        print(f"{each.name:30} {row} {len(vmfb) / stored:6.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
