"""Layers of f16: kernels of tensor cores in the interpreter of PTX, and whole networks."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ptx
import ptx_network
import pytest
import test_kernels as cases
from numpy.typing import NDArray
from test_kernels import Shape, in_memory, padded
from torch_mlir.ir import Location, Module

from mlq import (
    calibration,
    metrics,
    network,
    numerics,
    planning,
    reference,
    runtime,
    targets,
    variant,
)
from mlq.dialect import context
from mlq.dialect.weights import WeightStore, bound
from mlq.frontends.data import load_data
from mlq.kernels import library
from mlq.kernels.executable import MARGIN_VALUE
from mlq.kernels.finishing import Finish, Numbers
from mlq.kernels.gpu import tensor_cores
from mlq.kernels.gpu.planning import Plan
from mlq.kernels.image import Image
from mlq.kernels.storage import Kind
from mlq.network import Network
from mlq.numerics.windows import convolve
from mlq.plan import Plan as Precisions
from mlq.ranges import Ranges
from mlq.recipe import Recipe, resolve
from mlq.simulation import Simulation
from mlq.targets.iree import compile_module
from mlq.transforms import parse_pipeline
from mlq.transforms.pipelines import lowering
from mlq.verification import DTYPES, Exposed

Array = NDArray[Any]
RNG = np.random.default_rng

ISA, CARD = library.named("cuda_mma"), "cuda:sm_80"
TYPES = {"f16": np.float16, "f32": np.float32}
# Half a unit in the last place, as a share of a number; and of the least, which are as far apart.
UNIT, LEAST = 2.0**-11, 2.0**-25


@dataclass
class Case:
    """A kernel, what it reads, what it must make: exactly, but for sums in f32, off by `error`."""

    kernel: Any
    output: Image
    arguments: list[Array]
    exact: Array
    error: Array | float = 0.0

    def check(self, found: Array) -> None:
        found = found.reshape(self.output.shape).astype(np.float64)
        top, left, *_ = self.output.margin
        _, height, width, channels = self.exact.shape
        inner = found[:, top : top + height, left : left + width, :channels]
        most = self.error + UNIT * np.abs(self.exact) + LEAST
        if self.kernel.buffers[-1].element == "f32":
            most = self.error
        assert (np.abs(inner - self.exact) <= most).all(), np.abs(inner - self.exact).max()
        beyond = np.ones(found.shape[1:3], bool)
        beyond[top : top + height, left : left + width] = False
        assert (found[:, beyond] == 0).all()


class Executed:
    """Kernels, compiled once, to be executed by the interpreter."""

    def __init__(self, made: list[Case]) -> None:
        text = cases.program([case.kernel for case in made])
        self.symbols = re.findall(r"entry_points = \[@(\w+)::", text)
        texts = ptx.modules(compile_module(text, targets.by_name(CARD)))
        self.kernels = {k: v for each in texts for k, v in ptx.kernels(each).items()}

    def run(self, number: int, case: Case) -> tuple[Array, Counter[str]]:
        buffer = case.kernel.buffers[-1]
        result = np.full(buffer.count, np.nan, TYPES[buffer.element])
        buffers = [each.copy() for each in case.arguments] + [result]
        kernel = self.kernels[self.symbols[number]]
        return result, ptx.run(kernel, case.kernel.grid, buffers)


def convolution(shape: Shape, rng: np.random.Generator, *, depthwise: bool = False) -> Case:
    groups = shape.c if depthwise else 1
    channels = shape.c if depthwise else shape.o
    x = rng.normal(size=(shape.n, shape.h, shape.w, shape.c)).astype(np.float16)
    filters = (shape.k, shape.k, shape.c // groups, channels)
    weight = rng.normal(size=filters).astype(np.float16)
    bias = rng.normal(size=channels).astype(np.float32)
    steps = {"strides": (shape.s,) * 2, "pads": (shape.p,) * 4, "dilations": (shape.d,) * 2}

    def summed(x: Array, weight: Array) -> Array:
        image, taps = (each.astype(np.float64) for each in (x, weight))
        turned = image.transpose(0, 3, 1, 2), taps.transpose(3, 2, 0, 1)
        return convolve(*turned, **steps, groups=groups).transpose(0, 2, 3, 1)

    exact, sizes = summed(x, weight) + bias, summed(np.abs(x), np.abs(weight)) + np.abs(bias)
    input = Image(shape.n, shape.h, shape.w, padded(shape.c), (shape.p,) * 4)
    stored = channels if shape.result == "f32" else padded(channels)
    output = Image(shape.n, *shape.size, stored, shape.margin)
    low, high = (-np.inf, np.inf) if shape.low is None else (shape.low, shape.high or 0.0)
    bounded = shape.low is not None
    finish = Finish(shape.result, "f32", shape.residual, bounded, bounded)
    images: dict[str, Any] = {"isa": ISA, "input": input, "output": output, "finish": finish}
    images |= {"kind": "f16", **shape.window}
    dense = Image(shape.n, *shape.size, padded(channels))
    if depthwise:
        kernel = library.of(ISA).depthwise(**images)
    else:
        residual_image = dense if shape.residual else None
        kernel = library.of(ISA).conv(
            **images, residual=residual_image, channels=channels, groups=1
        )
    numbers = Numbers(low=low, high=high, residual_scale=1.0)
    scale = kernel.ordered(np.ones(channels, np.float32))
    coefficients = numbers.with_channels(finish, kernel.ordered(bias), scale, ISA.storage_of)
    packed = kernel.pack(weight).view(np.int32)
    arguments = [in_memory(x, input, 0).view(np.int32), packed, coefficients]
    if shape.residual:
        residual = rng.normal(size=exact.shape).astype(TYPES[shape.residual])
        arguments.append(in_memory(residual, dense, 0))
        exact, sizes = exact + residual, sizes + np.abs(residual)
    terms = np.prod(filters[:3]) + 2
    error = float(np.finfo(np.float32).eps) * terms * sizes
    return Case(kernel, output, arguments, np.clip(exact, low, high), error)


HALF: dict[str, Any] = {"kind": "f16", "result": "f16"}
CONVS = (
    Shape(**HALF),
    Shape(k=3, p=1, c=32, **HALF),
    Shape(h=9, w=11, c=24, o=24, **HALF),
    Shape(k=3, s=2, p=1, h=13, w=15, o=96, margin=(1, 1, 1, 1), low=0.0, high=6.0, **HALF),
    Shape(h=7, w=7, c=64, o=128, residual="f16", **HALF),
    Shape(k=3, p=2, d=2, h=7, w=7, o=37, residual="f32", **HALF),
    Shape(h=1, w=1, c=64, o=101, kind="f16", result="f32"),
    Shape(n=3, c=32, o=208, **HALF),
    Shape(k=7, s=2, p=3, c=3, h=20, w=20, margin=(1, 2, 0, 3), **HALF),
    Shape(k=3, p=1, h=9, w=8, c=1, o=20, **HALF),
    Shape(k=5, p=2, h=5, w=3, c=12, o=16, residual="f32", kind="f16", result="f32"),
)
DEPTHWISE = (
    Shape(k=3, p=1, c=64, **HALF),
    Shape(k=3, s=2, p=1, c=24, h=15, margin=(1, 0, 0, 2), low=0.0, high=6.0, **HALF),
    Shape(k=5, p=2, c=144, n=2, kind="f16", result="f32"),
    Shape(k=3, d=2, p=2, s=2, c=96, **HALF),
)


def test_convolutions_are_right() -> None:
    rng = RNG(0)
    made = [convolution(shape, rng) for shape in CONVS]
    made += [convolution(shape, rng, depthwise=True) for shape in DEPTHWISE]
    executed = Executed(made)
    for i, case in enumerate(made):
        found, counts = executed.run(i, case)
        case.check(found)
        product = "fma" if "depthwise" in executed.symbols[i] else "mma"
        assert counts[product] > 0, executed.symbols[i]


TILED = (
    Shape(n=2, h=11, w=13, k=3, p=1, c=64, o=128, residual="f16", margin=(1, 1, 1, 1), **HALF),
    Shape(h=9, w=9, k=3, s=2, p=1, c=40, o=64, **HALF),
    Shape(n=3, h=9, w=9, c=32, o=180, kind="f16", result="f32"),
    Shape(h=7, w=7, k=3, p=2, d=2, c=64, o=64, **HALF),
)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(4, 4),
        Plan(1, 4, 4),
        Plan(2, 8),
        Plan(4, 4, across=2, stages=4),
        Plan(2, 4, across=1, stages=3),
        Plan(2, 4, across=2, stages=4, warps=8),
    ],
)
def test_plans_of_all_sizes_are_right(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    monkeypatch.setattr(tensor_cores, "best_plan", lambda *_: plan)
    rng = RNG(1)
    made = [convolution(shape, rng) for shape in TILED]
    executed = Executed(made)
    for i, case in enumerate(made):
        found, counts = executed.run(i, case)
        case.check(found)
        assert bool(counts["cp"]) == bool(plan.stages)


def test_swapped_fragments_are_seen() -> None:
    case = convolution(CONVS[0], RNG(0))
    executed = Executed([case])
    steps = executed.kernels[executed.symbols[0]].steps
    place = next(i for i, step in enumerate(steps) if step.code[0] == "mma")
    sums, pixels, *rest = steps[place].operands
    a, b, c, d = pixels.strip("{}").split(",")
    for order in (f"{b},{a},{c},{d}", f"{a},{b},{d},{c}"):
        steps[place] = replace(steps[place], operands=(sums, f"{{{order}}}", *rest))
        with pytest.raises(AssertionError):
            case.check(executed.run(0, case)[0])


def max_pool(rng: np.random.Generator) -> Case:
    x = rng.normal(size=(2, 15, 14, 24)).astype(np.float16)
    input, output = Image(2, 15, 14, 24, (0, 1, 0, 1)), Image(2, 8, 7, 24, (1, 1, 1, 1))
    keys = {"kernel": (3, 3), "strides": (2, 2), "pads": (1,) * 4}
    exact = numerics.max_pool2d(x.transpose(0, 3, 1, 2), **keys).transpose(0, 2, 3, 1)
    kernel = library.of(ISA).max_pool(
        isa=ISA, input=input, output=output, kind="f16", **cases.WINDOW
    )
    arguments = [in_memory(x, input, 9), np.zeros(MARGIN_VALUE.count, np.int32)]
    return Case(kernel, output, arguments, exact.astype(np.float64))


def mean_pool(rng: np.random.Generator, result: Kind) -> Case:
    x = rng.normal(size=(2, 7, 6, 40)).astype(np.float16)
    keys = {"kernel": (3, 3), "strides": (2, 2), "pads": (1,) * 4}
    sums, counts = numerics.avg_pool2d(x.transpose(0, 3, 1, 2).astype(int), zero_point=0, **keys)
    exact = numerics.real.avg_pool2d(x.transpose(0, 3, 1, 2).astype(np.float64), **keys)
    input, output = Image(2, 7, 6, 40, (1,) * 4), Image(2, *sums.shape[2:], 40)
    finish = Finish(result, "f32")
    kernel = library.of(ISA).mean_pool(
        isa=ISA,
        input=input,
        output=output,
        finish=finish,
        scales=counts.size,
        kind="f16",
        **cases.WINDOW,
    )
    scale = (1 / counts).astype(np.float32).reshape(-1)
    numbers = Numbers().with_channels(finish, np.zeros_like(scale), scale, ISA.storage_of)
    arguments = [in_memory(x, input, 0), numbers]
    return Case(kernel, output, arguments, exact.transpose(0, 2, 3, 1), 1e-6)


def cast(rng: np.random.Generator, *, planes: bool) -> Case:
    """From f32, the network's input in NCHW or an image: rounded to nearest, ties to even."""
    x = rng.normal(0, 3, (2, 17, 9, 3)).astype(np.float32)
    x.flat[:4] = [1 + 2.0**-11, 1 + 3 * 2.0**-11, 2.0**-25, -65504.0]
    output, finish = Image(2, 17, 9, 4, (3, 3, 2, 2)), Finish("f16")
    ones = np.ones(1, np.float32)
    numbers = Numbers().with_channels(finish, 0 * ones, ones, ISA.storage_of)
    made, exact = library.of(ISA), x.astype(np.float16).astype(np.float64)
    if planes:
        kernel = made.quantize_image(isa=ISA, channels=3, output=output, finish=finish)
        return Case(kernel, output, [x.transpose(0, 3, 1, 2).reshape(-1), numbers], exact)
    input = Image(2, 17, 9, 3, (0, 1, 1, 0))
    kernel = made.quantize(isa=ISA, input=input, output=output, channels=3, finish=finish)
    return Case(kernel, output, [in_memory(x, input, 0), numbers], exact)


