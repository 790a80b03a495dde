"""The numerics against two independent oracles (onnx.reference, ONNX Runtime) and by property."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from mlq import numerics
from mlq.errors import DataError
from mlq.numerics import QuantParams

OPSET = 21  # the first in which QuantizeLinear knows 16 and 4 bits
ONNX_TYPES = {
    (4, False): TensorProto.UINT4,
    (4, True): TensorProto.INT4,
    (8, False): TensorProto.UINT8,
    (8, True): TensorProto.INT8,
    (16, False): TensorProto.UINT16,
    (16, True): TensorProto.INT16,
    (32, True): TensorProto.INT32,
}
NUMPY_TYPES = {
    np.dtype("float32"): TensorProto.FLOAT,
    np.dtype("uint8"): TensorProto.UINT8,
    np.dtype("int8"): TensorProto.INT8,
    np.dtype("uint16"): TensorProto.UINT16,
    np.dtype("int16"): TensorProto.INT16,
    np.dtype("int32"): TensorProto.INT32,
}
FLOAT32_EPSILON = float(np.finfo(np.float32).eps)

seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


# Oracles


def _quantizer(kind: str, rank: int, storage: int, axis: int | None) -> bytes:
    """A model of one QuantizeLinear or DequantizeLinear whose parameters are inputs."""
    reals, stored = (TensorProto.FLOAT, storage)
    source, result = (reals, stored) if kind == "QuantizeLinear" else (stored, reals)
    per_axis: list[str] = [] if axis is None else ["c"]
    attributes = {} if axis is None else {"axis": axis}
    node = helper.make_node(kind, ["x", "scale", "zero_point"], ["y"], **attributes)
    shape = [f"d{i}" for i in range(rank)]
    graph = helper.make_graph(
        [node],
        kind,
        [
            helper.make_tensor_value_info("x", source, shape),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, per_axis),
            helper.make_tensor_value_info("zero_point", storage, per_axis),
        ],
        [helper.make_tensor_value_info("y", result, shape)],
    )
    return _model(graph)


def _model(graph: onnx.GraphProto) -> bytes:
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


@cache
def _runtime(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def _exact_bits() -> int:
    """Bits of u8 that ONNX Runtime multiplies by i8 exactly.

    Without dot products of bytes it adds pairs of products in 16 bits, which saturate.
    """
    inputs = {"a": np.full((1, 2), 255, np.uint8), "b": np.full((2, 1), 127, np.int8)}
    found = _node("MatMulInteger", {**inputs, "za": np.uint8(0), "zb": np.int8(0)})[1]
    return 8 if found == 2 * 255 * 127 else 7


@cache
def _reference(model: bytes) -> ReferenceEvaluator:
    return ReferenceEvaluator(onnx.load_from_string(model))


def _parameters(params: QuantParams) -> dict[str, np.ndarray]:
    scale = np.array(params.scale, np.float32)
    zero_point = np.array(params.zero_point, params.dtype)
    per_axis = params.axis is not None
    return {
        "scale": scale if per_axis else scale[0],
        "zero_point": zero_point if per_axis else zero_point[0],
    }


def _node(kind: str, inputs: dict[str, np.ndarray], **attributes: Any) -> list[np.ndarray]:
    """What the reference and ONNX Runtime answer for one node, in this order."""
    model = _node_model(kind, inputs, attributes)
    return [ReferenceEvaluator(model).run(None, inputs)[0], _run(model, inputs)]


def _node_model(kind: str, inputs: dict[str, np.ndarray], attributes: dict[str, Any]) -> bytes:
    result = {"ConvInteger": np.int32, "MatMulInteger": np.int32, "QLinearConv": np.uint8}
    values = [
        helper.make_tensor_value_info(name, NUMPY_TYPES[value.dtype], value.shape)
        for name, value in inputs.items()
    ]
    node = helper.make_node(kind, list(inputs), ["y"], **attributes)
    dtype = NUMPY_TYPES[np.dtype(result.get(kind, np.float32))]
    output = helper.make_tensor_value_info("y", dtype, None)
    return _model(helper.make_graph([node], kind, values, [output]))


def _run(model: bytes, inputs: dict[str, np.ndarray]) -> np.ndarray:
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    result: np.ndarray = _runtime(model).run(None, arrays)[0]
    return result


# Parameters and strategies


def _u8(scale: float, zero_point: int = 0) -> QuantParams:
    return QuantParams(bits=8, signed=False, scale=(scale,), zero_point=(zero_point,))


def _narrow_i8(*scale: float, axis: int | None = None) -> QuantParams:
    zero_point = (0,) * len(scale)
    return QuantParams(
        8, signed=True, scale=scale, zero_point=zero_point, axis=axis, storage_range=(-127, 127)
    )


@st.composite
def params_of(draw: st.DrawFn, rank: int, sizes: Sequence[int]) -> QuantParams:
    """Any storage type, per tensor or per axis; half of the scales are powers of two."""
    bits, signed = draw(st.sampled_from([key for key in ONNX_TYPES if key[0] in (8, 16)]))
    axis = draw(st.none() | st.integers(0, rank - 1)) if rank else None
    count = 1 if axis is None else sizes[axis]
    low, high = QuantParams(bits, signed, (1.0,), (0,)).limits
    exact = st.integers(-20, 10).map(lambda exponent: 2.0**exponent)
    scale = exact | st.floats(2.0**-20, 2.0**10, width=32)
    return QuantParams(
        bits,
        signed,
        tuple(draw(st.lists(scale, min_size=count, max_size=count))),
        tuple(draw(st.lists(st.integers(low, high), min_size=count, max_size=count))),
        axis,
    )


@st.composite
def tensors(draw: st.DrawFn) -> tuple[np.ndarray, QuantParams]:
    """Reals around the storage range of their parameters: ties, integers, saturation, anything."""
    sizes = draw(st.lists(st.integers(1, 5), max_size=4))
    params = draw(params_of(len(sizes), sizes))
    rng = draw(seeds)
    halves = rng.integers(-5 * 2**params.bits, 5 * 2**params.bits, sizes) / 2
    noise = rng.normal(size=sizes) * draw(st.sampled_from([0.0, 0.0, 1e-6, 0.3]))
    scale = params.scales(len(sizes)).astype(np.float32)
    return ((halves + noise) * scale).astype(np.float32), params


def _stored(rng: np.random.Generator, params: QuantParams, sizes: Sequence[int]) -> np.ndarray:
    low, high = params.limits
    return rng.integers(low, high, sizes, endpoint=True).astype(params.dtype)


# Casts


@given(tensors())
@settings(max_examples=150, deadline=None)
def test_quantize_equals_onnx(case: tuple[np.ndarray, QuantParams]) -> None:
    x, params = case
    model = _quantizer(
        "QuantizeLinear", x.ndim, ONNX_TYPES[params.bits, params.signed], params.axis
    )
    inputs = {"x": x, **_parameters(params)}
    stored = numerics.quantize(x, params)
    assert stored.dtype == params.dtype
    np.testing.assert_array_equal(stored, _reference(model).run(None, inputs)[0])
    np.testing.assert_array_equal(stored, _run(model, inputs))


@given(tensors(), seeds)
@settings(max_examples=150, deadline=None)
def test_dequantize_equals_onnx(
    case: tuple[np.ndarray, QuantParams], rng: np.random.Generator
) -> None:
    x, params = case
    storage = ONNX_TYPES[params.bits, params.signed]
    model = _quantizer("DequantizeLinear", x.ndim, storage, params.axis)
    stored = _stored(rng, params, x.shape)
    inputs = {"x": stored, **_parameters(params)}
    reals = numerics.dequantize(stored, params)
    assert reals.dtype == np.float32
    np.testing.assert_array_equal(reals, _reference(model).run(None, inputs)[0])
    np.testing.assert_array_equal(reals, _run(model, inputs))


@given(st.booleans(), st.floats(2.0**-10, 8.0, width=32), seeds)
@settings(max_examples=30, deadline=None)
def test_four_bits_equal_onnx_runtime(
    signed: bool,  # noqa: FBT001 - hypothesis passes by keyword
    scale: float,
    rng: np.random.Generator,
) -> None:
    low, high = QuantParams(4, signed, (1.0,), (0,)).limits
    params = QuantParams(4, signed, (scale,), (int(rng.integers(low, high)),))
    x = (rng.integers(-40, 40, 32) / 2 * scale).astype(np.float32)
    np.testing.assert_array_equal(numerics.fake_quantize(x, params), _round_trip(x, params))


def _round_trip(x: np.ndarray, params: QuantParams) -> np.ndarray:
    """QuantizeLinear then DequantizeLinear in ONNX Runtime, so that 4 bits never meet numpy."""
    zero_point = helper.make_tensor(
        "zero_point", ONNX_TYPES[params.bits, params.signed], [], list(params.zero_point)
    )
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], list(params.scale))
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero_point"], ["y"]),
        ],
        "round_trip",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [scale, zero_point],
    )
    return _run(_model(graph), {"x": x})


@given(tensors(), seeds)
@settings(max_examples=50, deadline=None)
def test_storage_survives_the_round_trip(
    case: tuple[np.ndarray, QuantParams], rng: np.random.Generator
) -> None:
    x, params = case
    stored = _stored(rng, params, x.shape)
    again = numerics.quantize(numerics.dequantize(stored, params), params)
    np.testing.assert_array_equal(stored, again)


@given(tensors())
@settings(max_examples=50, deadline=None)
def test_fake_quantize_is_idempotent_and_near_inside_the_range(
    case: tuple[np.ndarray, QuantParams],
) -> None:
    x, params = case
    seen = numerics.fake_quantize(x, params)
    np.testing.assert_array_equal(seen, numerics.fake_quantize(seen, params))
    scale, zero_point = params.scales(x.ndim), params.zero_points(x.ndim)
    low, high = ((limit - zero_point) * scale for limit in params.limits)
    inside = (x >= low) & (x <= high)
    # Quotient, product and scale are each rounded once, relative to a magnitude of |x|.
    slack = 3 * FLOAT32_EPSILON * np.abs(x)
    assert np.all((np.abs(seen - x.astype(np.float64)) <= scale / 2 + slack)[inside])


@given(tensors(), seeds)
@settings(max_examples=50, deadline=None)
def test_quantize_is_monotonic_and_keeps_zero(
    case: tuple[np.ndarray, QuantParams], rng: np.random.Generator
) -> None:
    _, params = case
    params = replace(params, axis=None, scale=params.scale[:1], zero_point=params.zero_point[:1])
    x = np.sort(rng.normal(size=100) * params.scale[0] * 2.0**params.bits).astype(np.float32)
    assert np.all(np.diff(numerics.quantize(x, params).astype(np.int64)) >= 0)
    zero = np.zeros(1, np.float32)
    assert numerics.quantize(zero, params)[0] == params.zero_point[0]
    assert numerics.fake_quantize(zero, params)[0] == 0.0


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_the_far_ends_saturate(bits: int, *, signed: bool) -> None:
    params = QuantParams(bits, signed, (2.0**-40,), (1,))
    greatest = float(np.finfo(np.float32).max)
    x = np.array([-np.inf, -greatest, greatest, np.inf], np.float32)
    low, high = params.limits
    assert numerics.quantize(x, params).tolist() == [low, low, high, high]


def test_ties_go_to_even_and_narrow_ranges_hold() -> None:
    params = _narrow_i8(0.5)
    x = np.array([0.25, 0.75, 1.25, -0.25, -0.75, -1e3, 1e3], np.float32)
    assert numerics.quantize(x, params).tolist() == [0, 2, 2, 0, -2, -127, 127]


@given(tensors())
@settings(max_examples=50, deadline=None)
def test_a_table_row_simulates_its_parameters(case: tuple[np.ndarray, QuantParams]) -> None:
    x, params = case
    params = replace(params, axis=None, scale=params.scale[:1], zero_point=params.zero_point[:1])
    row = numerics.table_row(params)
    np.testing.assert_array_equal(
        numerics.fake_quantize_row(x, row), numerics.fake_quantize(x, params)
    )
    row[0] = 0.0
    np.testing.assert_array_equal(numerics.fake_quantize_row(x, row), x)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": (1.0, 2.0)},
        {"scale": (1.0, 2.0), "zero_point": (0, 0)},
        {"scale": (0.0,)},
        {"scale": (math.nan,)},
        {"scale": (math.inf,)},
        {"zero_point": (256,)},
        {"zero_point": (-1,)},
        {"storage_range": (1, 255)},
    ],
)
def test_impossible_parameters_cannot_be_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"scale|zero point"):
        replace(_u8(1.0), **wrong)


# Requantization, against scalars


def _rounded_product(a: float, b: float) -> np.float32:
    """The float32 product: exact in float64, hence rounded once."""
    return np.float32(np.float64(np.float32(a)) * np.float64(np.float32(b)))


def _oracle(value: np.float32, zero_point: int, low: int, high: int) -> int:
    """Python's `round` is exact and takes ties to even."""
    return max(low, min(high, round(float(value)) + zero_point))


