"""How early trials end, what they miss, and how often they are farther off than they say.

    python benchmarks/racing.py [NETWORK ...] [--samples N] [--tolerance MNAT]

All configurations of Quantune's space are run over the evaluation samples, or N of them, and their
logits kept (benchmarks/out/logits-NETWORK.npz, and taken from there the next time). Then trials are
replayed, both orders at random, samples and configurations: three of the twelve best, as a search
by quantune has them, and twenty of all, as random search has. Each races against the best so far,
and ends when its KL is known within the tolerance; from 30 samples on, as for a large network.
Printed are, over 100 replays, the samples of a trial; how much more KL over all samples what was
chosen has than the least of those tried (mean, 95th percentile, greatest); and of how many trials
that were not stopped as worse the KL over all samples is farther away than they said, which is to
be 5 % at most.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field

import networks
import numpy as np
from numpy.typing import NDArray

from mlq import metrics
from mlq.simulation import Simulation
from mlq.tuning.cluster import Task
from mlq.tuning.measurement import Measurement, Reference, never
from mlq.tuning.racing import DivergenceRace
from mlq.tuning.space import SPACES

REPLAYS, BATCH, FEWEST = 100, 10, 30
# Of how many of the best configurations how many are tried.
SEARCHES = {"quantune": (12, 3), "random": (96, 20)}

Reals = NDArray[np.float32]


def main() -> None:
    """Two lines for each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=["mlperf_tiny_vww_mobilenetv1"])
    parser.add_argument("--samples", type=int, help="evaluate on so many samples (default: all)")
    parser.add_argument("--tolerance", type=float, default=4.0, help="milli-nats (default: 4)")
    arguments = parser.parse_args()
    header = "samples        more KL, mnat: mean   95 %    most    beyond"
    print(f"{'tolerance ' + str(arguments.tolerance):28} {'search':9} {header}")
    for network in networks.find(arguments.networks):
        replay = Replay(*logits(network, arguments.samples), arguments.tolerance)
        for search, (best, count) in SEARCHES.items():
            print(f"{network.name:28} {search:9} {replay.searches(best, count)}", flush=True)


def logits(network: networks.Network, samples: int | None) -> tuple[Reals, Reals]:
    """Float's [N, C], and those of every configuration [K, N, C]."""
    kept = networks.OUT / f"logits-{network.name}.npz"
    if not kept.exists():
        objective = Task(network.model, network.calib, network.eval, "x86").objective()
        total = min(samples or objective.data.samples, objective.data.samples)
        made: dict[str, Reals] = {}
        points = SPACES["quantune96"].fitted(objective.calib.samples).points()
        for point in points:
            simulation: Simulation = objective.simulated(point, objective.simulation)
            assignment = objective.decision(point).assignment
            batches = objective._outputs(simulation, objective.ranges(point), assignment)  # noqa: SLF001 - what a trial runs
            identity = objective.forecasts.of(point).identity
            if identity not in made:
                made[identity] = _first(batches, total)
        kept.parent.mkdir(parents=True, exist_ok=True)
        every = np.stack([made[objective.forecasts.of(point).identity] for point in points])
        np.savez(kept, exact=objective.reference.logits(total), every=every)
    with np.load(kept) as found:
        return found["exact"], found["every"]


def _first(batches: Iterator[Reals], samples: int) -> Reals:
    found: list[Reals] = []
    while sum(map(len, found)) < samples:
        found.append(next(batches))
    return np.concatenate(found)[:samples]


@dataclass
class Replay:
    """Trials of one network, replayed from logits."""

    exact: Reals
    every: Reals
    tolerance: float
    least: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.least = np.array([metrics.kl_mnat(self.exact, each) for each in self.every])

    def searches(self, best: int, count: int) -> str:
        """What searches come to that try so many of so many of the best."""
        among = np.argsort(self.least)[:best]
        runs = [self.search(among, count, seed) for seed in range(REPLAYS)]
        more = [found for found, _ in runs]
        trials = [trial for _, tried in runs for trial in tried]
        settled = [(index, trial) for index, trial in trials if not trial.lost]
        beyond = sum(
            abs(trial.kl_mnat - self.least[index]) > trial.within_mnat + 1e-9
            for index, trial in settled
        )
        samples = np.mean([trial.samples for _, trial in trials])
        figures = f"{np.mean(more):19.2f} {np.quantile(more, 0.95):6.2f} {max(more):7.2f}"
        return f"{samples:4.0f} of {len(self.exact):4} {figures} {beyond:5} of {len(settled)}"

    def search(
        self, among: NDArray[np.int64], count: int, seed: int
    ) -> tuple[float, list[tuple[int, Measurement]]]:
        """How much more KL the choice has than the least of those tried; the trials."""
        random = np.random.default_rng(seed)
        order, tried = random.permutation(len(self.exact)), random.permutation(among)[:count]
        reference = Reference(batches(self.exact[order]), None, len(order))
        chosen, best, trials = int(tried[0]), np.inf, []
        rival: DivergenceRace | None = None
        for index in tried.tolist():
            race = rival

            def lost(
                _hits: object, kl: NDArray[np.float64], race: DivergenceRace | None = race
            ) -> bool:
                return race is not None and race.is_lost(kl)

            trial = reference.measure(
                batches(self.every[index][order]),
                never if race is None else lost,
                tolerance=self.tolerance,
                fewest=FEWEST,
            )
            trials.append((index, trial))
            if not trial.lost and trial.kl_mnat < best:
                chosen, best, rival = index, trial.kl_mnat, DivergenceRace(trial.divergences)
        return float(self.least[chosen] - self.least[tried].min()), trials


def batches(rows: Reals) -> Iterator[Reals]:
    """So many samples at a time."""
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


if __name__ == "__main__":
    main()
