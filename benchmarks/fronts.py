"""From all-int8 to float: the plans in between, with and without what they are made with.

    python benchmarks/fronts.py [NETWORK ...] [--forms w10a12 ...] [--seconds 20] [--settle MS]
        [--again]

w8a8             layers in float or w8a8
rounded borders  the same plans, but what an integer layer hands to a float one is rounded to 8 bits
w8a16            layers may also read activations of 16 bits
w10a12           or, in the menu of x86, weights of 10 bits and activations of 12
equalized        f32,w8a8 on the network whose channels were equalized
methods          the menu of x86 with `--methods equalize,bias-correction`

The first plan has every layer that can be in w8a8. The others are the integer program's for a part
of the milli-nats that the fastest is predicted to lose, or for 5 (effort default, layers timed on
this CPU). All are compiled: KL and agreement are those of the modules on the evaluation images, to
the float module; milliseconds are the median CPU time of a call, one thread, all plans of a network
in turn; each is called for --settle milliseconds before it is timed, or finds caches full of
another's weights. Kept in benchmarks/out/fronts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np
from networks import Network, Samples
from torch_mlir.ir import InsertionPoint, Operation, Value

from mlq import analysis, evaluation, metrics, planning, runtime, targets, timing, variant
from mlq.allocation import Allocation
from mlq.dialect import build, layers
from mlq.frontends.data import load_data
from mlq.latency import time_for
from mlq.methods import prepare
from mlq.network import Network as Graph
from mlq.network import Transformed, load
from mlq.plan import Plan
from mlq.precision import Precision
from mlq.progress import Stages
from mlq.ranges import Ranges
from mlq.recipe import resolve
from mlq.targets.base import Target
from mlq.transforms.base import register_pass, walk
from mlq.transforms.insert_casts import InsertCasts
from mlq.transforms.pipelines import quantize_pipeline

FOLDER = networks.OUT / "fronts"
MENU = targets.by_name("x86").menu
# What plans are made with: the menu and the accuracy methods.
FORMS = {
    "w8a8": ("f32,w8a8", "none"),
    "w8a16": ("f32,w8a8,w8a16", "none"),
    "w10a12": (MENU, "none"),
    "equalized": ("f32,w8a8", "equalize"),
    "methods": (MENU, "equalize,bias-correction"),
}
ROUNDED = "rounded borders"
# Of the milli-nats that the fastest plan is predicted to lose.
PARTS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.08, 0.04, 0.0)
WITHIN = 5.0  # milli-nats, about 0.1 point
_ROUND = "bench-round-borders"


@register_pass
class RoundBorders(InsertCasts):
    """As mlq-insert-casts; what an integer layer hands to a float one is rounded as bytes are."""

    name = _ROUND

    def run(self, module: Operation) -> None:
        super().run(module)
        for op in walk(module):
            if not layers.is_layer(op):
                continue
            precision = Precision.parse(layers.precision_of(op))
            readers = [use for use in op.output.uses if layers.is_layer(use.owner.opview)]
            if precision.is_float or not readers:
                continue
            places = [(use.owner, use.operand_number) for use in readers]
            with InsertionPoint.after(op.operation), op.location:
                rounded = self._rounded(op.output)
            for owner, number in places:
                owner.operands[number] = rounded

    def _rounded(self, value: Value) -> Value:
        return build.dequantize(self._stored(value, Precision.parse("w8a8")))


@dataclass(frozen=True)
class Point:
    """A plan: layers by precision, the milli-nats it should lose, and what was measured of it."""

    layers: Mapping[str, int]
    predicted_mnat: float
    kl_mnat: float
    agreement: float
    ms: float


def measured(
    network: Network,
    seconds: float,
    *,
    forms: Sequence[str] = tuple(FORMS),
    settle: float = 0.0,
    again: bool = False,
) -> dict[str, list[Point]]:
    """The points of each form; measured if they are not known, after `settle` seconds of calls."""
    name = network.name if tuple(forms) == tuple(FORMS) else ".".join((network.name, *forms))
    file = FOLDER / f"{name}.json"
    if again or not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        found = _measure(network, seconds, forms, settle)
        content = {form: [vars(point) for point in points] for form, points in found.items()}
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(content))
        partial.replace(file)
    kept = json.loads(file.read_text())
    return {form: [Point(**each) for each in points] for form, points in kept.items()}


def _measure(
    network: Network, seconds: float, forms: Sequence[str], settle: float
) -> dict[str, list[Point]]:
    samples = network.samples(network.eval)
    known: dict[str, list[dict[str, Any]]] = {}
    exact, calls = None, []
    for form in forms:
        for name, said, vmfb in _plans(network, form, first=form == forms[0]):
            executable = runtime.load(vmfb)
            value = _logits(executable, samples)
            exact = value if exact is None else exact
            said["kl_mnat"] = metrics.kl_mnat(exact, value)
            said["agreement"] = metrics.agreement(exact, value)
            known.setdefault(name, []).append(said)
            calls.append((said, executable.prepare(samples.inputs[:1])))
            print(f"  {name:16}{said['kl_mnat']:9.2f}", flush=True)
    times = time_for([call for _, call in calls], seconds=seconds, settle=settle)
    for (said, _), each in zip(calls, times, strict=True):
        said["ms"] = each.cpu_p50
    return {name: [Point(**said) for said in points] for name, points in known.items()}


def _used(quantized: Transformed, target: Target) -> bytes:
    """The module as it is used."""
    lowered = variant.lowered(quantized, target)
    return variant.compiled(variant.joined(lowered, target), target)


def _plans(
    network: Network, form: str, *, first: bool
) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """Name of the form, what is known of each plan, and its module; the float one first."""
    precisions, chosen = FORMS[form]
    recipe = resolve({"precisions": precisions, "methods": chosen})
    single, stages = load(network.model, batch=1), Stages(visible=True)
    data = load_data(str(network.calib), single.sample_specs, model_path=network.model)
    target = targets.by_name("x86")
    subject = analysis.Subject.of(network.model, data, target, recipe, stages)
    found = analysis.analyse(prepare(subject))
    ranges, rounded = found.choice.ranges, found.rounding.of(single)
    costs = timing.Timing(rounded, target, recipe, ranges, stages).costs(data)
    planner = planning.Planner.of(rounded, target, recipe, found.sensitivities, costs)
    if first:
        said = {"layers": {"f32": len(single.layers)}, "predicted_mnat": 0.0}
        plan = planning.empty_plan(recipe)
        yield "float", said, variant.build(single, plan, ranges, target).vmfb
    for allocation in _allocations(planner):
        chosen = list(allocation.precisions.values())
        said = {
            "layers": {name: chosen.count(name) for name in sorted(set(chosen))},
            "predicted_mnat": allocation.noise,
        }
        plan = planner.plan(allocation)
        made = variant.quantize(rounded, plan, ranges)
        yield form, said, _used(made, target)
        if form == "w8a8":
            made = _rounded_at_borders(rounded, plan, ranges)
            yield ROUNDED, dict(said), _used(made, target)


def _rounded_at_borders(network: Graph, plan: Plan, ranges: Ranges) -> Transformed:
    """As `variant.quantize`, by the pass above."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"plan": Path(folder, "plan.json"), "ranges": Path(folder, "ranges.json")}
        files["plan"].write_text(plan.to_json(), encoding="utf-8")
        files["ranges"].write_text(ranges.to_json(), encoding="utf-8")
        said = {key: str(path) for key, path in files.items()}
        pipeline = quantize_pipeline(**said, scheme=plan.scheme, granularity=plan.granularity)
        return network.transform(pipeline.replace(InsertCasts.name, _ROUND), generic=False)


