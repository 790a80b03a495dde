"""How early races end, and whether they ever end the best: every configuration against every best.

    python benchmarks/racing.py [NETWORK ...]

All configurations of Quantune's space are measured over all evaluation samples, KL sample by
sample. Then the space is gone through in random orders as a tuner would, each configuration
racing against the best so far; printed are the share of the samples that this takes, how often
the configuration of least mean KL was stopped, and how much more KL than that the outcome has.
Medians over 200 orders.
"""

from __future__ import annotations

import argparse
import statistics

import networks
import numpy as np
from numpy.typing import NDArray

from mlq.tuning.cluster import Task
from mlq.tuning.racing import DivergenceRace
from mlq.tuning.space import SPACES

ORDERS, BATCH = 200, 10


def main() -> None:
    """One line for each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=["mlperf_tiny_vww_mobilenetv1"])
    arguments = parser.parse_args()
    for network in networks.find(arguments.networks):
        divergences = measured(network)
        runs = [race(divergences, seed) for seed in range(ORDERS)]
        least = divergences.mean(axis=1).min()
        worse = [found - least for _, found in runs]
        share = statistics.median(used for used, _ in runs)
        print(
            f"{network.name}: {100 * share:.0f} % of the samples; the best was missed in"
            f" {sum(each > 0.0 for each in worse)} of {ORDERS} orders, by"
            f" {max(worse):.3f} mnat of {least:.2f} at most"
        )


def measured(network: networks.Network) -> NDArray[np.float64]:
    """KL of every configuration on every sample: [configurations, samples]."""
    kept = networks.OUT / f"divergences-{network.name}.npy"
    if not kept.exists():
        objective = Task(network.model, network.calib, network.eval, "x86").objective()
        points = SPACES["quantune96"].fitted(objective.calib.samples).points()
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, np.stack([objective.measure(each).divergences for each in points]))
    found: NDArray[np.float64] = np.load(kept)
    return found


def race(divergences: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """The share of all samples that one order takes, and the mean KL of what is best in the end."""
    order = np.random.default_rng(seed).permutation(len(divergences))
    samples = divergences.shape[1]
    best, used = order[0], samples
    for index in order[1:]:
        rival = DivergenceRace(divergences[best])
        ends = (end for end in range(BATCH, samples, BATCH))
        own = divergences[index]
        end = next((end for end in ends if rival.is_lost(own[:end])), samples)
        used += end
        if end == samples and own.mean() < divergences[best].mean():
            best = index
    return used / divergences.size, float(divergences[best].mean())


if __name__ == "__main__":
    main()
