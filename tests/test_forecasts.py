"""Forecasts: what is known of a configuration before its trial, against what then comes to pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlq import metrics, numerics, targets
from mlq.calibrators import Observation
from mlq.errors import DataError
from mlq.frontends.data import load_data
from mlq.histograms import HistogramAccumulator
from mlq.network import load
from mlq.squared_error import Spreads
from mlq.tuning import history
from mlq.tuning.features import NOISE
from mlq.tuning.forecasts import Forecasts
from mlq.tuning.mixing import PRECISION
from mlq.tuning.objective import Objective, _digest
from mlq.tuning.sampler import QuantuneSampler, distributions
from mlq.tuning.space import SPACES, Configuration, Space, configuration
from mlq.tuning.surrogate import Surrogate
from mlq.tuning.trials import Forecast, Trial, Trials, read

POINTS = SPACES["quantune96"].points()
PLAIN = Configuration(200, "asymmetric", "minmax", "per_axis", "none")
SHIPPED = sorted(history.SHIPPED.glob("*.jsonl"))


@pytest.fixture(scope="module")
def objective(demo: Path) -> Objective:
    model = demo / "digits.onnx"
    network = load(model)
    specs = network.sample_specs
    calib = load_data(demo / "digits-calib.npz", specs, model_path=model)
    held_out = load_data(demo / "digits-eval.npz", specs, model_path=model, samples=20)
    return Objective(network, calib, held_out, targets.by_name("x86"))


@pytest.fixture(scope="module")
def known(objective: Objective) -> dict[Configuration, Forecast]:
    points = SPACES["quantune96"].fitted(objective.calib.samples).points()
    return {point: objective.forecasts.of(point) for point in points}


@settings(deadline=None)
@given(
    st.integers(0, 255),
    st.floats(-2.0, 1.0),
    st.sampled_from([0.0, 0.5, 3.0]),
)
def test_the_error_of_storing_is_that_of_the_values(
    zero_point: int, octaves: float, shift: float
) -> None:
    values = (np.linspace(-1.0, 1.0, 20_001) + shift).astype(np.float32)
    seen = HistogramAccumulator(["x"])
    counts, _ = np.histogram(values, 512)
    seen.add(values.min()[None], values.max()[None], counts[None])
    observed = Observation(float(values.min()), float(values.max()), seen.histogram(0))
    spreads = Spreads([observed.cumulative])
    params = numerics.QuantParams(
        bits=8, signed=False, scale=(2.0**octaves * 0.01,), zero_point=(zero_point,)
    )
    change = numerics.fake_quantize(values, params) - values
    stored = spreads.stored(np.array([params.scale]), np.array([params.zero_point]), 255)
    error = stored.rounded(np.array([0]), np.array([0])) + stored.clipped
    assert spreads.energy.item() == pytest.approx(float(np.vdot(values, values)), rel=1e-2)
    assert error.item() == pytest.approx(float(np.vdot(change, change)), rel=2e-2)


def test_one_identity_is_one_network(
    objective: Objective, known: dict[Configuration, Forecast]
) -> None:
    """What has the same identity has the same table and weights, and nothing else has."""
    computed = set[tuple[str, str]]()
    for point, forecast in known.items():
        simulation = objective.simulated(point, objective.simulation)
        assignment = objective.decision(point).assignment
        table = simulation.table(objective.ranges(point), assignment)
        weights = simulation.simulated_weights(assignment, "")
        computed.add((forecast.identity, _digest(table, weights)))
    identities, digests = zip(*computed, strict=True)
    assert len(set(identities)) == len(set(digests)) == len(computed)
    assert 1 < len(computed) < len(known)


def test_noise_is_in_octaves_above_the_least(known: dict[Configuration, Forecast]) -> None:
    table = np.array([[each.noise[name] for name in NOISE] for each in known.values()])
    assert np.isfinite(table).all()
    assert (table.min(axis=0) == 0.0).all()
    assert (table.max(axis=0) > 0.0).all()


def test_noise_grows_with_what_makes_noise(known: dict[Configuration, Forecast]) -> None:
    for point, forecast in known.items():
        noise = forecast.noise
        if point.mixed == "ends":
            whole = known[replace(point, mixed="none")].noise
            assert all(noise[name] <= whole[name] for name in NOISE)
        if point.granularity == "per_axis":
            assert (
                noise["channels"]
                <= known[replace(point, granularity="per_tensor")].noise["channels"]
            )
        if point.scheme == "asymmetric" and point.calibrator == "minmax":
            wide = known[replace(point, scheme="symmetric")].noise
            assert noise["rounding"] <= wide["rounding"]
            # The ranges of more samples hold those of fewer; those of all clip less than a
            # millionth, where the zero point is rounded.
            more = [replace(point, samples=samples) for samples in (1, 50, 200)]
            clipped = [known[each].noise["clipping"] for each in more]
            assert clipped[0] > clipped[1] >= clipped[2]
            assert clipped[2] < np.log2(1e-6 / 1e-9)


def test_weight_noise_is_that_of_the_stored_weights(objective: Objective) -> None:
    forecasts = objective.forecasts
    found = {}
    for point in (PLAIN, replace(PLAIN, granularity="per_tensor")):
        stored = objective.simulated(point, objective.simulation)
        pairs = [
            (objective.network.weights[each.weight], stored.stored_weight(each, PRECISION))
            for each in objective.network.layers
            if each.weight is not None
        ]
        ratios = [10.0 ** (-metrics.sqnr_db(*pair) / 10.0) for pair in pairs]
        found[point.granularity] = np.log2(sum(ratios)) - forecasts.of(point).noise["weights"]
    assert found["per_axis"] == pytest.approx(found["per_tensor"], abs=1e-4)


def test_the_allocators_choice_is_forecast_as_what_it_starts_from(objective: Objective) -> None:
    chosen = objective.forecasts.of(replace(PLAIN, mixed="quantunev2"))
    assert chosen.noise == objective.forecasts.of(PLAIN).noise
    assert not chosen.identity


def test_fitted_weights_are_another_network(objective: Objective) -> None:
    fitted = [
        replace(PLAIN, rounding="least-squares", scheme=scheme)
        for scheme in ("asymmetric", "symmetric")
    ]
    identities = {objective.forecasts.of(each).identity for each in (PLAIN, *fitted)}
    assert len(identities) == 3


def test_forecasts_compile_nothing(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objective, "simulation", None)
    fresh = Forecasts(objective, objective.mixing, objective.calib.samples)
    assert fresh.of(PLAIN) == objective.forecasts.of(PLAIN)


def noisy(seed: int) -> dict[Configuration, Forecast]:
    drawn = np.random.default_rng(seed).uniform(0.0, 8.0, (len(POINTS), len(NOISE)))
    return {
        point: Forecast(dict(zip(NOISE, row, strict=True)), str(number // 2))
        for number, (point, row) in enumerate(zip(POINTS, drawn.tolist(), strict=True))
    }


def trials_of(model: str, forecasts: dict[Configuration, Forecast]) -> tuple[Trial, ...]:
    """A network whose loss is the noise, whatever the knobs."""
    return tuple(
        Trial(model, point, sum(each.noise.values()), forecast=each)
        for point, each in forecasts.items()
    )


def test_noise_tells_what_knobs_do_not() -> None:
    prior = Trials(tuple(t for i in range(4) for t in trials_of(str(i), noisy(i))))
    own = noisy(9)
    losses = np.array([sum(own[point].noise.values()) for point in POINTS])
    told = Surrogate(prior, {}, own.__getitem__).predict([], POINTS).mean
    blind = Surrogate(prior, {}).predict([], POINTS).mean
    assert np.corrcoef(told, losses)[0, 1] < -0.8
    assert abs(np.corrcoef(blind, losses)[0, 1]) < 0.4


def test_without_forecasts_those_of_others_do_not_matter() -> None:
    prior = Trials(trials_of("a", noisy(0)))
    bare = Trials(tuple(replace(each, forecast=Forecast()) for each in prior.trials))
    left, right = (Surrogate(each, {}).predict([], POINTS).mean for each in (prior, bare))
    assert (left == right).all()


def test_trials_without_forecasts_count_too() -> None:
    """Those that were kept before there were forecasts: their noise is a missing value."""
    bare = tuple(replace(each, forecast=Forecast()) for each in trials_of("a", noisy(0)))
    prior = Trials((*bare, *trials_of("b", noisy(1))))
    predicted = Surrogate(prior, {}, noisy(2).__getitem__).predict([], POINTS)
    assert np.isfinite(predicted.mean).all()


def test_no_network_is_proposed_twice_while_there_is_another() -> None:
    space = Space(samples=(1, 128), calibrator=("minmax",), mixed=("none",))
    points, own = space.points(), noisy(0)
    chooser = QuantuneSampler(space, Trials(trials_of("a", noisy(1))), forecasts=own.__getitem__)
    study = optuna.create_study(sampler=chooser)
    tried = []
    for _ in points:
        trial = study.ask(distributions(space))
        tried.append(configuration(trial.params))
        study.tell(trial, 1.0)
    half = len(points) // 2
    assert len({own[point].identity for point in tried[:half]}) == half
    assert set(tried) == set(points)


def test_forecasts_are_kept_and_read(tmp_path: Path) -> None:
    forecast = Forecast({"rounding": 1.5}, "ab12")
    file = tmp_path / "net.jsonl"
    head = {"model": "net", "float_top1": 0.75, "features": {}}
    line = {**POINTS[3].knobs, "top1": 0.5, "kl_mnat": 2.5}
    rows = (head, line, {**line, **forecast.row})
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert [each.forecast for each in read([file]).trials] == [Forecast(), forecast]
    file.write_text(f"{json.dumps(head)}\n{json.dumps({**line, 'noise': 3})}\n")
    with pytest.raises(DataError, match="line 2 is no trial"):
        read([file])


@pytest.mark.parametrize("file", SHIPPED, ids=[file.stem for file in SHIPPED])
def test_shipped_trials_of_one_identity_have_one_loss(file: Path) -> None:
    trials = read([file], loss="kl").trials
    pairs = {(each.forecast.identity, each.loss) for each in trials}
    assert len(pairs) == len({identity for identity, _ in pairs}) == len({x for _, x in pairs})
    assert all(set(each.forecast.noise) == set(NOISE) for each in trials)
