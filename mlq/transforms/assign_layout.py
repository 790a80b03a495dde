"""Put images into NHWC, in which convolutions read channels side by side."""

from __future__ import annotations

from collections.abc import Sequence

from torch_mlir.ir import Block, InsertionPoint, Operation, OpView, Value

from mlq.dialect import build, layers
from mlq.dialect.ops import Conv2dOp, ReshapeOp, TransposeOp
from mlq.transforms.base import Pass, register_pass, walk
from mlq.transforms.layouts import (
    IMAGE_RANK,
    IN_ANY,
    LINE_RANK,
    TO_HWIO,
    TO_NCHW,
    TO_NCW,
    TO_NHWC,
    as_image,
    element_after,
    has_layout,
    images_of,
    is_line,
    is_point,
    like,
    transposed,
    type_in_nhwc,
    wanted_images,
)


@register_pass
class AssignLayout(Pass):
    """Compute convolutions and pools in NHWC, and with them all ops that any layout suits.

    A transpose stands only where an image enters from, or leaves to, an op with a layout of its
    own; lines [N, C, W] between convolutions of one dimension stay images of one row. Weights are
    transposed from OIHW to HWIO, their quantized axis with them.

    Before:
        func.func @f(%x: tensor<1x3x8x8xf32>) -> tensor<1x3xf32> {
          %p = "mlq.avg_pool2d"(%x) {kernel = array<i64: 8, 8>, strides = array<i64: 1, 1>,
            pads = array<i64: 0, 0, 0, 0>, ceil_pads = array<i64: 0, 0>, count_include_pad = false,
            layout = "nchw", mlq.name = "p"} : (tensor<1x3x8x8xf32>) -> tensor<1x3x1x1xf32>
          %y = "mlq.reshape"(%p) : (tensor<1x3x1x1xf32>) -> tensor<1x3xf32>
          return %y : tensor<1x3xf32>
        }
    After:
        func.func @f(%x: tensor<1x3x8x8xf32>) -> tensor<1x3xf32> {
          %t = "mlq.transpose"(%x) {permutation = array<i64: 0, 2, 3, 1>}
            : (tensor<1x3x8x8xf32>) -> tensor<1x8x8x3xf32>
          %p = "mlq.avg_pool2d"(%t) {kernel = array<i64: 8, 8>, strides = array<i64: 1, 1>,
            pads = array<i64: 0, 0, 0, 0>, ceil_pads = array<i64: 0, 0>, count_include_pad = false,
            layout = "nhwc", mlq.name = "p"} : (tensor<1x8x8x3xf32>) -> tensor<1x1x1x3xf32>
          %y = "mlq.reshape"(%p) : (tensor<1x1x1x3xf32>) -> tensor<1x3xf32>
          return %y : tensor<1x3xf32>
        }
    """

    name = "mlq-assign-layout"

    def run(self, module: Operation) -> None:
        for function in walk(module, "func.func"):
            for block in function.regions[0].blocks:
                _Layout(block).assign()


class _Layout:
    """The images of one block in NHWC, as far as they have been needed so far."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._ops = [op.operation.opview for op in block.operations]
        self._wanted = wanted_images(self._ops)
        self._nhwc: dict[Value, Value] = {}
        self._nchw: dict[Value, Value] = {}

    def assign(self) -> None:
        """Rewrite the block; what was rewritten is erased, users first."""
        for argument in self._block.arguments:
            if argument in self._wanted:
                with InsertionPoint.at_block_begin(self._block), argument.location:
                    self._image(argument)
        replaced: list[OpView] = []
        gone: set[Value] = set()
        for op in self._ops:
            with InsertionPoint(op), op.location:
                if self._rewritten(op):
                    replaced.append(op)
                    gone.update(op.operation.results)
                else:
                    self._restore_operands(op, gone)
        for op in reversed(replaced):
            op.operation.erase()

    def _rewritten(self, op: OpView) -> bool:
        """Whether the op has been replaced by one that works in NHWC."""
        operands = list(op.operation.operands)
        if has_layout(op) or (isinstance(op, IN_ANY) and self._reads_images(op)):
            self._replace(op)
        elif is_line(op) and self._reads_images(op):
            self._nhwc[op.output] = self._image(operands[0])
        elif isinstance(op, ReshapeOp) and operands[0] in self._nhwc and is_point(operands[0]):
            made = like(op, [self._nhwc[operands[0]]], [op.output.type])
            op.output.replace_all_uses_with(made.results[0])
        elif isinstance(op, TransposeOp) and operands[0] in self._nhwc:
            held, places = self._held(operands[0])
            order = [places[axis] for axis in op.permutation]
            moved = transposed(held, order, op.output.type.element_type)
            op.output.replace_all_uses_with(moved)
        else:
            return False
        return True

    def _replace(self, op: OpView) -> None:
        """Make the op anew on images in NHWC; its results are images too, or have no layout."""
        operands = list(op.operation.operands)
        for i in images_of(op):
            operands[i] = self._image(operands[i])
        if isinstance(op, Conv2dOp):
            element = element_after(op.weight.type.element_type, TO_HWIO)
            operands[layers.WEIGHT_OPERAND] = transposed(op.weight, TO_HWIO, element)
        types = [type_in_nhwc(result.type) for result in op.operation.results]
        made = like(op, operands, types)
        for old, new in zip(op.operation.results, made.results, strict=True):
            if old.type.rank in (IMAGE_RANK, LINE_RANK):
                self._nhwc[old] = new
            else:
                old.replace_all_uses_with(new)

    def _reads_images(self, op: OpView) -> bool:
        operands = [op.operation.operands[i] for i in images_of(op)]
        return any(value in self._nhwc or value in self._wanted for value in operands)

    def _image(self, value: Value) -> Value:
        """An image in NHWC, transposed at most once."""
        if value not in self._nhwc:
            element = element_after(value.type.element_type, TO_NHWC)
            image = value
            if value.type.rank == LINE_RANK:
                image = build.reshape(value, as_image(value.type.shape))
            self._nhwc[value] = transposed(image, TO_NHWC, element)
        return self._nhwc[value]

    def _held(self, value: Value) -> tuple[Value, Sequence[int]]:
        """What holds an image or a line in NHWC or NWC, and where its axes are there."""
        image = self._nhwc[value]
        if value.type.rank == IMAGE_RANK:
            return image, TO_NCHW
        samples, _, *rest = image.type.shape
        return build.reshape(image, [samples, *rest]), TO_NCW

    def _restore_operands(self, op: OpView, replaced: set[Value]) -> None:
        """Give an op that knows nothing of NHWC the NCHW images it read before."""
        for user in walk(op.operation):
            for i, value in enumerate(user.operation.operands):
                if value in replaced:
                    user.operation.operands[i] = self._restored(value)

    def _restored(self, value: Value) -> Value:
        if value not in self._nchw:
            self._nchw[value] = transposed(*self._held(value), value.type.element_type)
        return self._nchw[value]
