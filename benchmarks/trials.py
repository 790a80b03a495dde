"""Measure every configuration of a space on the networks: mlq's own trials.

    python benchmarks/trials.py [NETWORK ...] [--space NAME] [--samples N] [--limit N] [--ship]
    python benchmarks/trials.py [NETWORK ...] --forecast

The space is Quantune's with 96 points, or `full` with 1080, of which those 96 come first.

One line of JSON per trial is added to benchmarks/out/trials/NETWORK.jsonl; the first line describes
the network. A run that was stopped goes on where it ended, whatever stopped it; one process per
network may run at a time. Calibration counts are 1, a quarter of the calibration samples and all of
them (at most 1, 128 and 512); accuracy and KL are over all evaluation samples, or N of them; no
trial is stopped early.

`--ship` then copies what is complete, without what only analyses need (which samples are right), to
mlq/tuning/data, from where `mlq tune` learns, and adds the forecast of each configuration: noise
and identity, for which nothing is run but the float network. `--forecast` makes only these again,
for the trials that are shipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import networks

from mlq import targets
from mlq.frontends.data import load_data
from mlq.network import load
from mlq.tuning import history
from mlq.tuning.features import describe
from mlq.tuning.measurement import Measurement
from mlq.tuning.objective import Objective
from mlq.tuning.racing import pack
from mlq.tuning.space import SPACES, Configuration, configuration

OUT = networks.OUT / "trials"
# What no surrogate learns from.
ANALYSED = {"hits", "float_hits", "seconds"}


def main() -> None:
    """Measure one network after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=["all"])
    parser.add_argument("--space", choices=tuple(SPACES), default="quantune96")
    parser.add_argument("--samples", type=int, help="evaluate on so many samples (default: all)")
    parser.add_argument("--limit", type=int, help="stop after so many new trials per network")
    parser.add_argument("--ship", action="store_true", help="copy what is complete to mlq's data")
    parser.add_argument("--forecast", action="store_true", help="forecasts of what is shipped")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    for network in networks.find(arguments.networks):
        shipped = history.SHIPPED / f"{network.name}.jsonl"
        if arguments.forecast:
            ship(network, shipped, shipped)
            continue
        path = OUT / f"{network.name}.jsonl"
        missing = measure(
            network, path, arguments.space, samples=arguments.samples, limit=arguments.limit
        )
        if arguments.ship and not missing:
            ship(network, path, shipped)


def ship(network: networks.Network, source: Path, destination: Path) -> None:
    """Copy a network's trials without what a prior has no use for, and with their forecasts."""
    head, *rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    forecasts = objective_of(network, samples=1).forecasts
    rows = [{**row, **forecasts.of(configuration(row)).row} for row in rows]
    kept = [
        {key: shortened(row[key]) for key in row if key not in ANALYSED} for row in (head, *rows)
    ]
    lines = [json.dumps(row, separators=(",", ":")) + "\n" for row in kept]
    destination.parent.mkdir(exist_ok=True)
    destination.write_text("".join(lines), encoding="utf-8")
    print(f"{destination.relative_to(networks.ROOT)}: {len(kept) - 1} trials")


def shortened(value: Any) -> Any:
    """A number with six digits that count, wherever it stands."""
    if isinstance(value, dict):
        return {key: shortened(each) for key, each in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def measure(
    network: networks.Network, path: Path, space: str, *, samples: int | None, limit: int | None
) -> int:
    """Add what is missing of one network's trials to its file; how many are missing still."""
    objective = objective_of(network, samples=samples)
    available = objective.calib.samples
    spaces = [SPACES[name].fitted(available).points() for name in ("quantune96", space)]
    points = tuple(dict.fromkeys(point for each in spaces for point in each))
    done = read(path)
    missing = [point for point in points if point not in done]
    print(f"{network.name}: {len(points) - len(missing)} of {len(points)} trials are there")
    left = len(missing)
    if not (missing := missing[:limit]):
        return left
    with path.open("a", encoding="utf-8") as file:
        if not path.stat().st_size:
            write(file, head(network, objective))
        for number, point in enumerate(missing, start=1):
            found = objective.measure(point)
            write(file, trial(point, found, objective.predicted_us(point)))
            print(
                f"  {number}/{len(missing)} {point}: lost {found.lost_points:.2f} points,"
                f" KL {found.kl_mnat:.2f} mnat, {found.seconds:.1f} s",
                flush=True,
            )
    return left - len(missing)


def objective_of(network: networks.Network, *, samples: int | None) -> Objective:
    """What measures a network on its samples; so many of those held out."""
    loaded = load(network.model)
    specs = loaded.sample_specs
    calib = load_data(network.calib, specs, model_path=network.model)
    held_out = load_data(network.eval, specs, model_path=network.model, samples=samples)
    return Objective(loaded, calib, held_out, targets.by_name("x86"))


def head(network: networks.Network, objective: Objective) -> dict[str, Any]:
    """The first line of a file: the network, in float."""
    hits = objective.reference.hits(objective.data.samples)
    return {
        "model": network.name,
        "sha256": objective.network.model.sha256,
        "calibration_samples": objective.calib.samples,
        "evaluation_samples": objective.data.samples,
        "float_top1": float(hits.mean()),
        "float_hits": pack(hits),
        "features": describe(objective.network, objective.observations(objective.calib.samples)),
    }


def trial(point: Configuration, found: Measurement, us: float) -> dict[str, Any]:
    """One line: the configuration and what it did; `hits` tells right from wrong, bit by bit."""
    return {
        **point.knobs,
        "top1": found.accuracy,
        "agreement": found.agreement,
        "kl_mnat": found.kl_mnat,
        "predicted_us": us,
        "seconds": float(f"{found.seconds:.3f}"),
        "hits": pack(found.hits),
    }


def read(path: Path) -> set[Configuration]:
    """What a file already has; a last line that a kill cut short is taken off it."""
    if not path.exists():
        return set()
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return {configuration(json.loads(line)) for line in whole.splitlines()[1:]}


def write(file: Any, line: dict[str, Any]) -> None:
    """Add a line, and see that it is on disk."""
    file.write(json.dumps(line, sort_keys=True) + "\n")
    file.flush()


if __name__ == "__main__":
    main()