def _allocations(planner: planning.Planner) -> list[Allocation]:
    """All in w8a8, and from the fastest towards float; each once."""
    allowed = planning.supported(planner.network, planner.target, ["w8a8"])
    plan = planning.uniform_plan(planner.network, planner.recipe, "w8a8", allowed)
    fastest = planner.solve(None)
    most = [*(part * fastest.noise for part in PARTS), min(WITHIN, fastest.noise)]
    found = [planner.predict(plan), *map(planner.solve, sorted(most, reverse=True))]
    return list({str(each.precisions): each for each in found}.values())


def _logits(executable: runtime.Executable, samples: Samples) -> Any:
    batches = ([image[None]] for image in samples.inputs)
    return np.asarray(evaluation.outputs(executable, batches, batch=1)[0], np.float64)


def main() -> None:
    """Print a row for each plan."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=["mobilenetv2_1.0"])
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing a network")
    parser.add_argument(
        "--settle", type=float, default=0.0, help="ms before each call (default: 0)"
    )
    parser.add_argument("--again", action="store_true", help="measure what is known, too")
    given = parser.parse_args()
    for network in networks.find(given.networks):
        found = measured(
            network,
            given.seconds,
            forms=given.forms,
            settle=given.settle / 1e3,
            again=given.again,
        )
        print(f"{network.name}: KL in milli-nats on the evaluation images, CPU milliseconds")
        print(f"{'':16}{'layers':>28}{'predicted':>11}{'KL':>8}{'agree %':>9}{'ms':>8}")
        for form, points in found.items():
            for point in points:
                counts = ", ".join(f"{count} {name}" for name, count in point.layers.items())
                print(
                    f"{form:16}{counts:>28}{point.predicted_mnat:11.2f}"
                    f"{point.kl_mnat:8.2f}{100 * point.agreement:9.2f}{point.ms:8.3f}"
                )


if __name__ == "__main__":
    main()
