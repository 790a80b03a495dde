"""Trials on other processes and machines: a Dask cluster measures, this process chooses.

The study stays here. A worker makes an objective of its own when the first trial reaches it; what a
worker that died was at is measured by another one, which is Dask's work.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mlq import targets
from mlq.errors import MlqError, UsageError
from mlq.frontends.data import Samples, load_data
from mlq.network import load
from mlq.tuning.measurement import Measurement, Racing, never
from mlq.tuning.objective import Objective
from mlq.tuning.space import Configuration

# Seconds until a scheduler that does not answer is given up.
_TIMEOUT = 10
# Seconds between looks at whether somebody wants to stop.
_POLL = 0.5
# A worker's one objective (by its task), and who may use it: it is not for two threads at once.
_MADE: dict[str, Objective] = {}
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Task:
    """What is to be tuned, in a form that travels; paths mean the same on every machine.

    `tolerance` is how well the KL of a trial is to be known, in milli-nats; 0: over all samples.
    So many `processes` measure at once on one machine.
    """

    model: Path
    calib: Samples = field(repr=False)
    eval: Samples = field(repr=False)
    target: str
    preprocess: Path | None = None
    seed: int = 0
    sizes: str = ""
    outputs: str = ""
    tolerance: float = 0.0
    processes: int = 1

    def absolute(self) -> Task:
        """The same for a process that runs in another folder."""
        there = {name: _absolute(getattr(self, name)) for name in ("calib", "eval", "preprocess")}
        return replace(self, model=self.model.absolute(), **there)

    def objective(self) -> Objective:
        """Read network and samples, and be ready to measure."""
        network = load(self.model, sizes=self.sizes, outputs=self.outputs)
        opened = partial(
            load_data,
            inputs=network.sample_specs,
            preprocess=self.preprocess,
            model_path=self.model,
            seed=self.seed,
        )
        return Objective(
            network,
            opened(self.calib),
            opened(self.eval),
            targets.by_name(self.target),
            seed=self.seed,
            tolerance=self.tolerance,
            processes=self.processes,
        )


class Cluster:
    """Measures as an objective does, wherever a worker is free; for use from many threads.

    `attend` is called again and again while there is no result: it sees that there are workers.
    """

    def __init__(self, client: Any, task: Task, key: str, attend: Callable[[], object]) -> None:
        self._client, self._task, self._key = client, task.absolute(), key
        self._attend, self._stopped = attend, threading.Event()

    def stop(self) -> None:
        """Give up what is being measured; each caller gets a KeyboardInterrupt."""
        self._stopped.set()

    def prepare(self) -> None:
        """Have a worker compile; others take what it made, or compile for their first trial."""
        self._call(_prepare)

    def measure(self, configuration: Configuration, racing: Racing = never) -> Measurement:
        """Evaluate a configuration on a worker."""
        found: Measurement = self._call(_measure, configuration, racing)
        return found

    def predicted_us(self, configuration: Configuration) -> float:
        """Microseconds of a call in a configuration, which may take a worker a pass."""
        found: float = self._call(_predicted_us, configuration)
        return found

    def _call(self, function: Any, *arguments: Any) -> Any:
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError
        from distributed.comm import CommClosedError

        future = self._client.submit(function, self._key, self._task, *arguments, pure=False)
        try:
            return self._result(future)
        except KilledWorker as error:
            raise MlqError(
                f"a trial ended {error.allowed_failures + 1} workers; look at their logs, memory is"
                " the usual reason"
            ) from None
        except (FutureCancelledError, CommClosedError):
            raise MlqError("the Dask scheduler went away; start it, and tune again") from None

    def _result(self, future: Any) -> Any:
        """What a worker found, whenever that is: until then there may be no worker at all."""
        from distributed import TimeoutError as NotYet

        while not self._stopped.is_set():
            with suppress(NotYet):
                return future.result(timeout=_POLL)
            self._attend()
        future.cancel()
        raise KeyboardInterrupt


@dataclass
class _WorkerCheck:
    """Says, once each time, that a scheduler has no worker left."""

    client: Any
    address: str
    say: Callable[[str], object]
    said: bool = False

    def __call__(self) -> None:
        missing = not self.client.nthreads()
        if missing and not self.said:
            self.say(
                f"{self.address}: has no worker; waiting for one: dask worker {self.address}"
                " --nthreads 1"
            )
        self.said = missing


@contextmanager
def opened(
    task: Task,
    key: str,
    *,
    address: str | None,
    workers: int = 1,
    say: Callable[[str], object] = lambda _line: None,
) -> Iterator[tuple[Any, int]]:
    """A cluster, and how many trials it runs at once: the scheduler's at `address`, or one of ours.

    `key` names the task; `say` is told of what the user has to mend. UsageError where Dask is
    missing or nothing answers.
    """
    try:
        from distributed import LocalCluster
        from distributed import TimeoutError as NotYet
    except ImportError:
        raise UsageError(
            "spreading trials needs dask; install it with: pip install 'mlq[dask]'"
        ) from None
    attend: Callable[[], object]
    with ExitStack() as stack:
        if address is None:
            ours = LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50
            )
            stack.enter_context(ours)
            # On a busy machine Dask gives up on those that start too slowly.
            attend = partial(ours.scale, workers)
            task = replace(task, processes=workers)
        client = stack.enter_context(_client(address or ours))
        if address is not None:
            attend = _WorkerCheck(client, address, say)
        made = Cluster(client, task, key, attend)
        stack.enter_context(_stopping(made, client, whole=address is None))
        attend()
        while not client.nthreads():
            with suppress(NotYet):
                client.wait_for_workers(1, timeout=_POLL)
            attend()
        yield made, max(sum(client.nthreads().values()), 1)


def _client(scheduler: Any) -> Any:
    """A client of a cluster, or of the scheduler at an address."""
    from distributed import Client

    try:
        return Client(scheduler, timeout=_TIMEOUT)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{scheduler}: no Dask scheduler answers there ({reason}); give an address such as"
            " tcp://host:8786"
        ) from None


@contextmanager
def _stopping(measuring: Cluster, client: Any, *, whole: bool) -> Iterator[None]:
    """Let Ctrl-C end what waits for workers, and, if they are ours, let them not hear it."""
    from distributed import WorkerPlugin

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    class Deaf(WorkerPlugin):  # type: ignore[misc]  # Dask has no types here
        def setup(self, worker: Any) -> None:
            del worker
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    if whole:
        client.register_plugin(Deaf())

    def stop(_signal: int, _frame: Any) -> None:
        measuring.stop()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _prepare(key: str, task: Task) -> None:
    with _ONE_AT_A_TIME:
        _objective(key, task).prepare()


def _predicted_us(key: str, task: Task, configuration: Configuration) -> float:
    with _ONE_AT_A_TIME:
        return _objective(key, task).predicted_us(configuration)


def _measure(key: str, task: Task, configuration: Configuration, racing: Racing) -> Measurement:
    with _ONE_AT_A_TIME:
        return _objective(key, task).measure(configuration, racing)


def _objective(key: str, task: Task) -> Objective:
    """The objective of a task; only the last one's is kept."""
    if key not in _MADE:
        _MADE.clear()
        _MADE[key] = task.objective()
    return _MADE[key]


def _absolute(source: Any) -> Any:
    """A path made absolute; what is none (`random:N`, arrays) as it is."""
    if isinstance(source, Path) or (isinstance(source, str) and Path(source).exists()):
        return Path(source).absolute()
    return source