def test_pools_and_casts_are_right() -> None:
    rng = RNG(2)
    made = [max_pool(rng), mean_pool(rng, "f16"), mean_pool(rng, "f32")]
    made += [cast(rng, planes=True), cast(rng, planes=False)]
    executed = Executed(made)
    for i, case in enumerate(made):
        case.check(executed.run(i, case)[0])


MOVED = """
func.func @main(%x: tensor<1x6x9x8xf32> {mlq.name = "x"}) -> tensor<1x12x4x4xf32> {
  %h = "mlq.quantize"(%x) : (tensor<1x6x9x8xf32>) -> tensor<1x6x9x8xf16>
  %p = "mlq.max_pool2d"(%h) {kernel = array<i64: 3, 3>, strides = array<i64: 1, 1>,
    pads = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, layout = "nchw"}
    : (tensor<1x6x9x8xf16>) -> tensor<1x6x9x8xf16>
  %c = "mlq.concat"(%h, %p) {axis = 1 : i64}
    : (tensor<1x6x9x8xf16>, tensor<1x6x9x8xf16>) -> tensor<1x12x9x8xf16>
  %s = "mlq.slice"(%c) {offsets = array<i64: 0, 2, 1, 0>, sizes = array<i64: 1, 9, 4, 4>,
    strides = array<i64: 1, 1, 2, 2>} : (tensor<1x12x9x8xf16>) -> tensor<1x9x4x4xf16>
  %q = "mlq.pad"(%s) {low = array<i64: 0, 2, 0, 0>, high = array<i64: 0, 1, 0, 0>,
    value = 0.1 : f32} : (tensor<1x9x4x4xf16>) -> tensor<1x12x4x4xf16>
  %w = "mlq.weight"() {key = "w"} : () -> tensor<12x12x1x1xf16>
  %r = "mlq.conv2d"(%q, %w, %q) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>,
    dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", mlq.name = "r",
    operandSegmentSizes = array<i32: 1, 1, 0, 1>,
    activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>}
    : (tensor<1x12x4x4xf16>, tensor<12x12x1x1xf16>, tensor<1x12x4x4xf16>)
    -> tensor<1x12x4x4xf16>
  %a = "mlq.add"(%r, %q) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>}
    : (tensor<1x12x4x4xf16>, tensor<1x12x4x4xf16>) -> tensor<1x12x4x4xf16>
  %y = "mlq.dequantize"(%a) {mlq.name = "y"}
    : (tensor<1x12x4x4xf16>) -> tensor<1x12x4x4xf32>
  return %y : tensor<1x12x4x4xf32>
}
"""


