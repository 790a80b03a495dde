"""A study in PostgreSQL, which many machines can share: on a real server, made for the test."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState
from test_tuning import finished, start

from mlq.errors import UsageError
from mlq.tuning import study as studies
from mlq.tuning.sampler import sampler
from mlq.tuning.space import SPACES

pytest.importorskip("psycopg", reason="needs mlq[postgresql]")


def _as_nobody() -> dict[str, object]:
    """How to start a program that refuses to run as root."""
    if os.getuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that listens on a socket in a folder of its own."""
    programs = {name: shutil.which(name) for name in ("initdb", "pg_ctl")}
    if missing := [name for name, path in programs.items() if path is None]:
        pytest.skip(f"PostgreSQL is not installed: {missing[0]} is not to be found")
    with tempfile.TemporaryDirectory(prefix="mlq-pg-") as folder:
        data, log = Path(folder, "data"), Path(folder, "log")
        if not os.getuid():
            shutil.chown(folder, "nobody")
        options = {"cwd": folder, "capture_output": True, "text": True, **_as_nobody()}
        make = [programs["initdb"], "-D", data, "-U", "mlq", "-A", "trust", "--no-sync"]
        run = [programs["pg_ctl"], "-D", data, "-l", log, "-w", "-o"]
        run += [f"-k {folder} -c listen_addresses='' -c fsync=off", "start"]
        for command in (make, run):
            done = subprocess.run(command, check=False, **options)
            if done.returncode:
                pytest.skip(f"PostgreSQL does not start: {done.stderr or done.stdout}")
        yield f"postgresql+psycopg://mlq@/postgres?host={folder}"
        stop = [programs["pg_ctl"], "-D", data, "-m", "immediate", "stop"]
        subprocess.run(stop, check=True, **options)


def test_processes_share_a_study_in_postgresql(server: str) -> None:
    workers = [start(server, seed, 20) for seed in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    found = finished(server)
    assert 20 <= len(found) <= 22
    assert all(each.state in (TrialState.COMPLETE, TrialState.PRUNED) for each in found)


def test_a_killed_process_leaves_its_trials_in_postgresql(server: str) -> None:
    before = len(finished(server))
    worker = start(server, 5, 96)
    while len(finished(server)) < before + 3:
        assert worker.poll() is None
    worker.kill()
    worker.wait()
    kept = finished(server)
    assert start(server, 5, len(kept) + 2).wait() == 0
    again = finished(server)
    assert len(again) >= len(kept) + 2
    assert [each.params for each in again[: len(kept)]] == [each.params for each in kept]


def test_a_server_that_is_not_there_is_named() -> None:
    address = "postgresql+psycopg://mlq@127.0.0.1:9/none"
    with pytest.raises(UsageError, match="cannot be opened as a study"):
        studies.open_study(address, "net", sampler("grid", SPACES["quantune96"]))
