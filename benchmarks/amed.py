"""Fronts of `mlq search` against simpler searches, at equal evaluations, on several devices.

    python benchmarks/amed.py resnet20_cifar10 mobilenetv2_1.0 --seeds 5 --evaluations 300

Every method is measured by the same simulation on the same samples, and what one of them measured
no other measures again (in benchmarks/out/amed, so that a killed run goes on). Hypervolume: the
area that a front dominates below the latency of 8 bits everywhere and above 90 % of float's
accuracy, as a share of that rectangle; intervals are Student's over seeds, 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from networks import OUT, Network, find
from scipy import stats

from mlq import hardware, targets
from mlq.analysis import Subject
from mlq.bitsearch.compensating import compensated
from mlq.bitsearch.exploring import Effort, objective_of, refining, warm_up
from mlq.bitsearch.judging import Judge, Judged
from mlq.bitsearch.measuring import Measuring, kept, kl_of
from mlq.bitsearch.preparing import Prepared, prepare
from mlq.bitsearch.proxy import Noise, Proxy, alone
from mlq.bitsearch.rounding import multiplied
from mlq.frontends.data import load_data
from mlq.network import load
from mlq.precision import Precision
from mlq.progress import Stages
from mlq.recipe import resolve
from mlq.search import Archive, Objective, Point, Space, Visit, begin, front, hypervolume, turn
from mlq.search.baselines import genetic, integer_programs, random_search, uniform

PRESETS = ("scale-sim-32x32-os", "eyeriss-12x14-ws", "eyeriss-low-memory")
METHODS = ("search", "integer programs", "genetic", "random", "uniform")
# Methods without chance: one seed tells all.
DETERMINED = ("integer programs", "uniform")
# Methods whose whole front is judged.
FRONTS = METHODS[:2]
# The corner that hypervolumes are measured from, and the loss that allocations are compared at.
FLOOR, MAX_DROP = 0.9, 0.02
# Latency budgets of one row of integer programs over those of the row before.
DENSER = 1.2
# Steps after which a search that finds nothing new is ended.
MOST_STEPS = 4000


class Memory:
    """Measures what no run has measured yet; one line of a file for each."""

    def __init__(self, measuring: Measuring, space: Space, file: Path) -> None:
        self._measuring, self._space, self._file = measuring, space, file
        lines = file.read_text().splitlines() if file.exists() else []
        self._known = dict(json.loads(line) for line in lines)
        self.seconds, self.measured = 0.0, 0

    def __call__(self, points: Sequence[Point]) -> list[float]:
        return [self._one(point) for point in points]

    def _one(self, point: Point) -> float:
        key = " ".join(self._space.precisions(point).values())
        if key not in self._known:
            start = time.process_time()
            self._known[key] = self._measuring([point])[0]
            self.seconds += time.process_time() - start
            self.measured += 1
            with self._file.open("a") as file:
                file.write(json.dumps([key, self._known[key]]) + "\n")
        return float(self._known[key])


def searched(
    memory: Memory, space: Space, options: argparse.Namespace, seed: int
) -> Sequence[Visit]:
    """`mlq search` for so many steps, or until it has measured as many allocations."""
    objective = objective_of(space, MAX_DROP)
    archive, noise = warm_up(space, memory, objective, Stages(visible=False))
    settings = Effort(max_drop=MAX_DROP, seed=seed).settings
    learn, refine = Proxy(space, noise), refining(space, noise, objective)
    state = begin(archive, objective, settings)
    start, warm = (time.process_time(), time.perf_counter()), len(archive)
    most = options.steps or MOST_STEPS
    while state.step < most and (options.steps or len(archive) < options.evaluations):
        state = turn(state, archive, learn, refine)
    cpu, wall = time.process_time() - start[0], time.perf_counter() - start[1]
    proposed = max(state.step, 1) * len(state.chains)  # none where the warm-up took all evaluations
    accepted = sum(each.accepted for each in state.chains) / proposed
    print(
        f"seed {seed}: {warm} allocations to begin with, {len(archive) - warm} in {state.step}"
        f" steps of {len(state.chains)} chains, of which {state.shares.refining.given} to refine"
        f" the front; {cpu:.0f} CPU seconds, {wall:.0f} on the clock,"
        f" {100 * accepted:.1f} % accepted"
    )
    return archive.visits if options.steps else archive.visits[: options.evaluations]


def programmed(
    memory: Memory, space: Space, objective: Objective, noise: Noise, budget: int
) -> Sequence[Visit]:
    """Integer programs on what layers lose alone, which is counted too.

    Many budgets have the same solution: the row is the densest whose solutions are no more than may
    be measured.
    """
    best: Sequence[Visit] = ()
    count = float(budget - len(alone(space)))
    while True:
        archive = Archive(space, memory)
        archive.measure(alone(space))
        integer_programs(archive, objective, noise, int(count))
        if len(archive) > budget or len(archive) == len(best):
            return best
        best, count = archive.visits, count * DENSER


def visited(
    method: str, memory: Memory, space: Space, options: argparse.Namespace, seed: int
) -> Sequence[Visit]:
    """What a method visited, no more than it may."""
    objective, budget = objective_of(space, MAX_DROP), options.evaluations
    archive = Archive(space, memory)
    match method:
        case "search":
            return searched(memory, space, options, seed)
        case "integer programs":
            _, noise = warm_up(space, memory, objective, Stages(visible=False))
            return programmed(memory, space, objective, noise, budget)
        case "genetic":
            genetic(archive, objective, budget, seed=seed)
        case "random":
            random_search(archive, objective, budget, seed=seed)
        case _:
            uniform(archive, objective)
    return archive.visits


def share(space: Space, visits: Sequence[Visit]) -> float:
    """Hypervolume over that of the whole rectangle."""
    whole = space.us((0,) * len(space.sizes))
    return hypervolume(visits, us=whole, accuracy=FLOOR) / (whole * (1.0 - FLOOR))


def at_half(space: Space, visits: Sequence[Visit]) -> float:
    """Least KL (mnat) of what takes no more than half of the latency of 8 bits everywhere."""
    half = 0.5 * space.us((0,) * len(space.sizes))
    return min((kl_of(each.accuracy) for each in visits if each.us <= half), default=math.inf)


def interval(values: Sequence[float]) -> str:
    """Mean and half of the 95 % interval."""
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return f"{mean:.4f}"
    half = stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count)
    return f"{mean:.4f} +- {half:.4f}"


def chosen(space: Space, visits: Sequence[Visit]) -> Visit:
    """The fastest that keeps `1 - MAX_DROP`, as the search expects."""
    threshold = objective_of(space, MAX_DROP).threshold
    return next(each for each in front(visits) if each.accuracy >= threshold)


def bits_of(prepared: Prepared, space: Space, visit: Visit) -> dict[str, float]:
    """Mean bits by form of layer."""
    forms: dict[str, list[int]] = defaultdict(list)
    precisions = space.precisions(visit.point)
    for layer in multiplied(prepared.network)[1:-1]:
        width = Precision.parse(precisions[layer.name]).weight_bits
        forms[layer.form or layer.kind].append(width)
    return {form: float(np.mean(each)) for form, each in sorted(forms.items())}


def judged_volume(judge: Judge, archive: Archive, visits: Sequence[Visit]) -> float:
    """Hypervolume of a front as it is on the judge's samples, by KL over all of them."""
    found = (judge.judge(archive, each) for each in front(visits) if each.accuracy > FLOOR)
    again = [Visit((), kept(each.judged_kl_mnat), each.us, each.bytes) for each in found]
    return share(archive.space, again)


