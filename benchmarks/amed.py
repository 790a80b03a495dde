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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from networks import OUT, Network, find
from scipy import stats

from mlq import hardware, targets
from mlq.analysis import Subject
from mlq.bitsearch.exploring import Effort, objective_of, warm_up
from mlq.bitsearch.measuring import Measuring, kl_of
from mlq.bitsearch.preparing import Prepared, prepare
from mlq.bitsearch.proxy import Noise, Proxy
from mlq.bitsearch.rounding import multiplied
from mlq.frontends.data import load_data
from mlq.network import load
from mlq.precision import Precision
from mlq.progress import Stages
from mlq.recipe import resolve
from mlq.search import Archive, Objective, Point, Space, Visit, advance, begin, front, hypervolume
from mlq.search.baselines import genetic, integer_programs, random_search, uniform

PRESETS = ("scale-sim-32x32-os", "eyeriss-12x14-ws", "eyeriss-low-memory")
METHODS = ("search", "integer programs", "genetic", "random", "uniform")
# The corner that hypervolumes are measured from, and the loss that allocations are compared at.
FLOOR, MAX_DROP = 0.9, 0.02
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


def searched(memory: Memory, space: Space, objective: Objective, budget: int, seed: int) -> Archive:
    """`mlq search` until it has measured as many allocations."""
    archive, noise = warm_up(space, memory, objective, Stages(visible=False))
    settings = Effort(max_drop=MAX_DROP, seed=seed).settings
    proxy, state = Proxy(space, noise), begin(archive, objective, settings)
    while len(archive) < budget and state.step < MOST_STEPS:
        state = advance(state, archive, proxy(archive.visits))
    return archive


def programmed(
    memory: Memory, space: Space, objective: Objective, noise: Noise, budget: int
) -> Archive:
    """Integer programs on what layers lose alone, which is counted too."""
    alone = sum(size - 1 for size in space.sizes) + 1
    archive = Archive(space, memory)
    integer_programs(archive, objective, noise, budget - alone)
    return archive


def fronts(memory: Memory, space: Space, budget: int, seed: int) -> dict[str, Archive]:
    """What each method visited."""
    objective = objective_of(space, MAX_DROP)
    _, noise = warm_up(space, memory, objective, Stages(visible=False))
    found = {name: Archive(space, memory) for name in METHODS[2:]}
    genetic(found["genetic"], objective, budget, seed=seed)
    random_search(found["random"], objective, budget, seed=seed)
    uniform(found["uniform"], objective)
    return {
        "search": searched(memory, space, objective, budget, seed),
        "integer programs": programmed(memory, space, objective, noise, budget),
        **found,
    }


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


def bits_of(prepared: Prepared, space: Space, visits: Sequence[Visit]) -> dict[str, float]:
    """Mean bits by form of layer of the fastest point that keeps `1 - MAX_DROP`."""
    threshold = objective_of(space, MAX_DROP).threshold
    fitting = [each for each in front(visits) if each.accuracy >= threshold]
    forms: dict[str, list[int]] = defaultdict(list)
    chosen = space.precisions(min(fitting, key=lambda each: each.us).point)
    for layer in multiplied(prepared.network)[1:-1]:
        width = Precision.parse(chosen[layer.name]).weight_bits
        forms[layer.form or layer.kind].append(width)
    return {form: float(np.mean(each)) for form, each in sorted(forms.items())}


def prepared_for(network: Network, bits: Sequence[int], threads: int) -> Prepared:
    """The network as `mlq search` prepares it."""
    stages = Stages(visible=True)
    specs = load(network.model, batch=None).sample_specs
    data = load_data(network.calib, specs, model_path=network.model).shuffled(0)
    recipe = resolve({"precisions": "f32,w8a8", "threads": threads})
    subject = Subject.of(network.model, data, targets.by_name(recipe.target), recipe, stages)
    return prepare(subject, bits, OUT / "amed" / f"{network.name}.npz")


def report(network: Network, options: argparse.Namespace) -> None:
    """Run every method on every preset and print what came out."""
    prepared = prepared_for(network, options.bits, options.threads)
    volumes: dict[tuple[str, str], list[float]] = defaultdict(list)
    halves: dict[tuple[str, str], list[float]] = defaultdict(list)
    bits: dict[str, list[dict[str, float]]] = defaultdict(list)
    for preset in options.presets:
        space = prepared.space(hardware.load(preset), options.bits)
        measuring = Measuring(prepared, space, options.samples)
        file = OUT / "amed" / f"{network.name}-{options.samples}-{'-'.join(map(str, options.bits))}"
        memory = Memory(measuring, space, file.with_suffix(".jsonl"))
        for seed in range(options.seeds):
            found = fronts(memory, space, options.evaluations, seed)
            for name, archive in found.items():
                volumes[preset, name].append(share(space, archive.visits))
                halves[preset, name].append(at_half(space, archive.visits))
            bits[preset].append(bits_of(prepared, space, found["search"].visits))
        print(
            f"\n{network.name} on {preset}: {len(space.sizes)} layers, {options.evaluations}"
            f" evaluations on {measuring.samples} samples, {options.seeds} seeds;"
            f" {memory.measured} measured here, {memory.seconds:.0f} CPU seconds"
        )
        print(f"{'method':18}{'hypervolume':>22}{'least KL at half':>22}")
        for name in METHODS:
            values, half = volumes[preset, name], halves[preset, name]
            print(f"{name:18}{interval(values):>22}{np.median(half):>22.1f}")
        gain = np.subtract(volumes[preset, "search"], volumes[preset, "integer programs"])
        print(f"search less integer programs: {interval(gain.tolist())}")
    print(f"\nmean bits of the fastest point that loses {100 * MAX_DROP:g} points (by KL):")
    for preset, each in bits.items():
        means = {form: np.mean([row[form] for row in each]) for form in each[0]}
        print(f"{preset:22}" + "  ".join(f"{form} {mean:.2f}" for form, mean in means.items()))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--bits", nargs="+", type=int, default=(2, 3, 4, 8))
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
