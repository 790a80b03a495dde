"""Trials on a Dask cluster: a real one, whose workers are killed while they measure."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mlq import judge, tuner
from mlq.errors import UsageError
from mlq.tuning import cluster
from mlq.tuning.settings import Settings
from mlq.tuning.space import Configuration

dask = pytest.importorskip("dask", reason="needs mlq[dask]")
distributed = pytest.importorskip("distributed", reason="needs mlq[dask]")

POINT = Configuration(8, "symmetric", "minmax", "per_tensor", "none")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "_SECONDS", 0.2)
    monkeypatch.setenv("MLQ_TRIALS", "off")


@pytest.fixture(scope="module")
def local() -> Any:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as made:
        yield made


def task(demo: Path) -> cluster.Task:
    return cluster.Task(
        model=demo / "digits.onnx",
        calib=demo / "digits-calib.npz",
        eval=str(demo / "digits-eval.npz"),
        target="x86",
    )


def test_a_worker_measures_what_this_process_would(local: Any, demo: Path) -> None:
    address = local.scheduler_address
    with cluster.opened(task(demo), "a", address=address, workers=1) as (measuring, jobs):
        stopped = measuring.measure(POINT, lambda hits, _kl: len(hits) >= 20)
        found = measuring.measure(POINT)
    here = task(demo).objective().measure(POINT)
    assert jobs == 2
    assert (found.hits == here.hits).all()
    assert found.kl_mnat == here.kl_mnat
    assert stopped.samples == 20


def test_trials_outlive_their_workers(local: Any, demo: Path, tmp_path: Path) -> None:
    """Every worker is killed once while it measures; no trial is lost, none measured twice."""
    killed: list[int] = []

    def kill(stop: threading.Event) -> None:
        with distributed.Client(local) as client:
            while not stop.wait(0.1):
                if len(killed) == 2:
                    # On a busy machine Dask gives up on a worker that starts too slowly.
                    local.scale(2)
                    continue
                busy = [w for w, tasks in client.processing().items() if tasks]
                for worker in busy[:1]:
                    (pid,) = client.run(os.getpid, workers=[worker]).values()
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    stop = threading.Event()
    killer = threading.Thread(target=kill, args=(stop,))
    killer.start()
    try:
        found = tuner.tune(
            demo / "digits.onnx",
            demo / "digits-calib.npz",
            demo / "digits-eval.npz",
            work=tmp_path / "work",
            sampler="random",
            trials=12,
            scheduler=local.scheduler_address,
        )
    finally:
        stop.set()
        killer.join()
    tuning = found.result.report.tuning
    assert tuning is not None
    points = [tuple(each.model_dump().values())[1:6] for each in tuning.trials]
    assert killed
    assert len(points) >= 12
    assert len(set(points)) == len(points)


def test_workers_of_our_own_come_back(demo: Path) -> None:
    """As where Dask gives up on one that starts too slowly."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}),
        cluster.opened(task(demo), "c", address=None, workers=1) as (measuring, _),
    ):
        ours = measuring._client.cluster
        for worker in list(ours.workers.values()):
            ours.sync(worker.close)
        assert measuring.measure(POINT).samples > 0


def test_a_scheduler_without_workers_is_named(demo: Path) -> None:
    said, started = list[str](), list[subprocess.Popen[bytes]]()

    def say(line: str) -> None:
        said.append(line)
        command = shlex.split(line.partition("waiting for one: ")[2])
        dask_worker = [sys.executable, "-m", "dask", *command[1:], "--no-dashboard"]
        started.append(subprocess.Popen(dask_worker, stderr=subprocess.DEVNULL))

    with distributed.LocalCluster(
        n_workers=0, dashboard_address=":0", silence_logs=50
    ) as scheduler:
        address = scheduler.scheduler_address
        try:
            with cluster.opened(task(demo), "d", address=address, say=say) as (measuring, jobs):
                assert jobs == 1
                started[0].terminate()
                started[0].wait(60)
                assert measuring.measure(POINT).samples > 0
        finally:
            for process in started:
                process.kill()
    assert len(said) == 2
    assert said[0].startswith(f"{address}: has no worker; ")


def test_workers_of_our_own_share_the_processors(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that together they run as many samples side by side as one process would alone."""
    monkeypatch.setattr("mlq.parallel.processors", lambda: 6)
    alone = task(demo)
    assert alone.objective()._at_once == 6
    with cluster.opened(alone, "d", address=None, workers=2) as (measuring, jobs):
        assert jobs == 2
        assert measuring._task.objective()._at_once == 3


def test_workers_of_our_own(demo: Path) -> None:
    found = tuner.tune(
        demo / "digits.onnx",
        demo / "digits-calib.npz",
        demo / "digits-eval.npz",
        sampler="random",
        trials=4,
        workers=2,
    )
    assert found.result.report.tuning is not None
    assert 4 <= len(found.result.report.tuning.trials) <= 5


def test_a_scheduler_that_does_not_answer_is_named(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_TIMEOUT", 1)
    start = time.monotonic()
    with (
        pytest.raises(UsageError, match=r"tcp://127\.0\.0\.1:9: no Dask scheduler answers there"),
        cluster.opened(task(demo), "a", address="tcp://127.0.0.1:9", workers=1),
    ):
        pass
    assert time.monotonic() - start < 30


def test_workers_and_a_scheduler_are_one_too_many() -> None:
    with pytest.raises(UsageError, match="give --workers or --scheduler"):
        Settings.of({"workers": 2, "scheduler": "tcp://127.0.0.1:8786"})
