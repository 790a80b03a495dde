"""fake_quantize, compare and observe on kernels: the network measured in floats."""

from __future__ import annotations

from functools import partial
from math import prod

import numpy as np
from torch_mlir.dialects import arith
from torch_mlir.ir import F32Type, RankedTensorType, Value

from mlq.dialect import build, linalg
from mlq.dialect.ops import CompareOp, FakeQuantizeOp, ObserveOp
from mlq.dialect.shapes import DYNAMIC
from mlq.kernels.image import NO_MARGIN
from mlq.kernels.isa import Isa
from mlq.kernels.measuring import Energies, FakeQuantize, Observe
from mlq.numerics.sampling import subsampling_step
from mlq.transforms.kernels.images import Images, Lower, constant


def fake_quantize(op: FakeQuantizeOp, isa: Isa, images: Images) -> Lower | str:
    """A copy of the image, as a row of the table stores it, with the margin its reader needs."""
    if DYNAMIC in build.shape_of(op.input):
        return "has a dynamic batch"
    images.need(op.input, NO_MARGIN)
    return partial(_fake_quantize, op, isa)


def compare(op: CompareOp, isa: Isa, images: Images) -> Lower | str:
    """Two energies, each a tensor of its own."""
    if DYNAMIC in build.shape_of(op.reference):
        return "has a dynamic batch"
    for value in (op.reference, op.value):
        images.need(value, NO_MARGIN)
    return partial(_compare, op, isa)


def observe(op: ObserveOp, isa: Isa, images: Images) -> Lower | str:
    """Extremes and a histogram, each a tensor of its own."""
    if DYNAMIC in build.shape_of(op.input):
        return "has a dynamic batch"
    images.need(op.input, NO_MARGIN)
    return partial(_observe, op, isa)


def _fake_quantize(op: FakeQuantizeOp, isa: Isa, images: Images) -> None:
    source, output = images.read(op.input), images.result(op.output)
    row, rows = op.row.value, op.table.type.shape[0]
    kernel = FakeQuantize(isa, source.image, output, rows)
    number = constant(f"row.{row}", np.array([row], np.int32))
    images.call(kernel, [source.value, op.table, number], op.output, output)


def _compare(op: CompareOp, isa: Isa, images: Images) -> None:
    reference, value = (images.read(each) for each in (op.reference, op.value))
    kernel = Energies(isa, reference.image, value.image)
    made = images.dispatch(
        kernel, [reference.value, value.value], RankedTensorType.get([2], F32Type.get())
    )
    for place, result in enumerate((op.signal, op.noise)):
        result.replace_all_uses_with(_element(made, place))


def _observe(op: ObserveOp, isa: Isa, images: Images) -> None:
    source, bins = images.read(op.input), op.bins.value
    stride = subsampling_step(prod(build.shape_of(op.input)), op.max_elements.value)
    kernel = Observe(isa, source.image, bins, stride)
    type_ = RankedTensorType.get([2 + bins], F32Type.get())
    made = images.dispatch(kernel, [source.value], type_)
    for place, result in enumerate((op.least, op.greatest)):
        result.replace_all_uses_with(_element(made, place))
    i32 = linalg.integer_type(32)
    counts = linalg.whole(linalg.slice(made, [2], [bins], [1]))
    whole = linalg.elementwise([counts], i32, [bins], lambda count: arith.fptosi(i32, count))
    op.histogram.replace_all_uses_with(whole)


def _element(vector: Value, place: int) -> Value:
    return linalg.reshape(linalg.slice(vector, [place], [1], [1]), [])
