"""Sensitivities of the networks by every metric, and by layers tried alone on all samples (O1).

    python benchmarks/oracle.py [NETWORK ...] [--levels onnx,folded,fused] [--precisions LIST]
        [--again]

What is measured is kept in benchmarks/out/oracle, one file for each network and IR level, and in a
journal beside it while it is under way: killed, the same command goes on. CPU seconds are of one
thread, compilation and the choice of a calibrator left out:

calibrate   inference 1: the float network measures its own tensors
lockstep    inference 2: the quantized network beside the float one; with `calibrate`, effort quick
few         layers alone on a few samples, at most five passes: what effort default adds
oracle      layers alone on all samples: what effort extensive adds
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import networks
import numpy as np
from scipy.stats import spearmanr

from mlq import alone, analysis, targets
from mlq.analysis import Analysis, Subject
from mlq.frontends.data import load_data
from mlq.journal import Journal
from mlq.network import load
from mlq.progress import Stages
from mlq.recipe import METRICS, resolve
from mlq.sensitivities import Sensitivities

FOLDER = networks.OUT / "oracle"
LEVELS = ("onnx", "folded", "fused")
BASE = "w8a8"
PRECISIONS = f"f32,{BASE}"
MENU = targets.by_name("x86").menu
_HALVED = ("oracle_kl_mnat", "oracle_expected_mnat")
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """What stands in a file: sensitivities, CPU seconds by part, and how sure the oracle is.

    `agreement` is the rank correlation of one half of the samples with the other, by KL and by
    expected KL; None where there are too few samples for two chunks.
    """

    name: str
    level: str
    sensitivities: Sensitivities
    seconds: dict[str, float]
    agreement: tuple[float, float] | None
    params: int
    calibrator: str

    @property
    def gain(self) -> float:
        """How many times cheaper effort quick is than the oracle."""
        return self.seconds["oracle"] / (self.seconds["calibrate"] + self.seconds["lockstep"])

    def metric(self, key: str) -> list[float]:
        """A metric of the layers that can have the base precision, greater where more is lost."""
        sign = -1.0 if key.endswith("_db") else 1.0
        return [sign * each[key] for each in self._base.values()]

    def correlation(self, key: str, oracle: str = "oracle_kl_mnat") -> float:
        """Spearman's rank correlation of a metric with O1."""
        return float(spearmanr(self.metric(key), self.metric(oracle)).statistic)

    def order(self, key: str) -> list[str]:
        """The layers, the most sensitive first."""
        ranked = sorted(zip(self.metric(key), self._base, strict=True), key=lambda pair: -pair[0])
        return [name for _, name in ranked]

    @property
    def _base(self) -> dict[str, dict[str, float]]:
        layers = self.sensitivities.layers.items()
        return {name: each.candidates[BASE] for name, each in layers if BASE in each.candidates}


def subject_of(
    network: networks.Network,
    level: str = "fused",
    effort: str = "quick",
    precisions: str = PRECISIONS,
) -> Subject:
    """A network with its calibration samples, as `mlq sensitivity` has it."""
    recipe = resolve({"ir_level": level, "effort": effort, "precisions": precisions})
    specs = load(network.model, batch=1).sample_specs
    data = load_data(str(network.calib), specs, model_path=network.model)
    stages = Stages(visible=True)
    return Subject.of(network.model, data, targets.by_name("x86"), recipe, stages)


def measured(
    network: networks.Network,
    level: str = "fused",
    precisions: str = PRECISIONS,
    *,
    again: bool = False,
) -> Measured:
    """What is known of a network, measured if it is not."""
    tried = "" if precisions == PRECISIONS else f"-{precisions}"
    file = FOLDER / f"{network.name}-{level}{tried}.json"
    if again or not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        found = _measure(network, level, precisions)
        content = {**vars(found), "sensitivities": found.sensitivities.model_dump()}
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(content))
        partial.replace(file)
    content = json.loads(file.read_text())
    content["sensitivities"] = Sensitivities.model_validate(content["sensitivities"])
    return Measured(**content)


