"""Loss and latency: what float layers cost, and how soon each sampler knows the front.

    python benchmarks/tuning_front.py [--seeds N] [--samplers A,B]

From mlq's own trials of the networks whose full space is measured. The first table has, for each
way of mixing, the configuration of least KL and the microseconds that the target's costs predict.
The second has the share of the front's hypervolume (of the logarithms of KL and time, up to the
worst of both) that a sampler has found after some trials, which it is told KL and time of;
quantune knows the other networks' trials. Medians over seeds.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Iterable, Sequence

import networks
import numpy as np
import optuna
from quantune_replay import chosen, default_files, taking_part

from mlq.tuning.space import MIXED, SPACES
from mlq.tuning.trials import Trial, Trials, read

AFTER = (5, 10, 20)
SAMPLERS = "quantune,quantune-cold,random,genetic,tpe"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samplers", default=SAMPLERS)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = read(default_files(own=True), loss="kl")
    parts = taking_part(data, SPACES["full"])
    whole = [
        model
        for model in parts.models
        if {each.configuration.mixed for each in parts.of(model)} == set(MIXED)
    ]
    if not whole:
        raise SystemExit(
            f"no network's full space is measured; run {networks.ROOT}/benchmarks/trials.py"
        )
    print(f"{'least KL, mnat (us)':28}", *(f"{mixed:>16}" for mixed in MIXED))
    for model in whole:
        best = [
            least(each for each in data.of(model) if each.configuration.mixed == m) for m in MIXED
        ]
        print(f"{model:28}", *(f"{each.loss:8.2f} ({each.us:5.0f})" for each in best))
    print(
        f"\n{'% of the front after trials':28}",
        *(f"{name:>16}" for name in arguments.samplers.split(",")),
    )
    for model in whole:
        shares = [
            found(data, model, name, arguments.seeds) for name in arguments.samplers.split(",")
        ]
        for index, after in enumerate(AFTER):
            print(f"{model:25}{after:3}", *(f"{each[index]:16.0f}" for each in shares), flush=True)


def least(trials: Iterable[Trial]) -> Trial:
    """The trial of least loss; of equals, the fastest."""
    return min(trials, key=lambda each: (each.loss, each.us or 0.0))


def found(data: Trials, model: str, name: str, seeds: int) -> list[float]:
    """Percent of the hypervolume after each number of trials."""
    known = {each.configuration: each for each in data.of(model)}
    everything = list(known.values())
    full = volume(everything, everything)
    runs = []
    for seed in range(seeds):
        order = itertools.islice(chosen(data, model, name, seed, timed=True), max(AFTER))
        tried = [known[point] for point in order]
        runs.append([100.0 * volume(tried[:after], everything) / full for after in AFTER])
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def volume(trials: Sequence[Trial], everything: Sequence[Trial]) -> float:
    """The area between the trials and the worst of loss and time of all, on logarithmic axes."""
    worst, slowest = (np.max([point(each) for each in everything], axis=0)).tolist()
    area, floor = 0.0, worst
    for loss, time in sorted(map(point, trials), key=lambda each: each[1]):
        area += max(floor - loss, 0.0) * (slowest - time)
        floor = min(floor, loss)
    return area


def point(trial: Trial) -> tuple[float, float]:
    """A trial as a point."""
    assert trial.us is not None
    return float(np.log(trial.loss)), float(np.log(trial.us))


if __name__ == "__main__":
    main()
