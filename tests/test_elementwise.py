"""Sums, products, functions and resizing of images on kernels, against `mlq.reference`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Location, Module

from mlq import emulation, numerics, reference, targets
from mlq.dialect import build, context, functions, quant
from mlq.dialect.build import NO_ACTIVATION, Activation
from mlq.dialect.shapes import DYNAMIC
from mlq.dialect.weights import WeightStore
from mlq.kernels.isa import ISAS, Isa
from mlq.kernels.library import best
from mlq.kernels.tables import X86
from mlq.network import transform
from mlq.numerics import QuantParams, interpolation, nonlinear
from mlq.targets.base import Target
from mlq.targets.host import cpu_features
from mlq.targets.iree import compile_module

Array = NDArray[Any]

FUNCTIONS = ("hard_swish", "sigmoid | times_input", "elu(1)", "leaky_relu(0.1)", "tanh")
EVERY = [each for family in targets.all_targets() for each in (family, *targets.presets_of(family))]


@dataclass(frozen=True)
class Shape:
    """A case: images [n, c, h, w], or rows of a matrix where h is 0."""

    n: int
    c: int
    h: int
    w: int
    window: int = 1
    "of the convolution that reads the result, and wants a margin around it"

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.n, self.c, self.h, self.w) if self.h else (self.n, self.c)


@dataclass
class Program:
    """Ops on arguments of random storage, all of whose results are returned."""

    rng: np.random.Generator
    function: Any
    inputs: list[Array] = field(default_factory=list)
    store: WeightStore = field(default_factory=WeightStore)
    convolves: bool = True
    reals: bool = True
    words: bool = False
    "whether integers of more than a byte are in it, too"
    is_open: bool = False
    "whether the batch is known at run time only"
    results: list[Any] = field(default_factory=list)

    def some(self, *more_bits: int) -> QuantParams:
        """Bytes, or integers of 12 bits or of more, where there are words."""
        bits = self.rng.choice([8, 12, *more_bits]) if self.words else 8
        return self.stored(int(bits))

    def stored(self, bits: int = 8) -> QuantParams:
        """Some quantization: extreme zero points, and scales of which half make ties."""
        scale = float(np.float32(self.rng.choice([0.5, 0.25, 0.0173, self.rng.uniform(0.01, 1)])))
        most = (1 << bits) - 1
        zero_point = int(self.rng.choice([0, most, self.rng.integers(0, most + 1)]))
        return QuantParams(
            8 if bits <= 8 else 16,
            signed=False,
            scale=(scale / (1 << bits - 8),),
            zero_point=(zero_point,),
            storage_range=(0, most),
        )

    def input(self, shape: Sequence[int], params: QuantParams | None = None) -> Any:
        params = params or self.stored()
        low, high = params.limits
        extremes = self.rng.choice([low, high], shape)
        others = self.rng.integers(0, high + 1, shape)
        array = np.where(self.rng.integers(0, 8, shape) == 0, extremes, others)
        self.inputs.append(array.clip(low, high).astype(params.dtype))
        return self._argument(shape, quant.type_of(params))

    def real(self, shape: Sequence[int]) -> Any:
        self.inputs.append(self.rng.normal(size=shape).astype(np.float32))
        return self._argument(shape, None)

    def _argument(self, shape: Sequence[int], element: Any) -> Any:
        type_ = build.tensor([DYNAMIC, *shape[1:]] if self.is_open else shape, element)
        return functions.add_argument(self.function, type_, f"x{len(self.inputs)}")

    def result(self, value: Any, name: str) -> None:
        self.results.append(build.named(value, f"{len(self.results)}: {name}"))

    def convolved(self, value: Any, window: int) -> None:
        """A convolution that reads a margin around its input; so the op before must write it."""
        if not self.convolves:
            return
        channels, key = build.shape_of(value)[1], f"w{len(self.store)}"
        self.store[key] = self.rng.integers(-127, 128, (16, channels, window, window), np.int8)
        params = QuantParams(
            8, signed=True, scale=(0.01,), zero_point=(0,), storage_range=(-127, 127)
        )
        weight = build.weight(key, build.tensor(self.store[key].shape, quant.type_of(params)))
        made = build.conv2d(value, weight, pads=(window // 2,) * 4)
        self.result(made, "convolution")


def fill(program: Program, shape: Shape) -> None:
    """Each op on images of one shape, with stored and with real results.

    What a convolution reads has no more than 12 bits: its sums would not fit 32.
    """
    rng, sizes = program.rng, shape.sizes
    activations = (NO_ACTIVATION, Activation.relu(), Activation.clip(-0.7, 3.1))
    point = (shape.n, shape.c, 1, 1) if shape.h else sizes
    for real in (False, True):
        element = None if real else quant.type_of(program.some())
        activation = activations[rng.integers(3)]
        for made, name, other in (
            (build.add, "add", sizes),
            (build.mul, "mul", sizes),
            (build.mul, "gate", point),
        ):
            lhs = program.input(sizes, program.some(16))
            rhs = program.input(other, program.some(16))
            value = made(lhs, rhs, activation=activation, element=element)
            program.result(value, f"{name} {activation} {element}")
            if shape.h and name == "gate" and not real:
                program.convolved(value, shape.window)
    function = nonlinear.parse(FUNCTIONS[rng.integers(len(FUNCTIONS))])
    value = build.nonlinearity(program.input(sizes, program.some()), function, None)
    program.result(value, "function, real")
    value = build.nonlinearity(
        program.input(sizes, program.some()), function, quant.type_of(program.some())
    )
    program.result(value, f"function {value.type}")
    if shape.h:
        program.convolved(value, shape.window)
        factors = rng.integers(1, 4, 2).tolist()
        value = build.resize_nearest(program.input(sizes), factors)
        program.result(value, f"resize {factors}")
        program.convolved(value, shape.window)
        move(program, shape)


def move(program: Program, shape: Shape) -> None:
    """Images of bytes and of reals: in the midst of a number, in part, with rows for columns."""
    rng, sizes = program.rng, shape.sizes
    for image in (program.input(sizes), *([program.real(sizes)] if program.reals else [])):
        low, high = ([0, *rng.integers(0, 4, 3).tolist()] for _ in range(2))
        padded = build.pad(image, low=low, high=high, value=float(rng.choice([0.0, 1.5])))
        program.result(padded, f"pad {low} {high}")
        behind = build.pad(image, low=[0] * 4, high=[0, 5, 0, 0], value=1.5)
        program.result(behind, "pad behind channels")
        strides = [1, 1, *rng.integers(1, 3, 2).tolist()]
        whole = list(zip(build.shape_of(padded), strides, strict=True))
        offsets = [0, *(int(rng.integers(0, size)) for size, _ in whole[1:])]
        ends = [-(-(n - first) // step) for (n, step), first in zip(whole, offsets, strict=True)]
        part = build.slice(padded, offsets=offsets, sizes=ends, strides=strides)
        program.result(part, f"slice {offsets} {ends} {strides}")
        if quant.is_quantized(part.type):
            program.convolved(part, shape.window)
        turned = build.transpose(image, (0, 2, 1, 3))
        program.result(turned, "rows for columns")
        joined = build.reshape(turned, [shape.n * shape.h, shape.c * shape.w])
        program.result(build.transpose(joined, (1, 0)), "transposed")


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_pixels_between_others(isa: Isa) -> None:
    """By kernels, which fuse products with sums; one by linalg, which sums up more than two."""

    def each(program: Program) -> None:
        program.convolves = not without_convolutions(isa)
        for channels, (height, width), after in (
            (3, (1, 4), (5, 1)),
            (16, (5, 6), (10, 12)),
            (21, (7, 2), (4, 9)),
        ):
            matrices = []
            for size, count in zip((height, width), after, strict=True):
                key = f"m{len(program.store)}"
                program.store[key] = interpolation.shares(size, count, count / size, "half_pixel")
                matrices.append(build.weight(key, build.tensor((count, size))))
            image = program.real((2, channels, height, width))
            made = build.resample(image, *matrices)
            program.result(made, f"resample {channels} {after}")
            stored = build.quantize(made, quant.type_of(program.stored()))
            program.result(build.dequantize(stored), "stored")
        key = f"m{len(program.store)}"
        program.store[key] = program.rng.normal(size=(3, 7)).astype(np.float32)
        rows = build.weight(key, build.tensor((3, 7)))
        program.result(build.resample(image, rows, matrices[1]), "sums of seven")
        apart = np.zeros((3, 7), np.float32)
        apart[0, [1, 4]], apart[1, [2, 3]] = (0.5, 0.5), (0.5, 2.0)
        program.store["apart"] = apart
        rows = build.weight("apart", build.tensor((3, 7)))
        program.result(build.resample(image, rows, matrices[1]), "no neighbours, not one, none")

    def check(found: Array, expected: Array, name: str) -> None:
        steps = 1.0 if name.endswith("stored") else 1e-5
        np.testing.assert_allclose(found, expected, atol=steps, rtol=1e-5, err_msg=name)

    run(isa, target_of(isa), each, check, seed=5, kernels=("resample5x6_16x10x12",))


def compare(isa: Isa, shapes: Sequence[Shape], seed: int) -> None:
    """Every result on kernels, on this CPU or an emulated one, must be that of the reference."""

    def each(program: Program) -> None:
        program.convolves = not without_convolutions(isa)
        for program.words in sorted({False, "u16" in isa.kinds}):
            for shape in shapes:
                fill(program, shape)

    def check(found: Array, expected: Array, name: str) -> None:
        np.testing.assert_array_equal(found.view(expected.dtype), expected, name)

    kernels = ("add_", "mul_", "lookup_", *(["move_", "turn_"] if shapes[0].h else []))
    run(isa, target_of(isa), each, check, seed=seed, kernels=kernels)


def written(
    fill: Callable[[Program], None], seed: int, **options: bool
) -> tuple[str, Program, list[str], dict[str, Array]]:
    """A module, what it was written as, the names of its results, and what these must be."""
    with context(), Location.unknown():
        module = Module.create()
        with InsertionPoint(module.body):
            function = func.FuncOp("main", ([], []))
            with InsertionPoint(function.add_entry_block()):
                end = func.ReturnOp([])
        program = Program(np.random.default_rng(seed), function, **options)
        with InsertionPoint(end):
            fill(program)
        functions.set_results(function, program.results)
        assert module.operation.verify()
        names = [build.name_of(value.owner) or "" for value in program.results]
        expected = reference.run(module, program.inputs, program.store)
        return str(module), program, names, expected


def run(
    isa: Isa,
    target: Target,
    fill: Callable[[Program], None],
    check: Callable[[Array, Array, str], None],
    *,
    seed: int,
    kernels: Sequence[str],
    is_open: bool = False,
    whole: bool = False,
) -> None:
    """Check every result of a program on kernels, some of which must have been called so.

    Of a `whole` program every op must have one.
    """
    text, program, names, expected = written(fill, seed, is_open=is_open)
    made = transform(text, program.store, f"@lower-{isa.name}")
    assert not (whole and made.skips), made.skips
    for kernel in kernels:
        assert f'sym_name = "{kernel}' in made.text, kernel
    if reason := emulation.why_not_at_all(target):
        compile_module(made.text, target, weights=made.weights)
        pytest.skip(f"compiled, not run: {target.name}: {reason}")
    runner = emulation.load(made.text, target, made.weights, outputs=len(names))
    for name, found in zip(names, runner.run(*program.inputs), strict=True):
        check(found, expected[name], name)


def without_convolutions(isa: Isa) -> bool:
    """Whether this CPU runs all of an instruction set but what multiplies for convolutions."""
    here = not emulation.why_not_at_all(targets.host_target())
    return isa.name == "avx_vnni" and here and bool(emulation.why_not_at_all(_own_target(isa)))


def _own_target(isa: Isa) -> Target:
    return next(each for each in EVERY if best(each.cpu_features) is isa)


def target_of(isa: Isa) -> Target:
    return targets.host_target() if without_convolutions(isa) else _own_target(isa)


SHAPES = (
    Shape(2, 16, 4, 7, 3),
    Shape(1, 67, 2, 3, 5),
    Shape(2, 21, 0, 0),
)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_kernels_are_exact(isa: Isa) -> None:
    compare(isa, SHAPES, 0)


@pytest.mark.skipif(best(cpu_features()) is None, reason="this CPU has none of the ISAs")
@pytest.mark.parametrize("bits", [8, 12])
def test_lines_stay_images_between_convolutions(bits: int) -> None:
    """One dimension: a residual block whose sums and functions are of [N, C, W], not of images."""

    def convolved(program: Program, line: Any) -> Any:
        key, (batch, channels, width) = f"w{len(program.store)}", build.shape_of(line)
        shape = (16, channels, 1, 3)
        program.store[key] = program.rng.integers(-127, 128, shape, np.int8)
        params = QuantParams(
            8, signed=True, scale=(0.01,), zero_point=(0,), storage_range=(-127, 127)
        )
        weight = build.weight(key, build.tensor(shape, quant.type_of(params)))
        image = build.reshape(line, (batch, channels, 1, width))
        element = quant.type_of(program.stored(bits))
        made = build.conv2d(image, weight, pads=(0, 1, 0, 1), element=element)
        return build.reshape(made, (batch, 16, width))

    def block(program: Program) -> None:
        line = convolved(program, program.input((2, 7, 9)))
        function, element = nonlinear.parse("tanh"), quant.type_of(program.stored(bits))
        curved = build.nonlinearity(line, function, element)
        joined = build.add(curved, line, element=quant.type_of(program.stored(bits)))
        program.result(convolved(program, joined), "convolution")
        program.result(joined, "sum")
        program.result(build.transpose(joined, (0, 2, 1)), "channels last")

    def check(found: Array, expected: Array, name: str) -> None:
        np.testing.assert_array_equal(found.view(expected.dtype), expected, name)

    isa = best(cpu_features())
    assert isinstance(isa, Isa)
    wide = "" if bits == 8 else "wide_"
    kernels = f"{wide}add_16x1x9", "lookup_", f"{wide}conv1x3_16x1x9"
    run(isa, targets.host_target(), block, check, seed=3, kernels=kernels)


@pytest.mark.skipif(best(cpu_features()) is None, reason="this CPU has none of the ISAs")
@settings(max_examples=3)
@given(
    st.lists(
        st.builds(
            Shape,
            st.integers(1, 3),
            st.integers(1, 80),
            st.integers(1, 9),
            st.integers(1, 9),
            st.sampled_from([1, 3]),
        ),
        min_size=1,
        max_size=1,
    ),
    st.integers(0, 2**32 - 1),
)
def test_kernels_are_exact_whatever_the_shape(shapes: list[Shape], seed: int) -> None:
    isa = best(cpu_features())
    assert isinstance(isa, Isa)
    compare(isa, shapes, seed)


@given(st.binary(min_size=256, max_size=256))
def test_shuffles_find_every_byte_of_a_table(content: bytes) -> None:
    """The rows as x86 holds them: each index sees its own row and at most seven before it."""
    table = np.frombuffer(content, np.uint8)
    rows = X86.arranged(table).reshape(16, 16)
    for index in range(256):
        seen = rows[max(0, (index >> 4) - 7) : (index >> 4) + 1, index & 15]
        assert np.bitwise_xor.reduce(seen) == table[index]


@given(st.sampled_from([*FUNCTIONS, "hard_sigmoid(0.2, 0.5)", "softplus"]), st.data())
def test_tables_are_rounded_once(text: str, data: st.DataObject) -> None:
    """A table holds the storage whose real is nearest to the function, and no other."""
    scales, zeros = st.floats(2**-8, 4, width=32), st.integers(0, 255)
    input, output = (
        QuantParams(8, signed=False, scale=(data.draw(scales),), zero_point=(data.draw(zeros),))
        for _ in range(2)
    )
    function = nonlinear.parse(text)
    table = nonlinear.table(function, input, output)
    reals = nonlinear.evaluate(
        function, numerics.dequantize(np.arange(256).astype(np.uint8), input)
    )
    steps = reals / np.float32(output.scale[0])
    low, high = (limit - output.zero_point[0] for limit in output.limits)
    nearest = [round(float(np.clip(step, low, high))) for step in steps]
    assert (table.astype(int) - output.zero_point[0]).tolist() == nearest


@pytest.mark.parametrize(
    "text", ["", "sigmoid(1)", "clip(1)", "clip(1, x)", "swish", "add(nan)", "tanh |"]
)
def test_what_is_no_function_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"step|numbers"):
        nonlinear.parse(text)


@given(st.lists(st.floats(-9, 9, width=32), min_size=2, max_size=2))
def test_functions_read_as_they_are_written(numbers: list[float]) -> None:
    low, high = sorted(numbers)
    function = nonlinear.parse(f"add({low}) | clip({low}, {high}) | tanh | times_input")
    again = nonlinear.parse(nonlinear.text_of(function))
    assert [np.float32(n) for step in function for n in step.numbers] == [
        np.float32(n) for step in again for n in step.numbers
    ]