@given(tensors(), params_of(0, ()), seeds)
@settings(max_examples=50, deadline=None)
def test_requantize_equals_scalars(
    case: tuple[np.ndarray, QuantParams], output: QuantParams, rng: np.random.Generator
) -> None:
    _, source = case
    source = replace(source, axis=None, scale=source.scale[:1], zero_point=source.zero_point[:1])
    stored = _stored(rng, source, (20,))
    ratio = source.scale[0] / output.scale[0]
    expected = [
        _oracle(
            _rounded_product(int(q) - source.zero_point[0], ratio),
            output.zero_point[0],
            *output.limits,
        )
        for q in stored
    ]
    assert numerics.requantize(stored, source, output).tolist() == expected


@given(
    st.integers(0, 255),
    st.sampled_from([2.0**-7, 2.0**-8, 0.1, 1 / 3, 3e-4]),
    st.booleans(),
    seeds,
)
@settings(max_examples=80, deadline=None)
def test_requantize_accumulator_equals_scalars(
    zero_point: int,
    scale: float,
    with_residual: bool,  # noqa: FBT001 - hypothesis passes by keyword
    rng: np.random.Generator,
) -> None:
    low, high = sorted(rng.integers(0, 255, 2, endpoint=True).tolist())
    near = rng.integers(-(2**16), 2**16, 30)
    far = rng.integers(-(2**31), 2**31, 30)
    acc = np.concatenate([near, far])
    residual = (rng.integers(-500, 500, 60) / 2).astype(np.float32) if with_residual else None
    got = numerics.requantize_accumulator(
        acc, np.float32(scale), zero_point, low, high, residual=residual
    )
    for i, total in enumerate(acc.tolist()):
        value = _rounded_product(total, scale)
        if residual is not None:
            # Rounding a float64 sum to float32 is innocuous: 53 >= 2 * 24 + 2 (Figueroa 1995).
            value = np.float32(np.float64(value) + np.float64(residual[i]))
        assert got[i] == _oracle(value, zero_point, low, high)


