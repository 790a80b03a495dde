"""Activations of 16 bits: what they save, on all layers and in the menu of plans, and their price.

    python benchmarks/sixteen_bits.py [NETWORK ...] [--seconds 20]      (default: all networks)

w8a8, ..., w12a12   every layer that can be, in that precision
f32,w8a8            the plan that mlq quantize takes from these precisions; with --uniform none
f32,w8a8,w8a16      the same with w8a16 among them; plans go by the same sensitivities
f32,w8a8,w10a12     with w10a12: the menu of x86
f32,...,w12a12      with w8a16 and w12a12

Each is compiled and runs over the evaluation samples: layers in each precision, KL to float
(milli-nats) and top-1; then all are called in turn on one thread, medians (wall and CPU time). It
is also said which layers are not offered a precision. With --simulated nothing is compiled: KL of
all layers in one precision, of w16a8 too, and of w8a16 within the calibrator's ranges.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

import numpy as np
from networks import Network, find

from mlq import metrics, planning, selection, targets
from mlq.analysis import Analysis, Subject, analyse, choose_ranges, observe, simulate
from mlq.evaluation import accuracies
from mlq.frontends.data import load_data
from mlq.judge import Judge
from mlq.latency import time_for
from mlq.methods import prepare
from mlq.network import load
from mlq.plan import Plan
from mlq.progress import Stages
from mlq.recipe import resolve
from mlq.variant import Variant, build

UNIFORM = ("w8a8", "w8a12", "w8a16", "w10a12", "w12a12")
MENUS = ("f32,w8a8", "f32,w8a8,w8a16", "f32,w8a8,w10a12", "f32,w8a8,w8a16,w12a12")
TARGET = targets.by_name("x86")


def analysed(network: Network) -> Analysis:
    """Ranges, and the sensitivities of every layer at all precisions."""
    specs = load(network.model, batch=1).sample_specs
    data = load_data(str(network.calib), specs, model_path=network.model)
    recipe = resolve({"precisions": ",".join(("f32", *UNIFORM)), "target": TARGET.name})
    stages = Stages(visible=False)
    return analyse(prepare(Subject.of(network.model, data, TARGET, recipe, stages)))


def simulated(network: Network) -> None:
    """Print the KL of each precision on all layers, simulated."""
    specs = load(network.model, batch=1).sample_specs
    data = load_data(str(network.calib), specs, model_path=network.model)
    recipe = resolve({"precisions": "f32,w8a8", "target": TARGET.name})
    subject = Subject.of(network.model, data, TARGET, recipe, Stages(visible=False))
    plain = simulate(subject)
    observations = observe(subject, plain)
    ranges = choose_ranges(subject, observations, plain).ranges
    kept = {
        name: each.model_copy(update={"minimum": each.low, "maximum": each.high})
        for name, each in ranges.tensors.items()
    }
    clipped = plain.refined({16: ranges.model_copy(update={"tensors": kept})}, {}, {})
    samples, batch = network.samples(network.eval).inputs, subject.batch
    starts = range(0, len(samples) // batch * batch, batch)
    forms = [(each, plain, each) for each in ("f32", *UNIFORM, "w16a8")]
    forms.append(("w8a16 clipped", clipped, "w8a16"))
    outputs = {}
    for form, simulation, precision in forms:
        assignment = {layer.name: precision for layer in subject.network.layers}
        batches = [[samples[at : at + batch]] for at in starts]
        parts = [simulation.run(each, ranges, assignment)[0] for each in batches]
        outputs[form] = np.concatenate(parts)
        if form != "f32":
            kl = metrics.kl_mnat(outputs["f32"], outputs[form])
            print(f"{network.name:28} {form:15} {kl:8.2f}  {ranges.calibrator}", flush=True)


def variants(
    network: Network, found: Analysis, menus: Sequence[str]
) -> tuple[dict[str, Variant], Judge]:
    """What is compared, compiled, and the judge that has run each over the evaluation samples."""
    made = load(network.model, batch=1)
    held_out = load_data(str(network.eval), made.sample_specs, model_path=network.model)
    recipe, stages = found.subject.recipe, Stages(visible=False)
    judge = Judge(made, held_out, stages, batch=1, threads=1)

    def compiled(plan: Plan) -> Variant:
        return build(made, plan, found.choice.ranges, TARGET)

    named = {"float": compiled(planning.empty_plan(recipe))}
    for precision in UNIFORM:
        allowed = planning.supported(made, TARGET, [precision])
        plan = planning.uniform_plan(made, recipe, precision, allowed)
        named[precision] = compiled(plan)
    for name, each in named.items():
        judge.add(name, each.vmfb)
    for menu in menus:
        own = resolve({"precisions": menu, "target": TARGET.name})
        planner = planning.Planner.of(made, TARGET, own, found.sensitivities)
        tries = selection.candidates(planner, found)
        named[menu], _ = selection.choose(tries, planner, compiled, judge)
        judge.add(menu, named[menu].vmfb)
    return named, judge


def compared(network: Network, seconds: float, menus: Sequence[str]) -> None:
    """Print the rows of one network."""
    found = analysed(network)
    made = found.subject.network
    named, judge = variants(network, found, menus)
    labels = judge.data.labels
    top1 = {} if labels is None else accuracies({n: judge.outputs[n] for n in named}, labels)
    inputs = next(judge.batches())
    executables = judge.executables
    times = time_for([executables[name].prepare(*inputs) for name in named], seconds=seconds)
    for (name, each), time in zip(named.items(), times, strict=True):
        kl = metrics.kl_mnat(judge.outputs["float"], judge.outputs[name])
        counts = Counter(each.plan.precision(layer.name) for layer in made.layers)
        listed = " ".join(f"{p}:{counts[p]}" for p in ("f32", *UNIFORM) if counts[p])
        row = f"{listed:26} {kl:8.2f} {100 * top1.get(name, float('nan')):7.2f}"
        print(f"{network.name:28} {name:15} {row} {time.p50:9.3f} {time.cpu_p50:9.3f}", flush=True)
    for precision in UNIFORM:
        allowed = planning.supported(made, TARGET, [precision])
        if withheld := [layer.name for layer in made.layers if not allowed[layer.name]]:
            print(f"  not offered {precision}: {', '.join(withheld)}", flush=True)


def main() -> None:
    """Print a row a network and form."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="all by default")
    parser.add_argument("--seconds", type=float, default=20.0, help="of calls, a network")
    parser.add_argument("--uniform", action="store_true", help="no plans")
    parser.add_argument("--simulated", action="store_true", help="KL only, nothing compiled")
    arguments = parser.parse_args()
    if arguments.simulated:
        for network in find(arguments.networks):
            simulated(network)
        return
    columns = f"{'layers':26} {'KL mn':>8} {'top-1 %':>7} {'ms':>9} {'CPU ms':>9}"
    print(f"{'network':28} {'form':15} {columns}")
    for network in find(arguments.networks):
        compared(network, arguments.seconds, () if arguments.uniform else MENUS)


if __name__ == "__main__":
    main()
