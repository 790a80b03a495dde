"""What rewrites leave behind: bridges there and back, and ops that nothing uses."""

from __future__ import annotations

from torch_mlir.dialects import func
from torch_mlir.ir import Operation, OpView

from mlq.dialect import bridge
from mlq.dialect.functions import body_of
from mlq.transforms.base import walk

# A torch.operator may have any effect as far as MLIR knows; an ONNX node has none.
_WITHOUT_EFFECT = ("mlq.", "torch_c.", "torch.constant.")


def clean(module: Operation) -> None:
    """Cancel pairs of bridges and erase unused ops of functions, ONNX nodes among them."""
    for op in ops_of(module):
        if op.operation.name in {bridge.FROM, bridge.TO}:
            bridge.cancel(op)
    for op in reversed(ops_of(module)):
        if _has_no_effect(op) and not any(list(r.uses) for r in op.operation.results):
            op.operation.erase()


def ops_of(module: Operation) -> list[OpView]:
    """The ops that stand directly in functions, in order; a list, so that they may be erased."""
    functions = walk(module, func.FuncOp)
    return [op for function in functions for op in body_of(function).operations]


def _has_no_effect(op: OpView) -> bool:
    operation = op.operation
    if operation.name == "torch.operator":
        return str(operation.attributes["name"]).startswith('"onnx.')
    return bool(operation.results) and operation.name.startswith(_WITHOUT_EFFECT)
