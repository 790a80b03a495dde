"""A whole network for CUDA without a GPU: its commands one by one, its PTX in the interpreter."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ptx
import pytest
from numpy.typing import NDArray

from mlq import devices, runtime
from mlq.errors import CompileError
from mlq.network import Transformed
from mlq.targets import iree
from mlq.targets.base import Target
from mlq.targets.hal import read_program
from mlq.targets.program import Dispatch, Fill, Span
from mlq.targets.refusals import first_error

Array = NDArray[Any]

# What a call does then stands in the function itself, as for programs without a runtime.
_FLAGS = (
    "--iree-hal-memoization=false",
    "--iree-hal-indirect-command-buffers=false",
    "--compile-to=hal",
)


class Network:
    """A LOWERED network, compiled for a card; `run` executes it, `executed` counts instructions."""

    def __init__(self, text: str, target: Target, weights: Mapping[str, Array]) -> None:
        vmfb = iree.compile_module(text, target, weights=weights)
        self.kernels = {k: v for each in ptx.modules(vmfb) for k, v in ptx.kernels(each).items()}
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder)
            iree.write_bytecode(here / iree.SOURCE, text, target, weights, embed=True)
            done = iree.attempt(here, (*target.iree_flags, *_FLAGS), "hal.mlir")
            if done.returncode:
                raise CompileError(first_error(done.stderr, done.returncode))
            self.program = read_program((here / "hal.mlir").read_text())
        self.executed: Counter[str] = Counter()

    def run(self, *inputs: Array) -> list[Array]:
        """Results of one call."""
        self._memory = [np.zeros(size, np.uint8) for size in self.program.sizes]
        for number, content in self.program.constants.items():
            self._memory[number][: len(content)] = np.frombuffer(content, np.uint8)
        for tensor, array in zip(self.program.inputs, inputs, strict=True):
            self._at(tensor.span)[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for command in self.program.commands:
            if isinstance(command, Dispatch):
                self._dispatch(command)
            elif isinstance(command, Fill):
                pattern = np.frombuffer(command.pattern, np.uint8)
                self._at(command.target)[:] = np.resize(pattern, command.target.length)
            else:
                self._at(command.target)[:] = self._at(command.source)
        return [
            self._at(each.span).view(each.dtype).reshape(each.shape)
            for each in self.program.outputs
        ]

    def _dispatch(self, command: Dispatch) -> None:
        kernel = self.kernels[command.kernel.replace("$", "_")]  # as PTX spells it
        spans = [self._at(each) for each in command.spans]
        self.executed += ptx.run(kernel, command.workgroups, spans, command.constants)

    def _at(self, span: Span) -> Array:
        return self._memory[span.buffer][span.offset : span.offset + span.length]


def computed(made: Transformed, target: Target, *inputs: Array) -> tuple[list[Array], Counter[str]]:
    """What a GPU's code makes of inputs, and the instructions that were interpreted for it.

    Vulkan's runs where there is a driver; elsewhere the test is skipped.
    """
    if target.device.driver == "cuda":
        network = Network(made.text, target, made.weights)
        return network.run(*inputs), network.executed
    if reason := devices.why_not_here(target):
        pytest.skip(reason)
    vmfb = iree.compile_module(made.text, target, weights=made.weights)
    return runtime.load(vmfb).run(*inputs), Counter()
