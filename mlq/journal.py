"""Measurements written down as they are made, so that a run that was killed goes on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mlq.targets.caching import folder_of, prune

Key = Sequence[str | int]


class Journal:
    """Numbers by key, one JSON line each in a file; without a file they are only kept in memory.

    The file is a cache: a line that cannot be read, as a kill leaves one, is measured again.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known = dict(filter(None, map(_read, _lines(file))))

    @property
    def is_kept(self) -> bool:
        """Whether another process will find it."""
        return self._file is not None

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, key: Key, measure: Callable[[], Iterable[float]]) -> list[float]:
        """The numbers under `key`; what is not known is measured and written down."""
        name = json.dumps(list(key))
        if name not in self._known:
            self._known[name] = numbers = [float(each) for each in measure()]
            if self._file is not None:
                with self._file.open("a", encoding="utf-8") as file:
                    # A line of its own, even after one that a kill cut short.
                    file.write(f"\n{json.dumps([list(key), numbers])}\n")
        return self._known[name]


def cached(*identity: str | bytes) -> Journal:
    """The journal in mlq's cache of what `identity` says; in memory where there is no cache."""
    folder = folder_of()
    if folder is None:
        return Journal()
    digest = hashlib.sha256()
    for part in identity:
        data = part.encode() if isinstance(part, str) else part
        digest.update(hashlib.sha256(data).digest())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prune(folder)
    except OSError:
        return Journal()
    return Journal(folder / f"{digest.hexdigest()}.journal")


def _read(line: str) -> tuple[str, list[float]] | None:
    """Key and numbers of a line, or None if they were not written to its end."""
    try:
        key, numbers = json.loads(line)
        return json.dumps(key), [float(each) for each in numbers]
    except (ValueError, TypeError):
        return None


def _lines(file: Path | None) -> list[str]:
    if file is None or not file.exists():
        return []
    return file.read_text(encoding="utf-8", errors="replace").splitlines()
