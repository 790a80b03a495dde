"""Generated kernels against `mlq.numerics` and `mlq.reference`, bit for bit, on each ISA here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch_mlir.dialects import arith, func
from torch_mlir.ir import InsertionPoint, Location, Module, RankedTensorType, Type, Value

from mlq import emulation, numerics, reference, runtime, targets
from mlq.dialect import build, context, quant
from mlq.dialect.build import Activation
from mlq.dialect.weights import WeightStore, bound
from mlq.kernels import code, library
from mlq.kernels.elementwise import Lookup
from mlq.kernels.executable import MARGIN_VALUE, Buffer, Executables, Kernel
from mlq.kernels.finishing import FITTING, Finish, Numbers
from mlq.kernels.image import NO_MARGIN, Image, Margin
from mlq.kernels.isa import ISAS, Isa
from mlq.kernels.library import Device, best
from mlq.kernels.measuring import Energies, FakeQuantize
from mlq.kernels.observing import Observe
from mlq.kernels.storage import Kind
from mlq.kernels.taps import Words
from mlq.network import load
from mlq.numerics import QuantParams
from mlq.numerics.sampling import histogram
from mlq.numerics.windows import convolve
from mlq.ranges import Ranges
from mlq.simulation import Simulation
from mlq.targets.base import Target
from mlq.targets.host import cpu_features
from mlq.targets.iree import compile_module
from mlq.transforms import parse_pipeline
from mlq.transforms.pipelines import lowering

Array = NDArray[Any]
EVERY = [each for family in targets.all_targets() for each in (family, *targets.presets_of(family))]
HERE = pytest.mark.skipif(best(cpu_features()) is None, reason="this CPU has none of the ISAs")


def target_of(isa: Isa) -> Target:
    """One that kernels for this instruction set are compiled for; skips where nothing runs it."""
    target = next(each for each in EVERY if best(each.cpu_features) is isa)
    if reason := emulation.why_not_at_all(target):
        pytest.skip(f"{target.name}: {reason}")
    return target


def own() -> Isa:
    """The instruction set of this CPU."""
    isa = best(cpu_features())
    assert isa is not None
    return isa


@dataclass
class Case:
    """A kernel, what it reads, and the image that it must make in a margin of one number.

    Reals may be wrong by `error`, relative to the greatest.
    """

    kernel: Any
    output: Image
    arguments: list[Array]
    expected: Array
    margin: int = 0
    error: float = 0.0

    def offset(self, x: Array) -> int:
        """What memory holds less than each u8, or u16."""
        kind = kind_of(x)
        return 0 if kind == "f32" else int(self.kernel.isa.storage_of(kind).offset)

    def inputs(self) -> list[Array]:
        """The arguments in the elements that the kernel reads: a u8 in 16 bits, four in a word."""
        pairs = zip(self.arguments, self.kernel.buffers, strict=False)
        return [as_elements(x, to.element, self.offset(x)) for x, to in pairs]

    def check(self, found: Array) -> None:
        size = int(np.prod(self.output.shape))
        if kind_of(self.expected) != "f32":
            # A u8 of memory may be a byte, or in one of two.
            offset = self.offset(self.expected)
            byte = np.int8 if offset else np.uint8
            wide = found.view(byte if found.nbytes == size else np.int16)
            found = (wide.astype(np.int32) + offset).astype(self.expected.dtype)
        found = found.view(self.expected.dtype)
        found = found.reshape(self.output.shape)
        top, left, *_ = self.output.margin
        _, height, width, channels = self.expected.shape
        inner = found[:, top : top + height, left : left + width]
        least = self.error * float(np.abs(self.expected).max(initial=0))
        np.testing.assert_allclose(inner[..., :channels], self.expected, rtol=0, atol=least)
        beyond = np.ones(found.shape[1:3], bool)
        beyond[top : top + height, left : left + width] = False
        assert (found[:, beyond] == self.margin).all()


def kind_of(x: Array) -> Kind:
    return "u8" if x.dtype == np.uint8 else "u16" if x.dtype == np.uint16 else "f32"


def dtype_of(kind: Kind) -> Any:
    return {"u8": np.uint8, "u16": np.uint16, "f32": np.float32}[kind]


def most_of(kind: Kind) -> int:
    return int(np.iinfo(dtype_of(kind)).max)


def stored_at_random(rng: np.random.Generator, kind: Kind, sizes: Sequence[int]) -> Array:
    """Storage of a kind, its extremes more often than chance has them."""
    most = most_of(kind)
    found = rng.integers(0, most + 1, sizes)
    found = np.where(rng.integers(0, 10, sizes) == 0, rng.choice([0, most], sizes), found)
    return found.astype(dtype_of(kind))


def as_elements(x: Array, element: str, offset: int) -> Array:
    if kind_of(x) != "f32":
        x = (x.astype(np.int32) - offset).astype(np.int16 if element == "i16" else np.int8)
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
    kind: Kind = "u8"
    result: Kind = "u8"
    residual: Kind | None = None
    margin: Margin = NO_MARGIN
    low: float | None = None
    high: float | None = None
    guarded: bool = False
    scale: float | None = None
    zero: int | None = None  # the zero point of the result
    most: int = 127  # the greatest weight

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
    # Ties, and much that saturates; an odd zero point would change what is even.
    Shape(h=5, w=5, c=16, o=32, scale=2.0**-7, zero=77),
    Shape(h=5, w=5, c=16, o=32, scale=2.0**-7, zero=200),
    Shape(k=3, p=1, h=13, w=13, c=64, residual="u8", margin=(1, 1, 0, 2), zero=0),
    # Pixels of which several fill a register, and follow one another.
    Shape(h=6, w=9, c=16, o=16, residual="u8"),
    Shape(k=3, p=1, h=5, w=9, c=16, o=32, residual="u8", margin=(1, 1, 1, 1)),
)
# More weights than are near.
FAR = Shape(k=3, p=1, h=9, w=14, c=128, o=80)
# Images whose channels are not padded, and that end a step's excess beyond the last window.
UNPADDED = (
    Shape(k=7, s=2, p=3, c=3, h=20, w=20),
    Shape(k=7, s=2, p=3, c=2, h=12, w=14, o=24, margin=(1, 1, 1, 1)),
    Shape(k=3, s=2, p=1, c=1, h=9, w=8, o=37),
    Shape(k=5, s=4, p=2, c=1, h=9, w=8),
    Shape(k=3, s=2, p=1, c=3, h=9, w=16, o=8, margin=(1, 2, 0, 4)),
)
# Few channels of the result: pixels side by side fill a register.
FOLDED = (
    Shape(k=3, s=2, p=1, c=4, h=9, w=16, o=8, margin=(1, 2, 0, 4)),
    Shape(k=3, p=1, c=8, h=5, w=12, o=8, low=3, high=200, n=2),
    Shape(k=3, p=2, c=4, h=6, w=10, o=8, result="f32", margin=(0, 4, 1, 0)),
    Shape(k=5, s=3, p=2, c=16, h=7, w=22, o=4, margin=(1, 4, 1, 8), zero=0),
    Shape(k=3, p=1, c=4, h=3, w=32, o=1, result="f32", low=0.0, high=6.0),
)
DEPTHWISE = (
    Shape(k=3, p=1, c=64),
    Shape(k=3, s=2, p=1, c=64, margin=(1, 1, 1, 1)),
    Shape(k=3, p=1, c=24, h=15, margin=(1, 0, 0, 2), low=5, high=250),
    Shape(k=5, p=2, c=144, n=2),
    Shape(k=3, d=2, p=2, s=2, c=96),
    Shape(k=3, p=1, c=208, h=1),
    Shape(k=3, p=1, c=48, result="f32", low=-3.0, high=9.0),
    Shape(k=3, p=1, c=48, scale=2.0**-7, zero=0),
    # Few channels: pixels side by side fill registers, some of the last of a row again.
    Shape(k=3, p=1, c=16, h=5, w=8),
    Shape(k=3, p=1, c=16, h=6, w=11, margin=(1, 0, 1, 2), low=5, high=250),
    Shape(k=3, s=2, p=1, c=16, h=9, w=17, margin=(1, 1, 1, 1)),
    Shape(k=3, s=2, p=1, c=32, h=8, w=22),
    Shape(k=3, s=2, p=1, c=32, h=6, w=21, result="f32"),
    Shape(k=5, p=2, c=32, h=7, w=15, n=2),
    Shape(k=3, p=2, d=2, c=32, h=7, w=12),
    Shape(k=3, p=1, c=8, h=5, w=19, result="f32", margin=(1, 0, 1, 2)),
)
# Images of 16 bits, and what leads from those of 8 to them and back.
WIDE: dict[str, Any] = {"kind": "u16", "result": "u16"}
WIDE_CONVS = (
    Shape(k=3, p=1, c=32, **WIDE),
    Shape(h=9, w=11, c=24, o=24, **WIDE),
    Shape(k=3, s=2, p=1, h=13, w=15, o=96, margin=(1, 1, 1, 1), low=300, high=60000, **WIDE),
    Shape(h=7, w=7, c=64, o=128, residual="u16", **WIDE),
    Shape(h=7, w=7, c=64, o=128, residual="u16", kind="u16"),
    Shape(h=7, w=7, c=64, o=40, residual="u8", result="u16"),
    Shape(h=6, w=9, c=16, o=16, residual="u16", **WIDE),
    Shape(k=3, p=2, d=2, h=7, w=7, o=37, residual="f32", **WIDE),
    Shape(h=1, w=1, c=64, o=101, kind="u16", result="f32"),
    Shape(n=2, k=3, p=1, c=64, g=2, residual="u16", result="f32", low=0.0, high=6.0, kind="u16"),
    Shape(n=3, c=32, o=208, guarded=True, **WIDE),
    Shape(k=7, s=2, p=3, c=4, h=20, w=20, margin=(1, 2, 0, 3), **WIDE),
    Shape(h=5, w=5, c=16, o=32, scale=2.0**-7, **WIDE),  # ties, and much that saturates
    Shape(k=3, p=1, c=32, kind="u16", result="u8"),
    Shape(k=3, p=1, c=32, kind="u8", result="u16", margin=(1, 1, 1, 1)),
)
# Weights of more than a byte, of which sums still fit 32 bits; depthwise there are fewer to a sum.
MORE, MORE_DEPTHWISE = 511, 2047
WIDE_DEPTHWISE = (
    Shape(k=3, p=1, c=64, **WIDE),
    Shape(k=3, s=2, p=1, c=64, margin=(1, 1, 1, 1), **WIDE),
    Shape(k=3, p=1, c=24, h=15, margin=(1, 0, 0, 2), low=500, high=65000, **WIDE),
    Shape(k=5, p=2, c=144, n=2, **WIDE),
    Shape(k=3, p=1, c=48, result="f32", low=-3.0, high=9.0, kind="u16"),
    Shape(k=3, p=1, c=208, h=1, kind="u16", result="u8"),
    Shape(k=3, p=1, c=96, kind="u8", result="u16"),
    Shape(k=3, p=1, c=16, h=6, w=11, margin=(1, 0, 1, 2), **WIDE),
    Shape(k=3, s=2, p=1, c=16, h=9, w=17, **WIDE),
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
    Shape(k=3, p=1, c=8, h=6, w=11, margin=(1, 0, 1, 2)),
    Shape(k=3, s=2, p=1, c=8, h=9, w=17),
    Shape(k=3, s=2, p=1, c=4, h=9, w=15),
)

# Channels that fill vectors: layers of floats that share their code.
SIZED_CONVS = (
    Shape(k=3, p=1, c=32, margin=(1, 0, 2, 1)),
    Shape(k=3, s=2, p=1, h=13, w=15, o=96),
    Shape(h=7, w=7, c=64, o=128, residual="f32", low=0.0, high=6.0),
    Shape(h=9, w=3, c=64, n=2),
    Shape(k=7, s=2, p=3, c=3, h=20, w=20),
    Shape(h=1, w=1, c=63, o=48),
)
SIZED_DEPTHWISE = (
    Shape(k=3, p=1, c=48, margin=(1, 1, 1, 1)),
    Shape(k=3, p=1, c=96, h=15),
    Shape(k=3, s=2, p=1, c=64, h=15, low=0.0, high=6.0),
    Shape(k=5, p=2, c=144, n=2),
)


def convolution(
    shape: Shape,
    isa: Device,
    rng: np.random.Generator,
    *,
    depthwise: bool,
    conv: Callable[..., library.Weighted] | None = None,
) -> Case:
    kinds = (shape.kind, shape.result, shape.residual or "u8")
    zero_points = [int(rng.integers(most_of(k) + 1)) if k != "f32" else 0 for k in kinds]
    if shape.zero is not None:
        zero_points[1] = shape.zero
    groups = shape.c if depthwise else shape.g
    channels = shape.c if depthwise else shape.o
    x = stored_at_random(rng, shape.kind, (shape.n, shape.h, shape.w, shape.c))
    filters = (shape.k, shape.k, shape.c // groups, channels)
    if shape.most > np.iinfo(np.int8).max:
        assert isinstance(isa, Isa)
        isa = isa.wide
    weight = rng.integers(-shape.most, shape.most + 1, filters)
    weight = weight.astype(np.int8 if shape.most <= np.iinfo(np.int8).max else np.int16)
    bias = rng.integers(-20000, 20000, channels).astype(np.int32)
    spread = 90 * shape.most * np.sqrt(np.prod(filters[:3])) * most_of(shape.kind) / 255
    unit = 1 if shape.result == "f32" else most_of(shape.result) / 255
    scale = (unit * rng.uniform(30, 120, channels) / spread).astype(np.float32)
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
    finish, numbers = steps(shape, zero_points, isa)
    kernel: Any
    if depthwise:
        kernel = library.of(isa).depthwise(
            isa=isa, input=input, output=output, finish=finish, kind=shape.kind, **shape.window
        )
    else:
        kernel = (conv or library.of(isa).conv)(
            isa=isa,
            input=input,
            output=output,
            residual=Image(shape.n, *shape.size, stored) if shape.residual else None,
            channels=channels,
            groups=groups,
            finish=finish,
            kind=shape.kind,
            **shape.window,
        )
    zero = isa.storage_of(shape.kind).stored(zero_points[0])
    folded = (bias - zero * weight.astype(np.int64).sum((0, 1, 2))).astype(np.int32)
    coefficients = numbers.with_channels(
        finish, kernel.ordered(folded), kernel.ordered(scale), isa.storage_of
    )
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
        assert shape.guarded or "u16" in kinds or np.abs(acc * scale).max() < FITTING / 2
        limits = int(numbers.low), int(numbers.high)
        exact = numerics.requantize_accumulator(acc, scale, zero_points[1], *limits, residual=term)
        expected = exact.astype(dtype_of(shape.result))
    return Case(kernel, output, arguments, expected, zero_points[1])


def steps(shape: Shape, zero_points: Sequence[int], isa: Device) -> tuple[Finish, Numbers]:
    real = shape.result == "f32"
    limits = (-np.inf, np.inf) if real else (0, most_of(shape.result))
    numbers = Numbers(
        zero_point=0 if real else zero_points[1],
        low=limits[0] if shape.low is None else shape.low,
        high=limits[1] if shape.high is None else shape.high,
        residual_zero_point=zero_points[2] if shape.residual in {"u8", "u16"} else 0,
        residual_scale=float(np.float32(0.7713)),
    )
    fits = not shape.guarded and shape.result == "u8"
    finish = Finish(
        result=shape.result,
        residual=shape.residual,
        low=shape.low is not None,
        high=shape.high is not None,
        guarded=shape.guarded,
        fits=fits,
        even=fits and isa.storage.shifted is not None and zero_points[1] % 2 == 0,
    )
    return finish, numbers


def residual_of(
    shape: Shape, sizes: Sequence[int], numbers: Numbers, rng: np.random.Generator
) -> tuple[Array, Array]:
    """A residual, and the term that it adds."""
    scale = np.float32(numbers.residual_scale)
    if shape.residual is None or shape.residual == "f32":
        real = rng.normal(0, 50, sizes).astype(np.float32)
        return real, real * scale
    stored = stored_at_random(rng, shape.residual, sizes)
    centred = numerics.centre(stored, numbers.residual_zero_point)
    return stored, centred.astype(np.float32) * scale


def real_convolution(
    shape: Shape, isa: Isa, rng: np.random.Generator, *, depthwise: bool, sized: bool = False
) -> Case:
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
    images["kind"] = "f32"
    made = library.of(isa, sized=sized)
    kernel: Any = made.depthwise(**images) if depthwise else None
    dense = Image(shape.n, *shape.size, channels)
    if kernel is None:
        residual_image = dense if shape.residual else None
        kernel = made.conv(**images, residual=residual_image, channels=channels, groups=groups)
    scale = kernel.ordered(np.ones(channels, np.float32))
    coefficients = numbers.with_channels(finish, kernel.ordered(bias), scale, isa.storage_of)
    arguments = [in_memory(x, input, 0), kernel.pack(weight), coefficients]
    exact += bias
    if shape.residual:
        residual = rng.normal(size=exact.shape).astype(np.float32)
        arguments.append(in_memory(residual, dense, 0))
        exact += residual
    expected = np.minimum(np.maximum(exact, low), high).astype(np.float32)
    error = float(np.finfo(np.float32).eps) * np.prod(filters[:3])
    return Case(kernel, output, arguments, expected, error=error)


def fake_quantize(isa: Isa, rng: np.random.Generator, row: int) -> Case:
    x = rng.normal(0, 3, (2, 9, 7, 13)).astype(np.float32)
    table = np.array([[0, 0, 0, 0], [0.0173, 119, 0, 255], numerics.F16_ROW], np.float32)
    table = table[: row + 1]
    input, output = Image(2, 9, 7, 13, (1, 0, 0, 2)), Image(2, 9, 7, 13, (1, 1, 1, 1))
    kernel = FakeQuantize(isa, input, output, row)
    expected = numerics.fake_quantize_row(x, table[row])
    arguments = [in_memory(x, input, 5), table.reshape(-1)]
    return Case(kernel, output, arguments, expected)


def energies(
    isa: Isa, rng: np.random.Generator, width: int, channels: int, *, thin: bool = False
) -> Case:
    shape = (3, 11, width, channels)
    one, other = rng.normal(size=(2, *shape)).astype(np.float32)
    step, rows = 4, slice(None, None, 4)
    count = len(range(11)[rows])
    images = Image(*shape, (1, 1, 0, 0)), Image(3, count if thin else 11, width, channels)
    scale = 11 / count
    exact = [np.square(each[:, rows].astype(np.float64)).sum() for each in (one, one - other)]
    arguments = [
        in_memory(each, image, 3)
        for each, image in zip((one, other[:, rows] if thin else other), images, strict=True)
    ]
    expected = (scale * np.array(exact)).astype(np.float32).reshape(1, 1, 1, 2)
    return Case(
        Energies(isa, *images, step, thin), Image(1, 1, 1, 2), arguments, expected, error=1e-5
    )


def observe(isa: Isa, rng: np.random.Generator, image: Image, stride: int) -> Case:
    shape, bins = (image.batch, image.height, image.width, image.channels), 32
    x = np.maximum(rng.normal(size=shape), -0.5).astype(np.float32)
    counts = histogram(x.reshape(-1)[::stride], x.min(), x.max(), bins)
    expected = np.concatenate([[x.min(), x.max()], counts]).astype(np.float32)
    output = Image(1, 1, 1, bins + 2)
    kernel = Observe(isa, image, bins, stride)
    return Case(kernel, output, [in_memory(x, image, 99)], expected.reshape(output.shape))


def measured(isa: Isa, rng: np.random.Generator) -> Iterator[Case]:
    yield from (fake_quantize(isa, rng, row) for row in range(3))
    yield from (energies(isa, rng, *shape) for shape in ((5, 7), (1, 3), (23, 8)))
    yield energies(isa, rng, 5, 7, thin=True)
    for margin in ((0, 1, 1, 0), NO_MARGIN):
        # Rows that a stride ends with and does not, and that it skips.
        for stride in (1, 5, 7, 64):
            yield observe(isa, rng, Image(2, 9, 11, 5, margin), stride)
    yield observe(isa, rng, Image(1, 3, 1, 2, (1, 1, 1, 1)), 1)


def concat(
    isa: Device, rng: np.random.Generator, channels: tuple[int, ...], *, kind: Kind = "u8"
) -> Case:
    parts = [rng.integers(0, 256, (2, 5, 4, c)).astype(dtype_of(kind)) for c in channels]
    real = kind == "f32"
    images = tuple(Image(2, 5, 4, c if real else padded(c), (1, 0, 0, 1)) for c in channels)
    output = Image(2, 5, 4, 127 if real else 128, (1, 1, 1, 1))
    kernel = library.of(isa).concat(
        isa=isa,
        inputs=images,
        channels=channels,
        output=output,
        kind=kind,
    )
    arguments = [in_memory(part, image, 7) for part, image in zip(parts, images, strict=True)]
    margin = 0 if real else 77
    zero = 0 if real else isa.storage_of(kind).stored(margin)
    arguments.append(np.full(MARGIN_VALUE.count, zero, np.int32))
    return Case(kernel, output, arguments, np.concatenate(parts, axis=3), margin)


def max_pool(isa: Device, rng: np.random.Generator, *, kind: Kind = "u8") -> Case:
    real = kind == "f32"
    x = stored_at_random(rng, "u16" if kind == "u16" else "u8", (2, 15, 14, 24))
    input, output = Image(2, 15, 14, 24, (0, 1, 0, 1)), Image(2, 8, 7, 24, (1, 1, 1, 1))
    keys = {"kernel": (3, 3), "strides": (2, 2), "pads": (1,) * 4}
    expected = numerics.max_pool2d(x.transpose(0, 3, 1, 2), **keys).transpose(0, 2, 3, 1)
    if real:
        x, expected = (each.astype(np.float32) - 128 for each in (x, expected))
    kernel = library.of(isa).max_pool(isa=isa, input=input, output=output, kind=kind, **WINDOW)
    margin = 0 if real else 200
    zero = 0 if real else isa.storage_of(kind).stored(margin)
    arguments = [in_memory(x, input, 9), np.full(MARGIN_VALUE.count, zero, np.int32)]
    return Case(kernel, output, arguments, expected, margin)


def mean_pool(
    isa: Device,
    rng: np.random.Generator,
    *,
    channels: int = 40,
    result: Kind = "u8",
    kind: Kind = "u8",
) -> Case:
    bits, real = {"u8": 8, "u16": 16}, result == "f32"
    reads = QuantParams(bits[kind], signed=False, scale=(0.02,), zero_point=(77,))
    writes = None
    if result != "f32":
        writes = QuantParams(bits[result], signed=False, scale=(0.013,), zero_point=(31,))
    x = stored_at_random(rng, kind, (2, 7, 6, channels))
    keys = {"kernel": (3, 3), "strides": (2, 2), "pads": (1,) * 4}
    sums, counts = numerics.avg_pool2d(x.transpose(0, 3, 1, 2), zero_point=77, **keys)
    scale = numerics.pool_scale(counts, reads, writes)
    expected = numerics.finish(sums, scale, writes).transpose(0, 2, 3, 1)
    input, output = Image(2, 7, 6, channels, (1,) * 4), Image(2, *counts.shape, channels)
    finish = Finish(result)
    kernel = library.of(isa).mean_pool(
        isa=isa, input=input, output=output, finish=finish, scales=counts.size, kind=kind, **WINDOW
    )
    bias = np.full(counts.size, -isa.storage_of(kind).stored(77) * 9, np.int32)
    most = 255 if real else most_of(result)
    numbers = Numbers(zero_point=0 if real else 31, high=most).with_channels(
        finish, bias, scale.reshape(-1), isa.storage_of
    )
    return Case(kernel, output, [in_memory(x, input, 77), numbers], expected)


def stored_as(kind: Kind) -> QuantParams:
    if kind == "u16":
        return QuantParams(16, signed=False, scale=(0.000173,), zero_point=(40000,))
    return QuantParams(8, signed=False, scale=(0.0173,), zero_point=(119,))


def quantize(
    isa: Device,
    rng: np.random.Generator,
    *,
    channels: int,
    width: int,
    kind: Kind = "u8",
    stored: int = 4,
) -> Case:
    params = stored_as(kind)
    x = rng.normal(0, 3, (2, channels, 17, width)).astype(np.float32)
    x.flat[:5] = [1e20, -1e20, 1e9, np.float32(params.scale[0]) / 2, np.inf]
    output, finish = Image(2, 17, width, stored, (3, 3, 2, 2)), Finish(kind, guarded=True)
    kernel = library.of(isa).quantize_image(
        isa=isa, channels=channels, output=output, finish=finish
    )
    scale = np.array(params.scale, np.float32)
    numbers = Numbers(params.zero_point[0], *params.limits).with_channels(
        finish, np.zeros(1, np.int32), scale, isa.storage_of
    )
    expected = numerics.quantize(x, params).transpose(0, 2, 3, 1)
    return Case(kernel, output, [x.reshape(-1), numbers], expected, params.zero_point[0])


def quantize_image(
    isa: Device, rng: np.random.Generator, *, channels: int, kind: Kind = "u8"
) -> Case:
    params = stored_as(kind)
    x = rng.normal(0, 3, (2, 7, 5, channels)).astype(np.float32)
    x.flat[:5] = [1e20, -1e20, 1e9, np.float32(params.scale[0]) / 2, np.inf]
    finish = Finish(kind, guarded=True)
    input, output = Image(2, 7, 5, channels, (0, 1, 1, 0)), Image(2, 7, 5, padded(channels))
    output = replace(output, margin=(1, 1, 2, 2))
    kernel = library.of(isa).quantize(
        isa=isa, input=input, output=output, channels=channels, finish=finish
    )
    scale = np.array(params.scale, np.float32)
    numbers = Numbers(params.zero_point[0], *params.limits).with_channels(
        finish, np.zeros(1, np.int32), scale, isa.storage_of
    )
    expected = numerics.quantize(x, params)
    return Case(kernel, output, [in_memory(x, input, 0), numbers], expected, params.zero_point[0])


def cases(isa: Isa) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    yield from (convolution(shape, isa, rng, depthwise=False) for shape in CONVS)
    yield from (convolution(shape, isa, rng, depthwise=False) for shape in FOLDED)
    yield from (convolution(shape, isa, rng, depthwise=True) for shape in DEPTHWISE)
    yield convolution(FAR, isa, rng, depthwise=False)
    yield from (real_convolution(shape, isa, rng, depthwise=False) for shape in REAL_CONVS)
    yield from (real_convolution(shape, isa, rng, depthwise=True) for shape in REAL_DEPTHWISE)
    kinds: tuple[Kind, ...] = ("u8", "f32")
    yield from (max_pool(isa, rng, kind=kind) for kind in kinds)
    yield from (concat(isa, rng, (24, 3, 100), kind=kind) for kind in kinds)
    yield from measured(isa, rng)
    yield from (mean_pool(isa, rng, result=kind) for kind in kinds)
    yield from (mean_pool(isa, rng, channels=each) for each in (8, 5))
    yield quantize(isa, rng, channels=3, width=35)
    yield quantize(isa, rng, channels=1, width=9)
    yield from (quantize(isa, rng, channels=n, width=35, stored=n) for n in (1, 2, 3))
    yield from unpadded(isa, rng, "u8")
    yield from (quantize_image(isa, rng, channels=channels) for channels in (7, 48))


def at_random(rng: np.random.Generator, isa: Isa, *, depthwise: bool) -> Shape:
    """Any convolution that has a kernel, of integers, one side of it at least of 16 bits."""
    k, s, d = (int(rng.choice(each)) for each in ([1, 2, 3, 5], [1, 1, 2, 3], [1, 1, 2]))
    h, w = (int(n) + d * (k - 1) for n in rng.integers(1, 12, 2))
    g = int(rng.choice([1, 1, 2]))
    c, o = 4 * g * int(rng.integers(1, 9)), int(rng.integers(1, 70))
    kind: Kind = "u16" if rng.integers(3) else "u8"
    result: Kind = "u16" if kind == "u8" else ("u8", "u16", "f32")[rng.integers(3)]
    residual: tuple[Kind | None, ...] = (None, None, "u8", "u16", "f32")
    return Shape(
        n=int(rng.integers(1, 3)),
        h=h,
        w=w,
        k=k,
        s=s,
        d=d,
        p=int(rng.integers(0, k)),
        c=16 + int(rng.integers(0, 50)) // 4 * 4 if depthwise else c,
        o=o if g == 1 else g * isa.lanes * int(rng.integers(1, 4)),
        g=1 if depthwise else g,
        kind=kind,
        result=result,
        residual=None if depthwise else residual[rng.integers(5)],
        margin=tuple(rng.integers(0, 3, 4).tolist()),
        scale=[None, 2.0**-9][rng.integers(2)],
    )


def wide_cases(isa: Isa) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for depthwise in (False, True):
        for _ in range(8):
            shape = at_random(rng, isa, depthwise=depthwise)
            yield convolution(shape, isa, rng, depthwise=depthwise)
    yield from (convolution(shape, isa, rng, depthwise=False) for shape in WIDE_CONVS)
    yield from (convolution(shape, isa, rng, depthwise=True) for shape in WIDE_DEPTHWISE)
    yield max_pool(isa, rng, kind="u16")
    yield concat(isa, rng, (24, 3, 100), kind="u16")
    results: tuple[Kind, ...] = ("u8", "u16", "f32")
    yield from (mean_pool(isa, rng, kind="u16", result=result) for result in results)
    yield mean_pool(isa, rng, kind="u8", result="u16")
    yield quantize(isa, rng, channels=3, width=35, kind="u16")
    yield quantize(isa, rng, channels=1, width=9, kind="u16")
    yield from (quantize(isa, rng, channels=n, width=35, stored=n, kind="u16") for n in (1, 2, 3))
    yield from unpadded(isa, rng, "u16")
    yield from (quantize_image(isa, rng, channels=channels, kind="u16") for channels in (7, 48))
    yield from (convolution(replace(s, kind="u16"), isa, rng, depthwise=False) for s in FOLDED)
    for shape in (*WIDE_CONVS, *(replace(each, **WIDE) for each in UNPADDED)):
        if shape.kind == "u16":
            yield convolution(replace(shape, most=MORE), isa, rng, depthwise=False)
    for shape in WIDE_DEPTHWISE:
        if shape.kind == "u16":
            yield convolution(replace(shape, most=MORE_DEPTHWISE), isa, rng, depthwise=True)


def unpadded(isa: Isa, rng: np.random.Generator, kind: Kind) -> Iterator[Case]:
    """Convolutions that read fewer words of such images."""
    for each in UNPADDED:
        if library.saves_padding(isa, (each.k, each.k, each.c, each.o), each.s, kind=kind):
            yield convolution(replace(each, kind=kind, result=kind), isa, rng, depthwise=False)


def tensor_of(buffer: Buffer) -> Type:
    return RankedTensorType.get([buffer.count], code.element(buffer.element))


def program(kernels: Sequence[Kernel]) -> str:
    """A function that calls each kernel, on arguments of its own."""
    with context(), Location.unknown():
        types = [[tensor_of(each) for each in kernel.buffers] for kernel in kernels]
        module = Module.create()
        executables = Executables(module.operation)
        with InsertionPoint(module.body):
            reads = [each for buffers in types for each in buffers[:-1]]
            function = func.FuncOp("main", (reads, [buffers[-1] for buffers in types]))
            with InsertionPoint(function.add_entry_block()):
                arguments = iter(function.arguments)
                made = [
                    executables.dispatch(kernel, [next(arguments) for _ in reads], writes)
                    for kernel, (*reads, writes) in zip(kernels, types, strict=True)
                ]
                func.ReturnOp(made)
        assert module.operation.verify()
        return str(module.operation.get_asm(print_generic_op_form=True))


def checked(cases: Sequence[Case], target: Target, threads: int = 1) -> None:
    text, outputs = program([case.kernel for case in cases]), len(cases)
    runner = emulation.load(text, target, {}, outputs=outputs, threads=threads)
    results = runner.run(*(x for case in cases for x in case.inputs()))
    for case, found in zip(cases, results, strict=True):
        case.check(found)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_kernels_are_exact(isa: Isa) -> None:
    checked(list(cases(isa)), target_of(isa))


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa.words], ids=lambda isa: isa.name)
def test_kernels_of_16_bits_are_exact(isa: Isa) -> None:
    checked(list(wide_cases(isa)), target_of(isa))


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_weights_that_are_far_are_asked_for(isa: Isa) -> None:
    near, far = (
        program([convolution(shape, isa, np.random.default_rng(0), depthwise=False).kernel])
        for shape in (CONVS[0], FAR)
    )
    assert "memref.prefetch" not in near
    assert ("memref.prefetch" in far) == isa.prefetches


def sized_cases(isa: Isa, *, sized: bool) -> list[Case]:
    rng, depthwise = np.random.default_rng(0), (False, True)
    return [
        real_convolution(shape, isa, rng, depthwise=of_each, sized=sized)
        for of_each, shapes in zip(depthwise, (SIZED_CONVS, SIZED_DEPTHWISE), strict=True)
        for shape in shapes
    ]


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_kernels_that_are_told_their_sizes_are_exact(isa: Isa) -> None:
    checked(sized_cases(isa, sized=True), target_of(isa))


@HERE
def test_what_is_told_its_sizes_adds_up_in_the_same_order() -> None:
    found = []
    for sized in (True, False):
        made = sized_cases(own(), sized=sized)
        text = program([case.kernel for case in made])
        runner = emulation.load(text, targets.host_target(), {}, outputs=len(made))
        found.append(runner.run(*(x for case in made for x in case.inputs())))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_kernels_that_are_told_their_sizes_share_their_code() -> None:
    isa = library.named("avx2")
    assert isinstance(isa, Isa)
    rng = np.random.default_rng(0)
    shapes = (Shape(k=3, p=1, h=8, w=9), Shape(k=3, p=1, s=2, h=31, w=17, c=32, o=128, n=3))
    for depthwise, count in ((False, 1), (True, 2)):  # a depthwise window slides by its stride
        of = partial(real_convolution, isa=isa, rng=rng, depthwise=depthwise, sized=True)
        kernels = [of(shape).kernel for shape in shapes]
        assert program(kernels).count('"hal.executable.source"(') == count


@HERE
def test_bytes_and_words_side_by_side_are_exact() -> None:
    """Where images of u8 are bytes: as on AVX-VNNI, whose one instruction AVX2 has in pieces."""
    vnni = library.named("avx_vnni")
    assert isinstance(vnni, Isa)
    unit = vnni.integers
    pieces = replace(
        unit, reduction=replace(unit.reduction, dot=dot_in_pieces), taps=Words(dot_in_pieces, 4)
    )
    isa = replace(vnni, integers=pieces)
    checked([*cases(isa), *wide_cases(isa)], target_of(library.named("avx2")))


def dot_in_pieces(acc: Value, x: Value, w: Value) -> Value:
    """What vpdpbusd adds up, from products of 16 bits: first the even bytes, then the odd ones."""
    x, w = code.view(x, "i16"), code.view(w, "i16")
    eight = code.splat(code.constant(8, "i16"), code.lanes_of(x))
    even = arith.shrui(arith.shli(x, eight), eight), arith.shrsi(arith.shli(w, eight), eight)
    odd = arith.shrui(x, eight), arith.shrsi(w, eight)
    level = "sse2" if code.lanes_of(x) == 8 else "avx2"
    for pair in (even, odd):
        acc = arith.addi(acc, code.call(f"llvm.x86.{level}.pmadd.wd", acc.type, *pair))
    return acc


@HERE
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    shape = Shape(k=3, p=1, c=64, o=128, h=28, w=28, margin=(1, 1, 1, 1))
    case = convolution(shape, own(), np.random.default_rng(0), depthwise=False)
    assert np.prod(case.kernel.grid) > 1
    for threads in (1, 2):
        checked([case], targets.host_target(), threads)


def test_kernels_of_one_shape_are_one() -> None:
    rng = np.random.default_rng(0)
    alike = [convolution(CONVS[0], ISAS[0], rng, depthwise=False).kernel for _ in range(2)]
    other = convolution(CONVS[1], ISAS[0], rng, depthwise=False).kernel
    assert program([*alike, other]).count('"hal.executable.source"(') == 2


@pytest.mark.parametrize(
    ("name", "shape", "pixels", "channels", "within_rows"),
    [
        ("neon_dotprod", Shape(k=3, p=1, h=27, w=27, c=32, o=128), 7, 8, True),
        ("neon_dotprod", Shape(k=3, p=1, h=13, w=13, c=64, o=256), 5, 16, False),
        ("neon_dotprod", Shape(h=55, w=55, c=16, o=64), 5, 16, True),
        ("neon_i8mm", Shape(h=14, w=14, c=64, o=384, margin=(1, 1, 1, 1)), 4, 16, False),
        ("neon_i8mm", Shape(h=28, w=28, c=32, o=192), 4, 16, True),
    ],
)
def test_tiles_take_few_instructions(
    name: str, shape: Shape, pixels: int, channels: int, *, within_rows: bool
) -> None:
    """Of all tiles of these layers, the ones that took the fewest when all were counted."""
    isa = library.named(name)
    assert isinstance(isa, Isa)
    kernel = convolution(shape, isa, np.random.default_rng(0), depthwise=False).kernel
    (found,) = kernel.columns
    assert (found.pixels, found.vectors * isa.lanes, found.by_row) == (
        pixels,
        channels,
        within_rows,
    )
    assert kernel.wraps(found) == (not within_rows)


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        *((shape, max(1, 16 // shape.o)) for shape in FOLDED),
        (replace(FOLDED[0], w=17), 1),  # an odd one is left over
        (replace(FOLDED[0], margin=(1, 1, 0, 2)), 1),  # begins within a folded pixel
        (replace(FOLDED[1], residual="u8"), 1),
        (replace(FOLDED[1], k=1, p=0), 1),  # spares no products
        (replace(FOLDED[1], o=16), 1),
    ],
)
def test_pixels_are_folded_where_that_spares_products(shape: Shape, pixels: int) -> None:
    isa = library.named("avx512_vnni")
    kernel: Any = convolution(shape, isa, np.random.default_rng(0), depthwise=False).kernel
    assert kernel.folded == pixels


def test_the_best_instruction_set_is_chosen() -> None:
    assert [best(isa.features) for isa in ISAS] == list(ISAS)
    assert best({"sse2"}) is None


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [
        ("arm64", "@lower-neon"),
        ("arm64:cortex-a53", "@lower-neon"),
        ("arm64:cortex-a76", "@lower-neon_dotprod"),
        ("arm64:apple-m", "@lower-neon_dotprod"),
        ("arm64:neoverse-v1", "@lower-neon_i8mm"),
        ("armv7", "@lower-linalg"),
        ("x86:avx2", "@lower-avx2"),
        ("x86:avx_vnni", "@lower-avx_vnni"),
        ("x86:avx512", "@lower-avx512"),
        ("x86:avx512_vnni", "@lower-avx512_vnni"),
    ],
)
def test_a_target_is_lowered_to_kernels_for_what_it_has(name: str, pipeline: str) -> None:
    assert lowering(targets.by_name(name).cpu_features) == pipeline


def test_a_weight_whose_products_do_not_fit_is_left_to_linalg() -> None:
    """Two products of plain NEON must fit 16 bits: -128 * -128 twice does not."""
    text, store = network()
    store["c"].flat[0] = -128
    made = {}
    for name in ("neon", "neon_dotprod"):
        with context(), Location.unknown(), bound(store):
            module = Module.parse(text)
            parse_pipeline(f"@lower-{name}").run(module.operation)
            made[name] = str(module).count('"flow.dispatch"(')
    assert made["neon"] == made["neon_dotprod"] - 1


@pytest.mark.parametrize(("zero_point", "is_added_before"), [(112, True), (113, False)])
def test_an_even_zero_point_is_added_before_results_are_rounded(
    zero_point: int, *, is_added_before: bool
) -> None:
    text, store = network(zero_point)
    for name, gains in (("neon", True), ("avx2", False)):
        with context(), Location.unknown(), bound(store):
            module = Module.parse(text)
            parse_pipeline(f"@lower-{name}").run(module.operation)
            assert ("neon.fabd" in str(module)) == (gains and is_added_before)


@HERE
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
    # Where words are multiplied, the last convolution is by Winograd: of two kernels.
    assert lowered.count('"flow.dispatch"(') == 10 + own().widens
    vmfb = compile_module(str(lowered), targets.by_name("x86"), weights=store)
    np.testing.assert_array_equal(runtime.load(vmfb).run(x)[0], expected)


@HERE
@pytest.mark.parametrize(("stride", "width"), [(1, 20), (2, 20), (2, 3), (2, 2), (3, 20), (3, 5)])
@pytest.mark.parametrize("reader", ["pointwise", "grouped", "residual", "pool"])
def test_images_of_few_channels_are_those_of_the_reference(
    stride: int, width: int, reader: str
) -> None:
    """8 channels, which a convolution by channel reads, and something else reads its result."""
    rng, store = np.random.default_rng(2), WeightStore()
    x = rng.normal(0, 2, (1, 3, 12, width)).astype(np.float32)
    with context(), Location.unknown(), bound(store):
        module = Module.create()
        byte = quant.type_of(QuantParams(8, signed=False, scale=(0.04,), zero_point=(113,)))

        def weight(key: str, shape: Sequence[int]) -> Any:
            store[key] = rng.integers(-127, 128, shape).astype(np.int8)
            params = QuantParams(8, signed=True, scale=(0.01,), zero_point=(0,))
            return build.weight(key, build.tensor(shape, quant.type_of(params)))

        with InsertionPoint(module.body):

            @func.FuncOp.from_py_func(build.tensor(x.shape), name="main")
            def _main(x: Any) -> Any:
                pads: dict[str, Any] = {"pads": (1,) * 4, "element": byte}
                stem = build.conv2d(build.quantize(x, byte), weight("a", (8, 3, 3, 3)), **pads)
                deep = build.conv2d(
                    stem, weight("b", (8, 1, 3, 3)), groups=8, strides=(stride,) * 2, **pads
                )
                if reader == "pointwise":
                    made = build.conv2d(deep, weight("c", (16, 8, 1, 1)), element=byte)
                elif reader == "grouped":
                    made = build.conv2d(deep, weight("c", (32, 4, 1, 1)), groups=2, element=byte)
                elif reader == "residual":
                    first = weight("c", (8, 8, 1, 1))
                    made = build.conv2d(deep, first, residual=deep, element=byte)
                else:
                    made = build.max_pool2d(deep, kernel=(2, 2), strides=(1, 1), pads=(1,) * 4)
                return build.named(build.dequantize(made), "y")

        expected = reference.run(module, [x])["y"]
        parse_pipeline(lowering(cpu_features())).run(module.operation)
        lowered = module.operation.get_asm(print_generic_op_form=True)
    vmfb = compile_module(str(lowered), targets.by_name("x86"), weights=store)
    np.testing.assert_array_equal(runtime.load(vmfb).run(x)[0], expected)


def network(zero_point: int = 113) -> tuple[str, WeightStore]:
    """Stem, depthwise, pointwise with a residual, pools, a concatenation, a classifier."""
    rng, store = np.random.default_rng(1), WeightStore()
    with context(), Location.unknown():
        module = Module.create()
        byte = quant.type_of(QuantParams(8, signed=False, scale=(0.04,), zero_point=(zero_point,)))

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


@HERE
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


@pytest.mark.parametrize("result", ["u16", "f32"])
@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa.words], ids=lambda isa: isa.name)
def test_no_number_is_looked_up_beyond_its_table(isa: Isa, result: Kind) -> None:
    """Of 12 bits there are 4096 entries, and behind a pixel's last channel are any 16 bits."""
    image, rng = Image(1, 64, 64, 16), np.random.default_rng(0)
    kernel = Lookup(isa, image, image, ("u16", result), 4096)
    stored = np.arange(1 << 16, dtype=np.uint16)
    dtype = np.float32 if result == "f32" else np.int16
    table = rng.integers(-(1 << 15), 1 << 15, 4096).astype(dtype)
    runner = emulation.load(program([kernel]), target_of(isa), {}, outputs=1)
    found = runner.run(stored.view(np.int16), table, np.zeros(2, np.int32))[0]
    shown = stored + np.uint16(isa.storage_of("u16").offset)
    np.testing.assert_array_equal(found, table[shown & 4095])
