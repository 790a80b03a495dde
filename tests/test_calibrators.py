"""Calibrators against brute force over the values themselves, on distributions networks have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlq import calibrators, entropy, numerics
from mlq.calibrators import Observation, Storage, calibrate, search
from mlq.errors import DataError
from mlq.histograms import BINS, HistogramAccumulator
from mlq.precision import CALIBRATORS, SCHEMES, Calibrator, Scheme
from mlq.ranges import Histogram
from mlq.squared_error import Spreads

Values = NDArray[np.float32]

COUNT = 40_000
_RANDOM = np.random.default_rng(7)
GAUSSIAN = _RANDOM.normal(size=COUNT)
DISTRIBUTIONS = {
    "gaussian": GAUSSIAN,
    "shifted gaussian": GAUSSIAN + 1.5,
    "relu": np.maximum(GAUSSIAN, 0.0),
    "relu6": np.minimum(np.maximum(4.0 * GAUSSIAN, 0.0), 6.0),
    "hard-swish": GAUSSIAN * np.minimum(np.maximum(GAUSSIAN + 3.0, 0.0), 6.0) / 6.0,
    "heavy tails": _RANDOM.standard_t(3, size=COUNT),
    "laplace": _RANDOM.laplace(size=COUNT),
    "one outlier": np.append(GAUSSIAN, 40.0),
    "all negative": -1.0 - np.abs(GAUSSIAN),
}


def add(accumulator: HistogramAccumulator, low: float, high: float, counts: Sequence[int]) -> None:
    """Hand a batch of the only tensor over."""
    accumulator.add(np.array([low]), np.array([high]), np.array([counts]))


def observe(values: Values, batches: int = 4, bins: int = 1024) -> Observation:
    """What calibration would see of `values`, handed over in `batches`."""
    accumulator = HistogramAccumulator(["tensor"], BINS)
    for batch in np.array_split(values, batches):
        low, high = float(batch.min()), float(batch.max())
        counts = np.bincount([0] * len(batch), minlength=bins)
        if low < high:
            counts, _ = np.histogram(batch.astype(np.float64), bins, (low, high))
        add(accumulator, low, high, counts)
    return Observation(
        float(accumulator.minimum[0]), float(accumulator.maximum[0]), accumulator.histogram(0)
    )


def error(values: Values, low: float, high: float, storage: Storage) -> float:
    """The mean squared error of really storing `values`."""
    params = numerics.choose_params(low, high, bits=storage.bits, scheme=storage.scheme)
    difference = numerics.fake_quantize(values, params).astype(np.float64) - values
    return float(np.mean(difference**2))


def brute_force(values: Values, storage: Storage, parts: int = 18) -> float:
    """The least error over a grid of ranges; only two-sided values need both their ends tried."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    kept = np.geomspace(1.0, 1.0 / 32.0, parts)
    two_sided = low < 0.0 < high and storage.scheme == "asymmetric"
    pairs = [(a, b) for a in kept for b in kept] if two_sided else [(a, a) for a in kept]
    if not two_sided:
        pairs += [(a, a) for a in np.geomspace(1.0, 1.0 / 32.0, 8 * parts)]
    return min(error(values, low * a, high * b, storage) for a, b in pairs)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mse_is_as_good_as_brute_force(name: str, scheme: Scheme) -> None:
    values = DISTRIBUTIONS[name].astype(np.float32)
    storage = Storage(8, scheme)
    low, high = calibrate("mse", observe(values), storage)
    # A histogram knows values to a bin, and bins of 1/1024 of the range are a quarter of a step.
    assert error(values, low, high, storage) <= 1.02 * brute_force(values, storage)


@pytest.mark.parametrize("levels", [0, 3, 7, 12])
@pytest.mark.parametrize("step", [0.3, 0.11])
def test_the_error_that_mse_minimises_is_the_real_one(step: float, levels: int) -> None:
    """Values spread densely over two bins, of which the second holds three times as many."""
    spread = np.concatenate(
        [np.linspace(0.0, 1.0, 10_001), np.repeat(np.linspace(1, 2, 10_001), 3)]
    )
    nearest = numerics.round_and_saturate(spread / step, 0, 0, levels)
    real = float(np.sum((spread - nearest * step) ** 2))
    spreads = Spreads([(np.array([0.0, 1.0, 2.0]), np.array([0.0, 10_001.0, 40_004.0]))])
    stored = spreads.stored(np.array([[step]]), np.array([[0]]), levels)
    error = stored.rounded(np.array([0]), np.array([0])) + stored.clipped
    assert error.item() == pytest.approx(real, rel=1e-3)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("calibrator", ["entropy", "mse"])
