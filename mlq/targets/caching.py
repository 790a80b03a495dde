"""Results that are kept: the user's cache folder, least recently used out first."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_CACHE_BYTES = 2 << 30


def folder_of(override: Path | None = None) -> Path | None:
    """The folder of cached results; None where there shall be none."""
    if override is not None:
        return override
    chosen = os.environ.get("MLQ_CACHE", "")
    if chosen == "off":
        return None
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mlq"


def lookup(path: Path) -> bytes | None:
    """What was stored there, or None."""
    try:
        found = path.read_bytes()
        path.touch()  # the least recently used are the first to go
    except OSError:
        return None
    return found


def store(folder: Path, name: str, data: bytes) -> Path:
    """Put a file into the cache, whole or not at all; a cache that cannot be written is skipped."""
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
            file.write(data)
        Path(file.name).replace(path)
        prune(folder)
    except OSError:
        pass
    return path


def prune(folder: Path) -> None:
    """Delete what was not used for longest, until the rest is small enough."""
    files = [(path, path.stat()) for path in folder.iterdir() if path.is_file()]
    total = sum(stat.st_size for _, stat in files)
    for path, stat in sorted(files, key=lambda entry: entry[1].st_mtime):
        if total <= _CACHE_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size
