"""Winograd's convolution of integers: bit for bit the direct one, at every size and extreme."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_kernels import EVERY, Case, Shape, checked, convolution, program, target_of
from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Location, Module

from mlq import emulation, reference, runtime
from mlq.dialect import build, context, quant
from mlq.dialect.build import Activation
from mlq.dialect.weights import WeightStore, bound
from mlq.kernels import library, winograd
from mlq.kernels.image import Image
from mlq.kernels.isa import ISAS, Isa
from mlq.kernels.library import best
from mlq.kernels.winograd import COMBINATIONS, Cover, Transform
from mlq.kernels.winograd_conv import Winograd
from mlq.numerics import QuantParams
from mlq.targets.iree import compile_module
from mlq.transforms import parse_pipeline

Array = NDArray[Any]
WORDS = [isa for isa in ISAS if isa.widens]

WINDOW: dict[str, Any] = {"k": 3, "p": 1}
SHAPES = (
    Shape(h=2, w=2, c=16, o=16, **WINDOW),
    Shape(h=3, w=5, c=20, o=24, **WINDOW),
    Shape(h=14, w=13, c=32, o=40, residual="u8", margin=(1, 1, 1, 1), **WINDOW),
    Shape(h=7, w=7, c=64, o=128, residual="f32", result="f32", low=0.0, high=6.0, **WINDOW),
    Shape(n=2, h=9, w=8, c=36, o=37, low=3, high=200, margin=(0, 1, 2, 0), **WINDOW),
    Shape(h=6, w=21, c=16, o=101, guarded=True, **WINDOW),
    Shape(h=5, w=6, c=48, o=16, k=3, p=0),
    Shape(h=5, w=5, c=16, o=32, scale=2.0**-7, **WINDOW),  # ties, and much that saturates
)


def by_winograd(shape: Shape, isa: Isa, seed: int) -> Case:
    """The tiles of an image and the transformed weights, as the kernel reads them."""
    case = convolution(shape, isa, np.random.default_rng(seed), depthwise=False, conv=Winograd)
    memory, taps, *others = case.arguments
    kernel = case.kernel
    tiles = transformed(memory.astype(np.int32), kernel.input, kernel.cover, kernel.pads)
    weights = COMBINATIONS.astype(np.int32) @ taps.reshape(9, -1).astype(np.int32)
    case.arguments = [tiles.astype(np.int16), weights.astype(np.int16).reshape(-1), *others]
    return case


def transformed(memory: Array, image: Image, cover: Cover, pads: tuple[int, int]) -> Array:
    """B' d B of each tile, by its definition."""
    sides = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    pixels = memory.reshape(image.shape)
    top, left = image.margin[0] - pads[0], image.margin[1] - pads[1]
    origins = [
        (min(2 * i, cover.height - 2) + top, min(2 * j, cover.width - 2) + left)
        for i in range(cover.down)
        for j in range(cover.across)
    ]
    tiles = np.stack([pixels[:, y : y + 4, x : x + 4] for y, x in origins], axis=1)
    made = np.einsum("ai,btijc,dj->badtc", sides, tiles, sides)
    assert np.abs(made).max() < 1 << 15
    return made.reshape(-1)


@pytest.mark.parametrize("isa", WORDS, ids=lambda isa: isa.name)
def test_products_of_tiles_are_the_convolution(isa: Isa) -> None:
    checked([by_winograd(shape, isa, seed) for seed, shape in enumerate(SHAPES)], target_of(isa))


@pytest.mark.parametrize("isa", WORDS, ids=lambda isa: isa.name)
def test_tiles_are_transformed(isa: Isa) -> None:
    rng, target = np.random.default_rng(0), target_of(isa)
    kernels = [
        Transform(isa, Image(n, h, w, c, margin), Cover(h + grown, w + grown), pads)
        for n, h, w, c, margin, grown, pads in (
            (1, 2, 2, 16, (1, 1, 1, 1), 0, (1, 1)),
            (2, 7, 9, 52, (1, 2, 1, 3), 0, (1, 1)),
            (1, 8, 5, 20, (0, 0, 0, 0), -2, (0, 0)),
            (1, 30, 31, 64, (1, 1, 1, 1), 0, (1, 1)),
        )
    ]
    images = [rng.choice([0, 1, 255], each.buffers[0].count).astype(np.int16) for each in kernels]
    runner = emulation.load(program(kernels), target, {}, outputs=len(kernels), threads=2)
    for kernel, image, found in zip(kernels, images, runner.run(*images), strict=True):
        expected = transformed(image.astype(np.int32), kernel.input, kernel.cover, kernel.pads)
        np.testing.assert_array_equal(found.reshape(-1), expected)


