"""How a layer multiplies and sums: in floats, in integers, or in floats that are integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith
from torch_mlir.ir import F32Type, OpView, Type, Value

from mlq import numerics
from mlq.dialect import layers, linalg
from mlq.dialect.linalg import Operand, Size
from mlq.dialect.ops import BatchMatmulOp
from mlq.errors import DiagnosticError
from mlq.numerics import QuantParams
from mlq.precision import BYTE_BITS
from mlq.transforms.linalg.arithmetic import centred, widened
from mlq.transforms.linalg.constants import Constant
from mlq.transforms.linalg.epilogue import Stored, finish, params_of, varying

# An i32 accumulator wraps around, so only its final value must fit.
_I32_LIMIT = 1 << 31
# Below, every integer is a float32, and so is every partial sum in whatever order: floats are
# exact there. IREE multiplies u8 by i8 in i32, at half the rate of floats.
_F32_LIMIT = 1 << 24


@dataclass(frozen=True)
class Product:
    """A multiplication of two operands into accumulators of type `element`, and the bias of these.

    `lhs` and `rhs` are None for reals. `centre` says whether the zero points are subtracted before
    the product; otherwise the bias makes up for them.
    """

    element: Type
    bias: Value | None
    centre: bool = True
    lhs: QuantParams | None = None
    rhs: QuantParams | None = None

    @property
    def is_float(self) -> bool:
        """Whether floats are multiplied: reals, or integers that floats hold exactly."""
        return bool(self.element == F32Type.get())

    @property
    def padding(self) -> int:
        """What stands for zero in the left operand as it is stored."""
        return 0 if self.lhs is None else self.lhs.zero_point[0]

    def in_float(self, x: Value) -> Value:
        """The left operand as floats around zero; reals as they are."""
        params, element = self.lhs, self.element
        if params is None:
            return x
        sizes = linalg.sizes_of(x)
        return linalg.elementwise(
            [linalg.whole(x)], element, sizes, lambda q: centred(q, params, element)
        )

    def body(self, x: Value, w: Value, acc: Value) -> Value:
        """`acc + x * w`, for one iteration of a contraction."""
        left, right = self._wide(x, self.lhs), self._wide(w, self.rhs)
        if self.is_float:
            return arith.addf(acc, arith.mulf(left, right))
        return arith.addi(acc, arith.muli(left, right))

    def sum(self, loops: str, inputs: Sequence[Operand], sizes: Sequence[Size], at: str) -> Value:
        """The contraction over `loops` into a new tensor of `sizes`."""
        init = linalg.filled(sizes, self.element, 0), at
        sides = self.lhs, self.rhs
        if self.is_float or not any(each is not None and each.bits > BYTE_BITS for each in sides):
            return linalg.generic(loops, inputs, init, self.body)
        # IREE 3.13 multiplies words wrongly on SPIR-V unless memory holds both sides as wide.
        wide = [
            (self._in_memory(x, side), where)
            for (x, where), side in zip(inputs, sides, strict=True)
        ]
        return linalg.generic(
            loops, wide, init, lambda x, w, acc: arith.addi(acc, arith.muli(x, w))
        )

    def _in_memory(self, x: Value, side: QuantParams | None) -> Value:
        """An operand as the accumulators are, computed before the contraction."""
        wide = linalg.elementwise(
            [linalg.whole(x)], self.element, linalg.sizes_of(x), lambda q: self._wide(q, side)
        )
        return linalg.barrier(wide)

    def finished(self, op: OpView, acc: Value, stored: Stored, *, axis: int) -> Value:
        """The op's result from the sums, whose channels are along `axis`."""
        at, scale = f"d{axis}", None
        factor = op.alpha.value if isinstance(op, BatchMatmulOp) else 1.0
        if self.lhs is not None and self.rhs is not None:
            output = params_of(op.results[0])
            values = numerics.accumulator_scale(self.lhs, self.rhs, output, factor=factor)
            scale = varying(values, at)
        elif factor != 1.0:
            scale = varying(np.array([factor], np.float32), at)
        bias = None if self.bias is None else (self.bias, at)
        return finish(op, acc, stored, scale=scale, bias=bias)

    def _wide(self, value: Value, params: QuantParams | None) -> Value:
        if params is None or value.type == self.element:
            return value
        return (centred if self.centre else widened)(value, params, self.element)


