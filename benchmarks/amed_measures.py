"""How few samples rank allocations, and what rounding is worth: two tables of docs/search.md.

    python benchmarks/amed.py resnet20_cifar10           # visits the allocations that are ranked
    python benchmarks/amed_measures.py resnet20_cifar10

Spearman's rank correlation of what so many calibration samples say with the KL on evaluation
samples, over allocations that the methods visited; and one width everywhere, with weights rounded
by least squares, the same without the corrected bias, and rounded to the nearest.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from amed import judge_of, prepared_for
from networks import OUT, Network, find
from numpy.typing import NDArray
from scipy import stats

from mlq import evaluation, hardware, metrics
from mlq.bitsearch.judging import Judge
from mlq.bitsearch.preparing import Prepared
from mlq.bitsearch.rounding import rounding_of
from mlq.search import Archive, Point, Space, Visit
from mlq.search.space import menu

Array = NDArray[Any]
WIDTHS = (2, 3, 4, 8)
PRESET = "eyeriss-12x14-ws"  # any: neither table depends on latencies
SAMPLES = (16, 32, 64, 200)


def noise(exact: Array, found: Array) -> float:
    """Energy of the noise in the logits over theirs, as `mlq search` measures it."""
    exact, found = (each - each.mean(axis=1, keepdims=True) for each in (exact, found))
    return float(np.sum(np.square(found - exact)) / np.sum(np.square(exact)))


MEASURES: dict[str, Callable[[Array, Array], float]] = {
    "KL": metrics.kl_mnat,
    "KL at temperature 4": lambda exact, found: metrics.kl_mnat(exact / 4, found / 4),
    "noise over signal": noise,
}


def visited(network: Network, space: Space, samples: int, count: int) -> list[Point]:
    """Every so manieth of the allocations that `amed.py` measured."""
    file = OUT / "amed" / f"{network.name}-{samples}-2-3-4-8.jsonl"
    lines = file.read_text().splitlines()
    known = [json.loads(line)[0].split(" ") for line in lines[:: max(len(lines) // count, 1)]]
    return [
        tuple(names.index(name) for names, name in zip(space.names, each, strict=True))
        for each in known[:count]
    ]


def logits(prepared: Prepared, space: Space, point: Point) -> Array:
    """Those of all calibration samples."""
    assignment = {**prepared.base, **space.precisions(point)}
    run, ranges = prepared.simulation.run, prepared.choice.ranges
    outputs = [run(batch, ranges, assignment)[0] for batch in prepared.subject.batches()]
    return np.concatenate([evaluation.logits(each) for each in outputs])


def rank(prepared: Prepared, space: Space, judge: Judge, points: Sequence[Point]) -> None:
    """Print the rank correlations."""
    archive = Archive(space, lambda points: [0.0] * len(points))
    exact = np.concatenate([evaluation.logits(e) for e in prepared.observations.outputs])
    truth = [judge.judge(archive, Visit(each, 1.0, 0.0, 0.0)).judged_kl_mnat for each in points]
    found = [logits(prepared, space, each) for each in points]
    for name, measure in MEASURES.items():
        said = [[measure(exact[:n], each[:n]) for each in found] for n in SAMPLES]
        ranks = "".join(f"{stats.spearmanr(each, truth).statistic:8.2f}" for each in said)
        print(f"{name:28}{ranks}")


def roundings(network: Network, prepared: Prepared) -> dict[str, Prepared]:
    """The network with its weights of few bits rounded in three ways."""
    simulation, ranges = prepared.simulation, prepared.choice.ranges
    kept, names = OUT / "amed" / f"{network.name}.npz", menu(tuple(simulation.narrow))
    made = rounding_of(prepared.subject, simulation, ranges, names, kept)
    plain = {"without the bias": made.weights, "nearest": {}}
    others = {
        name: dataclasses.replace(prepared, simulation=simulation.refined(simulation.narrow, w, {}))
        for name, w in plain.items()
    }
    return {"least squares and bias": prepared, **others}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--samples", type=int, default=16, help="those of `amed.py`")
    parser.add_argument("--allocations", type=int, default=50)
    parser.add_argument("--judge", type=int, default=400, metavar="N")
    options = parser.parse_args()
    for network in find(options.networks):
        prepared = prepared_for(network, WIDTHS, 1)
        space = prepared.space(hardware.load(PRESET), WIDTHS)
        judge = judge_of(network, prepared, options.judge)
        points = visited(network, space, options.samples, options.allocations)
        print(f"{network.name}, {len(points)} allocations, calibration samples: {SAMPLES}")
        rank(prepared, space, judge, points)
        for name, each in roundings(network, prepared).items():
            judge = judge_of(network, each, options.judge)
            archive = Archive(space, lambda points: [0.0] * len(points))
            for width in sorted(WIDTHS, reverse=True):
                point = space.uniform(f"w{width}a{width}")
                found = judge.judge(archive, Visit(point, 1.0, 0.0, 0.0))
                print(
                    f"{name:28}w{width}a{width}: KL {found.judged_kl_mnat:6.0f} mnat, top-1"
                    f" {100 * found.accuracy:.2f} %, float {100 * judge.float_accuracy:.2f}"
                )


if __name__ == "__main__":
    main()
