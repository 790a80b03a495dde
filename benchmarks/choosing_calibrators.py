"""By what `--calibrator auto` should choose: how much worse than the best calibrator it ends up.

    python benchmarks/choosing_calibrators.py [NETWORK ...] [--counts 8,16,24,60,100]

Each network is simulated all-integer with every calibrator, on its calibration and its evaluation
samples. A rule sees some calibration samples, drawn 60 times, and picks a calibrator; its regret is
the KL to float of the picked one on the evaluation samples over that of the best one. Geometric
mean over networks and draws, and the worst.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from networks import Network, find
from numpy.typing import NDArray

from mlq import calibration, metrics, runtime, targets
from mlq.analysis import Subject, simulate
from mlq.frontends.data import load_data
from mlq.network import load
from mlq.precision import CALIBRATORS
from mlq.progress import Stages
from mlq.recipe import resolve
from mlq.simulation import uniform
from mlq.targets.iree import compile_module
from mlq.transforms.pipelines import lowering

Logits = NDArray[np.float64]
Rule = Callable[[Logits, Logits], float]
"""What is made least, from the logits of the float and of the simulated network."""

DRAWS = 60


def noise(reference: Logits, value: Logits) -> float:
    """Noise over signal of the output: one over its SQNR."""
    return -metrics.sqnr_db(reference, value)


def softened(reference: Logits, value: Logits) -> float:
    """KL of outputs that are softened as for distillation (Hinton et al. 2015), by `SOFT`."""
    return metrics.kl_mnat(reference / SOFT, value / SOFT)


SOFT = 4.0
RULES: Mapping[str, Rule] = {"KL": metrics.kl_mnat, "KL, softened": softened, "SQNR": noise}


def logits(network: Network) -> dict[str, tuple[Logits, Logits]]:
    """Of float and of each calibrator: the logits of the calibration and evaluation samples."""
    device, recipe = targets.by_name("x86"), resolve({"threads": 2})
    specs = load(network.model, batch=1).sample_specs
    data = load_data(str(network.calib), specs, model_path=network.model)
    subject = Subject.of(network.model, data, device, recipe, Stages(visible=False))
    held_out = load_data(str(network.eval), specs, model_path=network.model)
    (name,) = (spec.name for spec in subject.network.model.inputs)
    sets = [
        [
            [batch[name]]
            for batch in each.batches(subject.batch)
            if len(batch[name]) == subject.batch
        ]
        for each in (data, held_out)
    ]
    plain = subject.network.transform(lowering(device.features))
    vmfb = compile_module(plain.text, device, embed=False)
    executable = runtime.load(vmfb, parameters=plain.weights, threads=recipe.threads)
    instrumented = calibration.instrument(subject.network, device, threads=recipe.threads)
    observations = calibration.observe(subject.network, instrumented, sets[0])
    simulation = simulate(subject)
    base = uniform(subject.network, "w8a8", subject.allowed)
    found = {"float": _over(sets, lambda batch: executable.run(*batch)[0])}
    for each in CALIBRATORS:
        ranges = calibration.ranges_by(each, observations, scheme="asymmetric")
        found[each] = _over(sets, lambda batch, r=ranges: simulation.run(batch, r, base)[0])
    return found


def _over(sets: list[list[Any]], run: Callable[[Any], Any]) -> tuple[Logits, Logits]:
    calib, held_out = (
        np.concatenate([np.array(run(batch), np.float64) for batch in batches]) for batches in sets
    )
    return calib, held_out


def regrets(
    found: Mapping[str, tuple[Logits, Logits]], rule: Rule, count: int
) -> NDArray[np.float64]:
    """Log regret of a rule that sees `count` samples, for each draw."""
    reference, held_out = found["float"]
    wanted = {each: metrics.kl_mnat(held_out, found[each][1]) for each in CALIBRATORS}
    random, lost = np.random.default_rng(0), []
    for _ in range(DRAWS):
        seen = random.permutation(len(reference))[:count]
        judged = {each: rule(reference[seen], found[each][0][seen]) for each in CALIBRATORS}
        lost.append(wanted[min(judged, key=judged.__getitem__)] / min(wanted.values()))
    return np.log(lost)


def main() -> None:
    """Print each calibrator's KL on the evaluation samples, then each rule's regret."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", help="default: all")
    parser.add_argument("--counts", default="8,16,24,60,100", help="calibration samples seen")
    arguments = parser.parse_args()
    counts, measured = [int(each) for each in arguments.counts.split(",")], {}
    print(f"{'KL to float, mn':30} " + " ".join(f"{each:>10}" for each in CALIBRATORS))
    for network in find(arguments.networks):
        measured[network.name] = found = logits(network)
        exact = found["float"][1]
        row = " ".join(f"{metrics.kl_mnat(exact, found[each][1]):>10.2f}" for each in CALIBRATORS)
        print(f"{network.name:30} {row}", flush=True)
    print(f"\n{'regret: mean (worst)':22} " + " ".join(f"{f'{n} samples':>13}" for n in counts))
    for name, rule in RULES.items():
        cells = []
        for count in counts:
            lost = np.concatenate([regrets(found, rule, count) for found in measured.values()])
            cells.append(f"{np.exp(lost.mean()):.3f} ({np.exp(lost.max()):.2f})")
        print(f"by {name:19} " + " ".join(f"{cell:>13}" for cell in cells))


if __name__ == "__main__":
    main()
