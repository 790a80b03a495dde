"""Replay measured trials: how many each sampler needs to find a network's best configuration.

    python benchmarks/quantune_replay.py [FILE ...] [--by accuracy|kl] [--seeds N] [--samplers A,B]
                                         [--space quantune96|full]

FILEs are CSV as Quantune's trials were published (columns model, samples, scheme, clipping,
granularity, mixed, top1, float_top1 and features of the network), by default quantune_trials.csv
among the data; or .jsonl as benchmarks/trials.py writes them, by default, with `--own`, those that
mlq ships. A sampler is told the loss that `--by` says, and chooses among the configurations that
were measured; asking for one again costs nothing. Quantune learns from the trials of the other
networks only; `quantune-blind` does so without forecasts, `quantune+0.5` adds half a deviation to
the mean. Only the configurations of the space take part; a network that lacks some is left out.
Medians over seeds.

Goals are the best configuration and those nearly as good. With some hundred evaluation samples, a
configuration that does better than float does so by luck: for mlq's own trials, the accuracy to be
reached is float's, or the best where none reaches that.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import networks
import optuna

from mlq.tuning.history import SHIPPED
from mlq.tuning.sampler import SAMPLERS, QuantuneSampler, distributions, sampler
from mlq.tuning.space import SPACES, Configuration, Space, configuration
from mlq.tuning.surrogate import ForecastOf
from mlq.tuning.trials import Trials, read

# How near to the best counts as found: points of accuracy, and milli-nats of KL.
POINTS, MNAT = (0.1, 1.0), (0.1, 1.0)
SEEDS = 20
# Trials after which it is looked at what is the best so far.
FEW = 5
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
    parser.add_argument("--space", choices=tuple(SPACES), default="quantune96")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    files = arguments.files or default_files(own=arguments.own)
    data = taking_part(read(files, loss=arguments.by), SPACES[arguments.space])
    names = arguments.samplers.split(",")
    goals = {model: goals_of(data, model, files) for model in data.models}
    runs = {
        (model, name): [
            replay(data, model, name, seed, list(goals[model].values()))
            for seed in range(arguments.seeds)
        ]
        for model in data.models
        for name in names
    }
    for goal in next(iter(goals.values())):
        counts = {
            (model, name): [until(run, goals[model][goal], len(data.of(model))) for run in found]
            for (model, name), found in runs.items()
        }
        show(goal, data.models, names, counts)
    show_chosen(data, names, runs, files)


def taking_part(data: Trials, space: Space) -> Trials:
    """The trials of a space, of the networks that have all of them, whatever their samples."""
    words = {knob: values for knob, values in space.choices.items() if knob != "samples"}
    data = replace(
        data,
        trials=tuple(
            each
            for each in data.trials
            if all(each.configuration.knobs[knob] in values for knob, values in words.items())
        ),
    )
    for model in data.models:
        points = {each.configuration for each in data.of(model)}
        if missing := len(spanned(list(points)).points()) - len(points):
            print(f"{model}: left out, {missing} trials are not measured yet")
            data = data.without(model)
    return data


def goals_of(data: Trials, model: str, files: Sequence[Path]) -> dict[str, set[Configuration]]:
    """The configurations that reach each goal for a network."""
    points = {each.configuration for each in data.of(model)}
    lost = losses(model, files, "accuracy", points)
    if any(file.suffix == ".csv" for file in files):
        return {
            "the best accuracy": reaching(lost, min(lost.values())),
            **{f"within {w} points of it": reaching(lost, min(lost.values()) + w) for w in POINTS},
        }
    kl, floor = losses(model, files, "kl", points), max(0.0, min(lost.values()))
    return {
        "the least KL": reaching(kl, min(kl.values())),
        **{f"within {w} mnat of it": reaching(kl, min(kl.values()) + w) for w in MNAT},
        **{f"within {w} points of float's accuracy": reaching(lost, floor + w) for w in POINTS},
    }


def losses(
    model: str, files: Sequence[Path], loss: str, points: Container[Configuration]
) -> dict[Configuration, float]:
    """A network's losses by configuration."""
    found = read(files, loss=loss).of(model)
    return {each.configuration: each.loss for each in found if each.configuration in points}


def reaching(found: dict[Configuration, float], most: float) -> set[Configuration]:
    """The configurations that lose so much at most."""
    return {point for point, loss in found.items() if loss <= most + 1e-9}


def default_files(*, own: bool) -> list[Path]:
    """The published trials, or mlq's own; says so and ends with success when they are absent."""
    folder = Path(os.environ.get("MLQ_DATA") or networks.ROOT.parent / "shared" / "data")
    files = sorted(SHIPPED.glob("*.jsonl")) if own else [folder / "quantune_trials.csv"]
    if not files or not files[0].exists():
        print(f"skipped: no trials in {SHIPPED if own else folder}")
        raise SystemExit(0)
    return files