@pytest.mark.parametrize("isa", WORDS, ids=lambda isa: isa.name)
def test_what_waits_for_all_places_is_as_little_as_functions_may_keep(isa: Isa) -> None:
    """IREE refuses more; it compiles for what this CPU may lack."""
    target = next(each for each in EVERY if best(each.cpu_features) is isa)
    shapes = (Shape(h=56, w=56, c=64, o=64, **WINDOW), Shape(h=7, w=7, c=64, o=104, **WINDOW))
    kernels = [by_winograd(shape, isa, 0).kernel for shape in shapes]
    assert compile_module(program(kernels), target)


def test_sums_that_wrap_around_are_exact_up_to_the_limit() -> None:
    """At the extremes, with as many channels as four times the convolution allows."""
    isa = library.named("avx2")
    assert isinstance(isa, Isa)
    target, channels = target_of(isa), 1840
    extreme = np.full((3, 3, channels, 16), 127, np.int8)
    assert winograd.fits(extreme)
    assert not winograd.fits(np.full((3, 3, channels + 8, 16), 127, np.int8))
    assert winograd.fits(np.concatenate([extreme, -extreme], axis=2))  # signs apart
    case = by_winograd(Shape(h=4, w=4, c=channels, o=16, result="f32", **WINDOW), isa, 0)
    kernel = case.kernel
    pixels = np.full(kernel.input.shape, 255, np.int32).reshape(-1)
    taps = kernel.pack(extreme).reshape(9, -1).astype(np.int32)
    weights = (COMBINATIONS.astype(np.int32) @ taps).astype(np.int16)
    tiles = transformed(pixels, kernel.input, kernel.cover, kernel.pads).astype(np.int16)
    coefficients = case.arguments[2].copy()
    coefficients[-2 * 16 : -16] = 0
    coefficients[-16:] = np.ones(16, np.float32).view(np.int32)
    case.arguments = [tiles, weights.reshape(-1), coefficients]
    case.expected = np.full((1, 4, 4, 16), 9 * channels * 255 * 127, np.float32)
    checked([case], target)


@pytest.mark.parametrize(("height", "width", "bits"), [(15, 17, 8), (114, 2, 8), (17, 14, 4)])
def test_a_network_of_such_convolutions_is_that_of_the_reference(
    height: int, width: int, bits: int
) -> None:
    """Transformed as it runs, its weights as it is loaded: those of 4 bits from half bytes."""
    isa = library.named("avx2")
    assert isinstance(isa, Isa)
    target = target_of(isa)
    text, store = network(height, width, bits)
    x = np.random.default_rng(0).normal(0, 3, (1, 16, height, width)).astype(np.float32)
    with context(), Location.unknown(), bound(store):
        module = Module.parse(text)
        expected = reference.run(module, [x])["y"]
        parse_pipeline("@lower-avx2").run(module.operation)
        lowered = str(module.operation.get_asm(print_generic_op_form=True))
    assert lowered.count("winograd_conv3x3") > 1
    vmfb = compile_module(lowered, target, weights=store)
    np.testing.assert_array_equal(runtime.load(vmfb).run(x)[0], expected)


def network(height: int, width: int, bits: int) -> tuple[str, WeightStore]:
    """Two convolutions, the second with a residual."""
    rng, store = np.random.default_rng(1), WeightStore()
    most = (1 << bits - 1) - 1
    with context(), Location.unknown():
        module = Module.create()
        byte = quant.type_of(QuantParams(8, signed=False, scale=(0.04,), zero_point=(113,)))

        def weight(key: str) -> Any:
            store[key] = rng.integers(-most, most + 1, (16, 16, 3, 3)).astype(np.int8)
            scale = tuple((rng.uniform(0.5, 1.5, 16) / most / 9).tolist())
            params = QuantParams(
                bits,
                signed=True,
                scale=scale,
                zero_point=(0,) * 16,
                axis=0,
                storage_range=(-most, most),
            )
            return build.weight(key, build.tensor((16, 16, 3, 3), quant.type_of(params)))

        with InsertionPoint(module.body):

            @func.FuncOp.from_py_func(build.tensor((1, 16, height, width)), name="main")
            def _main(x: Any) -> Any:
                value, pads = build.quantize(x, byte), {"pads": (1,) * 4, "element": byte}
                one = build.conv2d(value, weight("a"), activation=Activation.relu(), **pads)
                two = build.conv2d(one, weight("b"), residual=value, **pads)
                return build.named(build.dequantize(two), "y")

        return str(module), store
