"""Mixed plans at equal accuracy: mlq's integer program beside the rules that others select by.

    python benchmarks/comparison.py [NETWORK ...] [--part 0.5] [--equal] [--seconds 10]
        [--onnxruntime] [--nncf PYTHON]

Each may lose at most so much KL on the calibration samples, as a part of what all-int8 loses there;
with --equal, all but `menu` only as much as the plan of `menu` does that keeps to it.

int8             every layer that can be
ends             all but the first and the last layer with weights, whatever that loses
AMP, O1          AIMET's automatic mixed precision: layers sorted by the output error each has alone
                 (here on all samples), and the longest list of int8 layers within the budget
threshold, knee  rules by effort quick's metric; a rule that has no number keeps to no budget
program quick    the integer program by effort quick's metric (two inferences)
program default  by what layers lose alone on a few samples (never more than five passes)
..., auto        the same on the network as `--methods auto` prepares it, under the same budget of
                 KL to the network that was given
..., auto, menu  the same with the precisions that x86 has by default, activations of 16 bits too
... extensive    by what they lose alone on all samples, which AMP knows too
ORT, NNCF        with --onnxruntime, --nncf: networks of other tools (peer_plans.py), as those run
                 them; and each `list` of float nodes of theirs as a plan of mlq

KL (milli-nats) is simulated, on the calibration and on the evaluation images; `x int8` is the time
that measured costs of layers predict, over all-int8's. `ms` is the median CPU time of a call of
what was compiled, all plans called in turn, with one thread. Then the other way about: what the
program loses, without methods, with them and with words, in the predicted time of each other plan.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import methods
import networks
import numpy as np
import oracle
import peer_plans
from peer_plans import Made, Task

from mlq import metrics, planning, runtime, timing
from mlq.analysis import Analysis, Subject, analyse
from mlq.costs import Costs
from mlq.frontends.data import load_data
from mlq.latency import time_for
from mlq.methods import prepare
from mlq.network import Network, load
from mlq.plan import LayerPlan
from mlq.planning import Planner
from mlq.progress import Stages
from mlq.recipe import METRICS, Recipe, resolve
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


# A plan keeps to the budget if it is over by no more than figures are rounded to.
_SLACK = 1.001
PROGRAM, AUTO, MENU = "program default", "program default, auto", "program default, auto, menu"
PROGRAMS = (PROGRAM, AUTO, MENU)
# What is not a plan of the program's.
OTHERS = ("ends", "AMP, O1", "threshold", "knee")


@dataclass(frozen=True)
class Form:
    """A network as it was prepared, what was measured of it, and its form for one sample a call."""

    found: Analysis
    single: Network


@dataclass(frozen=True)
class Planned:
    """A plan: the form of the network that it is for, and the precisions of its integer layers."""

    form: Form
    integers: Mapping[str, str]


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


@dataclass(frozen=True)
class Compared:
    """The budget in milli-nats, a row for each plan, and what `auto` took of the methods.

    `timed` are plans of the program in the predicted time of another, by its name: those of
    `PROGRAMS`.
    """

    budget: float
    rows: list[Row]
    timed: dict[str, list[Row]]
    taken: str


def compare(network: networks.Network, arguments: argparse.Namespace) -> Compared:
    """Make all plans, and measure them."""
    subject = oracle.subject_of(network)
    made = prepare(subject)
    known = oracle.measured(network).sensitivities
    found = Analysis(subject, made.simulation, made.observations, made.choice, known)
    base = uniform(subject.network, oracle.BASE, subject.allowed)
    single = load(network.model, batch=1)
    specs = single.sample_specs
    data = load_data(str(network.calib), specs, model_path=network.model, samples=1)
    stages, recipe = Stages(visible=False), resolve({"precisions": oracle.MENU})
    ranges = made.choice.ranges
    costs = timing.Timing(single, subject.target, recipe, ranges, stages).costs(data)
    forms = {
        PROGRAM: Form(found, single),
        AUTO: with_methods(subject, single),
        MENU: with_methods(oracle.subject_of(network, precisions=oracle.MENU), single),
    }
    metric, plain = METRICS["output-expected"], forms[PROGRAM]
    budget = arguments.part * found.divergence(base)
    limit = {"max_drop": budget / per_unit()}
    menu = planned(forms[MENU], metric, resolve({"precisions": oracle.MENU, **limit}), costs)
    if arguments.equal:
        budget = forms[MENU].found.divergence(menu.integers)
        limit = {"max_drop": budget / per_unit()}
    plans = {
        "int8": Planned(plain, base),
        "ends": Planned(plain, ends(subject.network, base)),
    }
    for name, by, rule in STRATEGIES:
        plans[name] = planned(plain, by, resolve({"select": rule, **limit}), costs)
    plans[AUTO] = planned(forms[AUTO], metric, resolve(limit), costs)
    plans[MENU] = menu
    for other in OTHERS:
        us = predicted_us(plans[other], costs)
        for name, form in forms.items():
            recipe = form.found.subject.recipe
            recipe = recipe.model_copy(update={"max_drop": None, "max_latency": us / 1000.0})
            plans[f"{name} @ {other}"] = planned(form, metric, recipe, costs)
    judged = _judged(network, plans, costs=costs, budget=budget, arguments=arguments)
    timed = {each: [judged.pop(f"{name} @ {each}") for name in PROGRAMS] for each in OTHERS}
    return Compared(budget, list(judged.values()), timed, forms[AUTO].found.methods.taken)


def with_methods(subject: Subject, single: Network) -> Form:
    """The network with the accuracy methods that help it, its layers tried by effort default."""
    update = {"methods": "auto", "effort": "default"}
    recipe = subject.recipe.model_copy(update=update)
    found = analyse(prepare(replace(subject, recipe=recipe)))
    return Form(found, found.rounding.of(single))


def planned(form: Form, metric: str, recipe: Recipe, costs: Costs) -> Planned:
    """The plan of the recipe's rule by a metric; its KL is to the network that was given."""
    subject = form.found.subject
    judged = form.found.sensitivities.model_copy(update={"metric": metric})
    # Costs are of one sample: a border's elements must be those of one, too.
    planner = Planner.of(form.single, subject.target, recipe, judged, costs)
    first = candidates(planner, replace(form.found, sensitivities=judged))[0]
    return Planned(form, {k: v for k, v in first.allocation.precisions.items() if v != "f32"})