@pytest.mark.parametrize("name", [CARD, "host"])
def test_what_moves_f16_is_as_the_reference_has_it(name: str) -> None:
    """By kernels, and through linalg."""
    rng = RNG(5)
    target = targets.host_target() if name == "host" else targets.by_name(name)
    x = rng.normal(0, 2, (1, 6, 9, 8)).astype(np.float32)
    store = WeightStore({"w": rng.normal(size=(12, 12, 1, 1)).astype(np.float16)})
    with context(), Location.unknown(), bound(store):
        module = Module.parse(MOVED)
        expected = reference.run(module, [x])["y"]
        parse_pipeline(lowering(target.features)).run(module.operation)
        lowered = str(module.operation.get_asm(print_generic_op_form=True))
    kernels = ("concat", "half_move", "half_max_pool", "half_conv", "half_quantize")
    assert all((f"@{each}" in lowered) == (name == CARD) for each in kernels)
    if name == CARD:
        found = ptx_network.Network(lowered, target, store).run(x)[0]
    else:
        found = runtime.load(compile_module(lowered, target, weights=store)).run(x)[0]
    apart = np.abs(found.astype(np.float64) - expected)
    assert (apart <= 4 * UNIT * np.abs(expected) + 1e-5).all()


DEMO = Path(__file__).parents[1] / "mlq" / "demo"


