"""Every op, compiled for this CPU, equals the reference: integers bit for bit.

An integer op may have a result in f32, its accumulator times a scale: that is compared bit for bit
too. Ops that compute in f32 from the start sum in another order than numpy; `tolerance` says how
far apart that may take them. Many cases share a module, since each compilation takes seconds.
"""

from __future__ import annotations

import numpy as np
import pytest
from torch_mlir.ir import Value

from mlq import numerics
from mlq.dialect import build, measures, quant
from mlq.dialect.build import Activation
from mlq.dialect.shapes import DYNAMIC
from mlq.numerics import QuantParams
from mlq.numerics.sampling import histogram, subsampling_step
from mlq.targets.host import cpu_features
from mlq.transforms.pipelines import lowering

from .program import Program, kind_of

ACTIVATIONS = (Activation(), Activation.relu(), Activation.clip(-1.0, 6.0))


def assert_equal(program: Program, cases: object) -> None:
    found, expected = program.run(cases)
    assert found.keys() <= expected.keys()
    different = {
        name: int(np.sum(array != expected[name]))
        for name, array in found.items()
        if not np.array_equal(array, expected[name])
    }
    assert not different, "how many elements differ"


def assert_close(program: Program, cases: object, terms: int) -> None:
    """Within the error of a float32 sum of `terms` products, relative to the greatest result.

    A sum of n terms in any order is off by at most n * 2^-24 * sum|x w|; for the zero-mean operands
    here sum|x w| is below sqrt(n) times the greatest result. Twice that, for the two sums compared.
    """
    tolerance = 2 * terms * 2.0**-24 * np.sqrt(terms)
    found, expected = program.run(cases)
    for name, array in found.items():
        most = np.max(np.abs(expected[name]), initial=1.0)
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=tolerance * most)


def element(params: QuantParams | None) -> object:
    return None if params is None else quant.type_of(params)


def convolution(p: Program, name: str, layout: str, *, extreme: bool = False) -> None:
    """One random integer convolution with everything it can have."""
    r = p.random
    exact = bool(r.integers(2))
    groups = int(r.choice([1, 1, 1, 2, 3]))
    inner, outer = int(r.integers(1, 5)), int(r.integers(1, 4))
    if extreme:
        groups, inner = 1, 70
    depthwise = groups == 3
    channels = groups * (1 if depthwise else inner)
    results = groups * (1 if depthwise else outer)
    kernel = [int(k) for k in r.choice([1, 2, 3], 2)] if not extreme else [3, 3]
    strides, dilations = r.choice([1, 2], 2).tolist(), r.choice([1, 1, 2], 2).tolist()
    pads = r.integers(0, 3, 4).tolist()
    size = (r.integers(5, 10, 2)).tolist()
    nhwc = layout == "nhwc"
    shape = [1, *size, channels] if nhwc else [1, channels, *size]
    per_group = channels // groups
    weight = [*kernel, per_group, results] if nhwc else [results, per_group, *kernel]
    input = p.params("iu"[r.integers(2)] + "8", exact=exact)
    axis = (3 if nhwc else 0) if r.integers(2) else None
    w, stored = p.weight(weight, axis, exact=exact)
    output = p.params(exact=exact) if r.integers(3) else None
    keys = {"strides": strides, "pads": pads, "dilations": dilations, "layout": layout}
    x = p.input(shape, input)
    plain = build.conv2d(x, w, groups=groups, element=element(output), **keys)
    residual = None
    if r.integers(2):
        kind = p.params(exact=exact) if output is None or r.integers(2) else None
        residual = p.input(build.shape_of(plain), kind)
    bias = p.bias(input, stored, results) if r.integers(2) else None
    activation = ACTIVATIONS[r.integers(len(ACTIVATIONS))]
    p.result(
        name,
        build.conv2d(
            x,
            w,
            groups=groups,
            element=element(output),
            bias=bias,
            residual=residual,
            activation=activation,
            **keys,
        ),
    )


