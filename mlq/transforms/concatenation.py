"""Chains of concatenations: an op joins two tensors, and many are joined by ops in a row."""

from __future__ import annotations

from torch_mlir.ir import BlockArgument, Value

from mlq.dialect.ops import ConcatOp


def parts_of(op: ConcatOp) -> list[Value]:
    """What is joined: an operand that another concat made for this one alone is taken apart."""
    parts: list[Value] = []
    waiting = [op.rhs, op.lhs]
    while waiting:
        side = waiting.pop()
        owner = None if isinstance(side, BlockArgument) else side.owner.opview
        if isinstance(owner, ConcatOp) and is_continued(owner):
            waiting += [owner.rhs, owner.lhs]
        else:
            parts.append(side)
    return parts


def is_continued(op: ConcatOp) -> bool:
    """Whether all that reads the result is one concat, along the same axis."""
    users = [use.owner.opview for use in op.output.uses]
    if len(users) != 1 or not isinstance(users[0], ConcatOp):
        return False
    return bool(users[0].axis.value == op.axis.value)
