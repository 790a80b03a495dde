"""A function executed op by op for all samples at once, so that a layer can be changed midway.

What a layer is changed by is what it reads when all layers before it are as they will be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from mlq.dialect import build, functions, layers
from mlq.reference import Machine

Array = NDArray[Any]


class Pass:
    """What a function makes of some batches, up to a layer; weights are those of `store`.

    A value is gone when the last op that reads it was executed.
    """

    def __init__(
        self, function: Any, batches: Sequence[Sequence[Array]], store: Mapping[str, Array]
    ) -> None:
        block = functions.body_of(function)
        self._ops, self._next = functions.ops_of(function), 0
        self._machines = [Machine(store) for _ in batches]
        for machine, batch in zip(self._machines, batches, strict=True):
            machine.values.update(zip(block.arguments, batch, strict=True))
        self._last = {
            value: place
            for place, op in enumerate(block.operations)
            for value in op.operation.operands
        }

    def before(self, layer: str) -> Any:
        """Execute what stands before the layer called so; returns its op."""
        while True:
            op = self._ops[self._next]
            if layers.is_layer(op) and build.name_of(op) == layer:
                return op
            for machine in self._machines:
                results = machine.execute(op)
                machine.values.update(zip(op.operation.results, results, strict=True))
                for value in op.operation.operands:
                    if self._last[value] == self._next:
                        machine.values.pop(value, None)
            self._next += 1

    def read(self, value: Any) -> list[Array]:
        """A value that is still to be read, in each batch."""
        return [machine.values[value] for machine in self._machines]

    def replace(self, value: Any, array: Array) -> None:
        """Let what reads the value read `array`."""
        for machine in self._machines:
            machine.values[value] = array
