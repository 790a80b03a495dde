"""Other machines' code on this one: under a user-mode emulator, by IREE's runtime or without it.

What is emulated computes the same results, bit for bit; how long it takes says nothing.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlq import devices, programs, runtime
from mlq.errors import TargetError
from mlq.programs import install_compiler, run
from mlq.targets.base import Target
from mlq.targets.caching import folder_of
from mlq.targets.device import Emulator
from mlq.targets.iree import compile_module, versions
from mlq.targets.static import STATIC_LIBRARY, compile_program

Array = NDArray[Any]
_RUNTIME = "iree-base-runtime"
_TOOL = Path("iree", "_runtime_libs", "iree-run-module")
# Any Python will do: what is taken out of the wheel is a program of its own.
_PYTHON = "3.11"


class Runner(Protocol):
    """What runs a compiled network, wherever that is."""

    def run(self, *arrays: Array) -> list[Array]:
        """Results of one call."""

    def twins(self, count: int) -> Sequence[Runner]:
        """So many for as many threads, this one first; fewer where they cannot run at once."""


def why_not_at_all(target: Target) -> str:
    """Why nothing for `target` runs on this machine, not even emulated; empty if it does."""
    native = devices.why_not_here(target)
    return native and _why_not_emulated(target, native)


def where(target: Target) -> str:
    """What runs a target's code here: a device's name, or an emulator's command."""
    if not devices.why_not_here(target):
        return devices.device_name(target)
    emulator = target.device.emulator
    return "" if emulator is None else emulator.plays


def load(
    text: str,
    target: Target,
    weights: Mapping[str, Array],
    *,
    outputs: int,
    threads: int = 1,
) -> Runner:
    """LOWERED text compiled for a target and ready to run here, emulated if that is the only way.

    `outputs` is the number of its results. TargetError says why where there is no way.
    """
    if not devices.why_not_here(target):
        vmfb = compile_module(text, target, weights=weights, embed=True)
        return runtime.load(vmfb, threads=threads)
    if reason := why_not_at_all(target):
        raise TargetError(f"{target.name} cannot run here: {reason}")
    emulator = target.device.emulator
    assert emulator is not None
    if not emulator.wheel:
        return programs.build_program(text, target, weights)
    vmfb = compile_module(text, target, weights=weights, embed=True)
    return EmulatedModule(vmfb, emulator, outputs)


def compiled_bytes(text: str, target: Target, weights: Mapping[str, Array]) -> int:
    """The size of what is compiled for a target: a module, or what is linked without runtime."""
    if target.formats == (STATIC_LIBRARY,):
        return len(compile_program(text, target, weights).kernels)
    return len(compile_module(text, target, weights=weights, embed=True))


@dataclass(frozen=True)
class EmulatedModule:
    """A module run by IREE's runtime for its machine, a process for each call."""

    vmfb: bytes = field(repr=False)
    emulator: Emulator
    outputs: int

    def run(self, *arrays: Array) -> list[Array]:
        """Results of one call; integers without sign, as `runtime.Executable.run` gives them."""
        tool = runtime_tool(self.emulator.wheel)
        with tempfile.TemporaryDirectory(prefix="mlq-") as temporary:
            here = Path(temporary)
            (here / "model.vmfb").write_bytes(self.vmfb)
            for index, array in enumerate(arrays):
                np.save(here / f"in{index}.npy", array)
            command = [*self.emulator.command, str(tool), "--device=local-sync"]
            command += ["--module=model.vmfb", "--function=main"]
            command += [f"--input=@in{index}.npy" for index in range(len(arrays))]
            command += [f"--output=@out{index}.npy" for index in range(self.outputs)]
            run(command, here)
            return [np.load(here / f"out{index}.npy") for index in range(self.outputs)]

    def twins(self, count: int) -> list[EmulatedModule]:
        """So many for as many threads: each call has a folder of its own."""
        return [self] * count


def runtime_tool(platform_tag: str) -> Path:
    """IREE's command for another platform, taken from its wheel once and kept with cached results.

    TargetError where there is no way to fetch it.
    """
    version = versions()[_RUNTIME]
    kept = (folder_of() or Path(tempfile.gettempdir()) / "mlq-runtimes") / "runtimes"
    folder = kept / f"{version}-{platform_tag}"
    tool = folder / _TOOL
    if tool.is_file():
        return tool
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as temporary:
        fetched = Path(temporary, "wheel")
        fetched.mkdir()
        _fetch(fetched, f"{_RUNTIME}=={version}", platform_tag)
        (fetched / _TOOL).chmod(0o755)
        if not tool.is_file():  # another process may have been first
            fetched.rename(folder)
    return tool


def _fetch(folder: Path, requirement: str, platform_tag: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", requirement]
    command += ["--only-binary=:all:", "--platform", platform_tag, "--python-version", _PYTHON]
    done = subprocess.run(  # noqa: S603 -- our own command, no shell
        [*command, "--dest", str(folder)], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = next((each for each in done.stderr.splitlines() if "ERROR" in each), "no wheel")
        raise TargetError(f"cannot fetch {requirement} for {platform_tag}: {said}")
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extract(_TOOL.as_posix(), folder)
    wheels[0].unlink()


def _why_not_emulated(target: Target, native: str) -> str:
    """Why no emulator helps; `native` is why it does not run by itself."""
    emulator = target.device.emulator
    if emulator is None or (emulator.bare_metal and not _is_kind(target)):
        return native
    if shutil.which(emulator.program) is None:
        return f"{native}, and there is no {emulator.program}; install {emulator.package}"
    if emulator.least_version and _major_version(emulator.program) < emulator.least_version:
        return f"{native}; it takes {emulator.program} {emulator.least_version} or newer"
    if emulator.sysroot and not any(Path(emulator.sysroot).glob("lib*/ld-*")):
        return f"{native}; {emulator.program} needs its C library; install {emulator.library}"
    if not emulator.wheel and shutil.which(emulator.compiler) is None:
        return f"{native}; {install_compiler(target)}"
    return ""


def _is_kind(target: Target) -> bool:
    """Whether this machine is of the target's kind, whatever its CPU lacks."""
    return platform.machine().lower() in target.device.machines


@cache
def _major_version(program: str) -> int:
    done = subprocess.run(  # noqa: S603 -- our own command, no shell
        [program, "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"(?:version|Emulator) (\d+)", done.stdout)
    return int(found[1]) if found else 0
