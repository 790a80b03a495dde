"""Say in ONNX, with QuantizeLinear and DequantizeLinear, what a quantized network does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch_mlir.dialects import func
from torch_mlir.ir import Block, InsertionPoint, Operation, OpView, Value

from mlq.dialect import bridge, ops, quant
from mlq.dialect.functions import body_of
from mlq.errors import DiagnosticError
from mlq.transforms.base import Pass, register_pass, walk
from mlq.transforms.cleaning import clean
from mlq.transforms.concatenation import is_continued
from mlq.transforms.qdq import layers, moves
from mlq.transforms.qdq.tensors import Tensors

LOWERINGS: dict[type[OpView], Callable[[Any, Tensors], Value]] = {
    ops.ActivateOp: moves.activate,
    ops.AddOp: layers.add,
    ops.AvgPool2dOp: layers.avg_pool2d,
    ops.BatchMatmulOp: layers.batch_matmul,
    ops.ConcatOp: moves.concat,
    ops.Conv2dOp: layers.conv2d,
    ops.DequantizeOp: moves.dequantize,
    ops.MatmulOp: layers.matmul,
    ops.MaxPool2dOp: moves.max_pool2d,
    ops.MulOp: layers.mul,
    ops.NonlinearityOp: layers.nonlinearity,
    ops.PadOp: moves.pad,
    ops.QuantizeOp: moves.quantize,
    ops.RequantizeOp: moves.requantize,
    ops.ReshapeOp: moves.reshape,
    ops.ResampleOp: moves.resample,
    ops.ResizeNearestOp: moves.resize_nearest,
    ops.SliceOp: moves.slice,
    ops.TransposeOp: moves.transpose,
    ops.WeightOp: moves.weight,
}


@register_pass
class LowerToQdq(Pass):
    """Turn mlq ops into ONNX nodes, those on integers into float nodes between DQ and Q.

    A layer reads its stored operands through DequantizeLinear and stores its result through
    QuantizeLinear, the form that ONNX Runtime fuses into integer kernels; what only moves elements
    moves integers. Weights and biases stay integers in the weight store. An activation that its
    result's storage does anyway is left out. The module is at contract IMPORTED again.

    Before:
        func.func @main(%x: tensor<4xf32> {mlq.name = "x"}) -> tensor<4xf32> {
          %q = "mlq.quantize"(%x) : (tensor<4xf32>) -> tensor<4x!quant.uniform<u8:f32, 0.5:3>>
          %y = "mlq.add"(%q, %q) {activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>,
            mlq.name = "y"} : (tensor<4x!quant.uniform<u8:f32, 0.5:3>>,
            tensor<4x!quant.uniform<u8:f32, 0.5:3>>) -> tensor<4xf32>
          return %y : tensor<4xf32>
        }
    After:
        func.func @main(%x: tensor<4xf32> {mlq.name = "x"}) -> tensor<4xf32> {
          %x0 = torch_c.from_builtin_tensor %x : tensor<4xf32> -> !torch.vtensor<[4],f32>
          %scale = torch.operator "onnx.Constant"() {mlq.name = "x:scale",
            torch.onnx.value = dense<0.5> : tensor<f32>} : () -> !torch.vtensor<[],f32>
          %zero = torch.operator "onnx.Constant"() {mlq.name = "x:zero_point",
            torch.onnx.value = dense<3> : tensor<ui8>} : () -> !torch.vtensor<[],ui8>
          %q = torch.operator "onnx.QuantizeLinear"(%x0, %scale, %zero) {mlq.name = "x:quantize"}
            : (!torch.vtensor<[4],f32>, !torch.vtensor<[],f32>, !torch.vtensor<[],ui8>)
            -> !torch.vtensor<[4],ui8>
          %d = torch.operator "onnx.DequantizeLinear"(%q, %scale, %zero)
            {mlq.name = "x:dequantize"}
            : (!torch.vtensor<[4],ui8>, !torch.vtensor<[],f32>, !torch.vtensor<[],ui8>)
            -> !torch.vtensor<[4],f32>
          %y = torch.operator "onnx.Add"(%d, %d) {mlq.name = "y"}
            : (!torch.vtensor<[4],f32>, !torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32>
          %r = torch.operator "onnx.Relu"(%y) {mlq.name = "y:relu"}
            : (!torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32>
          %y0 = torch_c.to_builtin_tensor %r : !torch.vtensor<[4],f32> -> tensor<4xf32>
          return %y0 : tensor<4xf32>
        }
    """

    name = "mlq-lower-to-qdq"

    def run(self, module: Operation) -> None:
        for function in walk(module, func.FuncOp):
            _expect_float_signature(function)
            _expect_no_halves(function)
            _lower(body_of(function))
        clean(module)


def _lower(block: Block) -> None:
    """Lower producers first; what was lowered goes at the end, users before what they use."""
    at, lowered = Tensors(), []
    for op in [each.operation.opview for each in block.operations]:
        if _is_lowered(op):
            with InsertionPoint(op), op.location:
                _replace(op, at)
            lowered.append(op)
    for op in reversed(lowered):
        op.operation.erase()


def _is_lowered(op: OpView) -> bool:
    """Whether an op has no place in ONNX; weights of floats have."""
    if isinstance(op, ops.WeightOp):
        return quant.is_quantized(op.output.type)
    return bool(op.operation.name.startswith("mlq."))


def _replace(op: Any, at: Tensors) -> None:
    if type(op) not in LOWERINGS:
        raise DiagnosticError(op, "measures a network and is no part of one; export QUANTIZED")
    if isinstance(op, ops.ConcatOp) and is_continued(op):
        return
    made = LOWERINGS[type(op)](op, at)
    if quant.is_quantized(op.output.type):
        at.put(op.output, made)
    else:
        op.output.replace_all_uses_with(bridge.to_builtin(made))


def _expect_no_halves(function: func.FuncOp) -> None:
    for op in body_of(function).operations:
        if any(quant.is_half(each.type) for each in op.results):
            raise DiagnosticError(
                op, "is of f16, which has no Q/DQ form; plan it in f32 or integers"
            )


def _expect_float_signature(function: func.FuncOp) -> None:
    if any(map(quant.is_quantized, [*function.type.inputs, *function.type.results])):
        raise DiagnosticError(
            function.operation, "takes or gives quantized integers; a network has floats"
        )