def test_tensors_that_are_searched_together_keep_what_each_alone_does(
    calibrator: Calibrator, scheme: Scheme
) -> None:
    """With histograms of unlike sizes, some of one side only, and one of a constant."""
    tensors = [observe(each.astype(np.float32)) for each in DISTRIBUTIONS.values()]
    tensors.append(observe(np.ones(8, np.float32)))
    storage = Storage(8, scheme)
    search(calibrator, tensors, storage)
    for each in tensors:
        assert calibrate(calibrator, each, storage) == calibrate(calibrator, replace(each), storage)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_mse_knows_how_many_levels_there_are(bits: int) -> None:
    values = DISTRIBUTIONS["gaussian"].astype(np.float32)
    storage = Storage(bits, "symmetric")
    low, high = calibrate("mse", observe(values), storage)
    # The best step for a Gaussian in 16 and in 256 levels (J. Max, 1960); 16 bits reach as far as
    # these values do.
    step = {4: 0.3352, 8: 0.0308, 16: float(np.abs(values).max()) / 32767}[bits]
    assert high / (2 ** (bits - 1) - 1) == pytest.approx(step, rel=0.02)
    assert low == -high


def slow_entropy(counts: Sequence[float], levels: int, step: int) -> tuple[int, int]:
    """Centred windows only, bin by bin: the KL search as TensorRT describes it."""
    best, chosen = math.inf, (0, len(counts))
    first, last = 0, len(counts)
    while last - first >= levels:
        window = list(counts[first:last])
        original = list(window)
        original[0] += sum(counts[:first])
        original[-1] += sum(counts[last:])
        merged = [0.0] * len(window)
        starts = [level * len(window) // levels for level in range(levels)] + [len(window)]
        for begin, end in itertools.pairwise(starts):
            filled = [i for i in range(begin, end) if original[i] > 0.0]
            total = sum(window[begin:end])
            for i in filled:
                merged[i] = total / len(filled)
        divergence = divergence_of(original, merged)
        if divergence < best:
            best, chosen = divergence, (first, last)
        first, last = first + step, last - step
    return chosen


def divergence_of(original: list[float], merged: list[float]) -> float:
    """KL of two histograms, in which nothing is rarer than 1e-4 of a fair share."""
    shares = []
    for counts in (original, merged):
        whole, floor = sum(counts), 1e-4 / len(counts)
        filled = [max(count / whole, floor) for count in counts]
        refilled = sum(filled)
        shares.append([share / refilled for share in filled])
    return sum(p * math.log(p / q) for p, q in zip(*shares, strict=True))


@pytest.mark.parametrize("name", ["gaussian", "heavy tails", "laplace", "one outlier"])
def test_entropy_equals_the_search_done_bin_by_bin(name: str) -> None:
    values = DISTRIBUTIONS[name]
    reach = float(np.abs(values).max())
    # The very bins that the search works on, empty but for these values; nothing piles up at zero.
    counts, edges = np.histogram(values, 2048, (-reach, reach))
    counts[1024] = min(counts[1024], max(counts[1023], counts[1025]))
    counts[0] = min(counts[0], counts[1])
    counts[-1] = min(counts[-1], counts[-2])
    histogram = Histogram(low=-reach, high=reach, counts=tuple(counts.tolist()))
    low, high = calibrate("entropy", Observation(-reach, reach, histogram), Storage(8, "symmetric"))
    first, last = slow_entropy(counts.tolist(), 255, 4)
    assert (low, high) == pytest.approx((edges[first], edges[last]))


@pytest.mark.parametrize("name", ["gaussian", "relu", "relu6", "heavy tails", "laplace"])
def test_entropy_keeps_the_bulk(name: str) -> None:
    values = DISTRIBUTIONS[name]
    low, high = calibrate("entropy", observe(values.astype(np.float32)))
    assert np.mean((values < low) | (values > high)) < 0.002


def test_entropy_drops_an_outlier() -> None:
    values = np.append(np.maximum(GAUSSIAN, 0.0), 24.0).astype(np.float32)
    low, high = calibrate("entropy", observe(values, batches=1))
    assert low == 0.0
    assert high < 8.0


def test_schemes_that_search_the_same_windows_search_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched, search = [], calibrators.closest_windows

    def counted(*given: Any, centred: bool) -> list[tuple[float, float]]:
        searched.append((given[-1], centred))
        return search(*given, centred=centred)

    monkeypatch.setattr(calibrators, "closest_windows", counted)
    observed = observe(DISTRIBUTIONS["relu"].astype(np.float32))
    kept = {
        (bits, scheme): calibrate("entropy", observed, Storage(bits, scheme))
        for bits in (4, 8)
        for scheme in SCHEMES
    }
    assert sorted(searched) == [(15, False), (15, True), (255, False), (255, True)]
    for (bits, scheme), found in kept.items():
        assert found == calibrate("entropy", replace(observed), Storage(bits, scheme))


@pytest.mark.parametrize("levels", [15, 255])
@pytest.mark.parametrize("centred", [False, True])
def test_windows_searched_together_are_those_of_each(
    monkeypatch: pytest.MonkeyPatch, levels: int, *, centred: bool
) -> None:
    """And what is ruled out unseen would not have been taken."""
    tensors = [observe(each.astype(np.float32)).cumulative for each in DISTRIBUTIONS.values()]
    together = entropy.closest_windows(tensors, levels, centred=centred)
    alone = (entropy.closest_windows([each], levels, centred=centred) for each in tensors)
    assert together == [one for (one,) in alone]
    looked_at, divergences = [], entropy._divergences

    def counted(sums: Any, windows: Any, levels: int) -> Any:
        looked_at.append(len(windows))
        return divergences(sums, windows, levels)

    monkeypatch.setattr(entropy, "_divergences", counted)
    entropy.closest_windows(tensors, levels, centred=centred)
    few = sum(looked_at)
    monkeypatch.setattr(entropy, "_least_divergences", lambda _, windows, __: 0.0 * windows[..., 0])
    assert entropy.closest_windows(tensors, levels, centred=centred) == together
    assert few < sum(looked_at) - few == len(tensors) * len(range(2048, levels - 1, -8))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99])
