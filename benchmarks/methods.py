"""Accuracy methods that need no training: what each changes, on all networks, on the same images.

    python benchmarks/methods.py [NETWORK ...] [--precisions w8a8,w4a8] [--images N]
        [--methods none bias-correction ...] [--again]

All layers in one precision, simulated; the calibrator is chosen by `auto` anew under each method,
weights of fewer than 8 bits are rounded by least squares (which corrects biases by itself). KL to
the float network in milli-nats on the evaluation images, its paired difference to `none` with the
bootstrap interval of 95 %, top-1, and agreement with float. `float` is the KL of the equalized
network in float: not nothing only where a clip cuts off what it did not before. `CPU s` is of
preparing the network, with compilation where no method before it left the module in the cache (a
new folder for XDG_CACHE_HOME is an empty one); of `auto` what it took stands last. What is measured
is kept in benchmarks/out/methods.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import networks
import numpy as np
from networks import Network
from numpy.typing import NDArray

from mlq import metrics, targets
from mlq.analysis import Prepared, Subject
from mlq.frontends.data import load_data
from mlq.methods import prepare
from mlq.network import load
from mlq.progress import Stages
from mlq.recipe import resolve
from mlq.simulation import uniform

FOLDER = networks.OUT / "methods"
METHODS = ("none", "auto", "equalize", "bias-correction", "equalize,bias-correction")
Logits = NDArray[np.float64]


def measured(network: Network, precision: str, arguments: Any) -> dict[str, Any]:
    """By method what was measured, `labels` and the float logits; measured if it is not known."""
    file = FOLDER / f"{network.name}-{precision}.npz"
    if arguments.again or not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        arrays = _measure(network, precision, arguments)
        np.savez(file, **arrays)
    with np.load(file) as kept:
        return dict(kept)


def _measure(network: Network, precision: str, arguments: Any) -> dict[str, Any]:
    samples = network.samples(network.eval)
    inputs = samples.inputs[: arguments.images]
    arrays: dict[str, Any] = {}
    for methods in arguments.methods:
        start = time.process_time()
        found = prepared(network, precision, methods)
        spent = time.process_time() - start
        subject = found.subject
        base = uniform(subject.network, precision, subject.allowed)
        arrays[methods] = logits(found, inputs, base)
        if methods in ("none", "equalize"):
            arrays[f"{methods} float"] = logits(found, inputs, {})
        arrays[f"{methods} said"] = json.dumps(
            {
                "calibrator": found.choice.ranges.calibrator,
                "seconds": spent,
                "taken": found.methods.taken,
            }
        )
    arrays["labels"] = samples.labels[: arguments.images]
    return arrays


def prepared(network: Network, precision: str, methods: str) -> Prepared:
    """The network, calibrated and rounded under some methods."""
    recipe = resolve({"precisions": f"f32,{precision}", "methods": methods, "effort": "quick"})
    specs = load(network.model, batch=1).sample_specs
    data = load_data(str(network.calib), specs, model_path=network.model)
    target, stages = targets.by_name("x86"), Stages(visible=False)
    return prepare(Subject.of(network.model, data, target, recipe, stages))


def logits(found: Prepared, inputs: NDArray[np.float32], assignment: dict[str, str]) -> Logits:
    """What the simulated network makes of the samples; the last batch is filled up."""
    batch, made = found.subject.batch, []
    for at in range(0, len(inputs), batch):
        part = inputs[at : at + batch]
        filled = np.resize(part, (batch, *part.shape[1:]))
        output = found.simulation.run([filled], found.choice.ranges, assignment)[0]
        made.append(np.array(output[: len(part)], np.float64))
    return np.concatenate(made)


def interval(difference: NDArray[np.float64]) -> tuple[float, float]:
    """Bootstrap interval of the mean, 95 %, over resampled images."""
    picks = np.random.default_rng(0).integers(difference.size, size=(2000, difference.size))
    low, high = np.quantile(difference[picks].mean(axis=1), (0.025, 0.975)).tolist()
    return low, high


def rows(network: Network, precision: str, arguments: Any) -> list[str]:
    """A line for each method."""
    found = measured(network, precision, arguments)
    exact, labels, lines = found["none float"], found["labels"], []
    before = metrics.divergences_mnat(exact, found["none"])
    for methods in (each for each in METHODS if each in found):
        value, said = found[methods], json.loads(str(found[f"{methods} said"]))
        after = metrics.divergences_mnat(exact, value)
        low, high = interval(after - before)
        drift = found.get(f"{methods} float")
        moved = "" if drift is None else f"{metrics.kl_mnat(exact, drift):.2f}"
        lines.append(
            f"{network.name:28}{precision:6}{len(labels):5} {methods:25}{after.mean():8.2f}"
            f" {after.mean() - before.mean():+8.2f} [{low:+7.2f}, {high:+7.2f}]"
            f"{100 * metrics.top1(value, labels):7.2f}{100 * metrics.agreement(exact, value):7.2f}"
            f" {moved:>6}  {said['calibrator']:10} {said['seconds']:5.0f}"
            f"{' ' + said['taken'] if methods == 'auto' else ''}"
        )
    return lines


def main() -> None:
    """Print a row for each network, precision and method."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks (default: all)")
    parser.add_argument("--precisions", default="w8a8,w4a8", help="with commas")
    parser.add_argument("--images", type=int, default=1 << 30, help="the first so many only")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=METHODS, help="none must be among them"
    )
    parser.add_argument("--again", action="store_true", help="measure what is known too")
    arguments = parser.parse_args()
    print(
        f"{'network':28}{'':6}{'n':>5} {'methods':25}{'KL mn':>8} {'to none':>8} {'95 %':18}"
        f"{'top-1':>7}{'agree':>7} {'float':>6}  {'calibrator':10} CPU s"
    )
    for network in networks.find(arguments.names):
        for precision in arguments.precisions.split(","):
            for line in rows(network, precision, arguments):
                print(line, flush=True)


if __name__ == "__main__":
    main()
