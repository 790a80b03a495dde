"""fake_quantize, compare and observe on kernels: the network measured in floats."""

from __future__ import annotations

from functools import partial
from math import prod

from torch_mlir.dialects import arith
from torch_mlir.ir import IndexType, IntegerType, Value

from mlq.dialect import build
from mlq.dialect.ops import CompareOp, FakeQuantizeOp, ObserveOp
from mlq.kernels.image import NO_MARGIN
from mlq.kernels.isa import Isa
from mlq.kernels.measuring import Energies, FakeQuantize
from mlq.kernels.observing import Observe
from mlq.numerics.sampling import row_step, subsampling_step
from mlq.transforms.kernels.images import Images, Lower


def fake_quantize(op: FakeQuantizeOp, isa: Isa, images: Images) -> Lower | str:
    """A copy of the image, as a row of the table stores it, with the margin its reader needs."""
    images.need(op.input, NO_MARGIN)
    return partial(_fake_quantize, op, isa)


def compare(op: CompareOp, isa: Isa, images: Images) -> Lower | str:
    """Two energies, of every n-th row."""
    for value in (op.reference, op.value):
        images.need(value, NO_MARGIN)
    return partial(_compare, op, isa)


def observe(op: ObserveOp, isa: Isa, images: Images) -> Lower | str:
    """Extremes and a histogram."""
    images.need(op.input, NO_MARGIN)
    return partial(_observe, op, isa)


def _fake_quantize(op: FakeQuantizeOp, isa: Isa, images: Images) -> None:
    source, output = images.read(op.input), images.result(op.output)
    kernel = FakeQuantize(isa, source.image, output, op.row.value)
    images.call(kernel, [source.value, op.table], op.output, output)


def _compare(op: CompareOp, isa: Isa, images: Images) -> None:
    reference, value = (images.read(each) for each in (op.reference, op.value))
    step = row_step(build.shape_of(op.reference), op.max_elements.value)
    thin = value.image.height < reference.image.height
    kernel = Energies(isa, reference.image, value.image, step, thin)
    made = images.dispatch(kernel, [reference.value, value.value], op.energies.type)
    op.energies.replace_all_uses_with(made)


def _observe(op: ObserveOp, isa: Isa, images: Images) -> None:
    source, bins = images.read(op.input), op.bins.value
    stride = subsampling_step(prod(build.shape_of(op.input)), op.max_elements.value)
    image = source.image.as_row() if source.image.is_dense else source.image
    kernel = Observe(isa, image, bins, stride)
    made = images.dispatch(kernel, [source.value], op.statistics.type, _wanted(op))
    op.statistics.replace_all_uses_with(made)


def _wanted(op: ObserveOp) -> Value | None:
    """Whether statistics are wanted, as mlq-instrument lets the caller say: a number of workers."""
    scalars = [each for each in op.operation.block.arguments if isinstance(each.type, IntegerType)]
    return arith.index_cast(IndexType.get(), scalars[0]) if scalars else None
