"""Mixed plans at equal accuracy: mlq's integer program beside the rules that others select by.

    python benchmarks/comparison.py [NETWORK ...] [--part 0.5] [--seconds 10]
        [--onnxruntime] [--nncf PYTHON]

Each may lose at most so much KL on the calibration samples, as a part of what all-int8 loses there.

int8             every layer that can be
ends             all but the first and the last layer with weights, whatever that loses
AMP, O1          AIMET's automatic mixed precision: layers sorted by the output error each has alone
                 (here on all samples), and the longest list of int8 layers within the budget
threshold, knee  rules by effort quick's metric; a rule that has no number keeps to no budget
program quick    the integer program by effort quick's metric (two inferences)
program default  by what layers lose alone on a few samples (never more than five passes)
... extensive    by what they lose alone on all samples, which AMP knows too
ORT, NNCF        with --onnxruntime, --nncf: networks of other tools (peer_plans.py), as those run
                 them; and each `list` of float nodes of theirs as a plan of mlq

KL (milli-nats) is simulated, on the calibration and on the evaluation images; `x int8` is the time
that measured costs of layers predict, over all-int8's. `ms` is the median CPU time of a call of
what was compiled, all plans called in turn, with one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import methods
import networks
import numpy as np
import oracle
import peer_plans
from peer_plans import Made, Task

from mlq import metrics, planning, runtime, timing
from mlq.analysis import Analysis
from mlq.frontends.data import load_data
from mlq.latency import time_for
from mlq.methods import prepare
from mlq.network import Network, load
from mlq.plan import LayerPlan
from mlq.planning import Planner
from mlq.progress import Stages
from mlq.recipe import METRICS, resolve
from mlq.selection import candidates
from mlq.simulation import uniform
from mlq.variant import build

# Name, metric, and rule of `mlq quantize --select`.
STRATEGIES = (
    ("AMP, O1", "oracle_output_error", "top-k"),
    ("threshold", METRICS["combined"], "threshold"),
    ("knee", METRICS["combined"], "knee"),
    ("program quick", METRICS["combined"], "program"),
    ("program default", METRICS["output-expected"], "program"),
    ("program extensive", "oracle_expected_mnat", "program"),
)


@dataclass(frozen=True)
class Row:
    """A plan, or another tool's network: what it loses and takes."""

    form: str
    float_layers: int
    calib_mnat: float
    eval_mnat: float
    agreement: float
    predicted: float
    ms: float


def rows(network: networks.Network, arguments: argparse.Namespace) -> tuple[float, list[Row]]:
    """The budget in milli-nats, and a row for each strategy."""
    subject = oracle.subject_of(network)
    made = prepare(subject)
    known = oracle.measured(network).sensitivities
    found = Analysis(subject, made.simulation, made.observations, made.choice, known)
    base = uniform(subject.network, oracle.BASE, subject.allowed)
    budget = arguments.part * found.divergence(base)
    single = load(network.model, batch=1)
    specs = single.sample_specs
    data = load_data(str(network.calib), specs, model_path=network.model, samples=1)
    stages, recipe = Stages(visible=False), resolve({})
    costs = timing.measure(single, subject.target, recipe, made.choice.ranges, data, stages=stages)
    plans: dict[str, Mapping[str, str]] = {"int8": base, "ends": ends(subject.network, base)}
    for name, metric, rule in STRATEGIES:
        recipe = resolve({"select": rule, "max_drop": budget / per_unit()})
        judged = known.model_copy(update={"metric": metric})
        planner = Planner.of(subject.network, subject.target, recipe, judged, costs)
        first = candidates(planner, replace(found, sensitivities=judged))[0]
        plans[name] = {k: v for k, v in first.allocation.precisions.items() if v != "f32"}
    return budget, _judged(
        network, found, single, plans, costs=costs, budget=budget, arguments=arguments
    )


def per_unit() -> float:
    """Milli-nats of a plan's budget for a drop of one."""
    return planning.noise_budget(resolve({"max_drop": 1.0})) or planning.MNAT_PER_UNIT_DROP


def ends(network: Network, base: Mapping[str, str]) -> dict[str, str]:
    """All-int8 with the first and the last layer that multiplies in float."""
    multiplied = [layer.name for layer in network.layers if layer.weight is not None]
    kept = {multiplied[0], multiplied[-1]}
    return {name: each for name, each in base.items() if name not in kept}


