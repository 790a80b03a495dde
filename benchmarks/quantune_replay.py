"""Replay measured trials: how many each sampler needs to find a network's best configuration.

    python benchmarks/quantune_replay.py [FILE ...] [--by accuracy|kl] [--seeds N] [--samplers A,B]

FILEs are CSV as Quantune's trials were published (columns model, samples, scheme, clipping,
granularity, mixed, top1, float_top1 and features of the network), by default quantune_trials.csv
among the data; or the .jsonl files that benchmarks/trials.py writes, by default all of them with
`--own`. A sampler chooses among the configurations that were measured; asking for one again costs
nothing. Quantune learns from the trials of the other networks only; `quantune+0.5` is quantune that
adds half a deviation to the mean. Medians over seeds.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

import networks
import optuna

from mlq.tuning.sampler import SAMPLERS, QuantuneSampler, distributions, sampler
from mlq.tuning.space import Configuration, Space, configuration
from mlq.tuning.trials import Trials, read

# Within how much of the best loss (points of accuracy; milli-nats with `--by kl`) counts as found.
WITHIN = (0.0, 0.1, 1.0)
SEEDS = 20
# A sampler that proposes nothing new so many times in a row will not find more.
PATIENCE = 2000


def main() -> None:
    """Print a table for each goal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--own", action="store_true", help="mlq's own trials")
    parser.add_argument("--by", choices=("accuracy", "kl"), default="accuracy")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = read(arguments.files or default_files(own=arguments.own), loss=arguments.by)
    for model in data.models:
        points = {each.configuration for each in data.of(model)}
        if missing := len(set(spanned(list(points)).points()) - points):
            print(f"{model}: left out, {missing} trials are not measured yet")
            data = data.without(model)
    names = arguments.samplers.split(",")
    found = {
        (model, name): [replay(data, model, name, seed) for seed in range(arguments.seeds)]
        for model in data.models
        for name in names
    }
    for index, within in enumerate(WITHIN):
        unit = "mnat" if arguments.by == "kl" else "points"
        goal = f"within {within} {unit} of the best" if within else "the best"
        show(goal, data.models, names, {key: [c[index] for c in v] for key, v in found.items()})


def default_files(*, own: bool) -> list[Path]:
    """The published trials, or mlq's own; says so and ends with success when they are absent."""
    folder = Path(os.environ.get("MLQ_DATA") or networks.ROOT.parent / "shared" / "data")
    files = sorted((networks.OUT / "trials").glob("*.jsonl"))
    files = files if own else [folder / "quantune_trials.csv"]
    if not files or not files[0].exists():
        print(f"skipped: no trials in {networks.OUT / 'trials' if own else folder}")
        raise SystemExit(0)
    return files


def replay(data: Trials, model: str, name: str, seed: int) -> list[int]:
    """Distinct trials until each goal of WITHIN is reached."""
    losses = {each.configuration: each.loss for each in data.of(model)}
    space = spanned(list(losses))
    if missing := set(space.points()) - losses.keys():
        raise SystemExit(
            f"{model}: {len(missing)} configurations are not measured: {missing.pop()}"
        )
    study = optuna.create_study(sampler=make(name, data, model, space, seed))
    best, seen = min(losses.values()), dict[Configuration, float]()
    reached = [0] * len(WITHIN)
    for _ in range(PATIENCE):
        trial = study.ask(distributions(space))
        point = configuration(trial.params)
        seen[point] = losses[point]
        study.tell(trial, losses[point])
        for index, within in enumerate(WITHIN):
            if not reached[index] and losses[point] <= best + within + 1e-9:
                reached[index] = len(seen)
        if all(reached):
            return reached
    return [each or len(losses) for each in reached]


def make(
    name: str,
    data: Trials,
    model: str,
    space: Space,
    seed: int,
) -> optuna.samplers.BaseSampler:
    """A sampler that knows the other networks' trials, if it can make use of them."""
    if name.startswith("quantune+"):
        caution = float(name.partition("+")[2])
        prior, features = data.without(model), data.features[model]
        return QuantuneSampler(space, prior, features, caution=caution, seed=seed)
    return sampler(name, space, prior=data.without(model), features=data.features[model], seed=seed)


def spanned(points: Sequence[Configuration]) -> Space:
    """The product of the values that occur."""
    knobs = [point.knobs for point in points]
    values = {name: tuple(dict.fromkeys(each[name] for each in knobs)) for name in knobs[0]}
    return Space(**{**values, "samples": tuple(sorted(values["samples"]))})


def show(
    goal: str,
    models: Sequence[str],
    names: Sequence[str],
    found: dict[tuple[str, str], list[int]],
) -> None:
    """One table: networks down, samplers across."""
    width = max(len(model) for model in models)
    print(f"\nTrials to {goal}, median over {len(next(iter(found.values())))} seeds")
    print(" " * width, *(f"{name:>14}" for name in names))
    medians = {key: statistics.median(counts) for key, counts in found.items()}
    for model in models:
        print(f"{model:{width}}", *(f"{medians[model, name]:14g}" for name in names))
    logs = [[math.log(medians[model, name]) for model in models] for name in names]
    means = [math.exp(statistics.fmean(each)) for each in logs]
    print(f"{'geometric mean':{width}}", *(f"{mean:14.1f}" for mean in means))


if __name__ == "__main__":
    main()
