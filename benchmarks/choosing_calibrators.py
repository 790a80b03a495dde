"""By what `--calibrator auto` should choose: how much worse than the best calibrator it ends up.

    python benchmarks/choosing_calibrators.py [NETWORK ...] [--counts 8,16,24,60,100]

Each network is simulated all-integer with every calibrator, on its evaluation samples. As many of
them as there are to calibrate on are drawn, 60 times; a rule sees some of those simulated and all
of them in float, and picks a calibrator. Its regret is the KL to float of the picked one on the
other evaluation samples over that of the best one. Geometric mean over networks and draws, and the
worst. What is printed as raced is what `auto` does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from networks import Network, find
from numpy.typing import NDArray

from mlq import calibration, metrics, targets
from mlq.analysis import Subject, observe, simulate
from mlq.frontends.data import load_data
from mlq.network import load
from mlq.precision import CALIBRATORS, Calibrator
from mlq.progress import Stages
from mlq.ranges import Ranges
from mlq.recipe import resolve
from mlq.simulation import Simulation, uniform
from mlq.stored import Assignment

Logits = NDArray[np.float64]
Rule = Callable[[Logits, Logits, Logits], float]
"""What is made least: from float logits of all samples, and of both networks on some."""

DRAWS = 60


def divergence(_every: Logits, reference: Logits, value: Logits) -> float:
    """KL on the simulated samples."""
    return metrics.kl_mnat(reference, value)


def noise(_every: Logits, reference: Logits, value: Logits) -> float:
    """Noise over signal of the output: one over its SQNR."""
    return -metrics.sqnr_db(reference, value)


def softened(_every: Logits, reference: Logits, value: Logits) -> float:
    """KL of outputs that are softened as for distillation (Hinton et al. 2015), by `SOFT`."""
    return metrics.kl_mnat(reference / SOFT, value / SOFT)


def expected(every: Logits, reference: Logits, value: Logits) -> float:
    """KL to be expected of the changes, met by the predictions of all samples."""
    predictions = metrics.softmax(every)
    return float(np.mean(metrics.expected_divergences_mnat(predictions, value - reference)))


SOFT = 4.0
RULES: Mapping[str, Rule] = {
    "KL": divergence,
    "KL, softened": softened,
    "SQNR": noise,
    "expected KL": expected,
}


@dataclass(frozen=True)
class Simulated:
    """Logits of the evaluation samples [N, C], in float and by calibrator; how many calibrated."""

    calibrated: int
    reference: Logits
    values: Mapping[str, Logits]

    def kl(self, calibrator: str, samples: Any = slice(None)) -> float:
        """KL (milli-nats) of what a calibrator makes of some samples."""
        return metrics.kl_mnat(self.reference[samples], self.values[calibrator][samples])


def simulated(network: Network) -> Simulated:
    """Calibrate a network and run it, float and all-integer, on its evaluation samples."""
    device, recipe = targets.by_name("x86"), resolve({"threads": 2})
    specs = load(network.model, batch=1).sample_specs
    data = load_data(str(network.calib), specs, model_path=network.model)
    subject = Subject.of(network.model, data, device, recipe, Stages(visible=False))
    (name,) = (spec.name for spec in subject.network.model.inputs)
    batches = [
        batch[name]
        for batch in load_data(str(network.eval), specs, model_path=network.model).batches(
            subject.batch
        )
        if len(batch[name]) == subject.batch
    ]
    simulation = simulate(subject)
    observations = observe(subject, simulation)
    base = uniform(subject.network, "w8a8", subject.allowed)
    values = {"float": _over(batches, simulation, calibrated("minmax", observations), {})}
    for each in CALIBRATORS:
        values[each] = _over(batches, simulation, calibrated(each, observations), base)
    return Simulated(observations.samples, values.pop("float"), values)


def calibrated(name: Calibrator, observations: calibration.Observations) -> Ranges:
    """The ranges of a calibrator."""
    return calibration.ranges_by(name, observations, scheme="asymmetric")


def _over(
    batches: list[Any], simulation: Simulation, ranges: Ranges, assignment: Assignment
) -> Logits:
    found = [simulation.run([batch], ranges, assignment)[0].astype(np.float64) for batch in batches]
    return np.concatenate(found)


def regrets(found: Simulated, rule: Rule, count: int, heat: int) -> NDArray[np.float64]:
    """Log regret of a rule that sees `count` samples, for each draw.

    `heat` of them are of all calibrators, the others of the two that those say are the best.
    """
    random, lost = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn, others = np.split(random.permutation(len(found.reference)), [found.calibrated])
        racing = list(CALIBRATORS)
        for seen in (drawn[:heat], drawn[:count]):
            judged = {
                each: rule(found.reference[drawn], found.reference[seen], found.values[each][seen])
                for each in racing
            }
            racing = sorted(racing, key=judged.__getitem__)[:2]
        wanted = {each: found.kl(each, others) for each in CALIBRATORS}
        lost.append(wanted[racing[0]] / min(wanted.values()))
    return np.log(lost)


def table(measured: Mapping[str, Simulated], counts: list[int], *, raced: bool) -> None:
    """Print a row a rule: its regret by samples seen, and how many of them are simulated."""
    heats = [-(-n // 3) if raced else n for n in counts]
    runs = [len(CALIBRATORS) * heat + 2 * (n - heat) for n, heat in zip(counts, heats, strict=True)]
    title = f"regret{', raced' if raced else ''}: mean (worst)"
    print(f"\n{title:27} " + " ".join(f"{f'{n} samples':>13}" for n in counts))
    print(f"{'simulated':27} " + " ".join(f"{n:>13}" for n in runs))
    for name, rule in RULES.items():
        cells = []
        for count, heat in zip(counts, heats, strict=True):
            lost = [regrets(found, rule, count, heat) for found in measured.values()]
            mean, worst = np.exp(np.mean(lost)), np.exp(np.max(lost))
            cells.append(f"{mean:.3f} ({worst:.2f})")
        print(f"by {name:24} " + " ".join(f"{cell:>13}" for cell in cells))


def main() -> None:
    """Print each calibrator's KL on the evaluation samples, then each rule's regret."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", help="default: all")
    parser.add_argument("--counts", default="8,12,16,24,60", help="calibration samples seen")
    arguments = parser.parse_args()
    counts, measured = [int(each) for each in arguments.counts.split(",")], {}
    print(f"{'KL to float, mn':30} " + " ".join(f"{each:>10}" for each in CALIBRATORS))
    for network in find(arguments.networks):
        measured[network.name] = found = simulated(network)
        row = " ".join(f"{found.kl(each):>10.2f}" for each in CALIBRATORS)
        print(f"{network.name:30} {row}", flush=True)
    for raced in (False, True):
        table(measured, counts, raced=raced)


if __name__ == "__main__":
    main()