@dataclass(frozen=True)
class Digits:
    """The bundled network, calibrated on a few samples, one of which is an input."""

    network: Network
    ranges: Ranges
    x: Array

    def plan(self, *names: str) -> Precisions:
        """Layers in these precisions, by turns."""
        allowed = {layer.name: names for layer in self.network.layers}
        plan = planning.uniform_plan(self.network, resolve({}), names[0], allowed)
        turns = {
            name: each.model_copy(update={"precision": names[i % len(names)]})
            for i, (name, each) in enumerate(plan.layers.items())
        }
        return plan.model_copy(update={"layers": turns})


@pytest.fixture(scope="module")
def digits() -> Digits:
    model, host = DEMO / "digits.onnx", targets.host_target()
    made = network.load(model, batch=1)
    data = load_data(str(DEMO / "digits-calib.npz"), made.sample_specs, model_path=model, samples=4)
    batches = [[each[spec.name] for spec in made.model.inputs] for each in data.batches(1)]
    executable = calibration.instrument(made, host)
    seen = calibration.observe(made, (executable.run(*each) for each in batches))
    ranges = calibration.ranges_by("minmax", seen, scheme="asymmetric")
    return Digits(made, ranges, batches[0][0])


def test_a_network_of_f16_is_near_float(digits: Digits) -> None:
    host, card = targets.host_target(), targets.by_name(CARD)
    plans = digits.plan("f32"), digits.plan("f16")
    real, _ = (variant.build(digits.network, plan, digits.ranges, host).vmfb for plan in plans)
    expected = runtime.load(real).run(digits.x)[0]
    lowered = variant.lowered(variant.quantize(digits.network, plans[1], digits.ranges), card)
    executed = ptx_network.Network(lowered.text, card, lowered.weights)
    products = [name for name in executed.kernels if "conv" in name or "depthwise" in name]
    assert products
    assert all(name.startswith("half_") for name in products)
    found = executed.run(digits.x)[0]
    assert 0 < np.abs(found - expected).max() < 2.0**-9 * np.abs(expected).max()
    assert metrics.kl_mnat(expected, found) < 1e-3
    assert executed.executed["mma"] > 0