def _judged(
    network: networks.Network,
    found: Analysis,
    single: Network,
    plans: Mapping[str, Mapping[str, str]],
    *,
    costs: Any,
    budget: float,
    arguments: argparse.Namespace,
) -> list[Row]:
    """What the plans lose on the evaluation images, and take on this machine."""
    subject, samples = found.subject, network.samples(network.eval)
    exact = methods.logits(found, samples.inputs, {})
    names = [layer.name for layer in subject.network.layers]
    everything = planning.predicted_us(single, costs, _whole(names, plans["int8"]))
    x = np.ascontiguousarray(samples.inputs[:1])
    lost, calls = dict[str, tuple[float, ...]](), dict[str, Any]()
    layers = found.sensitivities.layers.items()
    alone = {name: each.candidates[oracle.BASE]["oracle_expected_mnat"] for name, each in layers}
    peers = list(_peers(Task(network, budget, alone), arguments))
    lists = {
        f"{each.form} list": {k: v for k, v in plans["int8"].items() if k not in each.floats}
        for each in peers
    }
    for form, integers in {**plans, **lists}.items():
        value = methods.logits(found, samples.inputs, dict(integers))
        us = planning.predicted_us(single, costs, _whole(names, integers))
        lost[form] = (
            len(names) - len(integers),
            found.divergence(integers),
            metrics.kl_mnat(exact, value),
            metrics.agreement(exact, value),
            us / everything,
        )
        calls[form] = _call(single, found, integers, x)
    for each in peers:
        value = each.logits(samples.inputs)
        lost[each.form] = (
            len(each.floats),
            each.calib_mnat,
            metrics.kl_mnat(exact, value),
            metrics.agreement(exact, value),
            float("nan"),
        )
        calls[each.form] = each.call
    times = time_for(list(calls.values()), seconds=arguments.seconds)
    return [
        Row(form, int(lost[form][0]), *lost[form][1:], each.cpu_p50)
        for form, each in zip(calls, times, strict=True)
    ]


def _whole(names: list[str], integers: Mapping[str, str]) -> dict[str, str]:
    return {name: integers.get(name, "f32") for name in names}


def _call(single: Network, found: Analysis, integers: Mapping[str, str], x: Any) -> Any:
    """A call of the compiled plan."""
    layers = {name: LayerPlan(precision=each) for name, each in integers.items()}
    plan = planning.empty_plan(found.subject.recipe).model_copy(update={"layers": layers})
    vmfb = build(single, plan, found.choice.ranges, found.subject.target).vmfb
    return runtime.load(vmfb).prepare(x)


def _peers(task: Task, arguments: Any) -> Iterator[Made]:
    """What other tools make of the network within the budget."""
    if arguments.onnxruntime:
        yield from peer_plans.onnxruntime_lists(task)
    if arguments.nncf is not None:
        yield from peer_plans.nncf(task, arguments.nncf)


def main() -> None:
    """Print a row for each network and strategy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks (default: all)")
    parser.add_argument("--part", type=float, default=0.5, help="of all-int8's KL that may be lost")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing a network")
    parser.add_argument("--onnxruntime", action="store_true", help="measure its float lists too")
    parser.add_argument("--nncf", type=Path, metavar="PYTHON", help="measure NNCF too")
    arguments = parser.parse_args()
    for network in networks.find(arguments.names):
        budget, found = rows(network, arguments)
        count = len(network.samples(network.eval).labels)
        print(f"{network.name}: {budget:.2f} mn on the calibration samples; {count} images")
        print(
            f"{'':26}{'float':>6}{'calib mn':>10}{'eval mn':>9}{'agree':>7}{'x int8':>8}{'ms':>9}"
        )
        for row in found:
            missed = " missed" if row.calib_mnat > 1.001 * budget else ""
            print(
                f"{row.form:26}{row.float_layers:6}{row.calib_mnat:10.2f}{row.eval_mnat:9.2f}"
                f"{100 * row.agreement:7.2f}{row.predicted:8.3f}{row.ms:9.3f}{missed}",
                flush=True,
            )


if __name__ == "__main__":
    main()