def test_products_are_rounded_before_they_are_added() -> None:
    # 300 * f32(1/3) is 100.000003, which rounds to 100; fused, 0.500003 would round up.
    acc, scale, residual = np.array([300]), np.float32(1 / 3), np.array([-99.5], np.float32)
    got = numerics.requantize_accumulator(acc, scale, 0, 0, 255, residual=residual)
    assert got.tolist() == [0]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (numerics.bounds_of("none"), (0, 255)),
        (numerics.bounds_of("relu"), (10, 255)),
        (numerics.bounds_of("clip", 0.0, 6.0), (10, 22)),
        (numerics.bounds_of("clip", -1.25, 1.25), (8, 12)),
        (numerics.bounds_of("clip", -1e30, 1e30), (0, 255)),
    ],
)
def test_activation_bounds(bounds: numerics.Bounds, expected: tuple[int, int]) -> None:
    params = _u8(0.5, 10)
    assert numerics.activation_bounds(params, bounds) == expected


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_storage_is_the_quantized_unrounded_result_for_exact_scales(
    rng: np.random.Generator,
) -> None:
    source, output = (
        _u8(2.0 ** int(rng.integers(-8, 2)), int(rng.integers(256))) for _ in range(2)
    )
    weight = _narrow_i8(0.25, 0.5, axis=0)
    acc = rng.integers(-(2**12), 2**12, (1, 2, 4, 4))
    other = _stored(rng, source, acc.shape)
    bounds = numerics.bounds_of("clip", -1.0, 3.0)
    scales = [
        numerics.accumulator_scale(source, weight, each).reshape(1, -1, 1, 1)
        for each in (None, output)
    ]
    reals = numerics.finish(
        acc, scales[0], bounds=bounds, residual=numerics.addend(other, source, None)
    )
    stored = numerics.finish(
        acc, scales[1], output, bounds=bounds, residual=numerics.addend(other, source, output)
    )
    assert stored.dtype == output.dtype
    np.testing.assert_array_equal(stored, numerics.quantize(reals, output))


