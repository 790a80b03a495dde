"""Generated kernels against `mlq.numerics` and `mlq.reference`, bit for bit, on each ISA here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Location, Module, RankedTensorType, Type

from mlq import numerics, reference, runtime, targets
from mlq.dialect import build, context, quant
from mlq.dialect.build import Activation
from mlq.dialect.weights import WeightStore, bound
from mlq.kernels import code, library
from mlq.kernels.conv import Conv
from mlq.kernels.depthwise import Depthwise
from mlq.kernels.executable import Buffer, Executables, Kernel
from mlq.kernels.finishing import Finish, Kind, Numbers
from mlq.kernels.image import NO_MARGIN, Image, Margin
from mlq.kernels.isa import ISAS, Isa
from mlq.kernels.library import Device, best
from mlq.kernels.measuring import Energies, FakeQuantize, Observe
from mlq.network import load
from mlq.numerics import QuantParams
from mlq.numerics.sampling import histogram
from mlq.numerics.windows import convolve
from mlq.ranges import Ranges
from mlq.simulation import Simulation
from mlq.targets.host import cpu_features
from mlq.targets.iree import compile_module
from mlq.transforms import parse_pipeline
from mlq.transforms.pipelines import lowering

Array = NDArray[Any]
PRESENT = [isa for isa in ISAS if isa.features <= cpu_features()]

pytestmark = pytest.mark.skipif(not PRESENT, reason="no instruction set of mlq's on this CPU")


@dataclass
class Case:
    """A kernel, what it reads, and the image that it must make in a margin of one number.

    Reals may be wrong by `error`, relative to the greatest.
    """

    kernel: Kernel
    output: Image
    arguments: list[Array]
    expected: Array
    margin: int = 0
    error: float = 0.0

    def inputs(self) -> list[Array]:
        """The arguments in the elements that the kernel reads: a u8 in 16 bits, four in a word."""
        pairs = zip(self.arguments, self.kernel.buffers, strict=False)
        return [as_elements(x, to.element) for x, to in pairs]

    def check(self, found: Array) -> None:
        same = found.nbytes == np.prod(self.output.shape) * self.expected.itemsize
        found = found.view(self.expected.dtype) if same else found.astype(self.expected.dtype)
        found = found.reshape(self.output.shape)
        top, left, *_ = self.output.margin
        _, height, width, channels = self.expected.shape
        inner = found[:, top : top + height, left : left + width]
        least = self.error * float(np.abs(self.expected).max(initial=0))
        np.testing.assert_allclose(inner[..., :channels], self.expected, rtol=0, atol=least)
        beyond = np.ones(found.shape[1:3], bool)
        beyond[top : top + height, left : left + width] = False
        assert (found[:, beyond] == self.margin).all()


def as_elements(x: Array, element: str) -> Array:
    if element == "i16":
        return x.astype(np.int16)
    return x.view(np.int32) if element == "i32" and x.itemsize == 1 else x


def in_memory(x: Array, image: Image, zero_point: int) -> Array:
    stored = np.full(image.shape, zero_point, x.dtype)
    top, left, *_ = image.margin
    _, height, width, channels = x.shape
    stored[:, top : top + height, left : left + width, :channels] = x
    return stored.reshape(-1)


def padded(channels: int) -> int:
    return -(-channels // 4) * 4


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A convolution; `k` is a square window, `p` its padding on all sides."""

    n: int = 1
    h: int = 8
    w: int = 9
    c: int = 16
    o: int = 64
    k: int = 1
    s: int = 1
    d: int = 1
    p: int = 0
    g: int = 1
    result: str = "u8"
    residual: str | None = None
    margin: Margin = NO_MARGIN
    low: float | None = None
    high: float | None = None
    guarded: bool = False
    scale: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        reach = self.d * (self.k - 1) + 1
        height, width = ((n + 2 * self.p - reach) // self.s + 1 for n in (self.h, self.w))
        return height, width

    @property
    def window(self) -> dict[str, Any]:
        pairs = {"window": self.k, "strides": self.s, "dilations": self.d, "pads": self.p}
        return {key: (value, value) for key, value in pairs.items()}


WINDOW: dict[str, Any] = {"window": (3, 3), "strides": (2, 2), "pads": (1, 1)}

CONVS = (
    Shape(k=3, p=1, c=32),
    Shape(h=9, w=11, c=24, o=24),
    Shape(k=3, s=2, p=1, h=13, w=15, o=96, margin=(1, 1, 1, 1), low=3, high=200),
    Shape(h=7, w=7, c=64, o=128, residual="u8"),
    Shape(k=3, p=2, d=2, h=7, w=7, o=37, residual="f32"),
    Shape(h=1, w=1, c=64, o=101, result="f32"),
    Shape(n=2, k=3, p=1, c=64, g=2, residual="u8", result="f32", low=0.0, high=6.0),
    Shape(n=3, c=32, o=208, guarded=True),
    Shape(k=7, s=2, p=3, c=4, h=20, w=20, margin=(1, 2, 0, 3)),
    Shape(h=5, w=3, c=16, o=16, residual="f32", result="f32"),
    Shape(h=5, w=5, c=16, o=32, scale=2.0**-7),  # ties, and much that saturates
)
DEPTHWISE = (
    Shape(k=3, p=1, c=64),
    Shape(k=3, s=2, p=1, c=64, margin=(1, 1, 1, 1)),
    Shape(k=3, p=1, c=24, h=15, margin=(1, 0, 0, 2), low=5, high=250),
    Shape(k=5, p=2, c=144, n=2),
    Shape(k=3, d=2, p=2, s=2, c=96),
    Shape(k=3, p=1, c=208, h=1),
    Shape(k=3, p=1, c=48, result="f32", low=-3.0, high=9.0),
)
REAL_CONVS = (
    Shape(k=3, p=1, c=5, o=37, margin=(1, 0, 2, 1)),
    Shape(h=7, w=7, c=64, o=128, residual="f32", low=0.0, high=6.0),
    Shape(k=3, s=2, p=2, d=2, h=13, w=15, c=16, o=24, n=2),
    Shape(k=3, p=1, c=32, o=64, g=2),
    Shape(h=1, w=1, c=63, o=101),
    Shape(k=7, s=2, p=3, c=3, h=20, w=20),
)
REAL_DEPTHWISE = (
    Shape(k=3, p=1, c=24, margin=(1, 1, 1, 1)),
    Shape(k=3, s=2, p=1, c=37, h=15, low=0.0, high=6.0),
    Shape(k=5, p=2, c=144, n=2),
    Shape(k=3, d=2, p=2, c=7),
)


def convolution(shape: Shape, isa: Device, rng: np.random.Generator, *, depthwise: bool) -> Case:
    zero_points = [int(n) for n in rng.integers(0, 256, 3)]
    groups = shape.c if depthwise else shape.g
    channels = shape.c if depthwise else shape.o
    x = rng.integers(0, 256, (shape.n, shape.h, shape.w, shape.c)).astype(np.uint8)
    filters = (shape.k, shape.k, shape.c // groups, channels)
    weight = rng.integers(-127, 128, filters).astype(np.int8)
    bias = rng.integers(-20000, 20000, channels).astype(np.int32)
    spread = 90 * 127 * np.sqrt(np.prod(filters[:3]))
    scale = (rng.uniform(30, 120, channels) / spread).astype(np.float32)
    if shape.guarded:
        scale[::2] = 1e30
    if shape.scale is not None:
        scale[:] = shape.scale
    acc = numerics.conv2d(
        x.transpose(0, 3, 1, 2),
        weight.transpose(3, 2, 0, 1),
        bias,
        zero_point=zero_points[0],
        strides=(shape.s, shape.s),
        pads=(shape.p,) * 4,
        dilations=(shape.d, shape.d),
        groups=groups,
    ).transpose(0, 2, 3, 1)

    stored = channels if shape.result == "f32" else padded(channels)
    input = Image(shape.n, shape.h, shape.w, shape.c, (shape.p,) * 4)
    output = Image(shape.n, *shape.size, stored, shape.margin)
    finish, numbers = steps(shape, zero_points)
    kernel: Any
    if depthwise:
        kernel = library.of(isa).depthwise(
            isa=isa, input=input, output=output, finish=finish, **shape.window
        )
    else:
        kernel = library.of(isa).conv(
            isa=isa,
            input=input,
            output=output,
            residual=Image(shape.n, *shape.size, stored) if shape.residual else None,
            channels=channels,
            groups=groups,
            finish=finish,
            **shape.window,
        )
    folded = (bias - zero_points[0] * weight.astype(np.int64).sum((0, 1, 2))).astype(np.int32)
    coefficients = numbers.with_channels(finish, kernel.ordered(folded), kernel.ordered(scale))
    arguments = [in_memory(x, input, zero_points[0]), kernel.pack(weight), coefficients]
    term = None
    if shape.residual is not None:
        residual, term = residual_of(shape, acc.shape, numbers, rng)
        arguments.append(in_memory(residual, Image(shape.n, *shape.size, stored), 0))
    expected: Array
    if shape.result == "f32":
        real = numerics.expressed_accumulator(acc, scale, term)
        expected = numerics.clamp(real, numbers.low, numbers.high)
    else:
        limits = int(numbers.low), int(numbers.high)
        exact = numerics.requantize_accumulator(acc, scale, zero_points[1], *limits, residual=term)
        expected = exact.astype(np.uint8)
    return Case(kernel, output, arguments, expected, zero_points[1])


def steps(shape: Shape, zero_points: Sequence[int]) -> tuple[Finish, Numbers]:
    real = shape.result == "f32"
    limits = (-np.inf, np.inf) if real else (0, 255)
    numbers = Numbers(
        zero_point=0 if real else zero_points[1],
        low=limits[0] if shape.low is None else shape.low,
        high=limits[1] if shape.high is None else shape.high,
        residual_zero_point=zero_points[2] if shape.residual == "u8" else 0,
        residual_scale=float(np.float32(0.7713)),
    )
    finish = Finish(
        result="f32" if real else "u8",
        residual=None if shape.residual is None else "u8" if shape.residual == "u8" else "f32",
        low=shape.low is not None,
        high=shape.high is not None,
        guarded=shape.guarded,
    )
    return finish, numbers


def residual_of(
    shape: Shape, sizes: Sequence[int], numbers: Numbers, rng: np.random.Generator
) -> tuple[Array, Array]:
    """A residual, and the term that it adds."""
    scale = np.float32(numbers.residual_scale)
    if shape.residual == "f32":
        real = rng.normal(0, 50, sizes).astype(np.float32)
        return real, real * scale
    stored = rng.integers(0, 256, sizes).astype(np.uint8)
    centred = numerics.centre(stored, numbers.residual_zero_point)
    return stored, centred.astype(np.float32) * scale


def real_convolution(shape: Shape, isa: Isa, rng: np.random.Generator, *, depthwise: bool) -> Case:
    groups = shape.c if depthwise else shape.g
    channels = shape.c if depthwise else shape.o
    x = rng.normal(size=(shape.n, shape.h, shape.w, shape.c)).astype(np.float32)
    filters = (shape.k, shape.k, shape.c // groups, channels)
    weight = rng.normal(size=filters).astype(np.float32)
    bias = rng.normal(size=channels).astype(np.float32)
    exact = convolve(
        x.transpose(0, 3, 1, 2).astype(np.float64),
        weight.transpose(3, 2, 0, 1).astype(np.float64),
        strides=(shape.s, shape.s),
        pads=(shape.p,) * 4,
        dilations=(shape.d, shape.d),
        groups=groups,
    ).transpose(0, 2, 3, 1)
    input = Image(shape.n, shape.h, shape.w, shape.c, (shape.p,) * 4)
    output = Image(shape.n, *shape.size, channels, shape.margin)
    bounded = shape.low is not None
    finish = Finish("f32", "f32", "f32" if shape.residual else None, bounded, bounded)
    low, high = (-np.inf, np.inf) if shape.low is None else (shape.low, shape.high or 0.0)
    numbers = Numbers(low=low, high=high, residual_scale=1.0)
    images = {"isa": isa, "input": input, "output": output, "finish": finish, **shape.window}
    kernel: Any = Depthwise(**images) if depthwise else None
    dense = Image(shape.n, *shape.size, channels)
    if kernel is None:
        residual_image = dense if shape.residual else None
        kernel = Conv(**images, residual=residual_image, channels=channels, groups=groups)
    scale = kernel.ordered(np.ones(channels, np.float32))
    coefficients = numbers.with_channels(finish, kernel.ordered(bias), scale)
    arguments = [in_memory(x, input, 0), kernel.pack(weight), coefficients]
    exact += bias
    if shape.residual:
        residual = rng.normal(size=exact.shape).astype(np.float32)
        arguments.append(in_memory(residual, dense, 0))
        exact += residual
    expected = np.minimum(np.maximum(exact, low), high).astype(np.float32)
    error = float(np.finfo(np.float32).eps) * np.prod(filters[:3])
    return Case(kernel, output, arguments, expected, error=error)


def fake_quantize(isa: Isa, rng: np.random.Generator) -> Case:
    x = rng.normal(0, 3, (2, 9, 7, 13)).astype(np.float32)
    table = np.array([[0, 0, 0, 0], [0.0173, 119, 0, 255]], np.float32)
    input, output = Image(2, 9, 7, 13, (1, 0, 0, 2)), Image(2, 9, 7, 13, (1, 1, 1, 1))
    kernel = FakeQuantize(isa, input, output, 2)
    expected = numerics.fake_quantize_row(x, table[1])
    arguments = [in_memory(x, input, 5), table.reshape(-1), np.array([1], np.int32)]
    return Case(kernel, output, arguments, expected)


def energies(isa: Isa, rng: np.random.Generator) -> Case:
    one, other = rng.normal(size=(2, 3, 11, 5, 7)).astype(np.float32)
    images = Image(3, 11, 5, 7, (1, 1, 0, 0)), Image(3, 11, 5, 7)
    exact = [np.square(each.astype(np.float64)).sum() for each in (one, one - other)]
    arguments = [
        in_memory(each, image, 3) for each, image in zip((one, other), images, strict=True)
    ]
    expected = np.array(exact, np.float32).reshape(1, 1, 1, 2)
    return Case(Energies(isa, *images), Image(1, 1, 1, 2), arguments, expected, error=1e-5)


def observe(isa: Isa, rng: np.random.Generator) -> Case:
    x = rng.normal(size=(2, 9, 11, 5)).astype(np.float32)
    image, stride, bins = Image(2, 9, 11, 5, (0, 1, 1, 0)), 7, 32
    counts = histogram(x.reshape(-1)[::stride], x.min(), x.max(), bins)
    expected = np.concatenate([[x.min(), x.max()], counts]).astype(np.float32)
    output = Image(1, 1, 1, bins + 2)
    kernel = Observe(isa, image, bins, stride)
    return Case(kernel, output, [in_memory(x, image, 99)], expected.reshape(output.shape))


def concat(
    isa: Device, rng: np.random.Generator, channels: tuple[int, ...], *, real: bool = False
) -> Case:
    parts = [rng.integers(0, 256, (2, 5, 4, c)).astype(np.uint8) for c in channels]
    parts = [part.astype(np.float32) for part in parts] if real else parts
    images = tuple(Image(2, 5, 4, c if real else padded(c), (1, 0, 0, 1)) for c in channels)
    output = Image(2, 5, 4, 127 if real else 128, (1, 1, 1, 1))
    kernel = library.of(isa).concat(
        isa=isa,
        inputs=images,
        channels=channels,
        output=output,
        kind="f32" if real else "u8",
    )
    arguments = [in_memory(part, image, 7) for part, image in zip(parts, images, strict=True)]
    margin = 0 if real else 77
    arguments.append(np.array([margin], np.int32))
    return Case(kernel, output, arguments, np.concatenate(parts, axis=3), margin)


def max_pool(isa: Device, rng: np.random.Generator, *, real: bool = False) -> Case:
    x = rng.integers(0, 256, (2, 15, 14, 24)).astype(np.uint8)
    input, output = Image(2, 15, 14, 24, (0, 1, 0, 1)), Image(2, 8, 7, 24, (1, 1, 1, 1))
    keys = {"kernel": (3, 3), "strides": (2, 2), "pads": (1,) * 4}
    expected = numerics.max_pool2d(x.transpose(0, 3, 1, 2), **keys).transpose(0, 2, 3, 1)
    if real:
        x, expected = (each.astype(np.float32) - 128 for each in (x, expected))
    kind: Kind = "f32" if real else "u8"
    kernel = library.of(isa).max_pool(isa=isa, input=input, output=output, kind=kind, **WINDOW)
    margin = 0 if real else 200
    arguments = [in_memory(x, input, 9), np.array([margin], np.int32)]
    return Case(kernel, output, arguments, expected, margin)


def mean_pool(isa: Device, rng: np.random.Generator, *, real: bool) -> Case:
    reads = QuantParams(8, signed=False, scale=(0.02,), zero_point=(77,))
    writes = None if real else QuantParams(8, signed=False, scale=(0.013,), zero_point=(31,))
    x = rng.integers(0, 256, (2, 7, 6, 40)).astype(np.uint8)
    keys = {"kernel": (3, 3), "strides": (2, 2), "pads": (1,) * 4}
    sums, counts = numerics.avg_pool2d(x.transpose(0, 3, 1, 2), zero_point=77, **keys)
    scale = numerics.pool_scale(counts, reads, writes)
    expected = numerics.finish(sums, scale, writes).transpose(0, 2, 3, 1)
    input, output = Image(2, 7, 6, 40, (1,) * 4), Image(2, *counts.shape, 40)
    finish = Finish("f32" if real else "u8")
    kernel = library.of(isa).mean_pool(
        isa=isa, input=input, output=output, finish=finish, scales=counts.size, **WINDOW
    )
    bias = np.full(counts.size, -77 * 9, np.int32)
    numbers = Numbers(zero_point=0 if real else 31).with_channels(finish, bias, scale.reshape(-1))
    return Case(kernel, output, [in_memory(x, input, 77), numbers], expected)


def quantize(isa: Device, rng: np.random.Generator, *, channels: int, width: int) -> Case:
    params = QuantParams(8, signed=False, scale=(0.0173,), zero_point=(119,))
    x = rng.normal(0, 3, (2, channels, 17, width)).astype(np.float32)
    x.flat[:5] = [1e20, -1e20, 1e9, np.float32(0.0173) / 2, np.inf]
    output, finish = Image(2, 17, width, 4, (3, 3, 2, 2)), Finish("u8", guarded=True)
    kernel = library.of(isa).quantize_image(
        isa=isa, channels=channels, output=output, finish=finish
    )
    scale = np.array(params.scale, np.float32)
    numbers = Numbers(zero_point=119).with_channels(finish, np.zeros(1, np.int32), scale)
    expected = numerics.quantize(x, params).transpose(0, 2, 3, 1)
    return Case(kernel, output, [x.reshape(-1), numbers], expected, 119)


def quantize_image(isa: Device, rng: np.random.Generator, *, channels: int) -> Case:
    params = QuantParams(8, signed=False, scale=(0.0173,), zero_point=(119,))
    x = rng.normal(0, 3, (2, 7, 5, channels)).astype(np.float32)
    x.flat[:5] = [1e20, -1e20, 1e9, np.float32(0.0173) / 2, np.inf]
    finish = Finish("u8", guarded=True)
    input, output = Image(2, 7, 5, channels, (0, 1, 1, 0)), Image(2, 7, 5, padded(channels))
    output = replace(output, margin=(1, 1, 2, 2))
    kernel = library.of(isa).quantize(
        isa=isa, input=input, output=output, channels=channels, finish=finish
    )
    scale = np.array(params.scale, np.float32)
    numbers = Numbers(zero_point=119).with_channels(finish, np.zeros(1, np.int32), scale)
    return Case(
        kernel, output, [in_memory(x, input, 0), numbers], numerics.quantize(x, params), 119
    )


def cases(isa: Isa) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    yield from (convolution(shape, isa, rng, depthwise=False) for shape in CONVS)
    yield from (convolution(shape, isa, rng, depthwise=True) for shape in DEPTHWISE)
    yield from (real_convolution(shape, isa, rng, depthwise=False) for shape in REAL_CONVS)
    yield from (real_convolution(shape, isa, rng, depthwise=True) for shape in REAL_DEPTHWISE)
    yield from (max_pool(isa, rng, real=real) for real in (False, True))
    yield from (concat(isa, rng, (24, 3, 100), real=real) for real in (False, True))
    yield from (make(isa, rng) for make in (fake_quantize, energies, observe))
    yield from (mean_pool(isa, rng, real=real) for real in (False, True))
    yield quantize(isa, rng, channels=3, width=35)
    yield quantize(isa, rng, channels=1, width=9)
    yield from (quantize_image(isa, rng, channels=channels) for channels in (7, 48))


def tensor_of(buffer: Buffer) -> Type:
    return RankedTensorType.get([buffer.count], code.element(buffer.element))


def program(kernels: Sequence[Kernel], *, together: bool = False) -> str:
    """A function for each kernel, which only calls it; or one, `f0`, that calls all of them."""
    with context(), Location.unknown():
        module = Module.create()
        executables = Executables(module.operation)
        groups = [kernels] if together else [[kernel] for kernel in kernels]
        with InsertionPoint(module.body):
            for i, group in enumerate(groups):
                calls_of(executables, group, f"f{i}")
        assert module.operation.verify()
        return str(module.operation.get_asm(print_generic_op_form=True))


def calls_of(executables: Executables, kernels: Sequence[Kernel], name: str) -> None:
    """A function that calls each kernel on arguments of its own."""
    types = [list(map(tensor_of, kernel.buffers)) for kernel in kernels]
    reads, writes = [t for each in types for t in each[:-1]], [each[-1] for each in types]
    function = func.FuncOp(name, (reads, writes))
    with InsertionPoint(function.add_entry_block()):
        rest = iter(function.arguments)
        arguments = [[next(rest) for _ in each[:-1]] for each in types]
        calls = zip(kernels, arguments, writes, strict=True)
        func.ReturnOp([executables.dispatch(*call) for call in calls])


@pytest.mark.parametrize("isa", PRESENT, ids=lambda isa: isa.name)
def test_kernels_are_exact(isa: Isa) -> None:
    found = list(cases(isa))
    vmfb = compile_module(program([case.kernel for case in found]), targets.by_name("x86"))
    for i, case in enumerate(found):
        case.check(runtime.load(vmfb, entry=f"f{i}").run(*case.inputs())[0])


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    shape = Shape(k=3, p=1, c=64, o=128, h=28, w=28, margin=(1, 1, 1, 1))
    case = convolution(shape, PRESENT[0], np.random.default_rng(0), depthwise=False)
    assert np.prod(case.kernel.grid) > 1
    vmfb = compile_module(program([case.kernel]), targets.by_name("x86"))
    for threads in (1, 2):
        case.check(runtime.load(vmfb, entry="f0", threads=threads).run(*case.inputs())[0])


def test_kernels_of_one_shape_are_one() -> None:
    rng = np.random.default_rng(0)
    alike = [convolution(CONVS[0], PRESENT[0], rng, depthwise=False).kernel for _ in range(2)]
    other = convolution(CONVS[1], PRESENT[0], rng, depthwise=False).kernel
    assert program([*alike, other]).count('"hal.executable.source"(') == 2


def test_the_best_instruction_set_is_chosen() -> None:
    assert [best(isa.features) for isa in ISAS] == list(ISAS)
    assert best({"sse2"}) is None


def test_a_network_on_kernels_is_that_of_the_reference() -> None:
    """Kernels and linalg side by side: what has no kernel reads and makes the same images."""
    text, store = network()
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, (1, 3, 30, 30)).astype(np.float32)
    with context(), Location.unknown(), bound(store):
        module = Module.parse(text)
        expected = reference.run(module, [x])["y"]
        parse_pipeline(lowering(cpu_features())).run(module.operation)
        lowered = module.operation.get_asm(print_generic_op_form=True)
    assert lowered.count('"flow.dispatch"(') == 9
    vmfb = compile_module(str(lowered), targets.by_name("x86"), weights=store)
    np.testing.assert_array_equal(runtime.load(vmfb).run(x)[0], expected)


def network() -> tuple[str, WeightStore]:
    """Stem, depthwise, pointwise with a residual, pools, a concatenation, a classifier."""
    rng, store = np.random.default_rng(1), WeightStore()
    with context(), Location.unknown():
        module = Module.create()
        byte = quant.type_of(QuantParams(8, signed=False, scale=(0.04,), zero_point=(113,)))

        def weight(key: str, shape: Sequence[int], axis: int) -> Any:
            store[key] = rng.integers(-127, 128, shape).astype(np.int8)
            scale = tuple(rng.uniform(0.5, 1.5, shape[axis]) / 90 / np.sqrt(np.prod(shape[1:])))
            zeros, limits = (0,) * shape[axis], (-127, 127)
            params = QuantParams(
                8, signed=True, scale=scale, zero_point=zeros, axis=axis, storage_range=limits
            )
            return build.weight(key, build.tensor(shape, quant.type_of(params)))

        with InsertionPoint(module.body):

            @func.FuncOp.from_py_func(build.tensor((1, 3, 30, 30)), name="main")
            def _main(x: Any) -> Any:
                value = build.quantize(x, byte)
                pads, relu = {"pads": (1,) * 4, "element": byte}, Activation.relu()
                stem = build.conv2d(value, weight("a", (32, 3, 3, 3), 0), strides=(2, 2), **pads)
                deep = build.conv2d(
                    stem, weight("b", (32, 1, 3, 3), 0), groups=32, activation=relu, **pads
                )
                sums = build.conv2d(
                    deep, weight("c", (32, 32, 1, 1), 0), residual=stem, element=byte
                )
                pool = build.max_pool2d(sums, kernel=(3, 3), strides=(2, 2), pads=(1,) * 4)
                twice = build.add(pool, pool, element=byte)
                both = build.concat([twice, pool], axis=1)
                last = build.conv2d(both, weight("d", (40, 64, 3, 3), 0), **pads)
                mean = build.avg_pool2d(last, kernel=(8, 8), strides=(1, 1), element=byte)
                rows = build.reshape(mean, (1, 40))
                made = build.matmul(rows, weight("e", (10, 40), 0), transpose_rhs=True)
                return build.named(made, "y")

        return str(module), store


def test_weights_are_packed_alike_at_load_and_when_compiling(demo: Path) -> None:
    """The simulated network reads weights that are not known when it is compiled."""
    found, target = load(demo / "digits.onnx", batch=4), targets.by_name("x86")
    x = np.load(demo / "digits-calib.npz")["images"][:4].astype(np.float32)
    x = np.resize(x, found.model.inputs[0].shape)
    lowered = found.transform(lowering(target.features))
    vmfb = compile_module(lowered.text, target, weights=lowered.weights)
    assert lowered.text.count('"flow.dispatch"(') >= len(found.layers)
    simulated = Simulation(found, target).run(
        [x], Ranges(calibrator="minmax", samples=1, tensors={}), {}
    )
    np.testing.assert_array_equal(runtime.load(vmfb).run(x)[0], simulated[0])