def test_percentile_equals_the_sorted_values(name: str, percentile: float) -> None:
    values = DISTRIBUTIONS[name]
    observed = observe(values.astype(np.float32))
    bin_width = 2.0 * (observed.maximum - observed.minimum) / 1024
    low, high = calibrate("percentile", observed, percentile=percentile)
    exact = np.percentile(values, [100.0 - percentile, percentile])
    # Within two bins, unless there is nothing between this value and the next.
    for bound, expected, outer in ((low, min(exact[0], 0.0), -1), (high, max(exact[1], 0.0), 1)):
        nearby = np.sort(np.append(values, 0.0))
        index = np.searchsorted(nearby, expected)
        slack = nearby[max(index - 2, 0)], nearby[min(index + 2, len(nearby) - 1)]
        assert min(slack[0], expected) - bin_width <= bound <= max(slack[1], expected) + bin_width
        assert outer * (bound - expected) >= -bin_width


def test_percentile_of_magnitudes_when_the_scheme_is_symmetric() -> None:
    values = DISTRIBUTIONS["shifted gaussian"]
    observed = observe(values.astype(np.float32))
    low, high = calibrate("percentile", observed, Storage(8, "symmetric"), percentile=99.0)
    assert max(-low, high) == pytest.approx(np.percentile(np.abs(values), 99.0), abs=0.03)
    one_sided = observe(np.abs(values).astype(np.float32))
    storage = Storage(8, "symmetric_uint8")
    assert calibrate("percentile", one_sided, storage, percentile=99.0)[0] == 0.0


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_minmax_keeps_everything(name: str) -> None:
    values = DISTRIBUTIONS[name].astype(np.float32)
    low, high = calibrate("minmax", observe(values))
    assert low == min(float(values.min()), 0.0)
    assert high == max(float(values.max()), 0.0)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("constant", [0.0, 3.0, -0.25, 1e-30, 1e30])