def judged(
    judge: Judge, archive: Archive, visits: Sequence[Visit], prepared: Prepared, *, tune: bool
) -> None:
    """Measure on other samples what was found at half of the latency, and what would be taken.

    As the search measured it, compensated, and if asked trained from there on.
    """
    space, best = archive.space, front(visits)
    whole = space.us((0,) * len(space.sizes))
    half = [each for each in best if each.us <= 0.5 * whole][-1:]
    for name, visit in [*(("at half", each) for each in half), ("taken", chosen(space, best))]:
        for how, found, seconds in ways(judge, judge.judge(archive, visit), prepared, tune=tune):
            low, high = found.drop_95
            print(
                f"{name}{how}: {100 * found.us / whole:.1f} % of the latency,"
                f" {found.bytes / 1e6:.3g} MB, KL {found.kl_mnat:.0f} expected,"
                f" {found.judged_kl_mnat:.1f} measured, top-1"
                f" {100 * found.accuracy:.2f} % of {judge.data.samples}, float"
                f" {100 * judge.float_accuracy:.2f}, lost {100 * found.drop:.2f}"
                f" [{100 * low:.2f}, {100 * high:.2f}]; {seconds:.0f} CPU seconds",
                flush=True,
            )


def ways(
    judge: Judge, plain: Judged, prepared: Prepared, *, tune: bool
) -> Iterator[tuple[str, Judged, float]]:
    """A point as it is and improved, each way begun where the last one ended; CPU seconds."""
    yield "", plain, 0.0
    start = time.process_time()
    made = compensated(prepared, plain.precisions)
    spent = time.process_time() - start
    yield ", compensated", judge.again(plain, made, "compensated"), spent
    if tune:
        from mlq.finetune.training import Schooling, finetune

        start = time.process_time()
        made = finetune(made, plain.precisions, Schooling()).prepared
        spent = time.process_time() - start
        yield ", compensated and fine-tuned", judge.again(plain, made, "fine-tuned"), spent