def test_f16_among_integers_is_as_the_reference_has_it(digits: Digits) -> None:
    """Each tensor by itself: integers exactly, f16 to a unit in the last place."""
    quantized = variant.quantize(
        digits.network, digits.plan("f16", "f16", "w8a8", "w8a8"), digits.ranges
    )
    exposed = Exposed.of(quantized)
    results = exposed.on(targets.host_target(), outputs=1).run(digits.x)
    found = exposed.named(results)
    expected = network.compute(exposed.made, [digits.x], found)
    kinds = {name: kind for name, kind in exposed.tensors if name in expected}
    assert {"f16", "u8", "f32"} <= set(kinds.values())
    for name, kind in kinds.items():
        if kind in DTYPES:
            np.testing.assert_array_equal(found[name], expected[name])
        if kind == "f16":
            assert found[name].dtype == np.float16
            apart = np.abs(found[name].astype(np.float64) - expected[name])
            assert (apart <= 2 * UNIT * np.abs(expected[name]) + 1e-5).all()


def test_simulation_knows_f16(digits: Digits) -> None:
    host, plan = targets.host_target(), digits.plan("f16", "w8a8")
    simulation = Simulation(digits.network, host)
    precisions = {name: each.precision for name, each in plan.layers.items()}
    found = [
        simulation.run([digits.x], digits.ranges, each)[0]
        for each in (precisions, dict.fromkeys(precisions, "f16"), {})
    ]
    vmfb = variant.build(digits.network, plan, digits.ranges, host).vmfb
    real = runtime.load(vmfb).run(digits.x)[0]
    noise = np.abs(real - found[2]).max()
    assert np.abs(found[0] - real).max() < noise / 4
    assert 0 < np.abs(found[1] - found[2]).max() < noise / 4


def test_rounding_in_simulation_is_that_of_f16() -> None:
    x = RNG(3).normal(0, 10, 4096).astype(np.float32)
    x[:3] = [1 + UNIT, 1 + 3 * UNIT, -65504]
    simulated = numerics.fake_quantize_row(x, np.array(numerics.F16_ROW, np.float32))
    np.testing.assert_array_equal(simulated, numerics.real.to_f16(x).astype(np.float32))


def test_f16_is_offered_where_there_are_kernels_to_those_who_ask() -> None:
    card = targets.by_name(CARD)
    assert "f16" not in Recipe().with_menu(card.menu).reduced_precisions()
    assert card.supports("conv2d", "f16")
    assert not card.supports("batch_matmul", "f16")
    others = [targets.by_name(name) for name in ("cuda:sm_75", "vulkan:ampere", "x86")]
    assert not any(each.supports("conv2d", "f16") for each in others)
