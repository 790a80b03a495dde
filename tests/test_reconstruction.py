"""Rounding by least squares: near the best there is, never worse than nearest, in any layout."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from mlq import damping, numerics, reconstruction
from mlq.reconstruction import Moments, Rounded, error, reconstruct


def correlated(inputs: int, count: int, seed: int, groups: int = 1) -> NDArray[np.float32]:
    """Positive inputs that depend on each other, as neighbouring pixels do."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(groups, inputs, inputs)) + 1.0
    drawn = mixed @ random.normal(size=(groups, inputs, count))
    return np.maximum(drawn, 0.0).astype(np.float32)


def best_by_trying(weight: NDArray[np.float32], moments: Moments, scale: float, most: int) -> float:
    """Least error of one row over all integers."""
    levels = np.arange(-most, most + 1) * scale
    tried = np.array(list(itertools.product(levels, repeat=weight.size)))
    square = np.einsum("nk,kl,nl->n", tried, moments.stored[0], tried)
    return float(np.min(square - 2.0 * tried @ (weight @ moments.crossed[0])))


@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.parametrize("stored", [False, True])
def test_close_to_the_best_of_all_integers(bits: int, stored: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    found, best, nearest = 0.0, 0.0, 0.0
    for seed in range(12):
        columns = correlated(4, 300, seed)
        storage = numerics.choose_params(0.0, float(columns.max()) * 0.7, bits=bits)
        moments = Moments.of(columns, storage if stored else None)
        weight = np.random.default_rng(seed + 99).normal(size=(1, 4)).astype(np.float32)
        rounded = reconstruct(weight, moments, bits=bits)
        # What no integers can change is the same in all three, and makes shares comparable.
        rest = float(np.einsum("ok,kl,ol->", weight, Moments.of(columns).stored[0], weight))
        scale, most = rounded.params.scale[0], rounded.params.limits[1]
        plain = numerics.fake_quantize(weight, numerics.weight_params(weight, bits=bits))
        own = error(weight, rounded.simulated, moments)
        assert own >= best_by_trying(weight[0], moments, scale, most) - 1e-6
        found += own + rest
        best += best_by_trying(weight[0], moments, scale, most) + rest
        nearest += error(weight, plain, moments) + rest
    assert found <= 1.25 * best
    assert found <= 0.8 * nearest


def test_uncorrelated_float_inputs_leave_nothing_to_gain() -> None:
    """Then nearest rounding is the optimum, and the integers are those of the chosen scale."""
    weight = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    moments = Moments(np.eye(6)[None], np.eye(6)[None], np.zeros((2, 1, 6)))
    rounded = reconstruct(weight, moments, bits=4)
    np.testing.assert_array_equal(rounded.stored, numerics.quantize(weight, rounded.params))


def test_every_group_and_axis_is_rounded_as_if_alone() -> None:
    columns = correlated(9, 200, 1, groups=3)
    weight = np.random.default_rng(2).normal(size=(6, 1, 3, 3)).astype(np.float32)
    together = reconstruct(weight, Moments.of(columns), bits=3)
    for group in range(3):
        rows = slice(2 * group, 2 * group + 2)
        alone = reconstruct(weight[rows], Moments.of(columns[group][None]), bits=3)
        np.testing.assert_array_equal(together.stored[rows], alone.stored)
        assert together.params.scale[rows] == alone.params.scale
    matrix = weight[:2].reshape(2, 9)
    first = reconstruct(matrix, Moments.of(columns[:1]), bits=3)
    second = reconstruct(matrix.T, Moments.of(columns[:1]), bits=3, axis=1)
    np.testing.assert_array_equal(first.stored.T, second.stored)
    assert second.params.axis == 1


def test_stored_as_the_precision_says() -> None:
    weight = np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)
    rounded = reconstruct(weight, Moments.of(correlated(5, 100, 4)), bits=2)
    assert rounded.stored.dtype == np.int8
    assert np.abs(rounded.stored).max() <= 1
    assert rounded.params == numerics.QuantParams(
        2, signed=True, scale=rounded.params.scale, zero_point=(0,) * 4, axis=0,
        storage_range=(-1, 1),
    )  # fmt: skip


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    columns = correlated(4, 50, 5)
    columns[:, 2] = 0.0
    weight = np.random.default_rng(6).normal(size=(3, 4)).astype(np.float32)
    for each in (columns, np.zeros_like(columns)):
        rounded = reconstruct(weight, Moments.of(each), bits=3)
        assert np.isfinite(rounded.simulated).all()


