"""Compute layers of integers by kernels that mlq generates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Operation, OpView, Value

from mlq.dialect import build, functions, layers, ops
from mlq.dialect.shapes import DYNAMIC
from mlq.kernels import library
from mlq.kernels.isa import Isa
from mlq.kernels.library import Device
from mlq.precision import one_of
from mlq.transforms.base import Pass, option, register_pass, skip, walk
from mlq.transforms.cleaning import clean
from mlq.transforms.kernels import (
    elementwise,
    floats,
    inputs,
    joining,
    matrices,
    measuring,
    movement,
    nodes,
    pools,
    products,
)
from mlq.transforms.kernels.images import Images, Lower, is_open
from mlq.transforms.raising.node import kind_of

Choice = Callable[[Any, Any, Images], Lower | str]

CHOICES: dict[type[OpView], Choice] = {
    ops.AddOp: elementwise.pairwise,
    ops.AvgPool2dOp: pools.avg_pool2d,
    ops.BatchMatmulOp: matrices.batch_matmul,
    ops.CompareOp: measuring.compare,
    ops.ConcatOp: movement.concat,
    ops.Conv2dOp: products.conv2d,
    ops.FakeQuantizeOp: measuring.fake_quantize,
    ops.MatmulOp: products.matmul,
    ops.MaxPool2dOp: pools.max_pool2d,
    ops.MulOp: elementwise.pairwise,
    ops.NonlinearityOp: elementwise.nonlinearity,
    ops.ObserveOp: measuring.observe,
    ops.QuantizeOp: inputs.quantize,
    ops.PadOp: movement.pad,
    ops.ResampleOp: movement.resample,
    ops.ResizeNearestOp: movement.resize_nearest,
    ops.SliceOp: movement.slice,
    ops.TransposeOp: movement.transpose,
}

_MEASURES = (ops.CompareOp, ops.FakeQuantizeOp, ops.ObserveOp)


@register_pass
class LowerToKernels(Pass):
    """Call a generated kernel for each op that there is one for; leave the rest to linalg.

    Images must be in NHWC (mlq-assign-layout). A kernel reads an image with the margin that its
    windows reach into, filled with the zero point by the kernel that made the image; an op that
    has no kernel sees the image without. Kernels of one shape are one, whatever their weights. On
    CPUs the batch may be dynamic. Where a GPU's workgroups can wait, small kernels become one call.

    Before:
        func.func @f(%x: tensor<1x1x1x16x!quant.uniform<u8:f32, 0.5>>)
            -> tensor<1x1x1x16x!quant.uniform<u8:f32, 0.5>> {
          %y = "mlq.max_pool2d"(%x) {kernel = array<i64: 1, 1>, strides = array<i64: 1, 1>,
            pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nhwc"}
            : (tensor<1x1x1x16x!quant.uniform<u8:f32, 0.5>>)
            -> tensor<1x1x1x16x!quant.uniform<u8:f32, 0.5>>
          return %y : tensor<1x1x1x16x!quant.uniform<u8:f32, 0.5>>
        }
    After:
        #layout = #hal.pipeline.layout<bindings = [#hal.pipeline.binding<storage_buffer, "ReadOnly|Indirect">, #hal.pipeline.binding<storage_buffer, "ReadOnly|Indirect">, #hal.pipeline.binding<storage_buffer, Indirect>], flags = Indirect>
        "hal.executable.source"() ({
          "hal.executable.export"() ({
          ^bb0(%device: !hal.device):
            %c1 = arith.constant 1 : index
            "hal.return"(%c1, %c1, %c1) : (index, index, index) -> ()
          }, {
          }) {layout = #layout, sym_name = "max_pool1x1_16x1x1", sym_visibility = "public"}
            : () -> ()
          builtin.module {
            func.func @max_pool1x1_16x1x1() {
              %c0 = arith.constant 0 : index
              %in = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index,
                binding = 0 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>}
                : (index) -> memref<16xi8>
              %margin = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index,
                binding = 1 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>}
                : (index) -> memref<2xi32>
              %out = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index,
                binding = 2 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>}
                : (index) -> memref<16xi8>
              %greatest = vector.load %in[%c0] : memref<16xi8>, vector<16xi8>
              vector.store %greatest, %out[%c0] : memref<16xi8>, vector<16xi8>
              return
            }
          }
          "hal.executable.source_end"() : () -> ()
        }) {sym_name = "max_pool1x1_16x1x1", sym_visibility = "private"} : () -> ()
        func.func @f(%x: tensor<1x1x1x16x!quant.uniform<u8:f32, 0.5>>)
            -> tensor<1x1x1x16x!quant.uniform<u8:f32, 0.5>> {
          %bytes = quant.scast %x
            : tensor<1x1x1x16x!quant.uniform<u8:f32, 0.5>> to tensor<1x1x1x16xi8>
          %margin = "mlq.weight"() {key = "margin"} : () -> tensor<2xi32>
          %made = "flow.dispatch"(%bytes, %margin) {
            entry_points = [@max_pool1x1_16x1x1::@max_pool1x1_16x1x1],
            operandSegmentSizes = array<i32: 0, 2, 0, 0>}
            : (tensor<1x1x1x16xi8>, tensor<2xi32>) -> tensor<1x1x1x16xi8>
          %y = quant.scast %made
            : tensor<1x1x1x16xi8> to tensor<1x1x1x16x!quant.uniform<u8:f32, 0.5>>
          return %y : tensor<1x1x1x16x!quant.uniform<u8:f32, 0.5>>
        }
    """  # noqa: E501 -- what belongs to no dialect that is known here is compared as text

    name = "mlq-lower-to-kernels"
    isa: str = option(
        "avx512_vnni", help="instruction set of a CPU, or kind of GPU: lower-NAME of a pipeline"
    )

    def run(self, module: Operation) -> None:
        """Choose first, so that images are made with the margins that their readers need."""
        one_of(tuple(each.name for each in library.DEVICES), self.isa, "isa")
        isa = library.named(self.isa)
        # Without the module: there is no place before it, and asking for one is undefined.
        _, *program = walk(module)
        # What measures is run a few thousand times: it had better be compiled soon than be fast.
        measures = any(isinstance(op, _MEASURES) for op in program)
        images = Images(module, isa, sized=measures)
        chosen = _chosen(program, isa, images)
        for op, images.caller in zip(program, layers.attribution(program), strict=True):
            with InsertionPoint(op), op.location:
                _lowered(op, chosen, images)
        for op in reversed(program):
            if _result(op) in chosen:
                op.operation.erase()
        clean(module)
        joining.join(module, images.executables, isa)
        _note(module, images.calls)


def _note(module: Operation, calls: Sequence[tuple[str, str]]) -> None:
    """Write down which kernels each layer calls, for those who time them."""
    made = [each for each in module.regions[0].blocks[0] if isinstance(each, func.FuncOp)]
    known = [(layer, kernel) for layer, kernel in calls if layer]
    if known and len(made) == 1:
        made[0].attributes["mlq.kernels"] = functions.strings(known)


def _lowered(op: OpView, chosen: dict[Value | None, Lower], images: Images) -> None:
    """Call the op's kernel before it; one without gets its operands as it knows them."""
    lower = chosen.get(_result(op))
    if lower is not None:
        lower(images)
        return
    for i, operand in enumerate(op.operation.operands):
        if images.is_made(operand):
            op.operation.operands[i] = images.plain(operand)


def _result(op: OpView) -> Value | None:
    return next(iter(op.operation.results), None)


def _unfit(op: OpView, isa: Device) -> str | None:
    """Why no kernel of the device can compute an op, whatever it is."""
    values = [*op.operation.operands, *op.operation.results]
    if reason := floats.unfit(op, isa):
        return reason
    if any(DYNAMIC in build.shape_of(value)[1:] for value in values):
        return "has an axis of unknown size that is not the batch"
    takes_any = isinstance(isa, Isa) and not isinstance(op, _MEASURES)
    return "has a dynamic batch" if any(map(is_open, values)) and not takes_any else None


def _chosen(program: list[OpView], isa: Device, images: Images) -> dict[Value | None, Lower]:
    """How to lower the ops that have a kernel, by their result."""
    chosen: dict[Value | None, Lower] = {}
    for op in program:
        if type(op) in CHOICES:
            reason = _unfit(op, isa)
            choice = CHOICES[type(op)](op, isa, images) if reason is None else reason
        elif (kind := kind_of(op)) in nodes.CHOICES:
            choice = nodes.CHOICES[kind](op, isa, images)
        else:
            continue
        if isinstance(choice, str):
            skip(op, choice)
        else:
            chosen[_result(op)] = choice
    return chosen