@given(params_of(0, ()), params_of(0, ()), params_of(0, ()), seeds)
@settings(max_examples=50, deadline=None)
def test_add_equals_scalars(
    left: QuantParams, right: QuantParams, output: QuantParams, rng: np.random.Generator
) -> None:
    a, b = _stored(rng, left, (20,)), _stored(rng, right, (20,))
    terms = numerics.addend(a, left, output), numerics.addend(b, right, output)
    got = numerics.add(*terms, output, bounds=numerics.bounds_of("relu"))
    for i in range(20):
        products = [
            _rounded_product(int(q[i]) - p.zero_point[0], p.scale[0] / output.scale[0])
            for q, p in ((a, left), (b, right))
        ]
        total = np.float32(np.float64(products[0]) + np.float64(products[1]))
        low, high = output.limits
        assert got[i] == _oracle(total, output.zero_point[0], max(low, output.zero_point[0]), high)


def test_a_real_addend() -> None:
    output = _u8(0.1)
    reals = np.array([0.25, 1.0], np.float32)
    expected = [_rounded_product(each, 1 / 0.1) for each in reals.tolist()]
    assert numerics.addend(reals, None, output).tolist() == expected
    assert numerics.addend(reals, None).tolist() == reals.tolist()


# Convolution and matrix product


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Shapes of an input and a weight that fit each other, and the attributes."""
    groups = draw(st.integers(1, 3))
    channels, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilations = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    extent = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    size = [each + draw(st.integers(0, 5)) for each in extent]
    attributes = {
        "strides": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "pads": draw(st.tuples(*[st.integers(0, 2)] * 4)),
        "dilations": dilations,
        "groups": groups,
    }
    batch = draw(st.integers(1, 2))
    return (batch, channels, *size), (outputs, channels // groups, *kernel), attributes


def _naive(x: np.ndarray, weight: np.ndarray, attributes: dict[str, Any]) -> np.ndarray:
    """Convolution as its definition reads, in Python's integers."""
    (top, left, bottom, right), groups = attributes["pads"], attributes["groups"]
    padded = np.pad(x.astype(object), ((0, 0), (0, 0), (top, bottom), (left, right)))
    (sy, sx), (dy, dx) = attributes["strides"], attributes["dilations"]
    outputs, depth, kernel_y, kernel_x = weight.shape
    height = (padded.shape[2] - dy * (kernel_y - 1) - 1) // sy + 1
    width = (padded.shape[3] - dx * (kernel_x - 1) - 1) // sx + 1
    result = np.zeros((len(x), outputs, height, width), object)
    for n, o, i, j in itertools.product(*map(range, result.shape)):
        first = o // (outputs // groups) * depth
        patch = padded[
            n,
            first : first + depth,
            i * sy : i * sy + dy * (kernel_y - 1) + 1 : dy,
            j * sx : j * sx + dx * (kernel_x - 1) + 1 : dx,
        ]
        result[n, o, i, j] = (patch * weight[o].astype(object)).sum()
    return result


@pytest.mark.usefixtures("onnxruntime_oracle")
@given(convolutions(), st.integers(0, 255), seeds)
@settings(max_examples=60, deadline=None)
def test_conv2d_equals_its_definition_and_onnx(
    case: tuple[Any, Any, dict[str, Any]], zero_point: int, rng: np.random.Generator
) -> None:
    shape, kernel, attributes = case
    x = rng.integers(0, 255, shape, endpoint=True).astype(np.uint8)
    weight = rng.integers(-128, 127, kernel, endpoint=True).astype(np.int8)
    bias = rng.integers(-(2**31), 2**31, kernel[0]).astype(np.int32)
    acc = numerics.conv2d(x, weight, zero_point=zero_point, **attributes)
    naive = _naive(x.astype(np.int64) - zero_point, weight, attributes)
    np.testing.assert_array_equal(acc, naive)
    with_bias = numerics.conv2d(x, weight, bias, zero_point=zero_point, **attributes)
    np.testing.assert_array_equal(with_bias, naive + bias.astype(object).reshape(1, -1, 1, 1))
    named = {"group" if name == "groups" else name: value for name, value in attributes.items()}
    inputs = {"x": x, "w": weight, "zx": np.uint8(zero_point)}
    runtime = _node("ConvInteger", inputs, **named)[1]
    np.testing.assert_array_equal(acc, runtime)


