"""What quantization means, in numpy: the oracle for every lowering, bit for bit.

`affine`      reals to storage and back; the only place where rounding lives
`parameters`  the choice of scales and zero points
`integer`     the integer ops: exact accumulators, and what becomes of them
`nonlinear`   functions of one real, and the tables that integers look them up in
`real`        the float twins (`numerics.real.conv2d`), for layers that stay float
`windows`     im2col

The integer ops are named here directly: `numerics.conv2d`.
"""

from __future__ import annotations

from mlq.numerics import nonlinear, real
from mlq.numerics.affine import (
    F16_DROPPED_BITS,
    F16_HALF_ULP,
    F16_ROW,
    Integers,
    QuantParams,
    Reals,
    centre,
    clamp,
    dequantize,
    fake_quantize,
    fake_quantize_row,
    nearest,
    quantize,
    requantize,
    round_and_saturate,
    table_row,
)
from mlq.numerics.integer import (
    UNBOUNDED,
    Bounds,
    activation_bounds,
    add,
    addend,
    avg_pool2d,
    bounds_of,
    conv2d,
    expressed_accumulator,
    finish,
    matmul,
    max_pool2d,
    multiply,
    pool_scale,
    product_scale,
    requantize_accumulator,
)
from mlq.numerics.parameters import (
    WIDE_SUM_LIMIT,
    accumulator_bound,
    accumulator_scale,
    bias_params,
    choose_params,
    most_of_one_sign,
    raise_weight_scale,
    result_bound,
    weight_params,
)

__all__ = [
    "F16_DROPPED_BITS",
    "F16_HALF_ULP",
    "F16_ROW",
    "UNBOUNDED",
    "WIDE_SUM_LIMIT",
    "Bounds",
    "Integers",
    "QuantParams",
    "Reals",
    "accumulator_bound",
    "accumulator_scale",
    "activation_bounds",
    "add",
    "addend",
    "avg_pool2d",
    "bias_params",
    "bounds_of",
    "centre",
    "choose_params",
    "clamp",
    "conv2d",
    "dequantize",
    "expressed_accumulator",
    "fake_quantize",
    "fake_quantize_row",
    "finish",
    "matmul",
    "max_pool2d",
    "most_of_one_sign",
    "multiply",
    "nearest",
    "nonlinear",
    "pool_scale",
    "product_scale",
    "quantize",
    "raise_weight_scale",
    "real",
    "requantize",
    "requantize_accumulator",
    "result_bound",
    "round_and_saturate",
    "table_row",
    "weight_params",
]
