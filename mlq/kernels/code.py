"""Loops, vectors and index arithmetic in few words; integers that are known are folded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch_mlir.dialects import arith, scf, vector
from torch_mlir.ir import (
    Attribute,
    DenseI32ArrayAttr,
    F16Type,
    F32Type,
    FloatAttr,
    IndexType,
    InsertionPoint,
    IntegerAttr,
    IntegerType,
    Operation,
    StringAttr,
    Type,
    Value,
    VectorType,
)


@dataclass(frozen=True)
class Beyond:
    """An index and a number that is added last, where an instruction's address takes it."""

    base: Value
    offset: int


Index: TypeAlias = int | Value | Beyond


def element(name: str) -> Type:
    """An element type: f16, f32, or i and a width."""
    reals = {"f16": F16Type, "f32": F32Type}
    return reals[name].get() if name in reals else IntegerType.get_signless(int(name[1:]))


def vector_type(lanes: int, name: str) -> VectorType:
    """A vector of `lanes` elements."""
    return VectorType.get([lanes], element(name))


def element_of(memory: Value) -> str:
    """The name of the element type of memory, or of a vector."""
    return str(memory.type.element_type)


def lanes_of(value: Value) -> int:
    """How many elements a vector has."""
    return int(value.type.shape[0])


def index(value: Index) -> Value:
    """An index as a value."""
    if isinstance(value, int):
        return arith.constant(IndexType.get(), value)
    if isinstance(value, Beyond):
        return arith.addi(value.base, index(value.offset))
    return value


def plus(one: Index, other: Index) -> Index:
    """The sum of two indices; numbers stay apart from what is only known at run time."""
    (left, more), (right, offset) = _apart(one), _apart(other)
    offset += more
    if left is None or right is None:
        base = right if left is None else left
    else:
        base = arith.addi(left, right)
    if base is None:
        return offset
    return Beyond(base, offset) if offset else base


def times(one: Index, factor: Index) -> Index:
    """The product of two indices."""
    one, factor = (factor, one) if isinstance(one, int) else (one, factor)
    if not isinstance(factor, int):
        return arith.muli(index(one), index(factor))
    base, offset = _apart(one)
    if base is None or factor == 0:
        return offset * factor
    return plus(base if factor == 1 else arith.muli(base, index(factor)), offset * factor)


def _apart(one: Index) -> tuple[Value | None, int]:
    if isinstance(one, int):
        return None, one
    return (one.base, one.offset) if isinstance(one, Beyond) else (one, 0)


def at_most(one: Index, limit: Index) -> Index:
    """An index, or the limit where that is less."""
    if isinstance(one, int) and isinstance(limit, int):
        return min(one, limit)
    return arith.minsi(index(one), index(limit))


def at_least(one: Index, limit: Index) -> Index:
    """An index, or the limit where that is more."""
    if isinstance(one, int) and isinstance(limit, int):
        return max(one, limit)
    return arith.maxsi(index(one), index(limit))


def split(one: Index, by: Index) -> tuple[Index, Index]:
    """Quotient and remainder of an index that is not negative."""
    if isinstance(one, int) and isinstance(by, int):
        return divmod(one, by)
    if isinstance(by, int) and by == 1:
        return one, 0
    whole, part = index(one), index(by)
    return arith.divui(whole, part), arith.remui(whole, part)


def share(count: Index, identity: Index, of: Index) -> tuple[Index, Index]:
    """The part of range(count) that worker `identity` takes `of` workers: no two differ by two."""
    if isinstance(of, int) and of == 1:
        return 0, count
    low, high = (split(times(each, count), of)[0] for each in (identity, plus(identity, 1)))
    return low, high


def loop(
    low: Index,
    high: Index,
    step: int,
    body: Callable[..., Sequence[Value] | None],
    carried: Sequence[Value] = (),
) -> list[Value]:
    """`body(i, *carried)` for i from low below high; what it returns is carried on.

    A loop that is known to run once is no loop, nor is one that never runs.
    """
    if isinstance(low, int) and isinstance(high, int) and high <= low:
        return list(carried)
    if isinstance(low, int) and isinstance(high, int) and low < high <= low + step:
        return list(body(low, *carried) or [])
    op = scf.ForOp(index(low), index(high), index(step), list(carried))
    with InsertionPoint(op.body):
        scf.YieldOp(list(body(op.induction_variable, *op.inner_iter_args) or []))
    return list(op.results)


def when(identity: Index, equals: int, body: Callable[[], None]) -> None:
    """`body` where an index has one value."""
    if isinstance(identity, int):
        if identity == equals:
            body()
        return
    condition = arith.cmpi(arith.CmpIPredicate.eq, index(identity), index(equals))
    op = scf.IfOp(condition)
    with InsertionPoint(op.then_block):
        body()
        scf.YieldOp([])


