"""The artifact against the reference: every stored integer, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import emulation, network
from mlq.network import Transformed
from mlq.report import DeviceCheck
from mlq.targets.base import Target
from mlq.transforms.pipelines import lowering
from mlq.variant import Variant

Array = NDArray[Any]
DTYPES = {"u8": np.uint8, "i8": np.int8, "u16": np.uint16, "i16": np.int16, "i32": np.int32}
"""Storage of a tensor, as mlq-expose names it, to what numpy calls it."""


@dataclass(frozen=True)
class Exposed:
    """A quantized network that returns every named tensor as it is stored, after its results."""

    made: Transformed
    _lowered: dict[str, Transformed] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, quantized: Transformed) -> Exposed:
        """From a module at contract QUANTIZED."""
        made = network.transform(quantized.text, quantized.weights, "mlq-expose", generic=False)
        return cls(made)

    @property
    def tensors(self) -> list[tuple[str, ...]]:
        """Name and storage of each tensor, in the network's order."""
        return self.made.notes["mlq.exposed"]

    def on(self, target: Target, *, outputs: int) -> emulation.Runner:
        """Compiled for a target, ready to run; `outputs` are those of the network itself."""
        lowered = self.lower(target)
        results = outputs + len(self.tensors)
        return emulation.load(lowered.text, target, lowered.weights, outputs=results)

    def compiled_bytes(self, target: Target) -> int:
        """The size of what is compiled for a target that need not run here."""
        lowered = self.lower(target)
        return emulation.compiled_bytes(lowered.text, target, lowered.weights)

    def lower(self, target: Target) -> Transformed:
        """LOWERED for a target; what several share is made once."""
        pipeline = lowering(target.features)
        if pipeline not in self._lowered:
            made = network.transform(self.made.text, self.made.weights, pipeline)
            self._lowered[pipeline] = made
        return self._lowered[pipeline]

    def named(self, results: Sequence[Array]) -> dict[str, Array]:
        """The tensors among the results, by name, integers with their sign."""
        kept = results[len(results) - len(self.tensors) :]
        return {
            name: array.view(DTYPES.get(kind, array.dtype))
            for (name, kind), array in zip(self.tensors, kept, strict=True)
        }


class DeviceChecks:
    """Checks of quantized networks on a device, compiled beside whatever else is done.

    `outputs` are those of the networks themselves.
    """

    def __init__(self, target: Target, *, outputs: int) -> None:
        self._target, self._outputs = target, outputs
        self._pool = ThreadPoolExecutor(1)
        self._begun: list[tuple[Transformed, Exposed, Future[emulation.Runner]]] = []

    def begin(self, quantized: Transformed) -> None:
        """Start to compile the network that returns its tensors."""
        exposed = Exposed.of(quantized)
        exposed.lower(self._target)
        runner = self._pool.submit(exposed.on, self._target, outputs=self._outputs)
        self._begun.append((quantized, exposed, runner))

    def run(self, variant: Variant, inputs: Sequence[Array]) -> DeviceCheck:
        """Run a network that was begun on the device, and each of its layers in numpy too.

        Every layer is computed from the very tensors that the device fed it, so a difference is its
        own. The greatest one is in steps of the storage (LSB); float results are not compared here.
        """
        with self._pool:  # nothing is compiled any more when it returns
            begun = (each for each in self._begun if each[0] is variant.quantized)
            _, exposed, runner = next(begun)
            found = exposed.named(runner.result().run(*inputs))
        expected = network.compute(exposed.made, inputs, found)
        stored = [name for name, kind in exposed.tensors if kind in DTYPES and name in expected]
        worst = max((difference(found[name], expected[name]) for name in stored), default=0)
        return DeviceCheck(
            device=emulation.where(self._target),
            layers=len(stored),
            samples=len(inputs[0]),
            max_abs_diff_lsb=worst,
        )


def difference(found: Array, expected: Array) -> int:
    """The greatest distance of two tensors of integers."""
    return int(np.abs(found.astype(np.int64) - expected.astype(np.int64)).max(initial=0))