def _measure(network: networks.Network, level: str, precisions: str) -> Measured:
    subject = subject_of(network, level, precisions=precisions)
    seconds = dict[str, float]()
    simulation = analysis.simulate(subject, at_once=1)
    seconds["calibrate"], observations = _spent(lambda: analysis.observe(subject, simulation))
    choice = analysis.choose_ranges(subject, observations, simulation)
    # What is loaded once is left out.
    unchanged = [{}] * len(subject.recipe.reduced_precisions())
    next(simulation.lockstep(subject.batches(), choice.ranges, unchanged))
    seconds["lockstep"], found = _spent(
        lambda: analysis.measure(subject, observations, simulation, choice)
    )
    default = replace(subject, recipe=subject.recipe.model_copy(update={"effort": "default"}))
    seconds["default"], tried = _spent(
        lambda: analysis.measure(default, observations, simulation, choice)
    )
    seconds["few"] = seconds.pop("default") - seconds["lockstep"]
    seconds["oracle"], whole, agreement = _oracle(
        network, level, replace(found, sensitivities=tried.sensitivities)
    )
    return Measured(
        network.name,
        level,
        whole,
        seconds,
        agreement,
        sum(layer.params for layer in subject.network.layers),
        choice.ranges.calibrator,
    )


def _oracle(
    network: networks.Network, level: str, found: Analysis
) -> tuple[float, Sensitivities, tuple[float, float] | None]:
    """CPU seconds, sensitivities with O1, and how far halves of the samples agree."""
    known = found.sensitivities
    precisions = found.subject.recipe.precisions
    digest = network.fingerprint(level, precisions, found.choice.ranges.to_json())[:12]
    file = FOLDER / f"{network.name}-{level}-{digest}.journal"
    journal = Journal(file)
    before = len(journal)
    spent, whole = _spent(
        lambda: alone.try_alone(
            known,
            analysis.pairs(found),
            found.simulation,
            found.choice.ranges,
            found.observations.predictions,
            names=alone.ORACLE,
            journal=journal,
        )
    )
    fresh = len(journal) - before
    return spent * len(journal) / fresh if fresh else 0.0, whole, _agreement(file)


def _agreement(file: Path) -> tuple[float, float] | None:
    """Rank correlation of sums over even chunks with those over odd ones, by each of `_HALVED`."""
    halves: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for line in filter(None, file.read_text().split("\n")):
        (number, layer, precision), numbers = json.loads(line)
        half = halves[number % 2]
        if precision == BASE:
            half[layer] = half.get(layer, 0.0) + np.array(numbers)
    even, odd = halves
    if not odd:
        return None
    kl, expected = (
        float(spearmanr([even[each][key] for each in even], [odd[each][key] for each in even])[0])
        for key in map(alone.ORACLE.index, _HALVED)
    )
    return kl, expected


def _spent(call: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds of a call, and what it returned; what IREE compiles in it counts too."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def main() -> None:
    """Measure, and print how well each metric ranks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks (default: all)")
    parser.add_argument("--levels", default="fused", help="IR levels, with commas")
    parser.add_argument("--precisions", default=PRECISIONS, help=f"candidates ({PRECISIONS})")
    parser.add_argument("--again", action="store_true", help="measure what is known too")
    arguments: Any = parser.parse_args()
    for network in networks.find(arguments.names):
        for level in arguments.levels.split(","):
            found = measured(network, level, arguments.precisions, again=arguments.again)
            seconds = ", ".join(f"{part} {value:.1f}" for part, value in found.seconds.items())
            print(f"{network.name} at {level}: CPU s: {seconds}; oracle / quick {found.gain:.1f}")
            for name, key in METRICS.items():
                print(f"  {name:20}{found.correlation(key):6.2f}", flush=True)


if __name__ == "__main__":
    main()
