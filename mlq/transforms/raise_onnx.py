"""Raise ONNX nodes to mlq ops."""

from __future__ import annotations

from torch_mlir.dialects import func
from torch_mlir.ir import FunctionType, InsertionPoint, Operation, TypeAttr, Value

from mlq.dialect import bridge
from mlq.dialect.functions import results_of
from mlq.transforms import affine
from mlq.transforms.base import Pass, register_pass, skip, walk
from mlq.transforms.cleaning import clean, ops_of
from mlq.transforms.raising.growing import GROWING
from mlq.transforms.raising.linear import LINEAR
from mlq.transforms.raising.movement import MOVEMENT
from mlq.transforms.raising.node import Node, UnsupportedNodeError, kind_of
from mlq.transforms.raising.nonlinear import FUNCTIONS
from mlq.transforms.raising.pools import POOLS

_RAISED = LINEAR | FUNCTIONS | POOLS | MOVEMENT | GROWING
_PASSED_THROUGH = {"Identity", "Dropout"}


@register_pass
class RaiseOnnx(Pass):
    """Replace the ONNX nodes that mlq has an op for; the others stay as they are, and float.

    Before:
        func.func @main(%x: tensor<1x4xf32>) -> tensor<1x4xf32> {
          %0 = torch_c.from_builtin_tensor %x : tensor<1x4xf32> -> !torch.vtensor<[1,4],f32>
          %1 = torch.operator "onnx.Relu"(%0)
            : (!torch.vtensor<[1,4],f32>) -> !torch.vtensor<[1,4],f32>
          %2 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[1,4],f32> -> tensor<1x4xf32>
          return %2 : tensor<1x4xf32>
        }
    After:
        func.func @main(%x: tensor<1x4xf32>) -> tensor<1x4xf32> {
          %0 = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32,
            0x7F800000 : f32>} : (tensor<1x4xf32>) -> tensor<1x4xf32>
          return %0 : tensor<1x4xf32>
        }
    """

    name = "mlq-raise-onnx"

    def run(self, module: Operation) -> None:
        left: dict[Operation, str] = {}
        for op in ops_of(module):
            if kind_of(op) is None or kind_of(op) == "Constant":
                continue
            with InsertionPoint(op), op.location:
                try:
                    raised = _raise(Node(op))
                except UnsupportedNodeError as error:
                    left[op.operation] = str(error)
                    continue
            op.operation.results[0].replace_all_uses_with(raised)
            op.operation.erase()
        clean(module)
        for function in walk(module, func.FuncOp):
            _declare_results(function)
        # Nodes that only computed shapes are gone by now, and need no reason.
        for op in ops_of(module):
            if op.operation in left and affine.of(op) is None:
                skip(op, left[op.operation])


def _raise(node: Node) -> Value:
    """What replaces the node, a value of torch type."""
    if node.kind in _PASSED_THROUGH:
        return _unchanged(node)
    if node.kind == "BatchNormalization":
        raise UnsupportedNodeError("its statistics are computed at run time")
    if node.kind not in _RAISED:
        raise UnsupportedNodeError(f"mlq has no op for ONNX {node.kind}")
    # The shape of the result is computed anew: ONNX's shape inference knows less, and counts one
    # window too many where ceil_mode would start it behind the input.
    return bridge.from_builtin(_RAISED[node.kind](node))


def _declare_results(function: func.FuncOp) -> None:
    """Let the signature say what is known of the results by now."""
    results = [value.type for value in results_of(function)]
    type_ = FunctionType.get(list(function.type.inputs), results)
    function.attributes["function_type"] = TypeAttr.get(type_)


def _unchanged(node: Node) -> Value:
    if len(node.op.operation.results) > 1 and list(node.op.operation.results[1].uses):
        raise UnsupportedNodeError("its mask is used")
    if node.has(2) and node.array(2, "training_mode").item():
        raise UnsupportedNodeError("it is in training mode")
    return node.operand(0)
