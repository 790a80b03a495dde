"""Winograd's convolution of integers: bit for bit the direct one, at every size and extreme."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
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
from mlq.kernels import library
from mlq.kernels.image import Image
from mlq.kernels.isa import ISAS, Isa
from mlq.kernels.library import best
from mlq.kernels.winograd import F2, F2_STRIDE2, F4, FORMS, Cover, Form, Transform
from mlq.kernels.winograd_conv import Winograd
from mlq.numerics import QuantParams
from mlq.targets.iree import compile_module
from mlq.transforms import parse_pipeline

Array = NDArray[Any]
WORDS = [isa for isa in ISAS if isa.halves is not None]
NAMES = {F2: "F2", F4: "F4", F2_STRIDE2: "F2-stride2"}

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


def by_winograd(shape: Shape, isa: Isa, form: Form, seed: int) -> Case:
    """The tiles of an image and the transformed weights, as the kernel reads them."""
    make, rng = partial(Winograd, form=form), np.random.default_rng(seed)
    shape = replace(shape, s=form.stride)
    case = convolution(shape, isa, rng, depthwise=False, conv=make)
    memory, taps, *others = case.arguments
    kernel = case.kernel
    stored = memory.view(np.uint8) if memory.dtype == np.int8 else memory
    tiles = transformed(stored.astype(np.int32), kernel.transform)
    case.arguments = [tiles.astype(np.int16), weights_of(kernel, taps), *others]
    return case


def weights_of(kernel: Winograd, taps: Array) -> Array:
    """G g G' of packed weights, as `Layer.packed` has them made when a module is loaded."""
    first, found, combinations = 0, [], kernel.form.combinations
    for blocks, each in kernel.blocks:
        size = blocks * 9 * each
        block = taps[first : first + size].reshape(blocks, 9, each).astype(np.int32)
        found.append((combinations @ block).reshape(-1))
        first += size
    made = np.concatenate(found)
    assert np.abs(made).max() < 1 << 15
    return made.astype(np.int16)


def transformed(memory: Array, kernel: Transform) -> Array:
    """B' d B of each tile, by its definition; groups of tiles, the last one filled."""
    image, cover, pads, form = kernel.input, kernel.cover, kernel.pads, kernel.form
    sides, pixels = np.array(form.pixels), memory.reshape(image.shape)
    top, left = image.margin[0] - pads[0], image.margin[1] - pads[1]
    rows, columns = (
        [min(form.made * i, size - form.made) * form.stride for i in range(count)]
        for size, count in ((cover.height, cover.down), (cover.width, cover.across))
    )
    origins = [(y + top, x + left) for y in rows for x in columns]
    origins += origins[-1:] * (-len(origins) % kernel.together)
    read = form.read
    tiles = np.stack([pixels[:, y : y + read, x : x + read] for y, x in origins], axis=1)
    tiles = tiles.reshape(len(tiles), -1, kernel.together, *tiles.shape[2:])
    made = np.einsum("ai,bgtijc,dj->bgadtc", sides, tiles, sides)
    assert np.abs(made).max() < 1 << 15
    places = made.reshape(image.batch * kernel.groups * read * read, -1)
    return np.pad(places, ((0, 0), (0, kernel.apart - places.shape[1]))).reshape(-1)


@pytest.mark.parametrize("form", FORMS, ids=NAMES.__getitem__)
def test_a_form_is_a_convolution(form: Form) -> None:
    """Times known numbers; of bytes come words, whatever they are."""
    rng, (g, b, a) = (
        np.random.default_rng(0),
        map(np.array, (form.weights, form.pixels, form.results)),
    )
    d, w = rng.integers(0, 256, (form.read, form.read)), rng.integers(-128, 128, (3, 3))
    found = a @ ((g @ w @ g.T) * (b @ d @ b.T)) @ a.T
    places = range(0, form.made * form.stride, form.stride)
    expected = np.array([[np.sum(w * d[y : y + 3, x : x + 3]) for x in places] for y in places])
    np.testing.assert_array_equal(found, expected * np.outer(form.scales, form.scales))
    for side, least, most in ((b, 0, 255), (g, -128, 127)):
        both = np.kron(side, side)
        reach = np.where(both > 0, both, 0).sum(1), np.where(both < 0, -both, 0).sum(1)
        for one, other in (reach, reach[::-1]):
            assert (one * most - other * least).max() < 1 << 15


