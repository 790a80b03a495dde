"""Linalg in few words: loops and index expressions as text, bodies as Python functions.

    generic("m n | k", [(lhs, "m, k"), (rhs, "k, n")], (init, "m, n"), body)

names the loops (those after the bar are reductions) and, for each operand, the element of it that
one iteration sees. `body` gets these elements, the output's last, and returns the new output's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith, linalg, tensor
from torch_mlir.ir import (
    ArrayAttr,
    Attribute,
    DenseElementsAttr,
    DenseI64ArrayAttr,
    FloatAttr,
    FloatType,
    IndexType,
    InsertionPoint,
    IntegerAttr,
    IntegerType,
    Location,
    Operation,
    RankedTensorType,
    Type,
    Value,
)

from mlq.dialect import reassociation
from mlq.dialect.shapes import DYNAMIC

Size: TypeAlias = int | Value
Operand: TypeAlias = tuple[Value, str]
Body: TypeAlias = Callable[..., Any]


def generic(loops: str, inputs: Sequence[Operand], output: Operand, body: Body) -> Value:
    """A `linalg.generic` with one result; see the module's docstring."""
    return generics(loops, inputs, [output], body)[0]


def generics(
    loops: str, inputs: Sequence[Operand], outputs: Sequence[Operand], body: Body
) -> list[Value]:
    """A `linalg.generic` with several results; `body` returns as many."""
    parallel, _, reduced = loops.partition("|")
    names = ", ".join([*parallel.split(), *reduced.split()])
    operands = [*inputs, *outputs]
    maps = [Attribute.parse(f"affine_map<({names}) -> ({at})>") for _, at in operands]
    kinds = ["parallel"] * len(parallel.split()) + ["reduction"] * len(reduced.split())
    op = linalg.GenericOp(
        [init.type for init, _ in outputs],
        [value for value, _ in inputs],
        [init for init, _ in outputs],
        ArrayAttr.get(maps),
        ArrayAttr.get([Attribute.parse(f"#linalg.iterator_type<{kind}>") for kind in kinds]),
    )
    elements = [value.type.element_type for value, _ in operands]
    locations = [Location.current] * len(elements)
    block = op.regions[0].blocks.append(*elements, arg_locs=locations)
    with InsertionPoint(block):
        made = body(*block.arguments)
        linalg.YieldOp(made if isinstance(made, list) else [made])
    return list(op.results)


def elementwise(
    inputs: Sequence[Operand], element: Type, sizes: Sequence[Size], body: Body
) -> Value:
    """A new tensor of `sizes`; `body` sees the inputs' elements but not the output's.

    The loops are called `axes(rank)`: d0, d1, ...
    """
    names = axes(len(sizes))
    init = empty(sizes, element)
    return generic(
        " ".join(names), inputs, (init, ", ".join(names)), lambda *elements: body(*elements[:-1])
    )


def axes(rank: int) -> list[str]:
    """The loops of `elementwise`: d0, d1, ..."""
    return [f"d{axis}" for axis in range(rank)]


def whole(value: Value) -> Operand:
    """A tensor that is read in step with the result of `elementwise`."""
    return value, ", ".join(axes(value.type.rank))


def index(value: int) -> Value:
    """An index constant."""
    return arith.constant(IndexType.get(), value)


def scalar(element: Type, value: float) -> Value:
    """A constant of a float or an integer type."""
    if isinstance(element, FloatType):
        return arith.constant(element, FloatAttr.get(element, float(value)))
    return arith.constant(element, IntegerAttr.get(element, _wrapped(int(value), element.width)))


def _wrapped(value: int, width: int) -> int:
    """The signed integer with the bits of `value`: how a signless attribute holds an unsigned."""
    half = 1 << (width - 1)
    return (value + half) % (2 * half) - half


def array(values: NDArray[Any]) -> Value:
    """A small dense constant of float32 or integers."""
    return arith.constant(result=None, value=DenseElementsAttr.get(np.ascontiguousarray(values)))


def sizes_of(value: Value) -> list[Size]:
    """The sizes of a tensor's axes: integers, or `tensor.dim` where they are dynamic."""
    return [
        tensor.dim(value, index(axis)) if size == DYNAMIC else size
        for axis, size in enumerate(value.type.shape)
    ]


def product(sizes: Sequence[Size]) -> Size:
    """How many elements a tensor of `sizes` has."""
    total: Size = 1
    for size in sizes:
        if isinstance(total, int) and isinstance(size, int):
            total *= size
        elif total == 1:
            total = size
        else:
            total = arith.muli(_as_index(total), _as_index(size))
    return total


