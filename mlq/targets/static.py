"""Compiles a program that needs no runtime: kernels as an object file, and the calls of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mlq.errors import CompileError, TargetError
from mlq.targets import caching
from mlq.targets.base import Target
from mlq.targets.hal import read_program
from mlq.targets.iree import (
    SOURCE,
    attempt,
    input_flags,
    key_of,
    write_bytecode,
)
from mlq.targets.program import Program
from mlq.targets.refusals import first_error

STATIC_LIBRARY = "static-library"
_OBJECT, _PHASE = "kernels.o", "hal.mlir"
_FLAGS = (
    "--iree-llvmcpu-link-embedded=false",
    "--iree-llvmcpu-link-static",
    f"--iree-llvmcpu-static-library-output-path={_OBJECT}",
    # What a call does stands in the function itself, with the buffers it does it to.
    "--iree-hal-memoization=false",
    "--iree-hal-indirect-command-buffers=false",
    "--compile-to=hal",
)


def compile_program(
    text: str | bytes, target: Target, weights: Mapping[str, NDArray[Any]]
) -> Program:
    """Compile LOWERED text with its weights; CompileError if IREE refuses or sizes are not known.

    The function must be called `main`.
    """
    if STATIC_LIBRARY not in target.formats:
        raise TargetError(f"{target.name} has no static library; formats: {_listed(target)}")
    flags = (*target.iree_flags, *input_flags(text), *_FLAGS)
    key = key_of(text, flags, target, weights, embed=True)
    phase, kernels = _compiled(text, target, weights, flags, key)
    return replace(read_program(phase.decode()), kernels=kernels)


def _listed(target: Target) -> str:
    return ", ".join(target.formats)


def _compiled(
    text: str | bytes,
    target: Target,
    weights: Mapping[str, NDArray[Any]],
    flags: tuple[str, ...],
    key: str,
) -> tuple[bytes, bytes]:
    """The program at the end of phase `hal`, and the kernels; from the cache if they are there."""
    folder = caching.folder_of()
    names = (f"{key}.hal.mlir", f"{key}.o")
    if folder is not None:
        found = [caching.lookup(folder / name) for name in names]
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
    with tempfile.TemporaryDirectory(prefix="mlq-") as temporary:
        here = Path(temporary)
        write_bytecode(here / SOURCE, text, target, weights, embed=True)
        done = attempt(here, flags, _PHASE)
        if done.returncode:
            reason = first_error(done.stderr, done.returncode)
            raise CompileError(f"IREE cannot compile the module for {target.name}: {reason}")
        made = (here / _PHASE).read_bytes(), (here / _OBJECT).read_bytes()
    if folder is not None:
        for name, content in zip(names, made, strict=True):
            caching.store(folder, name, content)
    return made
