"""How long each kernel of a module takes on this CPU, by IREE's own profiler."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
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
_LEAST_CALLS, _MOST_CALLS = 20, 200


def profile(
    text: str, compiled: Callable[[], bytes], inputs: Sequence[Array], *, macs: int
) -> Mapping[str, float]:
    """Microseconds of one call by kernel, of the module that `compiled` makes of LOWERED `text`.

    A kernel's time is the least that any of its dispatches took, times how often a call needs it:
    what else the machine does only adds to it. It does not depend on weights, so it is cached by
    the text; the module is not compiled then. TargetError where the profiler does not run.
    """
    folder, name = caching.folder_of(), f"{_key(text)}.kernels.json"
    if folder is not None and (known := caching.lookup(folder / name)) is not None:
        found: Mapping[str, float] = json.loads(known)
        return found
    enough = int(_NS / (_NS_PER_MAC * max(macs, 1)))
    calls = max(_LEAST_CALLS, min(enough, _MOST_CALLS))
    times = _measured(compiled(), inputs, calls)
    if folder is not None:
        caching.store(folder, name, json.dumps(times).encode())
    return times


def _key(text: str) -> str:
    """What decides how long kernels take: their code, the CPU, the compiler."""
    machine = repr((cpu_model(), sorted(cpu_features()), sorted(versions().items())))
    return hashlib.sha256(machine.encode() + text.encode()).hexdigest()


def _measured(vmfb: bytes, inputs: Sequence[Array], calls: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mlq-") as temporary:
        folder = Path(temporary)
        (folder / "module.vmfb").write_bytes(vmfb)
        for index, array in enumerate(inputs):
            np.save(folder / f"{index}.npy", array)
        command = ["--module=module.vmfb", "--function=main", "--device=local-sync"]
        command += [f"--input=@{index}.npy" for index in range(len(inputs))]
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
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TargetError(f"{tool} cannot time the module: {said}; use --costs table")
    return done.stdout
