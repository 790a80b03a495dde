"""What `@lower-linalg` computes on x86 against `mlq.reference`: integers bit for bit.

Modules are made of many small ops, each of whose results the module returns; arguments are random.
What integer layers yield in float32 is exact too, but for the sign of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Location, Module, Value

from mlq import numerics, reference, runtime, targets
from mlq.dialect import build, context, functions, measures, quant
from mlq.dialect.build import NO_ACTIVATION, Activation
from mlq.dialect.ops import RequantizeOp
from mlq.dialect.shapes import DYNAMIC
from mlq.dialect.weights import WeightStore
from mlq.network import transform
from mlq.numerics import QuantParams, nonlinear
from mlq.numerics.sampling import histogram, row_step, subsampling_step
from mlq.targets.iree import compile_module

Array = NDArray[Any]

BATCH = 2  # of what has a dynamic batch
HALVES = QuantParams(8, signed=False, scale=(0.5,), zero_point=(3,))
QUARTERS = QuantParams(8, signed=False, scale=(0.25,), zero_point=(128,))
ODD = QuantParams(8, signed=False, scale=(0.0173,), zero_point=(250,))
WORDS = QuantParams(16, signed=False, scale=(0.0007,), zero_point=(31000,))


@dataclass
class Program:
    """A module under construction: arguments and weights with their arrays, and its results."""

    rng: np.random.Generator
    function: Any
    inputs: list[Array] = field(default_factory=list)
    store: WeightStore = field(default_factory=WeightStore)
    results: list[Value] = field(default_factory=list)

    def input(self, shape: Sequence[int], params: QuantParams | None = None, **real: float) -> Any:
        """An argument: random storage, or normal reals of `scale`."""
        sizes = [BATCH if n == DYNAMIC else n for n in shape]
        array = self.rng.normal(0, real.get("scale", 1.0), sizes).astype(np.float32)
        if params is not None:
            low, high = params.limits
            array = self.rng.integers(low, high + 1, sizes).astype(params.dtype)
        self.inputs.append(array)
        name = f"x{len(self.inputs)}"
        return functions.add_argument(self.function, tensor(shape, params), name)

    def weight(self, array: Array, params: QuantParams | None = None) -> Any:
        key = f"w{len(self.store)}"
        self.store[key] = array
        return build.weight(key, tensor(array.shape, params))

    def result(self, value: Any, name: str) -> None:
        self.results.append(build.named(value, f"{len(self.results)}: {name}"))


def tensor(shape: Sequence[int], params: QuantParams | None) -> Any:
    return build.tensor(shape, element(params))


def element(params: QuantParams | None) -> Any:
    return None if params is None else quant.type_of(params)


def computed(
    fill: Callable[[Program], None], target: str = "x86"
) -> tuple[Program, list[str], list[Array], Any]:
    """The program that `fill` makes, its results' names, what they are, and the reference."""
    with context(), Location.unknown():
        module = Module.create()
        with InsertionPoint(module.body):
            function = func.FuncOp("main", ([], []))
            with InsertionPoint(function.add_entry_block()):
                end = func.ReturnOp([])
        program = Program(np.random.default_rng(0), function)
        with InsertionPoint(end):
            fill(program)
        functions.set_results(function, program.results)
        assert module.operation.verify()
        names = [build.name_of(value.owner) or "" for value in program.results]
        expected = reference.run(module, program.inputs, program.store)
        text = str(module)
    made = transform(text, program.store, "@lower-linalg")
    vmfb = compile_module(made.text, targets.by_name(target), weights=made.weights)
    return program, names, runtime.load(vmfb).run(*program.inputs), expected


