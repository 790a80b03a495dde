"""What stays an ONNX node after raising: float, through IREE's own import, and why."""

from __future__ import annotations

from collections.abc import Iterable

from torch_mlir.ir import Operation

from mlq.dialect.locations import names_of
from mlq.transforms.base import Skip
from mlq.transforms.cleaning import ops_of
from mlq.transforms.raising.node import kind_of


def float_nodes(module: Operation, skips: Iterable[Skip]) -> tuple[Skip, ...]:
    """The ONNX nodes left in a module, each with the last reason that a pass gave for it."""
    reasons = {skipped.location: skipped.reason for skipped in skips}
    found = []
    for op in ops_of(module):
        kind = kind_of(op)
        if kind is None or kind == "Constant":
            continue
        name = ", ".join(names_of(op.location)) or str(op.location)
        reason = reasons.get(str(op.location), "this IR level leaves it as it is")
        found.append(Skip(f"onnx.{kind}", name, reason))
    return tuple(found)
