"""observe and compare: statistics reduced inside the module, so that no activation leaves it."""

from __future__ import annotations

from torch_mlir.dialects import arith
from torch_mlir.ir import (
    BoolAttr,
    DenseI32ArrayAttr,
    DenseI64ArrayAttr,
    F32Type,
    InsertionPoint,
    Location,
    Operation,
    Value,
)

from mlq.dialect import linalg
from mlq.dialect.ops import CompareOp, ObserveOp
from mlq.dialect.shapes import elements
from mlq.numerics.sampling import row_step, subsampling_step
from mlq.transforms.linalg.arithmetic import at_least, at_most
from mlq.transforms.linalg.epilogue import Stored

_MATRIX = 2


def observe(op: ObserveOp, stored: Stored) -> Value:
    """Least, greatest, and the counts of a subsample in bins of equal width between them."""
    x = stored(op.input)

    def extremes(low: Value, high: Value, least: Value, greatest: Value) -> list[Value]:
        return [arith.minimumf(low, least), arith.maximumf(high, greatest)]

    least, greatest = _reduced(
        [x],
        [float("inf"), float("-inf")],
        lambda v, low, high: extremes(v, v, low, high),
        extremes,
    )
    counts = _histogram(op, _subsample(op, x), least, greatest)
    f32 = F32Type.get()
    reals = linalg.elementwise(
        [linalg.whole(counts)], f32, [op.bins.value], lambda count: arith.sitofp(f32, count)
    )
    return linalg.joined([least, greatest, reals])


def compare(op: CompareOp, stored: Stored) -> Value:
    """Energies of the reference and of the difference, of tensors that are in memory.

    Where reductions fuse with the producers of both, IREE 3.13 moves one before the other
    ("operand does not dominate this use"): hence the barriers.
    """

    def energies(r: Value, v: Value, signal: Value, noise: Value) -> list[Value]:
        difference = arith.subf(r, v)
        return [
            arith.addf(signal, arith.mulf(r, r)),
            arith.addf(noise, arith.mulf(difference, difference)),
        ]

    step = row_step(op.reference.type.shape, op.max_elements.value)
    thin = op.value.type != op.reference.type
    steps = ((op.reference, step), (op.value, 1 if thin else step))
    seen = [_rows(linalg.barrier(stored(each)), every) for each, every in steps]
    sums = _reduced(
        seen,
        [0.0, 0.0],
        energies,
        lambda s, n, signal, noise: [arith.addf(signal, s), arith.addf(noise, n)],
    )
    both, f32 = linalg.joined(sums), F32Type.get()
    if step == 1:
        return both
    scale = op.reference.type.shape[1] / seen[0].type.shape[1]
    return linalg.elementwise(
        [linalg.whole(both)], f32, [2], lambda each: arith.mulf(each, linalg.scalar(f32, scale))
    )


def _rows(x: Value, step: int) -> Value:
    """Every n-th slice of axis 1."""
    if step == 1:
        return x
    first, _, *rest = linalg.sizes_of(x)
    sizes, ones = [first, -(-x.type.shape[1] // step), *rest], [1] * len(rest)
    return linalg.slice(x, [0] * x.type.rank, sizes, [1, step, *ones])


def _reduced(
    values: list[Value], neutral: list[float], take: linalg.Body, merge: linalg.Body
) -> list[Value]:
    """All elements reduced to scalars: over the last axis but one, the axes before, the last.

    The last axis stays parallel as long as it can: it is what vectors run along, and no order of
    additions has to be given up for them. Each level adds up few enough terms for float32.
    """
    names = linalg.axes(values[0].type.rank)
    levels = [names[-2:-1] if len(names) > _MATRIX else [], names[:-_MATRIX] or names[:-1], names]
    body = take
    for level in levels:
        over = [name for name in level if name in names]
        if not over:
            continue
        kept = [name for name in names if name not in over]
        sizes = dict(zip(names, linalg.sizes_of(values[0]), strict=True))
        f32, at = F32Type.get(), ", ".join(kept)
        values = linalg.generics(
            f"{' '.join(kept)} | {' '.join(over)}",
            [(value, ", ".join(names)) for value in values],
            [(linalg.filled([sizes[name] for name in kept], f32, each), at) for each in neutral],
            body,
        )
        names, body = kept, merge
    return values


def _subsample(op: ObserveOp, x: Value) -> Value:
    """Every n-th element in memory, n being coprime to all sizes so that no channel is passed by.

    A dynamic axis counts as one: `max_elements` are for each sample then.
    """
    count = elements(x.type.shape)
    stride = subsampling_step(count, op.max_elements.value)
    total = linalg.product(linalg.sizes_of(x))
    flat = linalg.reshape(x, [total])
    if stride == 1:
        return flat
    return linalg.slice(flat, [0], [linalg.quotient(total, stride)], [stride])


def _histogram(op: ObserveOp, sample: Value, least: Value, greatest: Value) -> Value:
    """Counts of `bins` equal bins over [least, greatest]: one increment for each element.

    A scatter does what costs bins x elements in linalg. It must not fuse with what computes the
    indices, whose buffer would then be on the stack: hence the barriers.
    """
    bins, i32 = op.bins.value, linalg.integer_type(32)
    sizes = linalg.sizes_of(sample)
    inits = [(linalg.empty(sizes, i32), "d0"), (linalg.empty(sizes, i32), "d0")]
    indices, ones = (
        linalg.barrier(each)
        for each in linalg.generics(
            "d0",
            [linalg.whole(sample), (least, ""), (greatest, "")],
            inits,
            lambda v, low, high, *_: [_bin_of(v, low, high, bins), linalg.scalar(i32, 1)],
        )
    )
    counts = linalg.filled([bins], i32, 0)
    scatter = Operation.create(
        "iree_linalg_ext.scatter",
        results=[counts.type],
        operands=[ones, linalg.reshape(indices, [*sizes, 1]), counts],
        attributes={
            "dimension_map": DenseI64ArrayAttr.get([0]),
            "unique_indices": BoolAttr.get(False),
            "operandSegmentSizes": DenseI32ArrayAttr.get([2, 1]),
        },
        regions=1,
    )
    block = scatter.regions[0].blocks.append(i32, i32, arg_locs=[Location.current] * 2)
    with InsertionPoint(block):
        total = arith.addi(*block.arguments)
        Operation.create("iree_linalg_ext.yield", operands=[total])
    return scatter.result


def _bin_of(value: Value, least: Value, greatest: Value, bins: int) -> Value:
    """`trunc((value - least) * (bins / (greatest - least)))`, at most the last; 0 for a point."""
    f32 = F32Type.get()
    width = arith.subf(greatest, least)
    per_unit = arith.divf(linalg.scalar(f32, bins), width)
    wide = arith.cmpf(arith.CmpFPredicate.OGT, width, linalg.scalar(f32, 0.0))
    per_unit = arith.select(wide, per_unit, linalg.scalar(f32, 0.0))
    place = arith.mulf(arith.subf(value, least), per_unit)
    return arith.fptosi(linalg.integer_type(32), at_most(at_least(place, 0.0), bins - 1))
