"""A function executed op by op for all samples at once, so that a layer can be changed midway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from mlq.dialect import build, functions, layers
from mlq.reference import Machine

Array = NDArray[Any]


class Pass:
    """What a function makes of some batches, up to a layer; weights are those of `store`."""

    def __init__(
        self, function: Any, batches: Sequence[Sequence[Array]], store: Mapping[str, Array]
    ) -> None:
        self._ops, self._machines = functions.ops_of(function), [Machine(store) for _ in batches]
        for machine, batch in zip(self._machines, batches, strict=True):
            machine.values.update(zip(functions.body_of(function).arguments, batch, strict=True))
        self._last = {value: op for op in self._ops for value in op.operation.operands}

    def before(self, layer: str) -> Any:
        """Execute what stands before the layer called so; returns its op.

        A value is gone when the last op that reads it was executed.
        """
        while not (layers.is_layer(op := self._ops[0]) and build.name_of(op) == layer):
            done = [value for value in set(op.operation.operands) if self._last[value] is op]
            for machine in self._machines:
                results = machine.execute(op)
                machine.values.update(zip(op.operation.results, results, strict=True))
                for value in done:
                    del machine.values[value]
            del self._ops[0]
        return op

    def read(self, value: Any) -> list[Array]:
        """A value that is still to be read, in each batch."""
        return [machine.values[value] for machine in self._machines]

    def replace(self, value: Any, array: Array) -> None:
        """Let what reads the value read `array`."""
        for machine in self._machines:
            machine.values[value] = array
