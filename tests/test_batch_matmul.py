"""Products of two activations: kernels and linalg against `mlq.reference`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_elementwise import Array, Program, run
from test_kernels import HERE, own, target_of

from mlq.dialect import build, quant
from mlq.dialect.build import NO_ACTIVATION, Activation
from mlq.kernels.isa import ISAS, Isa
from mlq.numerics import QuantParams

MIDDLE = 128
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
    activations = (NO_ACTIVATION, Activation.relu(), Activation.clip(-0.7, 3.1))
    left = (sizes.n, sizes.h, sizes.m, sizes.k)
    for turned in (False, True):
        right = (sizes.n, sizes.h, *((sizes.p, sizes.k) if turned else (sizes.k, sizes.p)))
        for stored in (True, False):
            element = quant.type_of(program.stored()) if stored else None
            scale = float(np.float32(program.rng.choice([0.25, program.rng.uniform(0.01, 1)])))
            centred = QuantParams(
                8, signed=False, scale=(scale,), zero_point=(MIDDLE,), storage_range=(1, 255)
            )
            made = build.batch_matmul(
                program.input(left),
                program.input(right, centred),
                transpose_rhs=turned,
                alpha=float(program.rng.choice([1.0, -0.125, 0.1])),
                activation=activations[program.rng.integers(3)],
                element=element,
            )
            program.result(made, f"{sizes} {turned=} {element}")
        reals = program.real(left), program.real(right)
        made = build.batch_matmul(*reals, transpose_rhs=turned, alpha=0.3 if turned else 1.0)
        program.result(made, f"{sizes} {turned=} reals")


def check(found: Array, expected: Array, name: str) -> None:
    """Integers are exact, and so is what comes of them; sums of reals depend on their order."""
    error = ERROR * np.abs(expected).max() if name.endswith("reals") else 0.0
    np.testing.assert_allclose(found.view(expected.dtype), expected, 0, error, err_msg=name)


def compare(isa: Isa, sizes: tuple[Sizes, ...], seed: int) -> None:
    def each(program: Program) -> None:
        for one in sizes:
            fill(program, one)

    kernels = ("batch_matmul", "pack_turned_", "real_batch_matmul")
    run(isa, target_of(isa), each, check, seed=seed, kernels=kernels)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_kernels_are_exact(isa: Isa) -> None:
    compare(isa, SIZES, 0)


@HERE
@settings(max_examples=4)
@given(
    st.builds(Sizes, *map(partial(st.integers, 1), (2, 3, 40, 70, 70))), st.integers(0, 2**32 - 1)
)
def test_kernels_are_exact_whatever_the_sizes(sizes: Sizes, seed: int) -> None:
    compare(own(), (sizes,), seed)
