"""nonlinearity: a table for integers, step after step for reals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch_mlir.dialects import arith, math, tensor
from torch_mlir.ir import IndexType, IntegerType, Value

from mlq.dialect import linalg
from mlq.dialect.ops import NonlinearityOp
from mlq.numerics import nonlinear
from mlq.transforms.linalg.arithmetic import at_least, at_most, clamp
from mlq.transforms.linalg.epilogue import Stored, params_of, result_element


def nonlinearity(op: NonlinearityOp, stored: Stored) -> Value:
    """numerics.nonlinear: `table` of a stored integer, `evaluate` of a real, in float32."""
    function, params, value = (
        nonlinear.parse(op.function.value),
        params_of(op.input),
        stored(op.input),
    )
    table, i32 = None, IntegerType.get_signless(32)
    if params is not None:
        known = nonlinear.table(function, params, params_of(op.output))
        stored_as = known if known.dtype.kind == "f" else known.view(f"i{known.itemsize}")
        table = linalg.array(np.concatenate([stored_as[:1], stored_as]))

    def body(x: Value) -> Value:
        if table is not None:
            # From one on: of a byte in memory IREE's VM makes an index by its sign, not of a sum.
            number = arith.addi(arith.extui(i32, x), linalg.scalar(i32, 1))
            return tensor.extract(table, [arith.index_castui(IndexType.get(), number)])
        made = x
        for step in function:
            made = _FORMULAS[step.name](made, x, *step.numbers)
        return made

    inputs, sizes = [linalg.whole(value)], linalg.sizes_of(value)
    return linalg.elementwise(inputs, result_element(op), sizes, body)


def _number(like: Value, number: float) -> Value:
    return linalg.scalar(like.type, number)


def _plus(x: Value, number: float) -> Value:
    return arith.addf(x, _number(x, number))


def _times(x: Value, number: float) -> Value:
    return arith.mulf(x, _number(x, number))


def _sigmoid(v: Value, _x: Value) -> Value:
    """Exp overflows to infinity, whose reciprocal is the zero that it should be."""
    return arith.divf(_number(v, 1.0), _plus(math.exp(arith.negf(v)), 1.0))


def _hard_sigmoid(v: Value, _x: Value, alpha: float, beta: float) -> Value:
    return clamp(_plus(_times(v, alpha), beta), (0.0, 1.0))


def _hard_swish(v: Value, x: Value) -> Value:
    return arith.mulf(v, _hard_sigmoid(v, x, 1.0 / 6.0, 0.5))


def _elu(v: Value, _x: Value, alpha: float) -> Value:
    below = _times(math.expm1(at_most(v, 0.0)), alpha)
    return _where_positive(v, v, below)


def _leaky_relu(v: Value, _x: Value, alpha: float) -> Value:
    return _where_positive(v, v, _times(v, alpha))


def _where_positive(v: Value, above: Value, below: Value) -> Value:
    positive = arith.cmpf(arith.CmpFPredicate.OGT, v, _number(v, 0.0))
    return arith.select(positive, above, below)


def _softplus(v: Value, _x: Value) -> Value:
    """`max(v, 0) + log1p(exp(-|v|))`, in which nothing overflows."""
    return arith.addf(at_least(v, 0.0), math.log1p(math.exp(arith.negf(math.absf(v)))))


_FORMULAS: dict[str, Callable[..., Any]] = {
    "add": lambda v, _, number: _plus(v, number),
    "clip": lambda v, _, low, high: clamp(v, (low, high)),
    "elu": _elu,
    "erf": lambda v, _: math.erf(v),
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _hard_swish,
    "leaky_relu": _leaky_relu,
    "multiply": lambda v, _, number: _times(v, number),
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "tanh": lambda v, _: math.tanh(v),
    "times_input": arith.mulf,
}
"""What each step of numerics.nonlinear is in float32."""