def predicted_us(plan: Planned, costs: Costs) -> float:
    """What layers' costs say that a call takes."""
    layers = plan.form.single.layers
    whole = {layer.name: plan.integers.get(layer.name, "f32") for layer in layers}
    return planning.predicted_us(plan.form.single, costs, whole)


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
    plans: Mapping[str, Planned],
    *,
    costs: Costs,
    budget: float,
    arguments: argparse.Namespace,
) -> dict[str, Row]:
    """What the plans lose on the evaluation images, and take on this machine."""
    plain, samples = plans["int8"].form, network.samples(network.eval)
    found, count = plain.found, len(plain.single.layers)
    exact = methods.logits(found, samples.inputs, {})
    everything = predicted_us(plans["int8"], costs)
    x = np.ascontiguousarray(samples.inputs[:1])
    timed, calls = dict[str, Callable[[float], Row]](), dict[str, Any]()
    layers = found.sensitivities.layers.items()
    alone = {name: each.candidates[oracle.BASE]["oracle_expected_mnat"] for name, each in layers}
    peers = list(_peers(Task(network, budget, alone), arguments))
    base = plans["int8"].integers
    lists = {
        f"{each.form} list": Planned(plain, {k: v for k, v in base.items() if k not in each.floats})
        for each in peers
    }
    for form, plan in {**plans, **lists}.items():
        value = methods.logits(plan.form.found, samples.inputs, dict(plan.integers))
        timed[form] = partial(
            Row,
            form,
            count - len(plan.integers),
            plan.form.found.divergence(plan.integers),
            metrics.kl_mnat(exact, value),
            metrics.agreement(exact, value),
            predicted_us(plan, costs) / everything,
        )
        calls[form] = _call(plan, x)
    for each in peers:
        value = each.logits(samples.inputs)
        timed[each.form] = partial(
            Row,
            each.form,
            len(each.floats),
            each.calib_mnat,
            metrics.kl_mnat(exact, value),
            metrics.agreement(exact, value),
            float("nan"),
        )
        calls[each.form] = each.call
    times = time_for(list(calls.values()), seconds=arguments.seconds)
    return {form: timed[form](each.cpu_p50) for form, each in zip(calls, times, strict=True)}


def _call(plan: Planned, x: Any) -> Any:
    """A call of the compiled plan."""
    found = plan.form.found
    layers = {name: LayerPlan(precision=each) for name, each in plan.integers.items()}
    whole = planning.empty_plan(found.subject.recipe).model_copy(update={"layers": layers})
    vmfb = build(plan.form.single, whole, found.choice.ranges, found.subject.target).vmfb
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
    parser.add_argument("--equal", action="store_true", help="others may lose what menu loses")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing a network")
    parser.add_argument("--onnxruntime", action="store_true", help="measure its float lists too")
    parser.add_argument("--nncf", type=Path, metavar="PYTHON", help="measure NNCF too")
    arguments = parser.parse_args()
    for network in networks.find(arguments.names):
        found = compare(network, arguments)
        count = len(network.samples(network.eval).labels)
        print(f"{network.name}: {found.budget:.2f} mn on the calibration samples; {count} images")
        show(found)


def show(found: Compared) -> None:
    """Print all plans, how long the program's take, and those in the time of others."""
    print(f"{'':28}{'float':>6}{'calib mn':>10}{'eval mn':>9}{'agree':>7}{'x int8':>8}{'ms':>9}")
    for row in found.rows:
        missed = " missed" if row.calib_mnat > _SLACK * found.budget else ""
        print(
            f"{row.form:28}{row.float_layers:6}{row.calib_mnat:10.2f}{row.eval_mnat:9.2f}"
            f"{100 * row.agreement:7.2f}{row.predicted:8.3f}{row.ms:9.3f}{missed}"
        )
    by_name = {row.form: row for row in found.rows}
    kept = [
        row
        for row in found.rows
        if not row.form.startswith(("program", "int8")) and row.calib_mnat <= _SLACK * found.budget
    ]
    best = min(kept, key=lambda row: row.ms)
    print(f"auto took {found.taken}; time over that of the fastest other, {best.form}:", end="")
    print(*(f" {each} {by_name[each].ms / best.ms:.3f}" for each in PROGRAMS), sep=",")
    print(f"{'in the predicted time of':28}{'eval mn':>9}{'ms':>9}", end="")
    print(*(f"{each:>28}{'eval mn':>9}{'ms':>9}" for each in PROGRAMS), sep="")
    for name, programs in found.timed.items():
        print(f"{name:28}{by_name[name].eval_mnat:9.2f}{by_name[name].ms:9.3f}", end="")
        shown = (
            f"{row.float_layers:22} float{row.eval_mnat:9.2f}{row.ms:9.3f}" for row in programs
        )
        print(*shown, sep="", flush=True)


if __name__ == "__main__":
    main()
