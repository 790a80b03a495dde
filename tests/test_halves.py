"""Layers of f16: kernels of tensor cores in the interpreter of PTX, and whole networks."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import ptx
import pytest
import test_kernels as cases
from numpy.typing import NDArray
from test_kernels import Shape, in_memory, padded

from mlq import numerics, targets
from mlq.kernels import library
from mlq.kernels.executable import MARGIN_VALUE
from mlq.kernels.finishing import Finish, Numbers
from mlq.kernels.gpu import tensor_cores
from mlq.kernels.gpu.planning import Plan
from mlq.kernels.image import Image
from mlq.kernels.storage import Kind
from mlq.numerics.windows import convolve
from mlq.targets.iree import compile_module

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
