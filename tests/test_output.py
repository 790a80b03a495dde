"""The output folder appears whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlq import output
from mlq.errors import UsageError

OLD = {"manifest.json": "old", "model.vmfb": b"old"}
NEW = {"manifest.json": "new", "model.vmfb": b"new", "stages/00-imported.mlir": "module {}"}

# Python tells of each step that it takes on files; at step N the process kills itself.
KILLED = """
import os, signal, sys
from pathlib import Path
from mlq import output
folder, deadline = Path(sys.argv[1]), int(sys.argv[2])
steps = 0
def step(event, args):
    global steps
    if event.startswith(("open", "os.", "shutil.", "tempfile.", "ctypes.")):
        steps += 1
        if steps == deadline:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(step)
output.write(folder, {new})
"""


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def raw(files: dict[str, str | bytes]) -> dict[str, bytes]:
    return {k: v.encode() if isinstance(v, str) else v for k, v in sorted(files.items())}


def test_a_new_folder_holds_what_was_written(tmp_path: Path) -> None:
    output.write(tmp_path / "a" / "out", NEW)
    assert contents(tmp_path / "a" / "out") == raw(NEW)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


def test_an_old_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    output.write(tmp_path / "out", {**OLD, "extra": "x"})
    output.write(tmp_path / "out", NEW)
    assert contents(tmp_path / "out") == raw(NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_replacing_works_where_names_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_exchange", lambda *_: False)
    test_an_old_folder_is_replaced_as_a_whole(tmp_path)


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    output.write(tmp_path / "out", OLD)
    with pytest.raises(TypeError):
        output.write(tmp_path / "out", {"manifest.json": "new", "model.vmfb": 7})  # type: ignore[dict-item]  # what fails
    assert contents(tmp_path / "out") == raw(OLD)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(sys.platform != "linux", reason="two names are exchanged at once on Linux only")
@pytest.mark.parametrize("before", [None, OLD], ids=["none", "old"])
def test_kill_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, before: dict[str, str | bytes] | None
) -> None:
    script = KILLED.replace("{new}", repr(NEW))
    folder, step, code = tmp_path / "out", 0, -9
    seen = set()
    while code == -9:
        step += 1
        if before is not None:
            output.write(folder, before)
        done = subprocess.run([sys.executable, "-c", script, folder, str(step)], check=False)
        code = done.returncode
        found = contents(folder) if folder.exists() else None
        assert found in (None if before is None else raw(before), raw(NEW)), f"after step {step}"
        seen.add(found == raw(NEW))
        if before is None and found is not None:
            break
    assert step > len(NEW)
    assert seen == {True, False}


def test_what_mlq_did_not_write_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="did not write; give a new folder"):
        output.write(tmp_path, NEW)
    assert contents(tmp_path) == {"mine.txt": b"mine"}
    with pytest.raises(UsageError, match="is a file; give a folder"):
        output.check_replaceable(tmp_path / "mine.txt")


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    output.write(tmp_path / "out", NEW)
    assert contents(tmp_path / "out") == raw(NEW)


def test_arrays_are_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "y.npz"
    output.write_arrays(path, {"y": np.arange(3)})
    with np.load(path) as found:
        assert found["y"].tolist() == [0, 1, 2]
    assert [each.name for each in path.parent.iterdir()] == ["y.npz"]