@pytest.mark.parametrize("seed", range(3))
def test_convolutions(seed: int) -> None:
    def cases(p: Program) -> None:
        for i in range(16):
            convolution(p, f"conv{i}", "nhwc" if i % 4 == 3 else "nchw")

    assert_equal(Program(seed), cases)


def test_pointwise_convolutions_of_awkward_shapes() -> None:
    def cases(p: Program) -> None:
        shapes = [(7, 20, 10, 1), (13, 9, 100, 2), (3, 40, 48, 1), (9, 8, 65, 1)]
        for i, (size, channels, results, stride) in enumerate(shapes):
            input, output = p.params(), p.params() if i % 2 else None
            w, stored = p.weight([results, channels, 1, 1], 0)
            p.result(
                f"conv{i}",
                build.conv2d(
                    p.input([1, channels, size, size], input),
                    w,
                    bias=p.bias(input, stored, results),
                    strides=[stride, stride],
                    element=element(output),
                ),
            )

    assert_equal(Program(10), cases)


def test_sums_beyond_floats_and_beyond_32_bits() -> None:
    """Accumulators that float32 cannot hold are summed in i32, and in i64 beyond that."""

    def cases(p: Program) -> None:
        for i in range(3):
            convolution(p, f"conv{i}", "nchw", extreme=True)
        wide = kind_of("u16", 0.001, 12345)
        w, stored = p.weight([64, 9], 1, most=32767, bits=16)
        bias = p.bias(wide, stored, 9)
        x = p.input([5, 64], wide)
        for name, kind in (("wide", p.params("u16")), ("unrounded", None)):
            p.result(name, build.matmul(x, w, bias=bias, element=element(kind)))

    assert_equal(Program(11), cases)


def test_weights_that_are_no_constants() -> None:
    def cases(p: Program) -> None:
        input, other, output = p.params(), p.params("i8"), p.params()
        symmetric = kind_of("i8", 0.02, limits=(-127, 127))
        bias_params = numerics.bias_params(input, symmetric)
        bias = p.given(p.random.integers(-9999, 9999, 6).astype(np.int32), bias_params)
        x, w = p.input([1, 4, 6, 6], input), p.input([6, 4, 3, 3], symmetric)
        p.result("conv", build.conv2d(x, w, bias=bias, element=element(output)))
        p.result("conv_f32", build.conv2d(x, w, pads=[1, 1, 1, 1]))
        lhs, rhs = p.input([7, 5], input), p.input([5, 11], other)
        p.result("product", build.matmul(lhs, rhs, element=element(output)))
        turned = p.input([11, 5], other)
        p.result("turned", build.matmul(lhs, turned, transpose_rhs=True, element=element(output)))

    assert_equal(Program(12), cases)


@pytest.mark.parametrize("seed", range(2))
def test_matrix_products(seed: int) -> None:
    def cases(p: Program) -> None:
        r = p.random
        for i in range(12):
            leading = [[1], [5], [2, 9], [17]][i % 4]
            inner, columns = int(r.integers(1, 40)), int(r.choice([1, 7, 48, 70]))
            transposed, exact = bool(i % 2), bool(r.integers(2))
            input, output = p.params(exact=exact), p.params(exact=exact) if i % 3 else None
            shape = [columns, inner] if transposed else [inner, columns]
            axis = (0 if transposed else 1) if i % 5 else None
            w, stored = p.weight(shape, axis, exact=exact)
            kind = None if output is None or i % 2 else p.params(exact=exact)
            p.result(
                f"matmul{i}",
                build.matmul(
                    p.input([*leading, inner], input),
                    w,
                    transpose_rhs=transposed,
                    bias=p.bias(input, stored, columns) if i % 4 else None,
                    residual=p.input([*leading, columns], kind) if i % 3 == 1 else None,
                    activation=ACTIVATIONS[i % 3],
                    element=element(output),
                ),
            )

    assert_equal(Program(20 + seed), cases)