def product_of(
    op: OpView, lhs: Value, rhs: Value, stored: Stored, *, floats: bool, inside: bool = False
) -> Product:
    """How the op multiplies `lhs` by `rhs`; in exact floats where they can be and `floats` allows.

    Where the weight is known by now, the zero point's share of each sum is folded into the bias:
    that of integers, and that of floats which are made of the left operand `inside` the loops.
    """
    left, right = params_of(lhs), params_of(rhs)
    if left is None or right is None:
        return Product(F32Type.get(), None if op.bias is None else stored(op.bias))
    if right.axis is not None and any(right.zero_point):
        raise DiagnosticError(op, "has a weight with zero points per axis; make it symmetric")
    weight, bias = Constant.of(rhs), Constant.of(op.bias)
    if weight is None or any(right.zero_point) or (op.bias is not None and bias is None):
        return _unknown(op, left, right, stored)
    axis, key = layers.weight_axis(op), (bias or weight).key
    others = tuple(i for i in range(weight.array.ndim) if i != axis)
    sums = weight.array.astype(np.int64).sum(axis=others)
    values = np.zeros_like(sums) if bias is None else bias.array.astype(np.int64)
    folded = values - left.zero_point[0] * sums
    seen, added = (replace(left, zero_point=(0,)), folded) if inside else (left, values)
    if floats and numerics.accumulator_bound(weight.array, axis, seen, added) < _F32_LIMIT:
        constant = _constant(key, added.astype(np.float32))
        return Product(F32Type.get(), constant, centre=not inside, lhs=left, rhs=right)
    bound = numerics.result_bound(weight.array, axis, left, values)
    # The bias may wrap around, as the sum then does.
    stored_bias = folded.astype(np.int32 if bound < _I32_LIMIT else np.int64)
    element = linalg.integer_type(8 * stored_bias.dtype.itemsize)
    return Product(element, _constant(key, stored_bias), centre=False, lhs=left, rhs=right)


def product_of_activations(lhs: Value, rhs: Value) -> Product:
    """How [..., K] is multiplied by another activation."""
    left, right = params_of(lhs), params_of(rhs)
    if left is None or right is None:
        return Product(F32Type.get(), None)
    fits = lhs.type.shape[-1] * _swing(left) * _swing(right) < _I32_LIMIT
    return Product(linalg.integer_type(32 if fits else 64), None, lhs=left, rhs=right)


def _unknown(op: OpView, left: QuantParams, right: QuantParams, stored: Stored) -> Product:
    """A product of operands of which only the types are known; a bias alone may fill an i32."""
    weight = layers.weight_of(op)
    assert weight is not None
    terms = int(np.prod(weight.type.shape)) // weight.type.shape[layers.weight_axis(op)]
    fits = op.bias is None and terms * _swing(left) * _swing(right) < _I32_LIMIT
    element = linalg.integer_type(32 if fits else 64)
    bias = None
    if op.bias is not None:
        narrow = stored(op.bias)
        bias = linalg.elementwise(
            [linalg.whole(narrow)],
            element,
            linalg.sizes_of(narrow),
            lambda b: arith.extsi(element, b),
        )
    return Product(element, bias, lhs=left, rhs=right)


def _swing(params: QuantParams) -> int:
    """How far a stored integer can be from the zero point."""
    (low, high), zero_point = params.limits, params.zero_point[0]
    return max(high - zero_point, zero_point - low)


def _constant(key: str, values: NDArray[Any]) -> Value | None:
    """The bias of accumulators as a weight of its own; none where it adds nothing."""
    return Constant(f"{key}.acc", values).value() if np.any(values) else None
