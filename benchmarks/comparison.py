"""Mixed plans at equal accuracy: mlq's integer program beside the rules that others select by.

    python benchmarks/comparison.py [NETWORK ...] [--part 0.5] [--seconds 10] [--nncf PYTHON]

Each may lose at most so much KL on the calibration samples, as a part of what all-int8 loses there.

int8             every layer that can be
ends             all but the first and the last layer with weights, whatever that loses
AMP, O1          AIMET's automatic mixed precision: layers sorted by the output error each has alone
                 (here on all samples), and the longest list of int8 layers within the budget
threshold, knee  rules by effort quick's metric; a rule that has no number keeps to no budget
program quick    the integer program by effort quick's metric (two inferences)
program default  by what layers lose alone on a few samples (never more than five passes)
... extensive    by what they lose alone on all samples, which AMP knows too
NNCF             `quantize_with_accuracy_control` on the ONNX file, told that budget, in ONNX
                 Runtime; PYTHON is that of an environment with nncf, onnx and onnxruntime

KL (milli-nats) is simulated, on the calibration and on the evaluation images; `x int8` is the time
that measured costs of layers predict, over all-int8's. `ms` is the median CPU time of a call of
what was compiled, all plans called in turn, with one thread; NNCF's is called by ONNX Runtime.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import methods
import networks
import numpy as np
import onnxruntime
import oracle
from onnxruntime_baseline import logits as run_onnx

from mlq import analysis, metrics, planning, runtime, timing
from mlq.analysis import Analysis
from mlq.frontends.data import load_data
from mlq.latency import time_for
from mlq.network import Network, load
from mlq.plan import LayerPlan
from mlq.planning import Planner
from mlq.progress import Stages
from mlq.recipe import METRICS, resolve
from mlq.selection import candidates
from mlq.simulation import uniform
from mlq.variant import build

FOLDER = networks.OUT / "comparison"
COMMAND = Path(__file__).with_name("nncf_control.py")
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
    made = analysis.prepare(subject)
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
    for form, integers in plans.items():
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
    if arguments.nncf is not None:
        lost["NNCF"], calls["NNCF"] = _nncf(network, exact, samples, budget, arguments.nncf)
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


def _nncf(
    network: networks.Network, exact: Any, samples: networks.Samples, budget: float, python: Path
) -> tuple[tuple[float, ...], Any]:
    """NNCF's network under the budget: what it loses, and a call of it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = FOLDER / f"{network.name}.onnx"
    with tempfile.TemporaryDirectory() as folder:
        calib = Path(folder, "calib.npy")
        np.save(calib, network.samples(network.calib).inputs)
        command = [str(python), str(COMMAND), str(network.model), str(calib), str(budget)]
        done = subprocess.run([*command, str(model)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{COMMAND.name}: {done.stderr.strip().splitlines()[-1]}")
    said = json.loads(done.stdout.strip().splitlines()[-1])
    value = run_onnx(model, network.input, samples, f"{network.name} by NNCF")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {network.input: np.ascontiguousarray(samples.inputs[:1])}
    lost = (
        said["float_layers"],
        said["kl_mnat"],
        metrics.kl_mnat(exact, value),
        metrics.agreement(exact, value),
        float("nan"),
    )
    return lost, partial(session.run, None, feed)


def main() -> None:
    """Print a row for each network and strategy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks (default: all)")
    parser.add_argument("--part", type=float, default=0.5, help="of all-int8's KL that may be lost")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing a network")
    parser.add_argument("--nncf", type=Path, metavar="PYTHON", help="measure NNCF too")
    arguments = parser.parse_args()
    for network in networks.find(arguments.names):
        budget, found = rows(network, arguments)
        count = len(network.samples(network.eval).labels)
        print(f"{network.name}: {budget:.2f} mn on the calibration samples; {count} images")
        print(
            f"{'':18}{'float':>6}{'calib mn':>10}{'eval mn':>9}{'agree':>7}{'x int8':>8}{'ms':>9}"
        )
        for row in found:
            missed = " missed" if row.calib_mnat > 1.001 * budget else ""
            print(
                f"{row.form:18}{row.float_layers:6}{row.calib_mnat:10.2f}{row.eval_mnat:9.2f}"
                f"{100 * row.agreement:7.2f}{row.predicted:8.3f}{row.ms:9.3f}{missed}",
                flush=True,
            )


if __name__ == "__main__":
    main()