def check(fill: Callable[[Program], None], *, spacings: float = 0, target: str = "x86") -> None:
    """Integers must be the reference's; reals too, or within so many spacings of the greatest."""
    _, names, found, expected = computed(fill, target)
    wrong = []
    for name, array in zip(names, found, strict=True):
        wanted = expected[name]
        got = array.view(wanted.dtype)  # IREE's integers have no sign
        assert got.shape == wanted.shape, name
        assert np.unique(wanted).size > 1, f"{name} shows nothing"
        finite = np.abs(wanted[np.isfinite(wanted)])
        bound = spacings * np.finfo(np.float32).eps * np.max(finite) if spacings else 0
        with np.errstate(invalid="ignore"):  # inf - inf, which are equal
            near = (got == wanted) | (np.abs(got.astype(np.float64) - wanted) <= bound)
        if not near.all():
            wrong.append(
                f"{name}: {(~near).sum()} of {near.size}, {got[~near]} for {wanted[~near]}"
            )
    assert not wrong, "\n".join(wrong)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution (or a matrix product of `h` rows); `residual` and `result` say how stored."""

    n: int = 1
    c: int = 5
    o: int = 7
    h: int = 6
    w: int = 7
    k: tuple[int, int] = (1, 1)
    s: tuple[int, int] = (1, 1)
    d: tuple[int, int] = (1, 1)
    p: tuple[int, int, int, int] = (0, 0, 0, 0)
    g: int = 1
    zero_point: int = 3
    bits: int = 8
    weight_bits: int = 8
    per_axis: bool = True
    exponent: int | None = None
    bias: int = 2000
    residual: str = ""
    activation: Activation = NO_ACTIVATION
    result: str = "u8"
    transposed: bool = False

    def __str__(self) -> str:
        defaults = Layer()
        changed = {k: v for k, v in vars(self).items() if v != getattr(defaults, k)}
        return ", ".join(f"{k}={v}" for k, v in changed.items())

    @property
    def input(self) -> QuantParams:
        scale = 0.02 if self.exponent is None else 0.5
        return QuantParams(self.bits, signed=False, scale=(scale,), zero_point=(self.zero_point,))

    def weights(self, rng: np.random.Generator, shape: Sequence[int], axis: int) -> Any:
        """Integers and their parameters."""
        most = (1 << self.weight_bits - 1) - 1
        count = shape[axis] if self.per_axis else 1
        scale = rng.uniform(0.003, 0.03, count).astype(np.float32)
        if self.exponent is not None:
            scale = np.float32(2.0**self.exponent) * 2.0 ** rng.integers(0, 3, count)
        params = QuantParams(
            bits=self.weight_bits,
            signed=True,
            scale=tuple(map(float, scale)),
            zero_point=(0,) * count,
            axis=axis if self.per_axis else None,
            storage_range=(-most, most),
        )
        return rng.integers(-most, most + 1, shape).astype(np.int8), params

    def output(self, weight: QuantParams, terms: int) -> QuantParams | None:
        """Storage that most results fit into, and some do not."""
        if self.result == "f32":
            return None
        if self.exponent is not None:
            return QuantParams(8, signed=False, scale=(0.5,), zero_point=(100,))
        (low, high), most = self.input.limits, weight.limits[1]
        spread = 0.17 * (high - low) * most * np.sqrt(terms) + 0.5 * self.bias
        scale = float(np.float32(self.input.scale[0] * np.mean(weight.scale) * spread / 60))
        return QuantParams(8, signed=False, scale=(scale,), zero_point=(117,))

    def extras(self, program: Program, weight: QuantParams, shape: Any, count: int) -> Any:
        """Bias and residual, as builder arguments."""
        bias = residual = None
        if self.bias:
            array = program.rng.integers(-self.bias, self.bias, count).astype(np.int32)
            bias = program.weight(array, numerics.bias_params(self.input, weight))
        if self.residual:
            params = replace(ODD, zero_point=(100,)) if self.residual == "u8" else None
            residual = program.input(shape, params)
        return {"bias": bias, "residual": residual, "activation": self.activation}


def convolution(program: Program, layer: Layer) -> Any:
    x = program.input((layer.n, layer.c, layer.h, layer.w), layer.input)
    shape = (layer.o, layer.c // layer.g, *layer.k)
    array, params = layer.weights(program.rng, shape, 0)
    output = layer.output(params, int(np.prod(shape[1:])))
    size = [
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, before, after, d, k, s in zip(
            (layer.h, layer.w), layer.p[:2], layer.p[2:], layer.d, layer.k, layer.s, strict=True
        )
    ]
    return build.conv2d(
        x,
        program.weight(array, params),
        strides=layer.s,
        pads=layer.p,
        dilations=layer.d,
        groups=layer.g,
        element=element(output),
        **layer.extras(program, params, (layer.n, layer.o, *size), layer.o),
    )


def product(program: Program, layer: Layer) -> Any:
    """A matrix product; `n` is a leading axis where it is not one."""
    leading = [] if layer.n == 1 else [layer.n]
    x = program.input([*leading, layer.h, layer.c], layer.input)
    axis = 0 if layer.transposed else 1
    shape = (layer.o, layer.c) if layer.transposed else (layer.c, layer.o)
    array, params = layer.weights(program.rng, shape, axis)
    return build.matmul(
        x,
        program.weight(array, params),
        transpose_rhs=layer.transposed,
        element=element(layer.output(params, layer.c)),
        **layer.extras(program, params, [*leading, layer.h, layer.o], layer.o),
    )


RELU, CLIP = Activation.relu(), Activation.clip(-3.5, 6.25)
GREATEST = 2147483647  # of i32: with products added, sums are i64
SQUARE, TALL, AROUND = (3, 3), (5, 3), (1, 1, 1, 1)

CONVOLUTIONS = {
    "pointwise": (
        Layer(),
        Layer(zero_point=0, per_axis=False, bias=0, c=16, o=32),
        Layer(zero_point=128, residual="u8", activation=RELU, c=8, o=48),
        Layer(zero_point=255, residual="f32", s=(2, 1), activation=CLIP),
        Layer(result="f32", residual="f32", activation=CLIP),
        Layer(result="f32", residual="u8", c=3, o=96),
        Layer(result="f32", activation=RELU, o=1, n=3),
        Layer(exponent=-9, zero_point=128, bias=100),
        Layer(bias=1 << 29),
        Layer(bias=1 << 29, result="f32"),
        Layer(bias=GREATEST, per_axis=False),
        Layer(bias=GREATEST, result="f32"),
        Layer(n=DYNAMIC, residual="u8", s=(2, 2)),
        Layer(c=300, o=270, h=3, w=3),
    ),
    "windows": (
        Layer(k=SQUARE, p=AROUND),
        Layer(k=SQUARE, p=(0, 1, 2, 3), s=(2, 2), zero_point=0, bias=0, per_axis=False),
        Layer(k=TALL, p=(2, 1, 2, 1), zero_point=128, residual="u8", activation=RELU),
        Layer(k=TALL, d=(1, 2), p=(1, 0, 0, 2), h=9, zero_point=255, residual="f32"),
        Layer(k=SQUARE, d=(2, 2), p=(2, 2, 2, 2), s=(1, 2), activation=CLIP, c=16, o=32),
        Layer(k=SQUARE, result="f32", residual="u8", activation=CLIP),
        Layer(k=SQUARE, result="f32", bias=0, p=AROUND, n=2),
        Layer(k=SQUARE, p=AROUND, exponent=-10, bias=100),
        Layer(k=SQUARE, p=AROUND, bias=1 << 29, zero_point=128),
        Layer(k=SQUARE, p=AROUND, n=DYNAMIC, residual="f32", result="f32"),
        Layer(k=SQUARE, p=AROUND, c=130, o=16),
    ),
    "groups": (
        Layer(k=SQUARE, p=AROUND, g=3, c=6, o=9),
        Layer(g=2, c=6, o=4, zero_point=128, residual="u8"),
        Layer(k=SQUARE, p=(1, 0, 1, 2), s=(2, 2), g=7, c=7, o=7, activation=RELU),
        Layer(k=TALL, d=(1, 2), p=(2, 2, 2, 2), g=16, c=16, o=16, zero_point=255, bias=0),
        Layer(k=SQUARE, p=AROUND, g=5, c=5, o=10, zero_point=0, result="f32", activation=CLIP),
        Layer(k=SQUARE, p=AROUND, g=8, c=8, o=8, residual="f32", per_axis=False),
        Layer(k=SQUARE, p=AROUND, g=4, c=4, o=4, bias=1 << 29),
        Layer(k=SQUARE, p=AROUND, g=4, c=4, o=4, n=DYNAMIC, exponent=-9, bias=50),
    ),
    "widths": (
        Layer(weight_bits=4, k=SQUARE, p=AROUND),
        Layer(weight_bits=4, residual="u8", activation=RELU),
        Layer(weight_bits=4, g=5, o=5, k=SQUARE, result="f32"),
        Layer(bits=16, zero_point=31000),
        Layer(bits=16, zero_point=31000, k=SQUARE, p=AROUND, residual="u8"),
        Layer(bits=16, zero_point=65535, k=SQUARE, p=AROUND, c=130, result="f32"),
        Layer(bits=16, zero_point=3, g=5, o=5, k=SQUARE, p=AROUND),
    ),
}
PRODUCTS = (
    Layer(h=1),
    Layer(h=5, transposed=True, zero_point=128, bias=0, per_axis=False),
    Layer(h=5, residual="u8", activation=RELU, zero_point=255),
    Layer(h=1, transposed=True, residual="f32", activation=CLIP, zero_point=0),
    Layer(h=13, result="f32", residual="u8", c=64, o=96),
    Layer(h=5, n=3, result="f32", residual="f32", activation=CLIP),
    Layer(h=1, n=2, transposed=True, c=200, o=10),
    Layer(h=DYNAMIC, c=40, o=10, transposed=True),
    Layer(h=5, bias=GREATEST),
    Layer(h=5, bias=1 << 30, result="f32"),
    Layer(h=5, exponent=-10, bias=99),
    Layer(h=1, c=2100, o=40),
    Layer(h=5, weight_bits=4, transposed=True),
    Layer(h=5, bits=16, zero_point=40000),
    Layer(h=3, bits=16, zero_point=0, c=600, result="f32"),
)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions(kind: str) -> None:
    def fill(program: Program) -> None:
        for layer in CONVOLUTIONS[kind]:
            program.result(convolution(program, layer), str(layer))

    check(fill)


def test_matrix_products() -> None:
    def fill(program: Program) -> None:
        for layer in PRODUCTS:
            program.result(product(program, layer), str(layer))

    check(fill)


def test_products_of_activations() -> None:
    """Neither side is a weight, so that nothing of zero points can be known beforehand."""

    def fill(program: Program) -> None:
        for transposed, output in ((False, HALVES), (True, None)):
            lhs = program.input((5, 9), replace(HALVES, scale=(0.01,)))
            rhs = program.input((4, 9) if transposed else (9, 4), replace(ODD, zero_point=(7,)))
            made = build.matmul(lhs, rhs, transpose_rhs=transposed, element=element(output))
            program.result(made, f"transposed={transposed}")

    check(fill)


def test_weights_that_come_at_run_time() -> None:
    """A simulated network's weights are swapped: the lowering must not need their values."""

    def fill(program: Program) -> None:
        for layer in (Layer(bias=0), Layer(bias=0, k=SQUARE, p=AROUND, zero_point=128)):
            array, params = layer.weights(program.rng, (layer.o, layer.c, *layer.k), 0)
            x = program.input((1, layer.c, layer.h, layer.w), layer.input)
            weight = program.input(array.shape, params)
            output = layer.output(params, layer.c * layer.k[0] * layer.k[1])
            made = build.conv2d(x, weight, pads=layer.p, element=element(output))
            program.result(made, str(layer))

    check(fill)


