"""How long each kernel of a module takes on this CPU, by IREE's own profiler."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import devices
from mlq.errors import TargetError
from mlq.targets import caching
from mlq.targets.host import cpu_features, cpu_model
from mlq.targets.iree import versions

Array = NDArray[Any]

# A call takes about so many nanoseconds for each multiply-accumulate; calls fill about a second.
_NS_PER_MAC, _NS = 0.05, 1e9
_LEAST_CALLS, _MOST_CALLS = 21, 201
_ROUNDS = 3

Times = Mapping[str, float]
"""Microseconds of one call by kernel."""


class Profile:
    """How long each kernel takes in each of some programs that are to be compared.

    A kernel's time is the least that any of its dispatches took, times how often a call needs it:
    what else the machine does only adds to it, and may go on for seconds, so programs take turns.
    It does not depend on weights, so it is cached by the text; the module is not compiled then.
    Those that are, are compiled side by side, from when they are added.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1)
        self._folder = caching.folder_of()
        self._names: list[str] = []
        self._known: dict[int, Times] = {}
        self._compiled: dict[int, Future[bytes]] = {}

    def add(self, text: str, compiled: Callable[[], bytes]) -> None:
        """One more program: its LOWERED text, and what makes a module of it."""
        name, i = f"{_key(text)}.kernels.json", len(self._names)
        kept = None if self._folder is None else caching.lookup(self._folder / name)
        self._names.append(name)
        if kept is None:
            self._compiled[i] = self._pool.submit(compiled)
        else:
            self._known[i] = json.loads(kept)

    def times(
        self,
        inputs: Sequence[Array],
        *,
        macs: int,
        advance: Callable[[int], None] = lambda _programs: None,
    ) -> list[Times]:
        """The times of all programs that were added; a call of one takes about so many `macs`.

        TargetError where the profiler does not run.
        """
        enough = int(_NS / (_NS_PER_MAC * max(macs, 1)))
        calls = max(_LEAST_CALLS, min(enough, _MOST_CALLS)) // _ROUNDS
        with self._pool:
            found = _measured(self._vmfbs(advance), inputs, calls)
        for i, times in zip(self._compiled, found, strict=True):
            self._known[i] = times
            if self._folder is not None:
                caching.store(self._folder, self._names[i], json.dumps(times).encode())
        return [self._known[i] for i in range(len(self._names))]

    def cancel(self) -> None:
        """Compile nothing that was not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _vmfbs(self, advance: Callable[[int], None]) -> Iterator[bytes]:
        advance(len(self._known))
        for each in self._compiled.values():
            yield each.result()
            advance(1)


def _key(text: str) -> str:
    """What decides how long kernels take: their code, the CPU, the compiler."""
    machine = repr((cpu_model(), sorted(cpu_features()), sorted(versions().items())))
    return hashlib.sha256(machine.encode() + text.encode()).hexdigest()


def _measured(
    vmfbs: Iterable[bytes], inputs: Sequence[Array], calls: int
) -> list[dict[str, float]]:
    """The least times of some modules, of so many calls of each in each round."""
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="mlq-") as temporary:
        folder = Path(temporary)
        for index, array in enumerate(inputs):
            np.save(folder / f"{index}.npy", array)
        for index, vmfb in enumerate(vmfbs):
            (folder / f"{index}.vmfb").write_bytes(vmfb)
            found.append(defaultdict(lambda: math.inf))
        for _, (index, least) in product(range(_ROUNDS), enumerate(found)):
            times = _once(folder, index, len(inputs), calls)
            least.update((kernel, min(us, least[kernel])) for kernel, us in times.items())
    return found


def _once(folder: Path, module: int, inputs: int, calls: int) -> dict[str, float]:
    """Microseconds of one call of a module by kernel, of so many calls in a row."""
    command = [f"--module={module}.vmfb", "--function=main", "--device=local-sync"]
    command += [f"--input=@{index}.npy" for index in range(inputs)]
    command += [f"--benchmark_min_time={calls}x", "--device_profiling_mode=host-execution"]
    command += ["--device_profiling_output=profile.ireeprof"]
    _run("iree-benchmark-module", command, folder)
    report = _run("iree-profile", ["dispatch", "--format=jsonl", "profile.ireeprof"], folder)
    groups = [json.loads(line) for line in report.splitlines()]
    return {
        each["key"]: each["min_ns"] / 1e3 * each["count"] / calls
        for each in groups
        if each["type"] == "host_dispatch_group"
    }


def _run(tool: str, arguments: Sequence[str], folder: Path) -> str:
    command = [str(devices.tool(tool)), *arguments]
    done = subprocess.run(  # noqa: S603 -- our own command, no shell
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [each for each in done.stderr.splitlines() if each and "WARNING" not in each]
        said = lines[-1] if lines else f"it ended with {done.returncode}"
        raise TargetError(f"{tool} cannot time the module: {said}; use --costs table")
    return done.stdout