def replay(
    data: Trials, model: str, name: str, seed: int, goals: Sequence[set[Configuration]]
) -> list[Configuration]:
    """Distinct trials until a configuration of each goal is found, and `FEW` at least."""
    tried: list[Configuration] = []
    for point in chosen(data, model, name, seed):
        tried.append(point)
        if len(tried) >= FEW and not any(goal.isdisjoint(tried) for goal in goals):
            break
    return tried


def until(tried: Sequence[Configuration], goal: set[Configuration], points: int) -> int:
    """The number of the first trial that reaches a goal; that of all points where none does."""
    reached = (number for number, point in enumerate(tried, start=1) if point in goal)
    return next(reached, points)


def chosen(
    data: Trials, model: str, name: str, seed: int, *, timed: bool = False
) -> Iterator[Configuration]:
    """The configurations that a sampler tries, each when it comes up for the first time.

    With `timed` it is told the predicted time as a second objective.
    """
    known = {each.configuration: (each.loss, each.us)[: 1 + timed] for each in data.of(model)}
    space = spanned(list(known))
    if missing := set(space.points()) - known.keys():
        raise SystemExit(
            f"{model}: {len(missing)} configurations are not measured: {missing.pop()}"
        )
    chooser = make(name, data, model, space, seed, timed=timed)
    study = optuna.create_study(sampler=chooser, directions=["minimize"] * (1 + timed))
    seen = set[Configuration]()
    for _ in range(PATIENCE):
        trial = study.ask(distributions(space))
        point = configuration(trial.params)
        study.tell(trial, known[point])
        if point not in seen:
            seen.add(point)
            yield point
        if len(seen) == len(known):
            return


def make(
    name: str,
    data: Trials,
    model: str,
    space: Space,
    seed: int,
    *,
    timed: bool = False,
) -> optuna.samplers.BaseSampler:
    """A sampler that knows the other networks' trials, if it can make use of them."""
    times = {each.configuration: each.us for each in data.of(model)}
    prior, features = data.without(model), data.features[model]

    def known_us(point: Configuration) -> float | None:
        return None if point.mixed == "quantunev2" else times[point]

    forecasts = forecasts_of(data, model)
    if name == "quantune-blind":
        return QuantuneSampler(space, prior, features, seed=seed)
    if name.startswith("quantune+"):
        caution = float(name.partition("+")[2])
        return QuantuneSampler(
            space, prior, features, caution=caution, forecasts=forecasts, seed=seed
        )
    known = known_us if timed else None
    return sampler(
        name, space, prior=prior, features=features, known_us=known, forecasts=forecasts, seed=seed
    )


def forecasts_of(data: Trials, model: str) -> ForecastOf | None:
    """What was known of a network's configurations before their trials; None where nothing was."""
    found = {each.configuration: each.forecast for each in data.of(model)}
    return found.__getitem__ if all(each.noise for each in found.values()) else None


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
    print(f"\nTrials to {goal}; median over {len(next(iter(found.values())))} seeds")
    print(" " * width, *(f"{name:>14}" for name in names))
    medians = {key: statistics.median(counts) for key, counts in found.items()}
    for model in models:
        print(f"{model:{width}}", *(f"{medians[model, name]:14g}" for name in names))
    logs = [[math.log(medians[model, name]) for model in models] for name in names]
    means = [math.exp(statistics.fmean(each)) for each in logs]
    print(f"{'geometric mean':{width}}", *(f"{mean:14.1f}" for mean in means))
    if {"quantune", "random"} <= set(names):
        times = means[names.index("random")] / means[names.index("quantune")]
        print(f"quantune needs {times:.1f} times fewer than random")


def show_chosen(
    data: Trials,
    names: Sequence[str],
    runs: dict[tuple[str, str], list[list[Configuration]]],
    files: Sequence[Path],
) -> None:
    """What the best of a few trials loses in accuracy: networks down, samplers across."""
    width = max(len(model) for model in data.models)
    print(f"\nPoints of accuracy lost by the best of {FEW} trials; median over seeds")
    print(" " * width, *(f"{name:>14}" for name in names))
    for model in data.models:
        loss = {each.configuration: each.loss for each in data.of(model)}
        lost = losses(model, files, "accuracy", loss.keys())
        best = {
            name: [lost[min(run[:FEW], key=loss.__getitem__)] for run in runs[model, name]]
            for name in names
        }
        print(f"{model:{width}}", *(f"{statistics.median(best[name]):14.2f}" for name in names))


if __name__ == "__main__":
    main()
