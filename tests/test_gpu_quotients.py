"""Quotients that quantize exactly on GPUs whose division, and rounding, is not exact."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import test_kernels as cases
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_gpu_kernels import LAVAPIPE, Executed
from test_kernels import Case
from torch_mlir.dialects import arith, func
from torch_mlir.ir import InsertionPoint, Location, Module, OpView, Value

from mlq import devices, numerics, runtime, targets
from mlq.dialect import context
from mlq.kernels import code, library
from mlq.kernels.finishing import Finish, Numbers
from mlq.kernels.gpu.isa import Gpu
from mlq.kernels.image import Image
from mlq.numerics import QuantParams
from mlq.targets.iree import compile_module

Array = NDArray[Any]
FEWEST, MOST = -255, 255  # what an u8 less its zero point can be
TINY = float(np.finfo(np.float32).tiny)
NEAR = (-3, -2, -1, 0, 1, 2, 3)  # ULP
EXACT: dict[str, Callable[..., Array]] = {
    "arith.addi": np.add,
    "arith.andi": np.bitwise_and,
    "arith.bitcast": lambda x: x.view(np.int32 if x.dtype == np.float32 else np.float32),
    "arith.negf": np.negative,
    "arith.select": np.where,
    "arith.subi": np.subtract,
    "spirv.GL.Floor": np.floor,
}
ROUNDED = {"spirv.FMul": np.multiply, "spirv.FAdd": np.add}
COMPARED = {int(arith.CmpFPredicate.OGT): np.greater, int(arith.CmpFPredicate.OLT): np.less}


class Emitted:
    """The code that a GPU gets for a quotient, executed one op after another.

    Products and sums that are not representable are rounded to nearest or toward zero, subnormals
    are zero if `flushed`, and quotients are off by some ULP: what Vulkan allows, and more.
    """

    def __init__(self, isa: Gpu, *, toward_zero: bool = False, flushed: bool = False) -> None:
        self.toward_zero, self.flushed = toward_zero, flushed
        with context(), Location.unknown():
            module = Module.create()
            with InsertionPoint(module.body):
                real = code.element("f32")
                function = func.FuncOp("quotient", ([real, real], [real]))
            block = function.add_entry_block()
            with InsertionPoint(block):
                func.ReturnOp([isa.arithmetic.quotient(*block.arguments)])
            self.arguments = [str(each) for each in block.arguments]
            *steps, last = block.operations
            self.result = str(last.operands[0])
            self.steps = [
                (str(op.results[0]), self.meaning(op), [str(each) for each in op.operands])
                for op in steps
            ]

    def __call__(self, reals: Array, scales: Array, ulps: Array) -> Array:
        known = dict(zip(self.arguments, (reals, scales), strict=True))
        self.ulps = ulps
        with np.errstate(all="ignore"):
            for result, meaning, operands in self.steps:
                known[result] = meaning(*(known[each] for each in operands))
        return known[self.result]

    def meaning(self, op: OpView) -> Callable[..., Array]:
        name = op.operation.name
        if name == "arith.constant":
            kind = np.float32 if op.results[0].type == code.element("f32") else np.int32
            number = np.asarray(op.attributes["value"].value, kind)
            return lambda: number
        if name == "arith.cmpf":
            return COMPARED[op.attributes["predicate"].value]
        if name == "arith.divf":
            return lambda one, other: moved(one / other, self.ulps)
        if name in ROUNDED:
            assert "no_contraction" in op.attributes
            return partial(self._rounded, ROUNDED[name])
        return EXACT[name]

    def _rounded(self, function: Callable[..., Array], one: Array, other: Array) -> Array:
        exact = function(one.astype(np.float64), other.astype(np.float64))
        rounded = exact.astype(np.float32)
        if self.toward_zero:
            beyond = np.abs(rounded) > np.abs(exact)
            rounded = np.where(beyond, np.nextafter(rounded, np.float32(0)), rounded)
        return np.where(self.flushed & (np.abs(rounded) < TINY), np.float32(0), rounded)


def moved(reals: Array, ulps: Array | int) -> Array:
    """Reals so many ULP away from zero, or towards it."""
    away = (reals.view(np.int32) + ulps).astype(np.int32).view(np.float32)
    return np.where(np.isfinite(reals) & (np.abs(reals) > TINY), away, reals)


def stored(quotients: Array) -> Array:
    """What is stored of quotients, less the zero point."""
    return np.clip(numerics.nearest(quotients), FEWEST, MOST)


def near_halves(scale: np.float32) -> Array:
    """Reals whose quotients are at a half that an u8 may be next to, or within a few ULP."""
    halves = np.arange(FEWEST - 1, MOST + 1) + 0.5
    reals = (halves * np.float64(scale)).astype(np.float32)
    return np.concatenate([moved(reals, ulps) for ulps in NEAR])


VULKAN = library.named("vulkan_dot")
SCALES = st.floats(2.0**-101, 2.0**100, width=32).map(np.float32)
ANY_REALS = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=64)


@pytest.fixture(scope="module", params=[False, True], ids=["to nearest", "toward zero"])
def quotient(request: pytest.FixtureRequest) -> Emitted:
    """On a device that rounds as numerics does, and on one that is as different as may be."""
    return Emitted(VULKAN, toward_zero=request.param, flushed=request.param)


@given(SCALES, ANY_REALS, st.integers(0, 2**32 - 1))
def test_an_inexact_division_quantizes_exactly(
    quotient: Emitted, scale: np.float32, others: list[float], seed: int
) -> None:
    reals = np.concatenate([near_halves(scale), np.array(others, np.float32)])
    ulps = np.random.default_rng(seed).integers(-3, 4, reals.shape, np.int32)
    with np.errstate(over="ignore"):
        expected = stored(reals / scale)
    found = stored(quotient(reals, np.full_like(reals, scale), ulps))
    np.testing.assert_array_equal(found, expected)


def test_a_plain_division_must_be_exact() -> None:
    """So CUDA's is; and else the test above would prove nothing."""
    quotient, scale = Emitted(library.named("cuda_mma")), np.float32(0.0173)
    reals = near_halves(scale)
    for ulps, equal in ((-1, False), (0, True), (1, False)):
        found = stored(quotient(reals, np.full_like(reals, scale), np.int32(ulps)))
        assert np.array_equal(found, stored(reals / scale)) == equal


