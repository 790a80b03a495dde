"""Weights that are known now: prepared in numpy, and stored under keys of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import F16Type, F32Type, OpResult, RankedTensorType, StringAttr, Type, Value

from mlq.dialect import linalg, weights
from mlq.dialect.ops import TransposeOp, WeightOp

# Elements of a weight whose places in memory are remembered, which take twice as much as it does.
_NUMBERED = 1 << 16


@dataclass(frozen=True)
class Constant:
    """An array of the weight store, and the key that it has or would have there."""

    key: str
    array: NDArray[Any]

    @classmethod
    def of(cls, value: Value | None) -> Constant | None:
        """The constant behind a value, seen through transposes; None where none is known yet.

        The store need not hold a weight before the module runs: simulation swaps weights then.
        """
        if not isinstance(value, OpResult):
            return None
        owner = value.owner.opview
        if isinstance(owner, WeightOp):
            key, store = owner.key.value, weights.current()
            return cls(key, store[key]) if key in store else None
        if isinstance(owner, TransposeOp):
            found = cls.of(owner.input)
            return None if found is None else found.transposed(list(owner.permutation))
        return None

    def transposed(self, permutation: Sequence[int]) -> Constant:
        """The constant with its axes in another order."""
        order = "".join(map(str, permutation))
        return Constant(f"{self.key}.{order}", self.array.transpose(permutation))

    def padded(self, added: Sequence[int]) -> Constant:
        """The constant with so many zeros behind each axis."""
        array = np.pad(self.array, [(0, each) for each in added])
        return Constant(f"{self.key}.{'x'.join(map(str, array.shape))}", array)

    def reshaped(self, shape: Sequence[int]) -> Constant:
        """The constant in another shape."""
        return Constant(f"{self.key}.{'x'.join(map(str, shape))}", self.array.reshape(shape))

    def value(self) -> Value:
        """The constant as an `mlq.weight` of storage, put into the store if it is not there."""
        key = _stored(self.key, np.ascontiguousarray(self.array))
        return WeightOp(StringAttr.get(key), _type_of(self.array)).output


def arranged(
    value: Value,
    name: str,
    make: Callable[[NDArray[Any]], NDArray[Any]],
    kind: Any,
    *,
    moves: bool = False,
) -> Value:
    """What `make` is to make of a weight, seen through transposes, that the store does not hold.

    What has the same `kind` is made the same way. If `make` only `moves` elements, and puts zeros
    between them, where it moves them is found out once.
    """
    orders: list[list[int]] = []
    while isinstance(owner := value.owner.opview, TransposeOp):
        orders.append(list(owner.permutation))
        value = owner.input
    source, store = owner.key.value, weights.current()

    def made(array: NDArray[Any]) -> NDArray[Any]:
        for order in reversed(orders):
            array = array.transpose(order)
        return np.ascontiguousarray(make(array))

    like, known = np.broadcast_to(np.float32(0.0), value.type.shape), made
    if moves and like.size <= _NUMBERED:
        like = np.arange(1, like.size + 1, dtype=np.float32).reshape(like.shape)
        known = partial(moved, made(like).astype(np.intp))
    # A string, which is compared in no time; what kernels are is not.
    which = repr((name, orders, kind))
    same = [k for k, each in store.arranged.items() if (each.source, each.kind) == (source, which)]
    key = same[0] if same else f"{source}.{name}.{len(store.arranged)}"
    store.arranged[key] = weights.Arranged(source, known, which)
    return WeightOp(StringAttr.get(key), _type_of(made(like))).output


def moved(places: NDArray[Any], array: NDArray[Any]) -> NDArray[Any]:
    """Elements by their numbers, from one on; nought is zero."""
    return np.append(np.zeros(1, array.dtype), array).take(places)


def _stored(key: str, array: NDArray[Any]) -> str:
    """The key under which the store holds `array`: the one given, or that with a number."""
    store = weights.current()
    candidate, number = key, 1
    while candidate in store and not _same(store[candidate], array):
        number += 1
        candidate = f"{key}.{number}"
    if candidate not in store:
        store[candidate] = array
    return candidate


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one is other or (one.dtype == other.dtype and np.array_equal(one, other))


def _type_of(array: NDArray[Any]) -> Type:
    reals = {2: F16Type, 4: F32Type} if array.dtype.kind == "f" else {}
    width = array.dtype.itemsize
    element = reals[width].get() if width in reals else linalg.integer_type(8 * width)
    return RankedTensorType.get(array.shape, element)