def prepared_for(
    network: Network,
    bits: Sequence[int],
    threads: int,
    activation_bits: Sequence[int] | None = None,
) -> Prepared:
    """The network as `mlq search` prepares it."""
    stages = Stages(visible=True)
    specs = load(network.model, batch=None).sample_specs
    data = load_data(network.calib, specs, model_path=network.model).shuffled(0)
    recipe = resolve({"precisions": "f32,w8a8", "threads": threads})
    subject = Subject.of(network.model, data, targets.by_name(recipe.target), recipe, stages)
    weights = OUT / "amed" / f"{network.name}{apart(activation_bits)}.npz"
    return prepare(subject, bits, weights, activation_bits)


def apart(activation_bits: Sequence[int] | None) -> str:
    """What the names of files say of activations with bits of their own."""
    return "-a" + "-".join(map(str, activation_bits)) if activation_bits else ""


def judge_of(network: Network, prepared: Prepared, samples: int) -> Judge:
    """What measures on so many evaluation samples, which no search sees."""
    specs = load(network.model, batch=None).sample_specs
    data = load_data(network.eval, specs, model_path=network.model, samples=samples)
    return Judge(prepared, data)


def report(network: Network, options: argparse.Namespace) -> None:
    """Run every method on every preset and print what came out."""
    prepared = prepared_for(network, options.bits, options.threads, options.activation_bits)
    bits: dict[str, dict[str, float]] = {}
    judges = [
        judge_of(network, prepared, each) if each else None
        for each in (options.judge, options.judge_fronts)
    ]
    for preset in options.presets:
        bits[preset] = on(preset, network, prepared, judges, options)
    print(f"\nmean bits of the fastest point that should lose {100 * MAX_DROP:g} points:")
    for preset, means in bits.items():
        print(f"{preset:22}" + "  ".join(f"{form} {mean:.2f}" for form, mean in means.items()))


def on(
    preset: str,
    network: Network,
    prepared: Prepared,
    judges: Sequence[Judge | None],
    options: argparse.Namespace,
) -> dict[str, float]:
    """Every method on one preset; returns the mean bits by form that the search takes."""
    space = prepared.space(hardware.load(preset), options.bits, options.activation_bits)
    measuring = Measuring(prepared, space, options.samples)
    widths = "-".join(map(str, options.bits)) + apart(options.activation_bits)
    file = OUT / "amed" / f"{network.name}-{options.samples}-{widths}.jsonl"
    memory = Memory(measuring, space, file)
    print(
        f"\n{network.name} on {preset}: {len(space.sizes)} layers, measured on"
        f" {measuring.samples} samples; noise = signal is {measuring.unit:.0f} mnat"
    )
    seen = {
        method: [
            visited(method, memory, space, options, seed)
            for seed in range(1 if method in DETERMINED else options.seeds)
        ]
        for method in options.methods
    }
    print(f"{'method':18}{'evaluations':>13}{'hypervolume':>20}{'least KL at half':>20}")
    for method, each in seen.items():
        volumes = [share(space, visits) for visits in each]
        halves = [at_half(space, visits) for visits in each]
        most = max(map(len, each))
        print(f"{method:18}{most:>13}{interval(volumes):>20}{np.median(halves):>20.1f}")
    means = [bits_of(prepared, space, chosen(space, visits)) for visits in seen["search"]]
    archive, (judge, of_fronts) = Archive(space, memory), judges
    if judge is not None:
        judged(judge, archive, seen["search"][0], prepared, tune=options.finetune)
    if of_fronts is not None:
        for method in FRONTS:
            volume = judged_volume(of_fronts, archive, seen[method][0])
            print(f"{method}: hypervolume {volume:.4f} on {of_fronts.data.samples} other samples")
    print(f"{memory.measured} measured here in {memory.seconds:.0f} CPU seconds")
    return {form: float(np.mean([each[form] for each in means])) for form in means[0]}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--bits", nargs="+", type=int, default=(2, 3, 4, 8))
    parser.add_argument("--activation-bits", nargs="+", type=int, help="by default the weights'")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--steps", type=int, help="of the search, whatever it measures")
    parser.add_argument("--judge", type=int, metavar="N", help="judge on N evaluation samples")
    parser.add_argument("--finetune", action="store_true", help="what is judged, on PyTorch")
    parser.add_argument("--judge-fronts", type=int, metavar="N", help="and fronts, on as many")
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    (OUT / "amed").mkdir(parents=True, exist_ok=True)
    for network in find(options.networks):
        report(network, options)


if __name__ == "__main__":
    main()
