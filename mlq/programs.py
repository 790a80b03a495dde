"""Networks as programs without runtime: built by a C compiler, run on this machine or emulated."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import devices
from mlq.deployment import bare_metal
from mlq.deployment.sources import EXECUTABLE, Files, compile_command, program_files
from mlq.errors import DataError, TargetError
from mlq.targets.base import Target
from mlq.targets.device import Emulator
from mlq.targets.program import Tensor
from mlq.targets.static import compile_program

Array = NDArray[Any]
_SECONDS = 3600.0


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

    def twins(self, _count: int) -> list[BuiltProgram]:
        """This one alone: calls share a folder."""
        return [self]

    def _called(self, inputs: Sequence[bytes]) -> list[bytes]:
        here = Path(self.folder.name)
        given = [f"in{index}" for index in range(len(inputs))]
        made = [f"out{index}" for index in range(len(self.outputs))]
        for name, content in zip(given, inputs, strict=True):
            (here / name).write_bytes(content)
        played = [] if self.emulator is None else self.emulator.command
        run([*played, f"./{EXECUTABLE}", *given, *made], here)
        return [(here / name).read_bytes() for name in made]


def _stored(dtype: np.dtype[Any]) -> str:
    """What a program distinguishes of element types: integers have no sign in memory."""
    return dtype.str.replace("u", "i")


@dataclass(frozen=True)
class BareMetalProgram(BuiltProgram):
    """The same on a machine without an operating system, of which there is one for each call."""

    def _called(self, inputs: Sequence[bytes]) -> list[bytes]:
        return self.counted(inputs)[1]

    def counted(self, inputs: Sequence[bytes]) -> tuple[int, list[bytes]]:
        """How many instructions one call takes, and its results; TargetError if it does not end."""
        here = Path(self.folder.name)
        bare_metal.write_disk(here, b"".join(inputs))
        assert self.emulator is not None
        command = [self.emulator.program, "-q", "-f", bare_metal.CONFIGURATION]
        found = bare_metal.results(_ran(command, here, b"c\n").stdout)
        if found is None or found[0]:
            log = (here / bare_metal.LOG).read_text(errors="replace") if found is None else ""
            said = next((line for line in log.splitlines() if "PANIC" in line), f"{found}")
            raise TargetError(f"{self.emulator.program}: the network was stopped: {said.strip()}")
        _, taken, rest = found
        made = []
        for each in self.outputs:
            size = prod(each.shape) * np.dtype(each.dtype).itemsize
            made.append(rest[:size])
            rest = rest[size:]
        return taken, made


def build_program(
    text: str, target: Target, weights: Mapping[str, Array], *, emulated: bool = False
) -> BuiltProgram:
    """LOWERED text as a program without runtime, built here; TargetError says what is missing.

    It is run by this machine's CPU if that can, unless it is to be `emulated` all the same.
    """
    command = compile_command(target)
    if shutil.which(command[0]) is None:
        raise TargetError(f"{target.name} cannot be linked here: {install_compiler(target)}")
    program = compile_program(text, target, weights)
    folder = tempfile.TemporaryDirectory(prefix="mlq-")
    emulated = emulated or bool(devices.why_not_here(target))
    emulator = target.device.emulator if emulated else None
    here, made = Path(folder.name), (folder, emulator, program.outputs, program.inputs)
    _write(here, program_files(program, target))
    if emulator is not None and emulator.bare_metal:
        _write(here, bare_metal.files(*emulator.arguments))
        bare_metal.build(here, command[0], lambda each: run(each, here))
        return BareMetalProgram(*made)
    run(command, here)
    return BuiltProgram(*made)


def _write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def install_compiler(target: Target) -> str:
    """What to install so that programs for a target can be linked."""
    emulator = target.device.emulator
    if emulator is None:
        return "there is no C compiler; install gcc"
    return f"there is no {emulator.compiler}; install {emulator.compiler_package}"


def run(command: Sequence[str], folder: Path) -> bytes:
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