def quantization(isa: Gpu, scale: float, zero_point: int) -> Case:
    """A kernel that quantizes reals near halves, all in one row."""
    params = QuantParams(8, signed=False, scale=(scale,), zero_point=(zero_point,))
    x = near_halves(np.float32(scale)).reshape(1, 1, 1, -1)
    output, finish = Image(1, 1, x.size, 4), Finish("u8", guarded=True)
    kernel = library.of(isa).quantize_image(isa=isa, channels=1, output=output, finish=finish)
    numbers = Numbers(zero_point, *params.limits).with_channels(
        finish, np.zeros(1, np.int32), np.array([scale], np.float32), isa.storage_of
    )
    expected = numerics.quantize(x, params).transpose(0, 2, 3, 1)
    return Case(kernel, output, [x.reshape(-1), numbers], expected)


def quantizations(isa: Gpu) -> list[Case]:
    scales = np.random.default_rng(0).uniform(0.001, 0.1, 5)
    return [quantization(isa, float(scale), 50 * i) for i, scale in enumerate(scales)]


def test_ptx_divides_exactly() -> None:
    made = quantizations(library.named("cuda_mma"))
    executed = Executed("cuda_mma", made)
    for i, case in enumerate(made):
        case.check(executed.run(i, case)[0])
    assert all(re.findall(r"\bdiv[.\w]*f32", text) == ["div.rn.f32"] for text in executed.texts)


@pytest.mark.parametrize("ulps", [-3, 0, 3])
def test_spirv_divides_exactly(monkeypatch: pytest.MonkeyPatch, ulps: int) -> None:
    """On a device whose division is exact, and where it is made inexact."""
    target = targets.by_name(LAVAPIPE)
    if reason := devices.why_not_here(target):
        pytest.skip(reason)

    def inexact(one: Value, other: Value) -> Value:
        bits = arith.bitcast(code.element("i32"), divided(one, other))
        return code.bits(arith.addi(bits, code.constant(ulps, "i32")), "f32")

    divided, made = arith.divf, quantizations(VULKAN)
    monkeypatch.setattr(arith, "divf", inexact)
    vmfb = compile_module(cases.program([case.kernel for case in made]), target)
    results = runtime.load(vmfb).run(*(x for case in made for x in case.inputs()))
    for case, result in zip(made, results, strict=True):
        case.check(result)
