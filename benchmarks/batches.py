"""What a batch that is known only at run time costs: milliseconds a sample, fixed batch and any.

    python benchmarks/batches.py [NETWORK ...] [--batches 1 8 32] [--seconds 4] [--threads 1]
    python benchmarks/batches.py FILE.onnx

Each network all in w8a8, from a random sample's ranges: compiled for each batch, and once for any
(`--batch any`). Both are called in turn; medians of wall and CPU time. Their results are compared
bit for bit.
"""

from __future__ import annotations

import argparse

import numpy as np
from compile_x86 import decided
from networks import Network, find

from mlq import runtime, targets, variant
from mlq.frontends.specs import Batch
from mlq.latency import time_for
from mlq.network import load
from mlq.plan import Plan
from mlq.ranges import Ranges
from mlq.targets.host import cpu_model


def compiled(
    each: Network, plan: Plan, ranges: Ranges, batch: Batch, threads: int
) -> runtime.Executable:
    """The network for a batch."""
    network = load(each.model, batch=batch)
    vmfb = variant.build(network, plan, ranges, targets.by_name("x86")).vmfb
    return runtime.load(vmfb, threads=threads)


def main() -> None:
    """Print a row for each network and batch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="all by default")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each row")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print(f"{cpu_model()}; threads: {given.threads}; milliseconds a sample, wall and CPU")
    print(
        f"{'network':30}{'batch':>6}{'fixed':>10}{'CPU':>9}{'any':>10}{'CPU':>9}{'any/fixed':>11}"
    )
    for each in find(given.networks):
        _, plan, ranges = decided(each)
        open_ = compiled(each, plan, ranges, "any", given.threads)
        for batch in given.batches:
            row(each, batch, compiled(each, plan, ranges, batch, given.threads), open_, given)


def row(
    each: Network,
    batch: int,
    fixed: runtime.Executable,
    open_: runtime.Executable,
    given: argparse.Namespace,
) -> None:
    """Compare and time both on one batch."""
    random = np.random.default_rng(batch)
    specs = load(each.model, batch=batch).model.inputs
    inputs = [random.normal(size=spec.shape).astype(np.float32) for spec in specs]
    for one, other in zip(fixed.run(*inputs), open_.run(*inputs), strict=True):
        np.testing.assert_array_equal(one, other)
    calls = [fixed.prepare(*inputs), open_.prepare(*inputs)]
    times = [
        (found.p50 / batch, found.cpu_p50 / batch)
        for found in time_for(calls, seconds=given.seconds)
    ]
    shown = "".join(f"{wall:10.4f}{cpu:9.4f}" for wall, cpu in times)
    print(f"{each.name:30}{batch:6}{shown}{times[1][1] / times[0][1]:11.2f}", flush=True)


if __name__ == "__main__":
    main()