@pytest.mark.parametrize("channels", [4, 600, 5000])
@pytest.mark.parametrize("bits", [8, 16])
def test_conv2d_is_exact_at_every_width(channels: int, bits: int) -> None:
    """The worst accumulators, either side of what float32 and int32 can hold."""
    rng = np.random.default_rng(channels)
    most = (1 << bits) - 1
    x = np.full((1, channels, 1, 2), most, np.dtype(f"uint{bits}"))
    x[0, :, 0, 1] -= rng.integers(0, 2, channels).astype(x.dtype)
    weight = np.full((2, channels, 1, 1), most // 2, np.int32)
    weight[1] -= rng.integers(0, 3, (channels, 1, 1)).astype(np.int32)
    attributes = {"pads": (0, 0, 0, 0), "strides": (1, 1), "dilations": (1, 1), "groups": 1}
    np.testing.assert_array_equal(numerics.conv2d(x, weight), _naive(x, weight, attributes))


def test_products_beyond_float64_stay_exact() -> None:
    lhs, rhs = np.array([[2**31 - 1, 1]]), np.array([[2**31 - 1], [1]])
    assert numerics.matmul(lhs, rhs).tolist() == [[(2**31 - 1) ** 2 + 1]]


@given(st.lists(st.integers(1, 3), max_size=2), st.tuples(*[st.integers(1, 20)] * 3), seeds)
@settings(max_examples=50, deadline=None)
def test_matmul_equals_onnx(
    batch: list[int], size: tuple[int, int, int], rng: np.random.Generator
) -> None:
    rows, depth, columns = size
    lhs = rng.integers(0, 255, (*batch, rows, depth), endpoint=True).astype(np.uint8)
    rhs = rng.integers(-128, 127, (depth, columns), endpoint=True).astype(np.int8)
    za, zb = int(rng.integers(256)), int(rng.integers(-128, 128))
    acc = numerics.matmul(lhs, rhs, zero_point=za, rhs_zero_point=zb)
    inputs = {"a": lhs, "b": rhs, "za": np.uint8(za), "zb": np.int8(zb)}
    np.testing.assert_array_equal(acc, _node("MatMulInteger", inputs)[0])
    less = lhs >> (8 - _exact_bits())
    runtime = _node("MatMulInteger", {**inputs, "a": less})[1]
    found = numerics.matmul(less, rhs, zero_point=za, rhs_zero_point=zb)
    np.testing.assert_array_equal(found, runtime)
    bias = rng.integers(-(2**31), 2**31, columns).astype(np.int32)
    transposed = numerics.matmul(
        lhs, rhs.T, bias, zero_point=za, rhs_zero_point=zb, transpose_rhs=True
    )
    np.testing.assert_array_equal(transposed, acc + bias)


@given(convolutions(), seeds)
@settings(max_examples=60, deadline=None)
def test_a_whole_convolution_equals_onnx_runtime_for_exact_scales(
    case: tuple[Any, Any, dict[str, Any]], rng: np.random.Generator
) -> None:
    """Powers of two leave QLinearConv no choice of rounding, so ties and all must agree."""
    shape, kernel, attributes = case
    source, output = (
        _u8(2.0**-4, int(rng.integers(1 << _exact_bits()))),
        _u8(2.0 ** int(rng.integers(-3, 4)), int(rng.integers(256))),
    )
    weight = _narrow_i8(*(2.0 ** rng.integers(-9, -5, kernel[0])).tolist(), axis=0)
    x, w = _stored(rng, source, shape) >> (8 - _exact_bits()), _stored(rng, weight, kernel)
    reals = (rng.normal(size=kernel[0]) * 8).astype(np.float32)
    bias = numerics.quantize(reals, numerics.bias_params(source, weight))
    acc = numerics.conv2d(x, w, bias, zero_point=source.zero_point[0], **attributes)
    scale = numerics.accumulator_scale(source, weight, output).reshape(1, -1, 1, 1)
    named = {"group" if name == "groups" else name: value for name, value in attributes.items()}
    inputs = {
        **_qualified("x", x, source),
        **_qualified("w", w, weight),
        **{f"y_{name}": value for name, value in _parameters(output).items()},
        "bias": bias,
    }
    expected = _node("QLinearConv", inputs, **named)[1]
    np.testing.assert_array_equal(numerics.finish(acc, scale, output), expected)


def _qualified(name: str, stored: np.ndarray, params: QuantParams) -> dict[str, np.ndarray]:
    return {
        name: stored,
        **{f"{name}_{each}": value for each, value in _parameters(params).items()},
    }


@given(convolutions(), seeds)
@settings(max_examples=40, deadline=None)
def test_float_conv2d_is_near_onnx(
    case: tuple[Any, Any, dict[str, Any]], rng: np.random.Generator
) -> None:
    shape, kernel, attributes = case
    x, weight, bias = (
        rng.normal(size=size).astype(np.float32) for size in (shape, kernel, kernel[:1])
    )
    got = numerics.real.conv2d(x, weight, bias, **attributes)
    assert got.dtype == np.float32
    named = {"group" if name == "groups" else name: value for name, value in attributes.items()}
    expected = _node("Conv", {"x": x, "w": weight, "b": bias}, **named)[1]
    # Two orders of summing K products differ by at most 2 K epsilon sum|x w| (Higham 2002, 3.1).
    magnitude = numerics.real.conv2d(np.abs(x), np.abs(weight), np.abs(bias), **attributes)
    depth = math.prod(kernel[1:]) + 1
    assert np.all(np.abs(got - expected) <= 2 * depth * FLOAT32_EPSILON * magnitude)


def test_float_matmul() -> None:
    rng = np.random.default_rng(0)
    lhs, rhs = rng.normal(size=(2, 3, 5)), rng.normal(size=(5, 4))
    bias = rng.normal(size=4)
    expected = lhs @ rhs + bias
    operands = (each.astype(np.float32) for each in (lhs, rhs.T, bias))
    got = numerics.real.matmul(*operands, transpose_rhs=True)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


# Pools


@st.composite
def pools(draw: st.DrawFn, dilation: int = 1) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Shape of an input, and the attributes of an ONNX pool that fits it."""
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilations = draw(st.tuples(*[st.integers(1, dilation)] * 2))
    extent = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    size = [each + draw(st.integers(0, 6)) for each in extent]
    # ONNX wants pads smaller than the kernel.
    pads = [draw(st.integers(0, min(2, each - 1))) for each in kernel * 2]
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 3)))
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations}
    return (*shape, *size), attributes | {"ceil_mode": int(draw(st.booleans()))}


def _ceil_pads(shape: Sequence[int], attributes: dict[str, Any]) -> list[int]:
    """What ceil_mode adds at the bottom and right; in ONNX no window starts in the last padding."""
    if not attributes["ceil_mode"]:
        return [0, 0]
    added = []
    for i in range(2):
        size, begin, end = shape[2 + i], attributes["pads"][i], attributes["pads"][i + 2]
        extent = attributes["dilations"][i] * (attributes["kernel_shape"][i] - 1) + 1
        stride = attributes["strides"][i]
        count = math.ceil((size + begin + end - extent) / stride) + 1
        count -= (count - 1) * stride >= size + begin
        added.append(max(0, (count - 1) * stride + extent - size - begin - end))
    return added


@pytest.mark.usefixtures("onnxruntime_oracle")
@given(pools(), st.booleans(), seeds)
@settings(max_examples=100, deadline=None)
def test_float_avg_pool2d_is_near_onnx(
    case: tuple[Any, dict[str, Any]],
    count_include_pad: bool,  # noqa: FBT001 - hypothesis passes by keyword
    rng: np.random.Generator,
) -> None:
    shape, attributes = case
    x = rng.normal(size=shape).astype(np.float32)
    ceil_pads = _ceil_pads(shape, attributes)
    got = numerics.real.avg_pool2d(
        x,
        kernel=attributes["kernel_shape"],
        strides=attributes["strides"],
        pads=attributes["pads"],
        ceil_pads=ceil_pads,
        count_include_pad=count_include_pad,
    )
    assert got.dtype == np.float32
    reference, runtime = _node(
        "AveragePool", {"x": x}, count_include_pad=int(count_include_pad), **attributes
    )
    # At most nine terms of magnitude below 6, summed in float32.
    tolerance = 9 * 6 * FLOAT32_EPSILON
    np.testing.assert_allclose(got, runtime, rtol=0, atol=tolerance)
    # onnx.reference 1.23 averages some windows wrongly that reach beyond the padding.
    if not any(ceil_pads):
        np.testing.assert_allclose(got, reference, rtol=0, atol=tolerance)


@given(pools(dilation=2), seeds)
@settings(max_examples=80, deadline=None)
def test_max_pool2d_equals_onnx(case: tuple[Any, dict[str, Any]], rng: np.random.Generator) -> None:
    shape, attributes = case
    bottom, right = _ceil_pads(shape, attributes)
    top, left, *end = attributes["pads"]
    options = {
        "kernel": attributes["kernel_shape"],
        "strides": attributes["strides"],
        "dilations": attributes["dilations"],
        "pads": (top, left, end[0] + bottom, end[1] + right),
    }
    x = rng.normal(size=shape).astype(np.float32) - 3
    expected = _run(_node_model("MaxPool", {"x": x}, attributes), {"x": x})
    np.testing.assert_array_equal(numerics.max_pool2d(x, **options), expected)
    # onnx.reference 1.23 takes pads for [top, bottom, left, right] here when no stride exceeds 1.
    if max(attributes["strides"]) > 1 or not any(attributes["pads"]):
        reference = _node("MaxPool", {"x": x}, **attributes)[0]
        np.testing.assert_array_equal(expected, reference)
    params = QuantParams(8, signed=True, scale=(0.25,), zero_point=(100,))
    stored = numerics.quantize(x, params)
    pooled = numerics.max_pool2d(stored, **options)
    assert pooled.dtype == stored.dtype
    np.testing.assert_array_equal(
        pooled, numerics.quantize(numerics.max_pool2d(x, **options), params)
    )


@given(pools(), st.booleans(), st.integers(0, 255), seeds)
@settings(max_examples=60, deadline=None)
def test_avg_pool2d_equals_scalars(
    case: tuple[Any, dict[str, Any]],
    count_include_pad: bool,  # noqa: FBT001 - hypothesis passes by keyword
    zero_point: int,
    rng: np.random.Generator,
) -> None:
    shape, attributes = case
    options = {
        "kernel": attributes["kernel_shape"],
        "strides": attributes["strides"],
        "pads": attributes["pads"],
        "ceil_pads": _ceil_pads(shape, attributes),
        "count_include_pad": count_include_pad,
    }
    source = _u8(0.1, zero_point)
    output = _u8(0.07, 3)
    x = _stored(rng, source, shape)
    sums, counts = numerics.avg_pool2d(x, zero_point=zero_point, **options)
    got = numerics.finish(sums, numerics.pool_scale(counts, source, output), output)
    mean = numerics.real.avg_pool2d(x.astype(np.float32) - zero_point, **options)
    np.testing.assert_allclose(sums / counts, mean, rtol=1e-6)
    for index in np.ndindex(sums.shape):
        scale = 0.1 / (int(counts[index[2:]]) * 0.07)
        assert got[index] == _oracle(_rounded_product(int(sums[index]), scale), 3, 0, 255)


def test_global_pools_see_everything_once() -> None:
    x = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    sums, counts = numerics.avg_pool2d(x, zero_point=1, kernel=(3, 4))
    assert sums.tolist() == [[[[54]], [[198]]]]
    assert counts.tolist() == [[12]]
    assert numerics.max_pool2d(x, kernel=(3, 4)).ravel().tolist() == [11, 23]


# The choice of parameters

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
SCHEMES = ("asymmetric", "symmetric", "symmetric_uint8", "power_of_two")


@given(finite, finite, st.sampled_from([4, 8, 16]), st.booleans(), st.sampled_from(SCHEMES))
@settings(max_examples=300, deadline=None)
def test_chosen_parameters_hold_zero_and_the_range(
    one: float,
    two: float,
    bits: int,
    signed: bool,  # noqa: FBT001 - hypothesis passes by keyword
    scheme: Any,
) -> None:
    low, high = sorted((one, two))
    params = numerics.choose_params(low, high, bits=bits, signed=signed, scheme=scheme)
    scale = params.scale[0]
    assert (params.bits, params.signed, params.axis) == (bits, signed, None)
    assert np.float32(scale) == scale >= np.finfo(np.float32).tiny
    x = np.array([0.0, low, high], np.float32)
    with np.errstate(over="ignore"):  # the last step below the greatest float32 may be beyond it
        seen = numerics.fake_quantize(x, params).astype(np.float64)
    assert seen[0] == 0.0
    reachable = np.isfinite(seen)
    error = np.abs(seen - x)[reachable]
    assert np.all(error <= scale / 2 + 3 * FLOAT32_EPSILON * np.abs(x[reachable]))


@pytest.mark.parametrize(
    ("low", "high", "options", "expected"),
    [
        (0.0, 255.0, {}, (1.0, 0)),
        (-128.0, 127.0, {}, (1.0, 128)),
        (-128.0, 127.0, {"signed": True}, (1.0, 0)),
        (-255.0, 0.0, {}, (1.0, 255)),
        (10.0, 255.0, {}, (1.0, 0)),
        (-255.0, -10.0, {}, (1.0, 255)),
        (0.0, 0.0, {}, (1.0, 0)),
        (0.0, 0.0, {"scheme": "symmetric"}, (1.0, 128)),
        (-127.0, 3.0, {"scheme": "symmetric"}, (1.0, 128)),
        (-3.0, 127.0, {"scheme": "symmetric", "signed": True}, (1.0, 0)),
        (0.0, 255.0, {"scheme": "symmetric_uint8"}, (1.0, 0)),
        (-1.0, 127.0, {"scheme": "symmetric_uint8"}, (1.0, 128)),
        (0.0, 127.0, {"scheme": "power_of_two"}, (1.0, 128)),
        (0.0, 128.0, {"scheme": "power_of_two"}, (2.0, 128)),
        (0.0, 100.0, {"scheme": "power_of_two"}, (1.0, 128)),
        (0.0, 65535.0, {"bits": 16}, (1.0, 0)),
        (-32767.0, 0.0, {"bits": 16, "scheme": "symmetric"}, (1.0, 32768)),
        (0.0, 1e-44, {}, (2.0**-63, 0)),
    ],
)
def test_chosen_parameters(
    low: float, high: float, options: dict[str, Any], expected: tuple[float, int]
) -> None:
    params = numerics.choose_params(low, high, **options)
    assert (params.scale[0], params.zero_point[0]) == expected


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, math.nan), (math.nan, 0.0), (-math.inf, 0.0), (0.0, math.inf), (1, 0)]
)
def test_no_parameters_for_no_range(low: float, high: float) -> None:
    with pytest.raises(DataError, match="look for NaN or infinity"):
        numerics.choose_params(low, high)


@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    st.sampled_from([4, 8, 16]),
    st.sampled_from([None, 0, 1, -1]),
    seeds,
)
@settings(max_examples=80, deadline=None)
def test_weight_parameters(
    sizes: list[int], bits: int, axis: int | None, rng: np.random.Generator
) -> None:
    spread = 10.0 ** rng.uniform(-3, 3, sizes)
    weight = (rng.normal(size=sizes) * spread).astype(np.float32)
    granularity: Any = "per_tensor" if axis is None else "per_axis"
    params = numerics.weight_params(weight, bits=bits, granularity=granularity, axis=axis or 0)
    most = 2 ** (bits - 1) - 1
    assert params.limits == (-most, most)
    assert params.axis == (None if axis is None else axis % weight.ndim)
    assert len(params.scale) == (1 if axis is None else sizes[axis])
    stored = numerics.quantize(weight, params).astype(np.int64)
    others = tuple(i for i in range(weight.ndim) if i != params.axis)
    assert np.all(np.max(np.abs(stored), axis=others if params.axis is not None else None) == most)
    error = np.abs(numerics.dequantize(stored, params).astype(np.float64) - weight)
    assert np.all(error <= params.scales(weight.ndim) / 2 + 3 * FLOAT32_EPSILON * np.abs(weight))


def test_empty_and_tiny_channels_have_usable_scales() -> None:
    weight = np.array([[0.0, 0.0], [1e-42, 0.0], [1e-9, -1e-9], [1.0, 2.0]], np.float32)
    params = numerics.weight_params(weight, bits=8, granularity="per_axis", axis=0)
    assert all(np.float32(each) == each >= np.finfo(np.float32).tiny for each in params.scale)
    assert numerics.quantize(weight, params)[:2].tolist() == [[0, 0], [0, 0]]
    powers = numerics.weight_params(weight, scheme="power_of_two")
    assert all(math.log2(each).is_integer() for each in powers.scale)
    assert all(each >= other for each, other in zip(powers.scale, params.scale, strict=True))
    empty = numerics.weight_params(np.zeros((2, 2), np.float32), granularity="per_tensor")
    assert empty.scale[0] > 0


@given(seeds, st.sampled_from(["per_tensor", "per_axis"]), st.sampled_from(SCHEMES))
@settings(max_examples=60, deadline=None)
def test_a_raised_scale_makes_room_for_the_bias(
    rng: np.random.Generator, granularity: Any, scheme: Any
) -> None:
    weight = (rng.normal(size=(6, 4)) * 10.0 ** rng.uniform(-20, 1, (6, 1))).astype(np.float32)
    bias = (rng.normal(size=6) * 10.0 ** rng.uniform(-3, 3, 6)).astype(np.float32)
    source = numerics.choose_params(-1.0, 10.0 ** rng.uniform(-3, 3))
    before = numerics.weight_params(weight, granularity=granularity, scheme=scheme)
    after = numerics.raise_weight_scale(before, source, bias)
    assert all(b >= a for a, b in zip(before.scale, after.scale, strict=True))
    stored = numerics.quantize(bias, numerics.bias_params(source, after))
    assert stored.dtype == np.int32
    # The scale was rounded to float32 after the division, so the limit may be passed by that much.
    assert np.max(np.abs(stored.astype(np.int64))) <= 2**30 * (1 + FLOAT32_EPSILON)
    product = source.scale[0] * np.array(after.scale)
    assert np.all(np.abs(stored * product - bias) <= product / 2 * (1 + 1e-6))
    if scheme == "power_of_two":
        assert all(math.log2(each).is_integer() for each in after.scale)


@given(seeds, st.integers(0, 255))
@settings(max_examples=30, deadline=None)
def test_no_accumulator_exceeds_its_bound(rng: np.random.Generator, zero_point: int) -> None:
    source = _u8(1.0, zero_point)
    weight = rng.integers(-127, 128, (3, 5)).astype(np.int8)
    bias = rng.integers(-(2**20), 2**20, 3).astype(np.int32)
    bound = numerics.accumulator_bound(weight, 0, source, bias)
    lhs = _stored(rng, source, (50, 5))
    acc = numerics.matmul(lhs, weight, bias, zero_point=zero_point, transpose_rhs=True)
    assert np.max(np.abs(acc)) <= bound
    assert bound <= max(zero_point, 255 - zero_point) * 127 * 5 + 2**20


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_scales_are_rounded_once(rng: np.random.Generator) -> None:
    sx, sy = rng.uniform(1e-3, 1, 2)
    sw = rng.uniform(1e-3, 1, 4)
    source, output = (_u8(float(each)) for each in (sx, sy))
    weight = _narrow_i8(*sw.tolist(), axis=0)
    assert numerics.accumulator_scale(source, weight).tolist() == (sx * sw).astype("f4").tolist()
    quotient = numerics.accumulator_scale(source, weight, output)
    assert quotient.tolist() == (sx * sw / sy).astype("f4").tolist()
    assert numerics.bias_params(source, weight).scale == tuple((sx * sw).tolist())
    counts = np.arange(1, 50)
    means = numerics.pool_scale(counts, source, output), numerics.pool_scale(counts, source)
    assert means[0].tolist() == (sx / (counts * sy)).astype("f4").tolist()
    assert means[1].tolist() == (sx / counts).astype("f4").tolist()
    one = np.ones(1, np.uint8)
    assert numerics.addend(one, source, output)[0] == np.float32(sx / sy)
    assert numerics.addend(one, source)[0] == np.float32(sx)