def test_sums() -> None:
    shape = (1, 3, 4, 5)
    rows = (
        (HALVES, QUARTERS, replace(HALVES, zero_point=(20,)), NO_ACTIVATION),
        (ODD, HALVES, QUARTERS, RELU),
        (ODD, ODD, ODD, CLIP),
        (HALVES, ODD, None, CLIP),
        (WORDS, ODD, None, NO_ACTIVATION),
        (WORDS, ODD, WORDS, RELU),
    )

    def fill(program: Program) -> None:
        for number, (lhs, rhs, output, activation) in enumerate(rows):
            sizes = (DYNAMIC, *shape[1:]) if number == 0 else shape
            operands = program.input(sizes, lhs, scale=20), program.input(sizes, rhs, scale=20)
            made = build.add(*operands, activation=activation, element=element(output))
            program.result(made, f"row {number}")

    check(fill)


def test_products_of_elements() -> None:
    """Of one shape, or of a gate that is repeated; saturated on both sides, at odd zero points."""
    rows = (
        ((1, 3, 4, 5), HALVES, QUARTERS, replace(ODD, scale=(3.5,)), NO_ACTIVATION),
        ((1, 3, 1, 1), ODD, HALVES, QUARTERS, RELU),
        ((1, 1, 4, 1), replace(ODD, zero_point=(0,)), ODD, replace(QUARTERS, scale=(1.7,)), CLIP),
        ((1, 3, 4, 5), HALVES, ODD, None, CLIP),
        ((1, 3, 1, 1), WORDS, WORDS, None, NO_ACTIVATION),
        ((1, 1, 1, 1), WORDS, ODD, WORDS, RELU),
        ((1, 3, 1, 1), None, None, None, CLIP),
    )

    def fill(program: Program) -> None:
        for number, (shape, lhs, rhs, output, activation) in enumerate(rows):
            dynamic = DYNAMIC if number == 1 else 1
            operands = program.input((dynamic, 3, 4, 5), lhs, scale=20), program.input(shape, rhs)
            made = build.mul(*operands, activation=activation, element=element(output))
            program.result(made, f"row {number}")

    check(fill)