@pytest.mark.parametrize("biased", [True, False])
def test_means_are_kept_by_the_shift_of_the_bias(biased: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    columns = correlated(6, 400, 7)
    weight = np.random.default_rng(8).normal(size=(3, 6)).astype(np.float32)
    storage = numerics.choose_params(0.0, float(columns.max()) * 0.5, bits=2)
    rounded = reconstruct(weight, Moments.of(columns, storage, biased=biased), bits=2)
    exact = weight @ columns[0]
    found = rounded.simulated @ numerics.fake_quantize(columns, storage)[0]
    if biased:
        shifted = found.mean(axis=1) + rounded.shift
        np.testing.assert_allclose(shifted, exact.mean(axis=1), rtol=1e-3, atol=1e-3)
    else:
        assert not rounded.shift.any()


def _lost(weight: NDArray[np.float32], rounded: Rounded, columns: NDArray[np.float32]) -> float:
    change = (weight - rounded.simulated) @ columns[0]
    return float(np.mean(np.square(change - change.mean(axis=1, keepdims=True))))


def test_few_samples_are_not_fitted_too_closely() -> None:
    """With fewer windows than inputs the least damping is the least loss on them, on no others."""
    columns = correlated(96, 2080, 11)
    few, others = columns[..., :80], columns[..., 80:]
    weight = np.random.default_rng(12).normal(size=(32, 96)).astype(np.float32)
    chosen = damping.least_error(few)
    assert chosen > 0.03
    close, damped = (
        reconstruct(weight, Moments.of(few, damping=each), bits=3) for each in (0.001, chosen)
    )
    assert _lost(weight, close, few) < _lost(weight, damped, few)
    assert _lost(weight, damped, others) < 0.8 * _lost(weight, close, others)


def test_many_samples_are_trusted() -> None:
    columns = correlated(24, 4000, 13)
    assert damping.least_error(columns) <= 0.01
    assert damping.least_error(columns, centred=False) <= 0.01


def test_the_expected_loss_is_that_of_what_is_rounded() -> None:
    """Babai's box, over rows of weights: step^2 / 12 for each unit of what is expected."""
    columns = correlated(40, 600, 14)
    form = np.cov(columns[0], bias=True)
    order = np.argsort(np.diagonal(form))
    centred = columns[0] - columns[0].mean(axis=1, keepdims=True)
    expected = damping._expected(form[order][:, order], centred[order], 0.01) / columns.shape[-1]
    weight = np.random.default_rng(15).uniform(-1.0, 1.0, (400, 40)).astype(np.float32)
    moments = Moments.of(columns, damping=0.01)
    integers = reconstruction._nearest_plane(
        (weight[:, order] * 100.0)[None].astype(np.float64),
        moments.damped[:, order][:, :, order],
        1000,
    )
    left = weight[:, order] * 100.0 - integers[0]
    found = np.mean(np.einsum("ok,kl,ol->o", left, form[order][:, order], left))
    assert found == pytest.approx(expected / 12.0, rel=0.05)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_handful_of_windows_says_little(count: int) -> None:
    columns = correlated(8, count, 16)
    assert damping.least_error(columns) >= 0.1
    assert damping.least_error(np.zeros_like(columns)) >= 0.1
