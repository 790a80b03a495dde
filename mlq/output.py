"""The output folder: it appears complete or not at all, and replaces another only when finished."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlq.errors import UsageError

# A folder that mlq wrote has this file; only such a folder may be replaced.
MANIFEST = "manifest.json"
# Of Linux's fcntl.h and fs.h.
_HERE, _RENAME_EXCHANGE = -100, 2


def check_replaceable(folder: Path) -> None:
    """UsageError if `folder` is something that mlq did not write; better before an hour's work."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: is a file; give a folder with -o")
    if any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise UsageError(f"{folder}: holds files that mlq did not write; give a new folder with -o")


def write(folder: Path, files: Mapping[str, bytes | str]) -> None:
    """Write all `files` (relative names) to `folder`, or, if anything fails, none of them."""
    check_replaceable(folder)
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        for name, content in files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.chmod(0o755)
        _swap(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, folder: Path) -> None:
    """Put `partial` in the place of `folder`; what stood there is then in `partial`."""
    if not folder.exists():
        partial.rename(folder)
        return
    if _exchange(partial, folder):
        return
    # Where two names cannot be exchanged at once, a kill between these lines leaves both folders,
    # neither under its name.
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old-", dir=folder.parent)) / folder.name
    folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old.parent, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step (Linux's renameat2); False where that is not to be had."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(_HERE, bytes(one), _HERE, bytes(other), _RENAME_EXCHANGE) == 0)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an `.npz`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        prefix=f".{path.name}.", dir=path.parent, delete=False
    ) as stream:
        partial = Path(stream.name)
        try:
            np.savez(stream, **arrays)
            stream.close()
            partial.chmod(0o644)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
