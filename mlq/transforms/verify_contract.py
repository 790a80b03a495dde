"""Check that a module is what the stage it claims to have reached promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch_mlir.ir import Operation, OpView, Type

from mlq.dialect import build, quant
from mlq.dialect.ops import DequantizeOp, QuantizeOp, WeightOp
from mlq.errors import DiagnosticError
from mlq.precision import one_of
from mlq.transforms.base import Pass, option, register_pass, walk

IREE = ("util", "stream", "hal", "flow", "iree_linalg_ext")
# Ops that make no activation, so that no report or plan speaks of them.
_NAMELESS = (WeightOp.OPERATION_NAME, "mlq.observe", "mlq.compare")

Complaints = Iterator[tuple[OpView, str]]


@register_pass
class VerifyContract(Pass):
    """Raise an error at the first op that breaks the contract of a stage; change nothing.

    imported: ONNX nodes, weights and bridges between them only. graph: registered dialects only,
    and each op of mlq that makes an activation has a name of its own. quantized: besides, no
    weight is quantized at run time, and nothing is dequantized only to be quantized again.
    lowered: no op of mlq is left, and no quantized type.

    Before:
        func.func @f(%x: tensor<2xf32>) -> tensor<2xf32> {
          %y = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<2xf32>) -> tensor<2xf32>
          return %y : tensor<2xf32>
        }
    Options:
        stage=graph
    After:
        func.func @f(%x: tensor<2xf32>) -> tensor<2xf32> {
          %y = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<2xf32>) -> tensor<2xf32>
          return %y : tensor<2xf32>
        }
    """

    name = "mlq-verify-contract"
    stage: str = option("graph", help="imported, graph, quantized or lowered")

    def run(self, module: Operation) -> None:
        check = CONTRACTS[one_of(tuple(CONTRACTS), self.stage, "stage")]
        for op, complaint in check(walk(module)):
            raise DiagnosticError(op, f"{complaint} (contract {self.stage.upper()})")


def _imported(ops: list[OpView]) -> Complaints:
    for op in ops:
        name = op.operation.name
        if name.startswith("mlq.") and not isinstance(op, WeightOp):
            yield op, "the frontend makes no op of mlq but weights"
        if not name.startswith(("builtin.", "func.", "torch.", "torch_c.", "mlq.")):
            yield op, "the frontend makes ONNX nodes only"


def _graph(ops: list[OpView]) -> Complaints:
    seen: set[str] = set()
    for op in ops:
        if not op.operation.context.is_registered_operation(op.operation.name):
            yield op, "belongs to no dialect that mlq knows"
        if not op.operation.name.startswith("mlq.") or op.operation.name in _NAMELESS:
            continue
        name = build.name_of(op)
        if name is None:
            yield op, "has no mlq.name, so no range, sensitivity or plan can speak of it"
        elif name in seen:
            yield op, f"is the second op called {name!r}"
        seen.add(name or "")


def _quantized(ops: list[OpView]) -> Complaints:
    casts = (QuantizeOp, DequantizeOp)
    yield from _graph([op for op in ops if not isinstance(op, casts)])
    for op in ops:
        if not isinstance(op, QuantizeOp):
            continue
        source = getattr(op.input.owner, "opview", None)
        if isinstance(source, WeightOp):
            yield op, "quantizes a weight at run time; run mlq-quantize-constants"
        if isinstance(source, DequantizeOp):
            yield op, "quantizes what was dequantized just before; run mlq-fold-casts"


def _lowered(ops: list[OpView]) -> Complaints:
    for op in ops:
        name = op.operation.name
        registered = op.operation.context.is_registered_operation(name)
        if name.startswith("mlq."):
            yield op, "is an op of mlq that has not been lowered"
        if not registered and not name.startswith(tuple(f"{each}." for each in IREE)):
            yield op, "belongs to no dialect that IREE knows"
        if any(map(quant.is_quantized, _types(op))):
            yield op, "has a quantized type; run mlq-lower-to-linalg"


def _types(op: OpView) -> list[Type]:
    arguments = [a for region in op.operation.regions for block in region for a in block.arguments]
    return [value.type for value in [*op.operation.results, *arguments]]


CONTRACTS: dict[str, Callable[[list[OpView]], Complaints]] = {
    "imported": _imported,
    "graph": _graph,
    "quantized": _quantized,
    "lowered": _lowered,
}
