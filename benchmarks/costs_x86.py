"""Measure what layers cost on this x86 CPU: the table in mlq/targets/x86.py.

    python benchmarks/costs_x86.py [NETWORK ...]        (default: all networks of the data set)
    python benchmarks/costs_x86.py FILE.onnx
    python benchmarks/costs_x86.py [NETWORK ...] --reports FOLDER

The layers of real networks, timed by IREE's profiler in the networks they are layers of (`mlq
targets measure`). A row of the table is the operations of all layers of its kind over their time.
Prints how far each network's sum is from the table of before, then the rows as the target's file
has them. With --reports nothing is timed here: the times are those of FOLDER/NETWORK/report.json,
which `mlq quantize` left, perhaps on another CPU.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from networks import Network, find
from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Location, Module, Value

from mlq import runtime, targets, timing
from mlq.costs import TableCosts, work_of
from mlq.dialect import build, context
from mlq.dialect.weights import WeightStore
from mlq.latency import time_calls
from mlq.network import load, transform
from mlq.recipe import Recipe, resolve
from mlq.targets.host import cpu_model
from mlq.targets.iree import compile_module, versions
from mlq.transforms.pipelines import lowering

TARGET = targets.by_name("x86")
RNG = np.random.default_rng(0)


def chain(length: int) -> runtime.Executable:
    """So many matrix products too small to take time: what remains is what a dispatch costs."""
    with context(), Location.unknown():
        module, store = Module.create(), WeightStore()
        kind = build.tensor((1, 8))
        with InsertionPoint(module.body):

            @func.FuncOp.from_py_func(kind, name="main")
            def _main(value: Value) -> Value:
                for index in range(length):
                    store[f"w{index}"] = RNG.standard_normal((8, 8), np.float32)
                    value = build.matmul(value, build.weight(f"w{index}", build.tensor((8, 8))))
                return value

        lowered = transform(str(module), store, lowering(TARGET.features))
        return runtime.load(compile_module(lowered.text, TARGET, weights=lowered.weights))


def dispatch_us(runs: int = 300, length: int = 65) -> float:
    """Microseconds that one more dispatch adds to a call."""
    calls = [chain(n).prepare(np.zeros((1, 8), np.float32)) for n in (1, length)]
    one, many = time_calls(calls, runs=runs)
    return (many.cpu_p50 - one.cpu_p50) * 1e3 / (length - 1)


def times_of(network: Network, recipe: Recipe, reports: Path | None) -> dict[str, dict[str, float]]:
    """Microseconds of each layer by precision: timed here, or as a report has them."""
    if reports is None:
        return {each.name: each.us for each in timing.measure_model(network.model, recipe).layers}
    report = json.loads((reports / network.name / "report.json").read_text())
    return {each["name"]: each["cost_us"] for each in report["layers"]}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["all"])
    parser.add_argument("--precisions", default=TARGET.menu, help=f"default: {TARGET.menu}")
    parser.add_argument("--reports", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    recipe, table = resolve({"precisions": arguments.precisions}), TableCosts(TARGET)
    where = cpu_model() if arguments.reports is None else str(arguments.reports)
    print(f"{where}; IREE {versions()['iree-base-compiler']}; one thread\n")
    print(f"{'network':30} {'precision':>9} {'measured us':>12} {'by the table':>12}")
    totals: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    for network in find(arguments.networks):
        times = times_of(network, recipe, arguments.reports)
        layers = load(network.model, batch=1).layers
        for precision in ("f32", *recipe.reduced_precisions()):
            timed = [layer for layer in layers if precision in times[layer.name]]
            measured = sum(times[layer.name][precision] for layer in timed)
            expected = sum(table.layer_us(layer, precision) for layer in timed)
            print(f"{network.name:30} {precision:>9} {measured:12.0f} {expected:12.0f}", flush=True)
            for layer in timed:
                work = work_of(layer)
                row = f"{work.kind}.{work.form}" if work.form else work.kind
                total = totals[row][precision]
                total[0] += work.operations
                total[1] += times[layer.name][precision]
    print()
    for row, rates in totals.items():
        cells = [f'"{name}": {done / us / 1e3:.1f}' for name, (done, us) in rates.items()]
        print(f'"{row}": {{{", ".join(cells)}}},')
    if arguments.reports is None:
        print(f"dispatch_us={dispatch_us():.2f}")


if __name__ == "__main__":
    main()