FUNCTIONS = {
    "add(3) | clip(0, 6) | multiply(0.166666667) | times_input": 4,
    "clip(-0.5, 2)": 2,
    "elu(0.7)": 20,
    "erf": 4,
    "hard_sigmoid(0.2, 0.5)": 2,
    "hard_swish": 4,
    "leaky_relu(0.1)": 2,
    "multiply(0.5) | erf | add(1) | times_input": 8,
    "softplus | tanh | times_input": 8,
    "sigmoid": 4,
    "sigmoid | times_input": 4,
    "softplus": 4,
    "tanh": 8,
}
"""Each function, and within how many spacings of its greatest value floats are."""


@pytest.mark.parametrize("target", ["x86", "vmvx"])
def test_functions_of_integers(target: str) -> None:
    """Tables, of every byte; a result may be saturated on either side, or be real."""
    outputs = (QUARTERS, replace(ODD, zero_point=(9,), scale=(0.011,)), None)

    def fill(program: Program) -> None:
        for zero_point, text in zip((3, 128, 251) * 5, FUNCTIONS, strict=False):
            x = program.input(
                (2, 5, 7, 8), replace(HALVES, scale=(0.05,), zero_point=(zero_point,))
            )
            for output in outputs:
                made = build.nonlinearity(x, nonlinear.parse(text), element(output))
                program.result(made, f"{text} {output}")
        signed = program.input((DYNAMIC, 7), replace(HALVES, signed=True))
        program.result(build.nonlinearity(signed, nonlinear.parse("sigmoid")), "signed")

    check(fill, target=target)