def quotient(size: Size, divisor: int) -> Size:
    """`size / divisor`, rounded up."""
    if isinstance(size, int):
        return -(-size // divisor)
    return arith.ceildivui(size, index(divisor))


def _as_index(size: Size) -> Value:
    return index(size) if isinstance(size, int) else size


def tensor_type(sizes: Sequence[Size], element: Type) -> RankedTensorType:
    """The type of a tensor of `sizes`."""
    return RankedTensorType.get([n if isinstance(n, int) else DYNAMIC for n in sizes], element)


def empty(sizes: Sequence[Size], element: Type) -> Value:
    """A tensor whose elements are not known."""
    return tensor.empty(list(sizes), element)


def filled(sizes: Sequence[Size], element: Type, value: float) -> Value:
    """A tensor that is `value` everywhere."""
    return linalg.fill(scalar(element, value), outs=[empty(sizes, element)])


def pad(value: Value, low: Sequence[int], high: Sequence[int], padding: float) -> Value:
    """`value` with `padding` around it; the value itself where there is nothing to pad."""
    if not any(low) and not any(high):
        return value
    source = value.type
    shape = [
        n if n == DYNAMIC else n + before + after
        for n, before, after in zip(source.shape, low, high, strict=True)
    ]
    result = RankedTensorType.get(shape, source.element_type)
    op = tensor.PadOp(result, value, [], [], _array(low), _array(high))
    block = op.regions[0].blocks.append(
        *[IndexType.get()] * source.rank, arg_locs=[Location.current] * source.rank
    )
    with InsertionPoint(block):
        tensor.YieldOp(scalar(source.element_type, padding))
    return op.result


def transpose(value: Value, permutation: Sequence[int]) -> Value:
    """Result axis i is input axis `permutation[i]`."""
    sizes = sizes_of(value)
    init = empty([sizes[axis] for axis in permutation], value.type.element_type)
    op = linalg.transpose(value, outs=[init], permutation=list(permutation))
    return op.operation.results[0]


def slice(
    value: Value, offsets: Sequence[int], sizes: Sequence[Size], strides: Sequence[int]
) -> Value:
    """The strided part of `sizes` that begins at `offsets`."""
    dynamic = [n for n in sizes if not isinstance(n, int)]
    static = [n if isinstance(n, int) else DYNAMIC for n in sizes]
    result = tensor_type(sizes, value.type.element_type)
    return tensor.extract_slice(
        result, value, [], dynamic, [], _array(offsets), _array(static), _array(strides)
    )


def joined(parts: Sequence[Value]) -> Value:
    """Tensors of rank 1, of known sizes, end to end; rank 0 counts as one element."""
    rows = [reshape(part, [1]) if part.type.rank == 0 else part for part in parts]
    if len(rows) == 1:
        return rows[0]
    size = sum(row.type.shape[0] for row in rows)
    return tensor.concat(tensor_type([size], rows[0].type.element_type), 0, rows)


def barrier(value: Value) -> Value:
    """The value, computed and in memory before anything reads it; IREE's own ops, by name."""
    sizes = sizes_of(value)
    kept = Operation.create(
        "util.optimization_barrier", results=[value.type], operands=[value]
    ).result
    dynamic = [size for size in sizes if not isinstance(size, int)]
    if not dynamic:
        return kept
    tied = Operation.create(
        "flow.tensor.tie_shape", results=[value.type], operands=[kept, *dynamic]
    )
    return tied.result


def reshape(value: Value, sizes: Sequence[Size]) -> Value:
    """The same elements in another shape of at most one dynamic size, moving nothing.

    Axes are merged into the coarsest shape that both refine, and split again.
    """
    before, after = list(value.type.shape), tensor_type(sizes, value.type.element_type)
    if before == list(after.shape):
        return value
    merged, split = reassociation.groups(before, list(after.shape))
    middle = [reassociation.product([before[axis] for axis in group]) for group in merged]
    element = value.type.element_type
    if len(middle) < len(before):
        value = tensor.collapse_shape(RankedTensorType.get(middle, element), value, merged)
    if len(middle) < len(sizes):
        dynamic = [n for n in sizes if not isinstance(n, int)]
        value = tensor.expand_shape(after, value, split, dynamic, _array(list(after.shape)))
    return value


def _array(values: Sequence[int]) -> DenseI64ArrayAttr:
    return DenseI64ArrayAttr.get(list(values))


def integer_type(width: int) -> IntegerType:
    """The signless integer of `width` bits: how IREE stores integers of either sign."""
    return IntegerType.get_signless(width)
