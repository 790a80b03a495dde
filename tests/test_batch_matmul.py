"""Products of two activations: kernels and linalg against `mlq.reference`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import pytest
import test_elementwise
import test_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from ptx_network import computed
from test_elementwise import Array, Program, run, written
from test_kernels import HERE, own

from mlq import devices, targets
from mlq.dialect import build, quant
from mlq.dialect.build import NO_ACTIVATION, Activation
from mlq.kernels.gpu import tensor_cores
from mlq.kernels.gpu.planning import Plan
from mlq.kernels.isa import ISAS, Isa
from mlq.network import transform
from mlq.numerics import QuantParams
from mlq.targets.base import Target
from mlq.transforms.pipelines import lowering

# Bits of left sides, of right sides and of results.
WIDE = ((16, 8, 16), (16, 8, 8), (12, 8, 12), (12, 12, 16), (12, 12, 0), (16, 8, 0))
WITH_WORDS = [isa for isa in ISAS if isa.words is not None]
# Of sums of products of reals, in parts of the greatest.
ERROR = 1e-6


@dataclass(frozen=True)
class Sizes:
    """Left sides [n, h, m, k], right sides [n, h, k, p]."""

    n: int
    h: int
    m: int
    k: int
    p: int


# Of attention, of one row or column, and such as fill neither vectors nor words.
SIZES = (
    Sizes(1, 3, 17, 64, 17),
    Sizes(2, 2, 33, 9, 70),
    Sizes(1, 1, 1, 1, 1),
    Sizes(3, 1, 5, 31, 2),
    Sizes(1, 2, 40, 3, 129),
)


def fill(program: Program, sizes: Sizes) -> None:
    """Products of matrices and of such as are transposed, with stored and with real results."""
    for turned in (False, True):
        for bits in ((8, 8, 8), (8, 8, 0)):
            multiplied(program, sizes, bits, turned=turned)
        left, right = shapes(sizes, turned=turned)
        reals = program.real(left), program.real(right)
        made = build.batch_matmul(*reals, transpose_rhs=turned, alpha=0.3 if turned else 1.0)
        program.result(made, f"{sizes} {turned=} reals")


def fill_wide(program: Program, sizes: Sizes) -> None:
    """The same of words of 16 bits, all of which or 12 are in use."""
    for turned in (False, True):
        for bits in WIDE:
            multiplied(program, sizes, bits, turned=turned)


def multiplied(program: Program, sizes: Sizes, bits: tuple[int, int, int], *, turned: bool) -> None:
    """A product of integers of so many bits; reals where the result has none."""
    activations = (NO_ACTIVATION, Activation.relu(), Activation.clip(-0.7, 3.1))
    (left, right), most = shapes(sizes, turned=turned), (1 << bits[1]) - 1
    element = quant.type_of(program.stored(bits[2])) if bits[2] else None
    scale = float(np.float32(program.rng.choice([0.25, program.rng.uniform(0.01, 1)])))
    centred = QuantParams(
        8 if bits[1] == 8 else 16,
        signed=False,
        scale=(scale,),
        zero_point=(1 << bits[1] - 1,),
        storage_range=(1, most),
    )
    made = build.batch_matmul(
        program.input(left, program.stored(bits[0])),
        program.input(right, centred),
        transpose_rhs=turned,
        alpha=float(program.rng.choice([1.0, -0.125, 0.1])),
        activation=activations[program.rng.integers(3)],
        element=element,
    )
    program.result(made, f"{sizes} {turned=} {bits} {element}")


def shapes(sizes: Sizes, *, turned: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Those of left and right sides."""
    right = (sizes.p, sizes.k) if turned else (sizes.k, sizes.p)
    return (sizes.n, sizes.h, sizes.m, sizes.k), (sizes.n, sizes.h, *right)


def check(found: Array, expected: Array, name: str) -> None:
    """Integers are exact, and so is what comes of them; sums of reals depend on their order."""
    error = ERROR * np.abs(expected).max() if name.endswith("reals") else 0.0
    np.testing.assert_allclose(found.view(expected.dtype), expected, 0, error, err_msg=name)


def compare(
    isa: Isa, sizes: tuple[Sizes, ...], seed: int, *, is_open: bool = False, wide: bool = False
) -> None:
    def each(program: Program) -> None:
        for one in sizes:
            (fill_wide if wide else fill)(program, one)

    # No product of words takes the instruction that only a CPU with AVX-VNNI has.
    target = (test_elementwise if wide else test_kernels).target_of(isa)
    kernels = ("batch_matmul", "pack_turned_", "real_batch_matmul")
    if wide:
        kernels = ("wide_batch_matmul", "pack_wide_batch_matmul", "pack_turned_wide_")
    run(isa, target, each, check, seed=seed, kernels=kernels, is_open=is_open, whole=True)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_kernels_are_exact(isa: Isa) -> None:
    compare(isa, SIZES, 0)


@pytest.mark.parametrize("isa", WITH_WORDS, ids=lambda isa: isa.name)
def test_kernels_of_words_are_exact(isa: Isa) -> None:
    compare(isa, SIZES, 2, wide=True)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_a_batch_of_any_size_is_exact(isa: Isa) -> None:
    target = test_kernels.target_of(isa)
    emulator = target.device.emulator
    if devices.why_not_here(target) and emulator is not None and emulator.bare_metal:
        pytest.skip("a program without a runtime has a batch that is known")
    compare(isa, (Sizes(3, 2, 17, 31, 9), Sizes(2, 1, 5, 8, 33)), 1, is_open=True)


@pytest.mark.parametrize("name", ["cuda:sm_80", "cuda:sm_61", "vulkan:llvmpipe"])
def test_kernels_of_gpus_are_exact(name: str) -> None:
    """In tests PTX is executed by an interpreter."""
    on_gpu(targets.by_name(name), SIZES)


def test_tiles_that_are_copied_in_stages_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(2, 4, across=1, stages=3)
    monkeypatch.setattr(tensor_cores, "best_plan", lambda *_: plan)
    assert on_gpu(targets.by_name("cuda:sm_80"), (Sizes(1, 2, 70, 64, 60),))["cp"] > 0


def on_gpu(target: Target, sizes: tuple[Sizes, ...]) -> Counter[str]:
    """Compare integers with the reference; the instructions that were interpreted."""

    def each(program: Program) -> None:
        for one, turned, kept in product(sizes, (False, True), (8, 0)):
            multiplied(program, one, (8, 8, kept), turned=turned)

    text, program, names, expected = written(each, 3)
    made = transform(text, program.store, lowering(target.features))
    assert not made.skips
    results, executed = computed(made, target, *program.inputs)
    if target.device.driver == "cuda":
        assert executed["mma" if "mma_s8" in target.features else "dp4a"] > 0
    for name, found in zip(names, results, strict=True):
        check(found, expected[name], name)
    return executed


@HERE
@settings(max_examples=4)
@given(
    sizes=st.builds(Sizes, *map(partial(st.integers, 1), (2, 3, 40, 70, 70))),
    seed=st.integers(0, 2**32 - 1),
    wide=st.booleans(),
)
def test_kernels_are_exact_whatever_the_sizes(sizes: Sizes, seed: int, *, wide: bool) -> None:
    compare(own(), (sizes,), seed, wide=wide and own().words is not None)