def test_functions_of_reals() -> None:
    def fill(program: Program) -> None:
        x = program.input((DYNAMIC, 3, 40), scale=4)
        for text in FUNCTIONS:
            program.result(build.nonlinearity(x, nonlinear.parse(text)), text)

    check(fill, spacings=max(FUNCTIONS.values()))


def test_functions_where_floats_end() -> None:
    """Of great and least reals, infinite ones among them: as in float64, zeros or infinities."""

    def fill(program: Program) -> None:
        x = program.input((9,))
        most = np.finfo(np.float32).max
        program.inputs[0][:] = [-np.inf, -most, -200.0, -89.0, 0.0, 89.0, 200.0, most, np.inf]
        for text in ("sigmoid", "softplus", "tanh", "erf", "elu(1)", "leaky_relu(0.01)"):
            program.result(build.nonlinearity(x, nonlinear.parse(text)), text)

    check(fill, spacings=8)


def test_pools() -> None:
    pools: Any = (
        {"kernel": (2, 2), "strides": (2, 2)},
        {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
        {"kernel": (3, 2), "strides": (1, 2), "pads": (0, 1, 2, 0)},
    )
    means: Any = (
        {"count_include_pad": True},
        {"count_include_pad": False},
        {"count_include_pad": True, "ceil_pads": (1, 1)},
        {"count_include_pad": False, "ceil_pads": (1, 0)},
    )
    whole: Any = {"kernel": (7, 8), "strides": (1, 1)}

    def fill(program: Program) -> None:
        for params in (HALVES, ODD, WORDS):
            x = program.input((2, 5, 7, 8), params)
            for keys in pools:
                program.result(build.max_pool2d(x, **keys), f"greatest {keys} {params}")
            dilated = build.max_pool2d(x, kernel=(2, 3), strides=(1, 1), dilations=(2, 2))
            program.result(dilated, f"greatest, dilated {params}")
        signed = program.input((1, 5, 7, 8), replace(HALVES, signed=True))
        program.result(build.max_pool2d(signed, **pools[1]), "greatest of signed")
        x = program.input((DYNAMIC, 5, 7, 8), ODD)
        for output in (QUARTERS, None):
            for keys in ({**pools[1], **each} for each in means):
                program.result(
                    build.avg_pool2d(x, **keys, element=element(output)), f"mean {keys} {output}"
                )
            program.result(build.avg_pool2d(x, **whole, element=element(output)), "mean of all")
        words = program.input((1, 5, 7, 8), WORDS)
        program.result(build.avg_pool2d(words, **pools[2], element=element(ODD)), "mean of words")

    check(fill)


def test_moves() -> None:
    def fill(program: Program) -> None:
        for params in (QUARTERS, WORDS, None):
            moves(program, params)

    check(fill)


def test_resampled_images() -> None:
    """Any sums of rows and of columns, in an order that is not numpy's."""

    def fill(program: Program) -> None:
        x = program.input((2, 5, 4, 3))
        rows, columns = (
            program.weight(program.rng.normal(size=shape).astype(np.float32))
            for shape in ((7, 4), (2, 3))
        )
        program.result(build.resample(x, rows, columns), "resample")

    check(fill, spacings=8)


def moves(program: Program, params: QuantParams | None) -> None:
    """Concatenations, reshapes, transposes, pads, slices of images and of rows."""
    parts = [program.input((2, channels, 4, 3), params) for channels in (1, 5, 2)]
    rows = program.input((DYNAMIC, 6, 4), params)
    low, high = (0, 1, 0, 2), (0, 0, 3, 1)
    made = {
        "concat": build.concat(parts[:2], axis=1),
        "resize_nearest": build.resize_nearest(parts[1], (2, 3)),
        "chain": build.concat(parts, axis=1),
        "batches": build.concat([parts[0], parts[0]], axis=0),
        "pooled": build.max_pool2d(build.concat(parts, axis=1), kernel=(2, 2), strides=(1, 1)),
        "reshape": build.reshape(parts[1], (2, 60)),
        "regroup": build.reshape(parts[1], (10, 3, 4)),
        "dynamic": build.reshape(rows, (DYNAMIC, 24)),
        "pooled rows": build.reshape(
            build.max_pool2d(parts[1], kernel=(4, 3), strides=(1, 1)), (2, 5)
        ),
        "pooled, then flat": build.reshape(
            build.max_pool2d(parts[1], kernel=(2, 2), strides=(2, 1)), (2, 20)
        ),
        "transpose": build.transpose(rows, (2, 0, 1)),
        "pad": build.pad(parts[1], low=low, high=high, value=-0.3),
        "pad beyond": build.pad(parts[1], low=low, high=high, value=1e9),
        "pad with zeros": build.max_pool2d(
            build.pad(parts[1], low=low, high=high, value=0.0), kernel=(2, 2), strides=(2, 2)
        ),
        "slice": build.slice(
            parts[1], offsets=(0, 1, 1, 0), sizes=(2, 2, 2, 3), strides=(1, 2, 2, 1)
        ),
        "slice rows": build.slice(rows, offsets=(0, 2, 1), sizes=(-1, 3, 2), strides=(1, 1, 2)),
    }
    for name, value in made.items():
        program.result(value, f"{name} {params}")


def test_casts_and_clamps() -> None:
    """Ties go to even, what is too great saturates, and zero points change nothing of that."""
    ties = np.concatenate(
        [np.arange(-600, 600) * 0.25, [1e30, -1e30, np.inf, -np.inf, 0.0, -0.0]]
    ).astype(np.float32)
    signed = QuantParams(8, signed=True, scale=(0.5,), zero_point=(-5,), storage_range=(-127, 127))
    axis = QuantParams(8, signed=True, scale=(0.5, 0.1, 0.03), zero_point=(0, 5, -7), axis=1)
    storages = (HALVES, QUARTERS, ODD, WORDS, signed)

    def fill(program: Program) -> None:
        real = program.input(ties.shape)
        program.inputs[-1] = ties
        rows = program.input((DYNAMIC, 3, 5), scale=4)
        for params in storages:
            stored = program.input((300,), params)
            program.result(build.quantize(real, element(params)), f"quantize {params}")
            program.result(build.dequantize(stored), f"dequantize {params}")
            for activation in (RELU, CLIP):
                program.result(build.activate(stored, activation), f"{activation} {params}")
            for other in storages:
                made = requantize(stored, other)
                program.result(made, f"requantize {params} {other}")
        program.result(build.quantize(rows, element(axis)), "quantize per axis")
        program.result(build.dequantize(program.input((2, 3, 5), axis)), "dequantize per axis")
        program.result(build.activate(rows, CLIP), "clamp reals")

    check(fill)


def requantize(value: Any, params: QuantParams) -> Any:
    return RequantizeOp(value, tensor(build.shape_of(value), params)).output


def test_simulated_quantization() -> None:
    """Rows of a table that is an argument; one of them is off."""
    table = np.array(
        [[0.5, 3, 0, 255], [0.017, -9, -127, 127], [0, 0, 0, 255], [-1, 0, 0, 9], [3e-3, 0, 0, 7]],
        np.float32,
    )

    def fill(program: Program) -> None:
        x, rows = program.input((2, 3, 4, 5), scale=40), program.input(table.shape)
        program.inputs[-1] = table
        program.inputs[0][0, 0, 0] = [0.25, 0.75, -0.25, 1e30, np.inf]
        for row in range(len(table)):
            program.result(measures.fake_quantize(x, rows, row), f"row {row}")

    check(fill)


def test_statistics() -> None:
    """Extremes and counts are exact; energies are sums, within 1e-5 of those in float64."""
    observed = (((2, 3, 8, 9), 64, 100), ((40, 7), 16, 1 << 20), ((DYNAMIC, 6, 5), 8, 10))
    shapes = (((2, 16, 12, 12), 1 << 20), ((2, 13, 12, 12), 700), ((3, 50), 9), ((1000,), 9))

    def fill(program: Program) -> None:
        for shape, bins, most in observed:
            made = measures.observe(program.input(shape, scale=3), bins=bins, max_elements=most)
            program.results.append(made)
        flat = program.input((1, 10))
        program.inputs[-1][:] = 1.5
        program.results.append(measures.observe(flat, bins=4, max_elements=100))
        for shape, most in shapes:
            operands = program.input(shape), program.input(shape)
            program.results.append(measures.compare(*operands, max_elements=most))

    program, _, found, _ = computed(fill)
    arrays, results = iter(program.inputs), iter(found)
    for shape, bins, most in (*observed, ((1, 10), 4, 100)):
        x = next(arrays)
        step = subsampling_step(int(np.prod([n for n in shape if n != DYNAMIC])), most)
        least, greatest, *counts = next(results)
        assert (least, greatest) == (x.min(), x.max())
        expected = histogram(x.reshape(-1)[::step], x.min(), x.max(), bins)
        np.testing.assert_array_equal(counts, expected)
    for shape, most in shapes:
        wanted, value = (next(arrays).astype(np.float64) for _ in range(2))
        part = 1.0
        if (step := row_step(shape, most)) > 1:
            wanted, value = wanted[:, ::step], value[:, ::step]
            part = wanted.size / np.prod(shape)
        exact = [np.sum(np.square(each)) / part for each in (wanted, wanted - value)]
        assert next(results) == pytest.approx(exact, rel=1e-5)


def test_floats() -> None:
    """Sums of up to `terms` products in another order: each addition errs by half a spacing."""
    terms = 5 * 3 * 3 + 2

    def fill(program: Program) -> None:
        x = program.input((2, 5, 6, 7))
        weight = program.weight(program.rng.normal(0, 1, (8, 5, 3, 3)).astype(np.float32))
        bias = program.weight(program.rng.normal(0, 1, 8).astype(np.float32))
        residual = program.input((2, 8, 6, 7))
        keys: Any = {"pads": AROUND, "bias": bias, "residual": residual, "activation": CLIP}
        program.result(build.conv2d(x, weight, **keys), "conv2d")
        depth = program.weight(program.rng.normal(0, 1, (5, 1, 3, 3)).astype(np.float32))
        program.result(build.conv2d(x, depth, groups=5), "depthwise")
        matrix = program.weight(program.rng.normal(0, 1, (7, 9)).astype(np.float32))
        program.result(build.matmul(program.input((4, 7)), matrix), "matmul")
        program.result(build.add(x, program.input((2, 5, 6, 7)), activation=RELU), "add")
        means = build.avg_pool2d(x, kernel=(3, 3), strides=(2, 2), pads=AROUND)
        program.result(means, "avg_pool2d")
        greatest = build.max_pool2d(x, kernel=(3, 3), strides=(2, 2), pads=AROUND)
        program.result(greatest, "max_pool2d")

    check(fill, spacings=terms)
