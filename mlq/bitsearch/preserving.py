"""Where a search lives while it runs: a folder beside OUT, of one subject, taken up when found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from mlq.bitsearch.exploring import TRACE
from mlq.errors import PlanError
from mlq.search.running import STATE, VISITS

WEIGHTS = "weights.npz"
_SUBJECT = "subject.json"
_CARRIED = (STATE, VISITS, TRACE, _SUBJECT)


def opened(out: Path, subject: Mapping[str, object]) -> Path:
    """The folder that a search into `out` works in; PlanError if it is of another subject.

    What a finished search left in `out` is taken up too, so that one can be made longer.
    """
    out = out.absolute()
    folder = out.with_name(f".{out.name}.searching")
    found = next((each for each in (folder, out) if (each / _SUBJECT).exists()), None)
    if found is not None:
        _check(found / _SUBJECT, subject, remove=found)
    if found == out:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _CARRIED:
            shutil.copyfile(out / name, folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SUBJECT).write_text(json.dumps(dict(subject), sort_keys=True), encoding="utf-8")
    return folder


def kept_files(folder: Path) -> dict[str, bytes]:
    """What the finished search hands on to OUT."""
    return {name: (folder / name).read_bytes() for name in _CARRIED}


def close(folder: Path) -> None:
    """Remove the folder of a search that is written to OUT."""
    shutil.rmtree(folder)


def _check(file: Path, subject: Mapping[str, object], *, remove: Path) -> None:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        known = {}
    wanted = json.loads(json.dumps(dict(subject)))
    differing = sorted(key for key in wanted if known.get(key) != wanted[key])
    if differing:
        raise PlanError(
            f"{remove}: holds a search with another {', '.join(differing)}; remove it, or give "
            "another folder with -o"
        )