def load(memory: Value, at: Index, lanes: int, alignment: int | None = None) -> Value:
    """`lanes` elements from memory, where they begin at a multiple of so many bytes."""
    type_ = VectorType.get([lanes], memory.type.element_type)
    return vector.load(type_, memory, [index(at)], alignment=alignment)


def store(value: Value, memory: Value, at: Index, lanes: int | None = None) -> None:
    """A vector to memory, or only its first `lanes`, in pieces of powers of two."""
    whole = lanes_of(value)
    lanes = whole if lanes is None else lanes
    if lanes == whole:
        vector.store(value, memory, [index(at)])
        return
    for done, piece in pieces(lanes, whole):
        vector.store(part(value, done, piece), memory, [index(plus(at, done))])


def pieces(count: int, whole: int) -> list[tuple[int, int]]:
    """Parts of `whole` lanes, halved as often as needed, that make up `count`: first and size."""
    found, done, piece = [], 0, whole
    while done < count:
        piece //= 2
        if count - done >= piece:
            found.append((done, piece))
            done += piece
    return found


def part(value: Value, first: int, lanes: int) -> Value:
    """Some lanes of a vector that lie side by side."""
    if lanes == lanes_of(value):
        return value
    type_ = VectorType.get([lanes], value.type.element_type)
    return vector.extract_strided_slice(type_, value, [first], [lanes], [1])


def inserted(piece: Value, value: Value, first: int) -> Value:
    """A vector with some lanes that lie side by side replaced."""
    return vector.insert_strided_slice(piece, value, [first], [1])


def scalar(memory: Value, at: Index) -> Value:
    """One element from memory."""
    return lane(load(memory, at, 1), 0)


def lane(value: Value, number: int) -> Value:
    """One element of a vector."""
    return vector.extract(value, [], [number])


def gathered(values: Sequence[Value]) -> Value:
    """Scalars as a vector."""
    type_ = VectorType.get([len(values)], values[0].type)
    return vector.from_elements(type_, list(values))


def bits(word: Value, name: str) -> Value:
    """The bits of an i32, or its last, as a number of another type."""
    if name == "f32":
        return arith.bitcast(element(name), word)
    return word if name == "i32" else arith.trunci(element(name), word)


def constant(number: float, name: str) -> Value:
    """A scalar constant; integers wrap around."""
    type_ = element(name)
    if name.startswith("f"):
        return arith.constant(type_, FloatAttr.get(type_, float(number)))
    half = 1 << int(name[1:]) - 1
    wrapped = (int(number) + half) % (2 * half) - half
    return arith.constant(type_, IntegerAttr.get(type_, wrapped))


def splat(value: Value, lanes: int) -> Value:
    """A scalar in every lane."""
    return vector.broadcast(VectorType.get([lanes], value.type), value)


def view(value: Value, name: str) -> Value:
    """The bits of a vector as elements of another type."""
    type_ = element(name)
    bits = lanes_of(value) * value.type.element_type.width
    if value.type.element_type == type_:
        return value
    return vector.bitcast(VectorType.get([bits // type_.width], type_), value)


def greater(one: Value, other: Value, *, signed: bool = False) -> Value:
    """The greater of integers, or of reals, in each lane."""
    of_integers = arith.maxsi if signed else arith.maxui
    return _picked(one, other, of_integers, arith.CmpFPredicate.OGT)


def lesser(one: Value, other: Value) -> Value:
    """The lesser of unsigned integers, or of reals, in each lane."""
    return _picked(one, other, arith.minui, arith.CmpFPredicate.OLT)


def _picked(one: Value, other: Value, of_integers: Callable[..., Value], predicate: int) -> Value:
    if getattr(one.type, "element_type", one.type) != F32Type.get():
        return of_integers(one, other)
    return arith.select(arith.cmpf(predicate, one, other), one, other)


def shuffle(one: Value, other: Value, mask: Sequence[int]) -> Value:
    """Lanes picked from two vectors side by side."""
    return vector.shuffle(one, other, list(mask))


def call(intrinsic: str, result: Type, *operands: Value) -> Value:
    """An instruction of LLVM's by its name."""
    return Operation.create(
        "llvm.call_intrinsic",
        results=[result],
        operands=list(operands),
        attributes={
            "intrin": StringAttr.get(intrinsic),
            "op_bundle_sizes": DenseI32ArrayAttr.get([]),
            "operandSegmentSizes": DenseI32ArrayAttr.get([len(operands), 0]),
            "fastmathFlags": Attribute.parse("#llvm.fastmath<none>"),
        },
    ).result


def fenced(value: Value) -> Value:
    """A vector of floats, or of what fits them, that LLVM does not look through.

    It fuses no product with a sum across it, whatever it is told of contraction.
    """
    real, name = view(value, "f32"), element_of(value)
    return view(call("llvm.arithmetic.fence", real.type, real), name)
