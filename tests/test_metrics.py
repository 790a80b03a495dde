"""Metrics against their definitions, against SciPy, and at their edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from mlq import metrics

SEEDS = st.integers(0, 2**32 - 1)
# Float64 arithmetic on at most a few thousand terms of like size.
RELATIVE = 1e-9


def _pair(seed: int, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(50, 7)).astype(np.float32) * 4
    return reference, (reference + noise * rng.normal(size=reference.shape)).astype(np.float32)


def test_sqnr_of_a_tenth_of_the_amplitude_is_twenty_decibels() -> None:
    reference = np.ones(10)
    assert metrics.sqnr_db(reference, reference * 0.9) == pytest.approx(20.0)


def test_sqnr_at_its_edges() -> None:
    zeros, ones = np.zeros(3), np.ones(3)
    assert metrics.sqnr_db(ones, ones) == math.inf
    assert metrics.sqnr_db(zeros, zeros) == math.inf
    assert metrics.sqnr_db(zeros, ones) == -math.inf
    assert metrics.decibels(1.0, math.inf) == -math.inf
    assert metrics.decibels(1e-200, 1e200) == pytest.approx(-4000.0)


def test_float32_operands_do_not_lose_precision() -> None:
    reference = np.full(1000, 1e20, np.float32)
    assert math.isfinite(metrics.sqnr_db(reference, np.nextafter(reference, np.float32(0))))
    assert math.isfinite(metrics.mse(reference, -reference))
    assert metrics.cosine(reference, reference) == pytest.approx(1.0)


@given(SEEDS)
@settings(max_examples=25)
def test_sqnr_and_mse_are_one_measurement(seed: int) -> None:
    reference, value = _pair(seed)
    power = metrics.mse(reference, np.zeros_like(reference))
    expected = metrics.decibels(power, metrics.mse(reference, value))
    assert metrics.sqnr_db(reference, value) == pytest.approx(expected, rel=RELATIVE)


def test_cosine() -> None:
    assert metrics.cosine(np.array([1, 0]), np.array([0, 2])) == 0.0
    assert metrics.cosine(np.array([1, 1]), np.array([-3, -3])) == -1.0
    assert metrics.cosine(np.zeros(2), np.zeros(2)) == 1.0
    assert metrics.cosine(np.zeros(2), np.ones(2)) == 0.0


@given(SEEDS)
@settings(max_examples=25)
def test_kl_equals_scipy(seed: int) -> None:
    reference, value = _pair(seed)
    p, q = (special.softmax(each.astype(np.float64), axis=1) for each in (reference, value))
    expected = 1000 * np.mean(stats.entropy(p, q, axis=1))
    assert metrics.kl_mnat(reference, value) == pytest.approx(expected, rel=1e-6)


@given(SEEDS, st.floats(-1e4, 1e4))
@settings(max_examples=25)
def test_kl_is_not_negative_and_ignores_a_shift(seed: int, shift: float) -> None:
    reference, value = _pair(seed)
    moved = value.astype(np.float64) + shift
    assert metrics.kl_mnat(reference, reference) == 0.0
    assert metrics.kl_mnat(reference, moved) == pytest.approx(
        metrics.kl_mnat(reference, value), rel=1e-6
    )


def test_kl_of_far_logits_is_finite() -> None:
    far = np.array([[1e4, -1e4]])
    assert metrics.kl_mnat(far, far) == 0.0
    assert metrics.kl_mnat(far, -far) == pytest.approx(2e7)


@pytest.mark.parametrize("metric", [metrics.sqnr_db, metrics.mse, metrics.cosine, metrics.kl_mnat])
def test_a_nan_is_not_taken_for_agreement(metric: Callable[..., float]) -> None:
    reference, value = _pair(0)
    value[3, 2] = np.nan
    assert math.isnan(metric(reference, value))
    assert math.isnan(metric(value, reference))


def test_top1_and_agreement() -> None:
    logits = np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0], [4.0, 5.0]])
    assert metrics.top1(logits, np.array([1, 0, 0, 1])) == 0.75
    assert metrics.correct(logits, np.array([1, 0, 0, 1])).tolist() == [True, True, False, True]
    assert metrics.agreement(logits, logits) == 1.0
    assert metrics.agreement(logits, -logits) == 0.0


def _paired(both: int, only_reference: int, only_value: int, neither: int) -> list[np.ndarray]:
    counts = [both, only_reference, only_value, neither]
    return [
        np.repeat(np.array(hit), counts) for hit in ([True, True, False, False], [True, False] * 2)
    ]


def test_interval_of_equal_networks_is_a_point() -> None:
    hits = np.array([True, False, True])
    assert metrics.paired_interval(hits, hits) == (0.0, 0.0)


def test_interval_is_seeded_and_close_to_the_normal_one() -> None:
    reference, value = _paired(both=700, only_reference=60, only_value=40, neither=200)
    low, high = metrics.paired_interval(reference, value, seed=3)
    assert (low, high) == metrics.paired_interval(reference, value, seed=3)
    # Variance of a paired difference: (b + c)/n - ((b - c)/n)^2, over n (McNemar's setting).
    half_width = 1.96 * math.sqrt((0.1 - 0.02**2) / 1000)
    assert low == pytest.approx(-0.02 - half_width, abs=0.002)
    assert high == pytest.approx(-0.02 + half_width, abs=0.002)


def test_interval_widens_with_confidence() -> None:
    reference, value = _paired(both=70, only_reference=10, only_value=5, neither=15)
    narrow = metrics.paired_interval(reference, value, confidence=0.5)
    wide = metrics.paired_interval(reference, value, confidence=0.99)
    assert wide[0] < narrow[0] <= narrow[1] < wide[1]


@given(SEEDS, st.integers(1, 3))
def test_expected_divergence_is_half_the_variance_of_each_change_where_it_is_met(
    seed: int, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    predictions = metrics.softmax(rng.normal(size=(5, rows, 7)) * 3)
    change = rng.normal(size=(4, rows, 7)) + 100.0
    expected = [
        np.mean(
            [
                np.sum(p * each**2) - np.sum(p * each) ** 2
                for prediction in predictions
                for p, each in zip(prediction, changes, strict=True)
            ]
        )
        for changes in change
    ]
    found = metrics.expected_divergences_mnat(predictions, change)
    assert found == pytest.approx(500.0 * np.array(expected), rel=1e-6)


@given(SEEDS)
def test_expected_divergence_of_a_small_change_is_its_kl(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(1, 7)) * 2
    change = np.random.default_rng(seed + 1).normal(size=(1, 7)) * 1e-3
    expected = metrics.expected_divergences_mnat(metrics.softmax(logits), change)
    assert expected == pytest.approx(metrics.divergences_mnat(logits, logits + change), rel=1e-2)


def test_a_lone_output_has_nothing_to_be_expected_of() -> None:
    predictions = metrics.softmax(np.ones((3, 1)))
    assert metrics.expected_divergences_mnat(predictions, np.array([[2.0]])) == [0.0]