def test_a_constant_is_kept(calibrator: Calibrator, scheme: Scheme, constant: float) -> None:
    observed = observe(np.full(100, constant, np.float32))
    low, high = calibrate(calibrator, observed, Storage(8, scheme))
    value = float(np.float32(constant))
    assert (low, high) == (min(value, 0.0), max(value, 0.0))
    assert math.copysign(1.0, high) == 1.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50),
    st.sampled_from(CALIBRATORS),
    st.sampled_from(SCHEMES),
    st.integers(1, 3),
)
def test_any_values_give_a_range_that_holds_zero(
    values: list[float], calibrator: Calibrator, scheme: Scheme, batches: int
) -> None:
    observed = observe(np.array(values, np.float32), min(batches, len(values)), 16)
    low, high = calibrate(calibrator, observed, Storage(8, scheme))
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low <= 0.0 <= high
    assert (low, high) == calibrate(calibrator, observed, Storage(8, scheme))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1)))
def test_histograms_lose_no_value_and_no_extreme(batches: list[list[float]]) -> None:
    accumulator = HistogramAccumulator(["tensor"], 64)
    for batch in batches:
        values = np.array(batch, np.float64)
        low, high = float(values.min()), float(values.max())
        counts = np.histogram(values, 8, (low, high))[0] if high > low else [len(batch), *[0] * 7]
        add(accumulator, low, high, counts)
    if not batches:
        with pytest.raises(DataError, match="tensor: no calibration sample"):
            accumulator.histogram(0)
        return
    everything = [value for batch in batches for value in batch]
    histogram = accumulator.histogram(0)
    assert sum(histogram.counts) == len(everything)
    assert len(histogram.counts) <= 64
    assert (accumulator.minimum[0], accumulator.maximum[0]) == (min(everything), max(everything))
    assert histogram.low <= accumulator.minimum[0]
    assert histogram.high >= accumulator.maximum[0]


def test_a_merged_histogram_is_that_of_all_values() -> None:
    """Also when later batches reach a thousand times further."""
    values = np.concatenate([GAUSSIAN, 1000.0 * GAUSSIAN])
    histogram = observe(values, batches=40, bins=2048).histogram
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    exact = np.searchsorted(np.sort(values), edges)
    # A batch's values are known to one of its bins, a few of the merged ones at most.
    assert np.abs(below - exact).max() < 0.01 * len(values)
    assert 0.0 in edges


def test_a_first_batch_of_zeros_does_not_coarsen_what_follows() -> None:
    values = np.concatenate([np.zeros(1000), 1e-3 * GAUSSIAN[:1000]])
    assert len(observe(values, batches=2).histogram.counts) > BINS // 4


def test_a_constant_between_two_bins_may_become_the_end_of_the_range() -> None:
    accumulator = HistogramAccumulator(["tensor"], 64)
    add(accumulator, 1.0, 1.0, [5, 0])
    add(accumulator, -1000.0, 1.0, [1, 1])
    assert sum(accumulator.histogram(0).counts) == 7


def test_histograms_are_the_same_however_often_they_are_merged() -> None:
    """Batches wait to be merged; one that waits meets bins that later ones made grow."""
    rng = np.random.default_rng(3)
    together, apart = (HistogramAccumulator(["tensor"], 64) for _ in range(2))
    for width in (1.0, 0.3, 7.0, 40.0, 2.0, 300.0):
        values = np.maximum(rng.normal(size=999) * width, -0.1 * width)
        counts, _ = np.histogram(values, 16)
        for each in (together, apart):
            add(each, float(values.min()), float(values.max()), counts.tolist())
        known = apart.histogram(0)
    assert together.histogram(0) == known


def test_a_pile_of_zeros_stays_in_one_bin() -> None:
    values = np.concatenate([np.zeros(30_000), np.linspace(0.0, 1.0, 10_000)])
    histogram = observe(values, batches=1, bins=16).histogram
    assert histogram.low == 0.0
    assert histogram.counts[0] > 29_000


@pytest.mark.parametrize("bounds", [(math.nan, 1.0), (0.0, math.inf), (-math.inf, 0.0)])
def test_what_is_not_finite_is_refused_by_name(bounds: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="conv7: takes NaN or infinity on the calibration samples"):
        add(HistogramAccumulator(["conv7"]), *bounds, [1, 1, 1, 1])