@pytest.mark.parametrize("form", FORMS, ids=NAMES.__getitem__)
@pytest.mark.parametrize("isa", WORDS, ids=lambda isa: isa.name)
def test_products_of_tiles_are_the_convolution(isa: Isa, form: Form) -> None:
    shapes = [replace(shape, s=form.stride) for shape in SHAPES]
    shapes = [shape for shape in shapes if min(shape.size) >= form.made]
    checked([by_winograd(shape, isa, form, i) for i, shape in enumerate(shapes)], target_of(isa))


@pytest.mark.parametrize("form", FORMS, ids=NAMES.__getitem__)
@pytest.mark.parametrize("isa", WORDS, ids=lambda isa: isa.name)
def test_tiles_are_transformed(isa: Isa, form: Form) -> None:
    rng, target = np.random.default_rng(0), target_of(isa)
    kernels = [
        Transform(
            isa,
            form,
            Image(n, h, w, c, margin),
            Cover(*((size + grown - 1) // form.stride + 1 for size in (h, w)), form.made),
            pads,
            5,
        )
        for n, h, w, c, margin, grown, pads in (
            (1, 4, 4, 16, (1, 1, 1, 1), 0, (1, 1)),
            (2, 7, 9, 52, (1, 2, 1, 3), 0, (1, 1)),
            (1, 8, 7, 20, (0, 0, 0, 0), -2, (0, 0)),
            (1, 30, 31, 64, (1, 1, 1, 1), 0, (1, 1)),
            (2, 4, 12, 512, (1, 1, 1, 1), 0, (1, 1)),  # places are not side by side
        )
    ]
    images = [rng.choice([0, 1, 255], each.buffers[0].count) for each in kernels]
    element = np.int16 if isa.widens else np.uint8
    stored = [image.astype(element).view(f"i{element().nbytes}") for image in images]
    runner = emulation.load(program(kernels), target, {}, outputs=len(kernels), threads=2)
    for kernel, image, found in zip(kernels, images, runner.run(*stored), strict=True):
        expected = transformed(image.astype(np.int32), kernel)
        used = kernel.together * kernel.input.channels
        each = [x.reshape(-1, kernel.apart)[:, :used] for x in (found, expected)]
        np.testing.assert_array_equal(*each)


@pytest.mark.parametrize("form", FORMS, ids=NAMES.__getitem__)
@pytest.mark.parametrize("isa", WORDS, ids=lambda isa: isa.name)
def test_what_waits_for_all_places_is_as_little_as_functions_may_keep(isa: Isa, form: Form) -> None:
    """IREE refuses more; it compiles for what this CPU may lack."""
    target = next(each for each in EVERY if best(each.cpu_features) is isa)
    shapes = (Shape(h=56, w=56, c=64, o=64, **WINDOW), Shape(h=7, w=7, c=64, o=104, **WINDOW))
    kernels = [by_winograd(shape, isa, form, 0).kernel for shape in shapes]
    assert compile_module(program(kernels), target)


@pytest.mark.parametrize(("form", "channels"), [(F2, 1840), (F4, 112)])
def test_sums_that_wrap_around_are_exact_up_to_the_limit(form: Form, channels: int) -> None:
    """At the extremes, with as many channels as the convolution shifted allows."""
    isa = library.named("avx2")
    assert isinstance(isa, Isa)
    target = target_of(isa)
    extreme = np.full((3, 3, channels, 16), 127, np.int8)
    assert form.fits(extreme)
    assert not form.fits(np.full((3, 3, channels + 8, 16), 127, np.int8))
    assert form.fits(np.concatenate([extreme, -extreme], axis=2))  # signs apart
    shape = Shape(h=4, w=4, c=channels, o=16, result="f32", **WINDOW)
    case = by_winograd(shape, isa, form, 0)
    kernel = case.kernel
    pixels = np.full(kernel.input.shape, 255, np.int32).reshape(-1)
    tiles = transformed(pixels, kernel.transform).astype(np.int16)
    coefficients = case.arguments[2].copy()
    coefficients[-2 * 16 : -16] = 0
    coefficients[-16:] = np.ones(16, np.float32).view(np.int32)
    case.arguments = [tiles, weights_of(kernel, kernel.pack(extreme)), coefficients]
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
    assert len(re.findall(r"winograd\d_conv3x3", lowered)) > 1
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