def test_pools() -> None:
    def cases(p: Program) -> None:
        r = p.random
        for i in range(10):
            params = None if i % 5 == 4 else p.params("ui"[i % 2] + "8")
            kernel = r.integers(1, 4, 2).tolist()
            pads = [int(r.integers(0, k)) for k in kernel * 2]
            keys = {"kernel": kernel, "strides": r.integers(1, 3, 2).tolist(), "pads": pads}
            x = p.input([1, 3, *r.integers(6, 9, 2).tolist()], params)
            p.result(f"max{i}", build.max_pool2d(x, dilations=r.integers(1, 3, 2).tolist(), **keys))
            if params is None:
                continue
            output = p.params() if i % 3 else None
            average = build.avg_pool2d(
                x,
                ceil_pads=r.integers(0, 2, 2).tolist(),
                count_include_pad=bool(i % 2),
                element=element(output),
                **keys,
            )
            p.result(f"mean{i}", average)
        x = p.input([2, 5, 7, 6], p.params())
        p.result("global", build.avg_pool2d(x, kernel=[7, 6], strides=[1, 1]))

    assert_equal(Program(30), cases)


def test_casts() -> None:
    def cases(p: Program) -> None:
        ties = np.arange(-300, 300, dtype=np.float32) * np.float32(0.25)
        wild = np.array([0, -0.0, 1e-45, 3.4e38, -3.4e38, np.inf, -np.inf], np.float32)
        noise = p.random.normal(0, 20, 5000).astype(np.float32)
        x = p.given(np.concatenate([ties, wild, noise]))
        kinds = {
            "u8": kind_of("u8", 0.5, 3),
            "i8": kind_of("i8", 0.5, -3),
            "narrow": kind_of("i8", 0.1, limits=(-127, 127)),
            "u16": kind_of("u16", 0.003, 40000),
            "i16": kind_of("i16", 0.003, -5),
            "u4": kind_of("u4", 1.7, 6),
            "odd": p.params(),
        }
        stored = {n: p.result(n, build.quantize(x, quant.type_of(k))) for n, k in kinds.items()}
        for name, value in stored.items():
            p.result(f"{name}_back", build.dequantize(value))
            for other, kind in kinds.items():
                type_ = build.tensor(build.shape_of(value), quant.type_of(kind))
                made = build.ops.RequantizeOp(value, type_).output
                p.result(f"{name}_to_{other}", made)
            p.result(f"{name}_relu", build.activate(value, Activation.relu()))
            p.result(f"{name}_clip", build.activate(value, Activation.clip(-1.3, 4.1)))
        axis = kind_of("i8", (0.1, 0.2, 0.5), (1, 0, -7), axis=1)
        y = p.input([50, 3])
        per_axis = p.result("per_axis", build.quantize(y, quant.type_of(axis)))
        p.result("per_axis_back", build.dequantize(per_axis))

    assert_equal(Program(40), cases)


