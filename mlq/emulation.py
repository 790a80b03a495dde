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
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlq import devices, runtime
from mlq.deployment import bare
from mlq.deployment.sources import EXECUTABLE, compile_command, program_files
from mlq.errors import DataError, TargetError
from mlq.targets.base import Target
from mlq.targets.caching import folder_of
from mlq.targets.device import Emulator
from mlq.targets.iree import compile_module, versions
from mlq.targets.program import Tensor
from mlq.targets.static import STATIC_LIBRARY, compile_program

Array = NDArray[Any]
_RUNTIME = "iree-base-runtime"
_TOOL = Path("iree", "_runtime_libs", "iree-run-module")
_SECONDS = 3600.0
# Any Python will do: what is taken out of the wheel is a program of its own.
_PYTHON = "3.11"


class Runner(Protocol):
    """What runs a compiled network, wherever that is."""

    def run(self, *arrays: Array) -> list[Array]:
        """Results of one call."""


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
        return build_program(text, target, weights)
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
            _run(command, here)
            return [np.load(here / f"out{index}.npy") for index in range(self.outputs)]


@dataclass(frozen=True)
class BuiltProgram:
    """A program without runtime, built by a C compiler; a process for each call."""

    folder: tempfile.TemporaryDirectory[str]
    emulator: Emulator | None
    outputs: Sequence[Tensor]
    inputs: Sequence[Tensor]

    def run(self, *arrays: Array) -> list[Array]:
        """Results of one call; DataError where inputs do not fit."""
        for index, (array, each) in enumerate(zip(arrays, self.inputs, strict=True)):
            if array.shape != each.shape or _stored(array.dtype) != _stored(np.dtype(each.dtype)):
                raise DataError(
                    f"input {index} is {array.dtype}{list(array.shape)}, the program takes"
                    f" {each.dtype}{list(each.shape)}"
                )
        results = self._called([array.tobytes() for array in arrays])
        return [
            np.frombuffer(result, each.dtype).reshape(each.shape).copy()
            for result, each in zip(results, self.outputs, strict=True)
        ]

    def _called(self, inputs: Sequence[bytes]) -> list[bytes]:
        here = Path(self.folder.name)
        given = [f"in{index}" for index in range(len(inputs))]
        made = [f"out{index}" for index in range(len(self.outputs))]
        for name, content in zip(given, inputs, strict=True):
            (here / name).write_bytes(content)
        played = [] if self.emulator is None else self.emulator.command
        _run([*played, f"./{EXECUTABLE}", *given, *made], here)
        return [(here / name).read_bytes() for name in made]


def _stored(dtype: np.dtype[Any]) -> str:
    """What a program distinguishes of element types: integers have no sign in memory."""
    return dtype.str.replace("u", "i")


@dataclass(frozen=True)
class BareProgram(BuiltProgram):
    """The same on a machine without an operating system, of which there is one for each call."""

    def _called(self, inputs: Sequence[bytes]) -> list[bytes]:
        return self.counted(inputs)[1]

    def counted(self, inputs: Sequence[bytes]) -> tuple[int, list[bytes]]:
        """How many instructions one call takes, and its results; TargetError if it does not end."""
        here = Path(self.folder.name)
        bare.write_disk(here, b"".join(inputs))
        assert self.emulator is not None
        command = [self.emulator.program, "-q", "-f", bare.CONFIGURATION]
        found = bare.results(_ran(command, here, b"c\n").stdout)
        if found is None or found[0]:
            log = (here / bare.LOG).read_text(errors="replace") if found is None else ""
            said = next((line for line in log.splitlines() if "PANIC" in line), f"{found}")
            raise TargetError(f"{self.emulator.program}: the network was stopped: {said.strip()}")
        _, taken, rest = found
        made = []
        for each in self.outputs:
            size = prod(each.shape) * np.dtype(each.dtype).itemsize
            made.append(rest[:size])
            rest = rest[size:]
        return taken, made


def build_program(text: str, target: Target, weights: Mapping[str, Array]) -> BuiltProgram:
    """LOWERED text as a program without runtime, built here; TargetError says what is missing."""
    command = compile_command(target)
    if shutil.which(command[0]) is None:
        raise TargetError(f"{target.name} cannot be linked here: {_install_compiler(target)}")
    program = compile_program(text, target, weights)
    folder = tempfile.TemporaryDirectory(prefix="mlq-")
    emulator = target.device.emulator if devices.why_not_here(target) else None
    files, here = program_files(program, target), Path(folder.name)
    on_bare = emulator is not None and emulator.bare
    if emulator is not None and emulator.bare:
        files |= bare.files(*emulator.arguments)
    for name, content in files.items():
        (here / name).write_bytes(content.encode() if isinstance(content, str) else content)
    if on_bare:
        bare.build(here, command[0], lambda each: _run(each, here))
    else:
        _run(command, here)
    made = BareProgram if on_bare else BuiltProgram
    return made(folder, emulator, program.outputs, program.inputs)


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
    if emulator is None or (emulator.bare and not _is_kind(target)):
        return native
    if shutil.which(emulator.program) is None:
        return f"{native}, and there is no {emulator.program}; install {emulator.package}"
    if emulator.least_version and _major_version(emulator.program) < emulator.least_version:
        return f"{native}; it takes {emulator.program} {emulator.least_version} or newer"
    if emulator.sysroot and not any(Path(emulator.sysroot).glob("lib*/ld-*")):
        return f"{native}; {emulator.program} needs its C library; install {emulator.library}"
    if not emulator.wheel and shutil.which(emulator.compiler) is None:
        return f"{native}; {_install_compiler(target)}"
    return ""


def _is_kind(target: Target) -> bool:
    """Whether this machine is of the target's kind, whatever its CPU lacks."""
    return platform.machine().lower() in target.device.machines


@cache
def _major_version(program: str) -> int:
    done = subprocess.run(  # noqa: S603 -- our own command, no shell
        [program, "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"version (\d+)", done.stdout)
    return int(found[1]) if found else 0


def _install_compiler(target: Target) -> str:
    emulator = target.device.emulator
    if emulator is None:
        return "there is no C compiler; install gcc"
    return f"there is no {emulator.compiler}; install {emulator.compiler_package}"


def _run(command: Sequence[str], folder: Path) -> bytes:
    """The output of a command run in a folder; TargetError with what it said if it fails."""
    done = _ran(command, folder)
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.decode(errors="replace").splitlines()
    said = next((line for line in lines if line.strip()), "nothing")
    died = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    raise TargetError(f"{Path(command[0]).name} failed ({died}), saying: {said.strip()[:300]}")


def _ran(
    command: Sequence[str], folder: Path, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """A command that ran in a folder, `given` something to read, whether or not it failed."""
    try:
        return subprocess.run(  # noqa: S603 -- our own command, no shell
            command, cwd=folder, input=given, capture_output=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        hours = _SECONDS / 3600
        raise TargetError(f"{Path(command[0]).name} was stopped after {hours:g} hours") from None
