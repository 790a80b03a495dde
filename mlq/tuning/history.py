"""What is known before a network is tuned: mlq's own trials, and those the user has made since.

mlq's are package data. A user's are files beside each other, one for each network and data: in the
folder that MLQ_TRIALS names, by default the user's data folder; MLQ_TRIALS=off keeps none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mlq.tuning.outcomes import Outcome
from mlq.tuning.space import Configuration
from mlq.tuning.trials import Forecast, Trials, identity, read

SHIPPED = Path(__file__).resolve().parent / "data"
_SUFFIX = ".jsonl"


def folder() -> Path | None:
    """Where the user's own trials are; None where none are to be kept."""
    chosen = os.environ.get("MLQ_TRIALS", "")
    if chosen == "off":
        return None
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "mlq" / "trials"


def known(sha256: str, *, loss: str) -> Trials:
    """All trials but those of the network with this hash, whatever it is called there.

    DataError names the file that cannot be read.
    """
    own = folder()
    folders = [SHIPPED, *([own] if own is not None else [])]
    files = [file for each in folders for file in sorted(each.glob(f"*{_SUFFIX}"))]
    return read([file for file in files if identity(file) != sha256], loss=loss)


class Subject(NamedTuple):
    """What was tuned: a network's name and hash, and a hash of it with its samples."""

    name: str
    sha256: str
    whole: str


def keep(
    subject: Subject,
    features: Mapping[str, float],
    outcomes: Sequence[Outcome],
    forecasts: Callable[[Configuration], Forecast] = lambda _configuration: Forecast(),
) -> Path | None:
    """Write a network's trials for later ones to learn from, with what was known before them.

    Those that were stopped early are among them: an estimate says well enough how they rank. Float
    is as right as on the most samples that any of them saw.
    A file that cannot be written is done without: what was tuned is worth more than its record.
    """
    own = folder()
    if own is None:
        return None
    most = max(outcomes, key=lambda each: each.samples, default=None)
    float_accuracy = 0.0 if most is None else most.accuracy + most.lost_points / 100.0
    head = {
        "model": f"{subject.name} {subject.sha256[:8]}",
        "sha256": subject.sha256,
        "float_top1": float_accuracy,
        "features": dict(features),
    }
    rows = [
        {
            **each.configuration.knobs,
            "top1": float_accuracy - each.lost_points / 100.0,
            "kl_mnat": each.kl_mnat,
            "predicted_us": each.predicted_us,
            **forecasts(each.configuration).row,
        }
        for each in outcomes
    ]
    path = own / f"{subject.name}-{subject.whole[:12]}{_SUFFIX}"
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        own.mkdir(parents=True, exist_ok=True)
        part.write_text("".join(json.dumps(row) + "\n" for row in (head, *rows)), encoding="utf-8")
        part.replace(path)
    except OSError:
        return None
    return path