def test_sums() -> None:
    """Two products and a sum: a fused multiply-add would differ in some of these thousands."""

    def cases(p: Program) -> None:
        for i in range(9):
            kinds = [p.params("ui"[i % 2] + "8", exact=i == 0) for _ in range(2)]
            output = [None, p.params(exact=i == 0), p.params("i8")][i % 3]
            lhs, rhs = (p.input([1, 4, 32, 32], kind) for kind in kinds)
            added = build.add(lhs, rhs, activation=ACTIVATIONS[i // 3], element=element(output))
            p.result(f"add{i}", added)
        # Products that only a later op adds up.
        lhs, rhs = (build.dequantize(p.input([4096], p.params())) for _ in range(2))
        p.result("reals", build.add(lhs, rhs))

    assert_equal(Program(50), cases)


def test_moves() -> None:
    def cases(p: Program) -> None:
        for name, params in (("u8", p.params()), ("i8", p.params("i8")), ("f32", None)):
            x, y = p.input([2, 3, 5, 4], params), p.input([2, 3, 5, 4], params)
            for axis in range(4):
                p.result(f"{name}_concat{axis}", build.concat([x, y, x], axis=axis))
            p.result(f"{name}_flat", build.reshape(x, [2, 60]))
            p.result(f"{name}_split", build.reshape(x, [2, 3, 2, 10]))
            p.result(f"{name}_unit", build.reshape(x, [1, 6, 1, 20, 1]))
            p.result(f"{name}_turned", build.transpose(x, [3, 0, 2, 1]))
            padded = build.pad(x, low=[0, 1, 0, 2], high=[1, 0, 3, 0], value=0.75)
            p.result(f"{name}_pad", padded)
            part = build.slice(x, offsets=[0, 1, 0, 1], sizes=[-1, 2, 3, 2], strides=[1, 1, 2, 2])
            p.result(f"{name}_part", part)

    assert_equal(Program(60), cases)


@pytest.mark.parametrize("pipeline", ["@lower-linalg", lowering(cpu_features())])
@pytest.mark.parametrize("batch", [1, 3])
def test_dynamic_batch(batch: int, pipeline: str) -> None:
    """A residual block with a classifier behind it, its batch known at run time only."""

    def cases(p: Program) -> None:
        a, b, c = p.params(), p.params(), p.params()
        image = p.result("image", build.quantize(p.input([1, 3, 9, 9]), quant.type_of(a)))
        w, stored = p.weight([6, 3, 3, 3], 0)
        first = build.conv2d(image, w, pads=[1] * 4, bias=p.bias(a, stored, 6), element=element(b))
        p.result("first", first)
        second, _ = p.weight([6, 1, 3, 3], 0)
        deep = build.conv2d(first, second, pads=[1] * 4, groups=6, element=element(b))
        p.result("deep", deep)
        point, _ = p.weight([6, 6, 1, 1], 0)
        third = build.conv2d(deep, point, residual=first, strides=[1, 1], element=element(c))
        p.result("third", third)
        grouped, _ = p.weight([4, 3, 1, 1], 0)
        p.result("grouped", build.conv2d(third, grouped, groups=2, strides=[2, 2]))
        p.result("joined", build.concat([first, deep], axis=1))
        pooled = build.max_pool2d(third, kernel=[2, 2], strides=[2, 2])
        p.result("pooled", pooled)
        mean = build.avg_pool2d(pooled, kernel=[4, 4], strides=[1, 1], element=element(c))
        p.result("mean", mean)
        flat = p.result("flat", build.reshape(mean, [DYNAMIC, 6]))
        matrix, _ = p.weight([10, 6], 0)
        p.result("logits", build.matmul(flat, matrix, transpose_rhs=True))
        p.result("wide", build.reshape(third, [DYNAMIC, 6 * 81]))
        cut = build.slice(third, offsets=[0, 2, 0, 0], sizes=[-1, 3, 9, 4], strides=[1, 1, 1, 2])
        p.result("cut", cut)
        p.result("framed", build.pad(third, low=[0, 0, 1, 1], high=[0, 0, 1, 1], value=0.0))

    assert_equal(Program(70, batch=batch, pipeline=pipeline), cases)


def test_simulated_quantization() -> None:
    def cases(p: Program) -> None:
        kinds = [p.params(), p.params("i8"), kind_of("u4", 0.5, 7)]
        rows = [*map(numerics.table_row, kinds), np.array([0, 0, 0, 255], np.float32)]
        table, x = p.given(np.stack(rows)), p.input([1, 2, 30, 30])
        for row in range(len(rows)):
            p.result(f"row{row}", measures.fake_quantize(x, table, row))

    assert_equal(Program(80), cases)


@pytest.mark.parametrize("batch", [None, 2])
def test_reals(batch: int | None) -> None:
    """Float layers with everything fused into them, in both layouts."""

    def cases(p: Program) -> None:
        for i, (groups, stride, kernel) in enumerate(
            [(1, 1, 3), (1, 2, 3), (1, 2, 1), (1, 1, 1), (6, 1, 3), (2, 1, 3)]
        ):
            x, w = p.input([1, 6, 9, 9]), p.real_weight([6, 6 // groups, kernel, kernel])
            keys = {"groups": groups, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
            plain = build.conv2d(x, w, **keys)
            p.result(f"plain{i}", plain)
            whole = {"bias": p.real_weight([6]), "activation": ACTIVATIONS[i % 3]}
            p.result(f"fused{i}", build.conv2d(x, w, residual=plain, **whole, **keys))
        x = p.input([1, 7, 20])
        for i, shape in enumerate(([20, 9], [9, 20])):
            w = p.real_weight(shape)
            p.result(f"matmul{i}", build.matmul(x, w, transpose_rhs=bool(i)))
        image = p.input([1, 3, 8, 8])
        keys = {"kernel": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 0]}
        p.result("mean", build.avg_pool2d(image, **keys))
        p.result("mean_all", build.avg_pool2d(image, count_include_pad=True, **keys))
        p.result("sum", build.add(image, image, activation=Activation.relu()))
        p.result("clip", build.activate(image, Activation.clip(-1.0, 1.5)))

    # The longest sum: 6 channels in windows of 9.
    assert_close(Program(90, batch=batch), cases, terms=54)


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("most", [500, 1 << 20])
def test_observations(batch: int | None, most: int) -> None:
    bins, program = 64, Program(100, batch=batch)

    def cases(p: Program) -> None:
        x = p.input([1, 5, 16, 16])
        flat = p.given(np.full([batch or 1, 4], 1.5, np.float32))
        for name, value in (("spread", x), ("constant", flat)):
            p.results[name] = measures.observe(value, bins=bins, max_elements=most)

    found, _ = program.run(cases)
    for name, x in zip(("spread", "constant"), program.arrays, strict=True):
        each = int(np.prod(x.shape[1:] if batch else x.shape))
        seen = x.reshape(-1)[:: subsampling_step(each, most)]
        counts = histogram(seen, np.min(x), np.max(x), bins)
        np.testing.assert_array_equal(found[name], [np.min(x), np.max(x), *counts])


def test_comparisons_of_many_elements() -> None:
    """Sums over a million elements are good to 1e-5: SQNR needs no more than 1e-4 dB."""
    program = Program(110)

    def cases(p: Program) -> None:
        x = p.input([2, 16, 181, 181])
        y = p.given(p.arrays[0] + p.random.normal(0, 0.01, p.arrays[0].shape).astype(np.float32))
        p.results["energies"] = measures.compare(x, y, max_elements=1 << 30)

    found, _ = program.run(cases)
    reference, value = (array.astype(np.float64) for array in program.arrays)
    exact = [np.sum(reference**2), np.sum((reference - value) ** 2)]
    assert found["energies"] == pytest.approx(exact, rel=1e-5)


def test_layout_of_values() -> None:
    """Images that leave NHWC, that come from elsewhere, and both."""

    def cases(p: Program) -> None:
        a = p.params()
        x, y = p.input([1, 4, 6, 6], a), p.input([1, 4, 6, 6], a)
        w, _ = p.weight([4, 4, 3, 3], 0)

        def conv(value: Value) -> Value:
            return build.conv2d(value, w, pads=[1] * 4, element=element(a))

        once = p.result("once", conv(x))
        p.result("twice", conv(once))
        p.result("added", build.add(once, y, element=element(a)))
        turned = p.result("turned", build.transpose(once, [0, 2, 3, 1]))
        back = build.transpose(turned, [0, 3, 1, 2])
        p.result("again", conv(back))
        p.result("rows", build.reshape(once, [4, 36]))
        p.result("folded", conv(build.reshape(p.input([4, 36], a), [1, 4, 6, 6])))

    assert_equal(Program(120), cases)
