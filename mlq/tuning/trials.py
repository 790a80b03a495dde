"""Trials that were measured before: read from files, and left out where their network is tuned."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlq.errors import DataError
from mlq.tuning.space import Configuration, configuration

# Columns of a CSV file that are no features of the network.
_TRIAL_COLUMNS = {
    "model",
    "samples",
    "scheme",
    "clipping",
    "granularity",
    "mixed",
    "top1",
    "float_top1",
}


@dataclass(frozen=True)
class Forecast:
    """What is known of a configuration before its trial, by mlq.tuning.forecasts.

    `noise` by name, in octaves; configurations of one `identity` compute the same network. Both
    are empty where nothing is known.
    """

    noise: Mapping[str, float] = field(default_factory=dict)
    identity: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Forecast:
        """What a line of JSON says; lines that mlq wrote formerly say nothing."""
        noise = {name: float(value) for name, value in row.get("noise", {}).items()}
        return cls(noise, str(row.get("identity", "")))

    @property
    def row(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """A configuration of one network, its loss (what a tuner makes small) and predicted time."""

    model: str
    configuration: Configuration
    loss: float
    us: float | None = None
    forecast: Forecast = field(default_factory=Forecast)


@dataclass(frozen=True)
class Trials:
    """Trials of some networks, and the features of each."""

    trials: tuple[Trial, ...] = ()
    features: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """The networks, in the order of their first trials."""
        return tuple(dict.fromkeys(each.model for each in self.trials))

    def of(self, model: str) -> tuple[Trial, ...]:
        """The trials of one network."""
        return tuple(each for each in self.trials if each.model == model)

    def without(self, model: str) -> Trials:
        """What may be known when `model` is tuned: the trials of the others."""
        return replace(self, trials=tuple(each for each in self.trials if each.model != model))


def read(paths: Iterable[Path], *, loss: str = "accuracy") -> Trials:
    """Trials from files: `.csv` as Quantune's were published, or `.jsonl` as mlq writes them.

    `loss` is `accuracy` (the points lost against float) or `kl` (milli-nats; `.jsonl` only).
    DataError names the file and the line that cannot be read.
    """
    trials: list[Trial] = []
    features: dict[str, Mapping[str, float]] = {}
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as trials: {error}") from None
        found = _from_csv(path, text) if path.suffix == ".csv" else _from_jsonl(path, text, loss)
        trials.extend(found.trials)
        features.update(found.features)
    return Trials(tuple(trials), features)


def identity(path: Path) -> str | None:
    """The SHA-256 of the network whose trials a `.jsonl` holds; None where it does not say."""
    try:
        with path.open(encoding="utf-8") as file:
            found = json.loads(file.readline())["sha256"]
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return str(found)


def _from_csv(path: Path, text: str) -> Trials:
    """Column `clipping` is the calibrator; `mixed` is 1 where first and last layer are float."""
    trials: list[Trial] = []
    features: dict[str, Mapping[str, float]] = {}
    rows = csv.DictReader(text.splitlines())
    try:
        for row in rows:
            mixed = "ends" if int(row["mixed"]) else "none"
            samples = int(row["samples"])
            knobs = {**row, "samples": samples, "calibrator": row["clipping"], "mixed": mixed}
            lost = float(row["float_top1"]) - float(row["top1"])
            trials.append(Trial(row["model"], configuration(knobs), lost))
            facts = {name: row[name] for name in row.keys() - _TRIAL_COLUMNS}
            features[row["model"]] = {name: float(value) for name, value in facts.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, rows.line_num, error) from None
    return Trials(tuple(trials), features)


def _from_jsonl(path: Path, text: str, loss: str) -> Trials:
    """The first line describes the network; a trial stands on each of the others."""
    trials: list[Trial] = []
    head: dict[str, Any] = {}
    number = 0
    try:
        for line in text.splitlines():
            number += 1
            row = json.loads(line)
            if not head:
                head = {key: row[key] for key in ("model", "float_top1", "features")}
                continue
            lost = row["kl_mnat"] if loss == "kl" else 100 * (head["float_top1"] - row["top1"])
            us, forecast = row.get("predicted_us"), Forecast.of(row)
            trials.append(Trial(head["model"], configuration(row), lost, us, forecast))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, number, error) from None
    return Trials(tuple(trials), {head["model"]: head["features"]} if head else {})


def _unreadable(path: Path, line: int, error: Exception) -> DataError:
    what = f"{type(error).__name__}: {error}"
    return DataError(f"{path}: line {line} is no trial ({what}); take it out, or measure it again")
