"""The tuner: what it chooses from, what it learns from, and that no finished trial is lost."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from optuna.trial import TrialState
from scipy.special import ndtri

from mlq import calibration, targets
from mlq.errors import DataError, UsageError
from mlq.frontends.data import load_data
from mlq.network import load
from mlq.pages.trials import _short
from mlq.simulation import Simulation
from mlq.tuning import study as studies
from mlq.tuning.features import NOISE, describe, encode
from mlq.tuning.measurement import Measurement, Racing, Reference, never
from mlq.tuning.mixing import Mixing
from mlq.tuning.objective import Objective
from mlq.tuning.outcomes import best, front, is_settled, outcomes
from mlq.tuning.racing import (
    DivergenceRace,
    Race,
    log_capital,
    pack,
    pack_divergences,
    radius,
    unpack,
    unpack_divergences,
)
from mlq.tuning.sampler import SAMPLERS, QuantuneSampler, distributions, sampler
from mlq.tuning.space import METHODS, SPACES, Configuration, Mixed, Space, configuration
from mlq.tuning.surrogate import Surrogate, _normal_scores
from mlq.tuning.trials import Trial, Trials, read

ROOT = Path(__file__).resolve().parent.parent
SMALL = Space(samples=(1, 8), calibrator=("minmax",), mixed=("none",))
POINTS = SPACES["quantune96"].points()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.fixture(scope="module")
def objective(demo: Path) -> Objective:
    model = demo / "digits.onnx"
    network = load(model)
    specs = network.sample_specs
    calib = load_data(demo / "digits-calib.npz", specs, model_path=model)
    held_out = load_data(demo / "digits-eval.npz", specs, model_path=model, samples=95)
    return Objective(network, calib, held_out, targets.by_name("x86"))


class Toy:
    """Stands in for an objective: the loss counts how many knobs differ from those of `goal`."""

    def __init__(self, goal: Configuration) -> None:
        self.goal = goal
        self.measured: list[Configuration] = []

    def prepare(self) -> None: ...

    def predicted_us(self, configuration: Configuration) -> float:
        return 2.0 if configuration.mixed == "ends" else 1.0

    def measure(self, configuration: Configuration, racing: Racing = never) -> Measurement:
        self.measured.append(configuration)
        wrong = loss_of(configuration, self.goal)
        hits = np.arange(200) % 10 >= wrong
        kl = np.full(200, float(wrong))
        for end in range(20, 200, 20):
            if racing(hits[:end], kl[:end]):
                hits, kl = hits[:end], kl[:end]
        return Measurement(hits, kl, float(hits.mean()), 1.0, 0.0, lost=len(hits) < 200)


def loss_of(point: Configuration, goal: Configuration) -> int:
    return sum(point.knobs[knob] != goal.knobs[knob] for knob in goal.knobs)


def trials_of(model: str, goal: Configuration) -> tuple[Trial, ...]:
    return tuple(Trial(model, point, loss_of(point, goal)) for point in POINTS)


def test_space_is_that_of_the_paper() -> None:
    assert len(set(POINTS)) == 96
    assert [point.scheme for point in POINTS[:5]] == [
        "asymmetric",
        "symmetric",
        "symmetric_uint8",
        "power_of_two",
        "asymmetric",
    ]
    assert {(point.samples, point.mixed) for point in POINTS[:16]} == {(1, "none")}
    assert configuration(POINTS[7].knobs) == POINTS[7]


def test_weights_are_fitted_where_channels_have_scales() -> None:
    points = SPACES["full"].points()
    fitted = [point for point in points if point.rounding == "least-squares"]
    assert (len(points), len(fitted)) == (1080, 216)
    assert points[:288] == tuple(replace(each, rounding="nearest") for each in points[:288])
    assert {point.granularity for point in fitted} == {"per_axis"}
    assert configuration({**POINTS[0].knobs, "rounding": "least-squares"}) == POINTS[0]
    assert str(fitted[0]).endswith(" least-squares")
    assert "nearest" not in str(POINTS[0])


def test_biases_are_corrected_where_channels_have_scales() -> None:
    points = SPACES["full"].points()
    corrected = [point for point in points if point.uses("bias-correction")]
    assert len(corrected) == 288
    assert {(each.granularity, each.rounding) for each in corrected} == {("per_axis", "nearest")}
    both = {**POINTS[0].knobs, "methods": "equalize+bias-correction"}
    assert configuration(both) == replace(POINTS[0], methods="equalize")
    assert str(configuration(both)).endswith(" equalize")
    assert configuration({**both, "granularity": "per_axis"}).equalized == "per_axis"
    assert max(len(_short(replace(each, samples=512))) for each in points) <= 45


@pytest.mark.parametrize(
    ("available", "counts"),
    [(10000, (1, 128, 512)), (200, (1, 50, 200)), (100, (1, 25, 100)), (1, (1,))],
)
def test_space_fits_the_samples(available: int, counts: tuple[int, ...]) -> None:
    assert SPACES["quantune96"].fitted(available).samples == counts


def test_configurations_are_encoded_one_hot() -> None:
    rows = encode(POINTS)
    assert len(np.unique(rows, axis=0)) == 96
    assert set(np.unique(rows[:, 1:])) == {0.0, 1.0}
    assert (rows[:, 1:].sum(axis=1) == 6).all()


def test_network_is_described(objective: Objective) -> None:
    facts = describe(objective.network, objective.observations(8))
    assert facts["layers"] == len(objective.network.layers)
    assert facts["depthwise"] > 0
    assert facts["skips"] > 0
    assert facts["outliers"] >= 0.0
    assert 0.0 < facts["channel_spread"] <= facts["most_channel_spread"] <= 8.0
    assert np.isfinite(list(facts.values())).all()


def test_surrogate_learns_from_other_networks() -> None:
    goal = POINTS[40]
    prior = Trials((*trials_of("a", goal), *trials_of("b", goal)))
    predicted = Surrogate(prior, {}).predict([], POINTS)
    assert POINTS[int(np.argmax(predicted.mean))] == goal
    assert predicted.deviation.shape == (96,)
    assert (predicted.deviation > 0.0).any()


def test_trees_grow_before_anything_is_known_of_the_network() -> None:
    prior = Trials((*trials_of("a", POINTS[40]), *trials_of("b", POINTS[40])))
    early = Surrogate(prior, {})
    trees = early.grow()
    later = replace(early, features={"depth": 2.0})
    assert later.grow([(POINTS[3], 1.0)]) is trees  # one trial has no rank
    assert later.grow([(POINTS[3], 1.0), (POINTS[4], 2.0)]) is not trees
    own = [(POINTS[3], 1.0), (POINTS[4], 2.0)]
    left, right = (each.predict(own, POINTS).mean for each in (later, Surrogate(prior, {})))
    np.testing.assert_array_equal(left, right)


def test_losses_of_networks_need_not_compare() -> None:
    goal = POINTS[40]
    fragile = tuple(
        Trial("b", each.configuration, 50 + 9 * each.loss) for each in trials_of("b", goal)
    )
    some = Trials((*trials_of("a", goal), *trials_of("b", goal)))
    other = Trials((*trials_of("a", goal), *fragile))
    left, right = (Surrogate(prior, {}).predict([], POINTS).mean for prior in (some, other))
    np.testing.assert_array_equal(left, right)


def test_scores_are_normal_whatever_the_losses() -> None:
    losses = [3.0, 1.0, 1.0, 900.0]
    scores = _normal_scores([Trial("a", POINTS[0], each) for each in losses])
    np.testing.assert_allclose(scores, ndtri([0.375, 0.75, 0.75, 0.125]))


def test_own_trials_overrule_other_networks() -> None:
    prior = Trials(trials_of("a", POINTS[0]))
    own = [(point, float(loss_of(point, POINTS[95]))) for point in POINTS[::3]]
    predicted = Surrogate(prior, {}, own_weight=1000.0).predict(own, POINTS)
    assert predicted.mean[95] > predicted.mean[0]


def test_features_count_where_networks_are_many() -> None:
    few = Surrogate(Trials(trials_of("a", POINTS[0]), {"a": {"depth": 1.0}}), {"depth": 2.0})
    many = {f"m{i}": {"depth": float(i)} for i in range(8)}
    trials = tuple(trial for name in many for trial in trials_of(name, POINTS[0]))
    enough = Surrogate(Trials(trials, many), {"depth": 2.0})
    rows = trials_of("", POINTS[0])
    assert few._matrix(rows).shape[1] == enough._matrix(rows).shape[1]
    alone = Surrogate(Trials(trials_of("a", POINTS[0]), {"a": {}}), {})
    assert alone._matrix(rows).shape[1] == encode(POINTS).shape[1] + len(NOISE)


def test_without_trials_nothing_is_known() -> None:
    predicted = Surrogate(Trials(), {}).predict([(POINTS[0], 1.0)], POINTS)
    assert not predicted.mean.any()


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_finds_an_easy_optimum(name: str) -> None:
    goal = SMALL.points()[9]
    study = optuna.create_study(sampler=sampler(name, SMALL, seed=1))
    studies.run(study, Toy(goal), SMALL, trials=48)
    found = best(outcomes(study))
    assert found is not None
    assert found.loss <= 1.0


@pytest.mark.parametrize("name", ["quantune", "quantune-cold", "random", "grid"])
def test_no_configuration_is_proposed_twice(name: str) -> None:
    study = optuna.create_study(sampler=sampler(name, SMALL, seed=3))
    points = [configuration(study.ask(distributions(SMALL)).params) for _ in range(16)]
    assert sorted(map(str, points)) == sorted(map(str, SMALL.points()))


def test_grid_goes_through_the_space_in_order() -> None:
    study = optuna.create_study(sampler=sampler("grid", SMALL))
    points = [configuration(study.ask(distributions(SMALL)).params) for _ in range(16)]
    assert tuple(points) == SMALL.points()


def test_quantune_starts_where_other_networks_ended() -> None:
    goal = POINTS[40]
    prior = Trials((*trials_of("a", goal), *trials_of("b", goal)))
    for caution in (0.0, 1.0):
        chooser = QuantuneSampler(SPACES["quantune96"], prior, caution=caution)
        study = optuna.create_study(sampler=chooser)
        studies.run(study, toy := Toy(goal), SPACES["quantune96"], trials=3)
        assert goal in toy.measured


def test_values_that_no_trial_had_are_tried_once_beside_the_best() -> None:
    goal = replace(POINTS[40], mixed="quantunev2", rounding="least-squares", calibrator="mse")
    chooser = QuantuneSampler(SPACES["full"], Trials(trials_of("a", POINTS[40])))
    study = optuna.create_study(sampler=chooser)
    studies.run(study, toy := Toy(goal), SPACES["full"], trials=6)
    first, *others = toy.measured
    assert first == POINTS[40]
    assert others[0] == replace(first, mixed="quantunev2")
    assert others[1] == replace(others[0], rounding="least-squares")
    # Of least squares biases are not corrected, so but one set of methods is left.
    assert others[2] == replace(others[1], methods="equalize")
    assert {each.calibrator for each in others[3:]} == {"percentile", "mse"}
    assert goal in others


def test_unknown_sampler_is_named() -> None:
    with pytest.raises(UsageError, match="did you mean 'quantune'"):
        sampler("quantum", SMALL)


def test_equal_networks_race_to_the_end() -> None:
    random = np.random.default_rng(0)
    stopped = 0
    for _ in range(400):
        rival, hits = random.random((2, 400)) < 0.8
        race = Race(rival, alpha=0.05)
        stopped += any(race.is_lost(hits[:end]) for end in range(10, 401, 10))
    assert stopped <= 0.05 * 400


def test_a_much_worse_network_is_stopped_soon() -> None:
    random = np.random.default_rng(0)
    rival = random.random(1000) < 0.9
    hits = random.random(1000) < 0.5
    race = Race(rival)
    assert race.is_lost(hits[:50])
    assert race.estimate(hits[:50]) < 0.75
    assert not race.is_lost(rival)


def test_equally_divergent_networks_race_to_the_end() -> None:
    random = np.random.default_rng(0)
    stopped = 0
    for _ in range(400):
        rival, own = random.lognormal(0.0, 2.0, (2, 400))
        race = DivergenceRace(rival, alpha=0.05)
        stopped += any(race.is_lost(own[:end]) for end in range(10, 401, 10))
    assert stopped <= 0.05 * 400


def test_a_more_divergent_network_is_stopped_within_a_few_samples() -> None:
    rival = np.random.default_rng(0).lognormal(0.0, 2.0, 1000)
    race = DivergenceRace(rival)
    assert race.is_lost(3.0 * rival[:20])
    assert race.estimate(3.0 * rival[:20]) == pytest.approx(3.0 * rival.mean())
    assert not race.is_lost(0.9 * rival)
    assert not race.is_lost(np.zeros(0))


def test_means_stay_within_their_radius() -> None:
    """At every look at once, which is more than to be so at the last."""
    random = np.random.default_rng(0)
    beyond = 0
    for own in random.exponential(1.0, (400, 300)):
        ends = range(30, 301, 10)
        beyond += any(abs(own[:n].mean() - 1.0) > radius(float(own[:n].std()), n) for n in ends)
    assert beyond <= 0.05 * 400
    assert radius(1.0, 60) < radius(1.0, 60, alpha=0.01) < radius(2.0, 60, alpha=0.01)


def trial_of(noise: float, *, tolerance: float, labels: bool = True) -> tuple[Measurement, int]:
    """A network of ten classes against the same with noisy logits; how many samples float ran."""
    random = np.random.default_rng(1)
    exact = random.normal(0.0, 2.0, (600, 10))
    noisy = exact + random.normal(0.0, noise, exact.shape)
    ran: list[int] = []

    def batches(logits: NDArray[np.float64], told: list[int]) -> Iterator[NDArray[np.float64]]:
        for start in range(0, 600, 10):
            told.append(10)
            yield logits[start : start + 10]

    known = np.argmax(exact, -1) if labels else None
    reference = Reference(batches(exact, ran), known, 600)
    found = reference.measure(batches(noisy, []), never, tolerance=tolerance, fewest=30)
    return found, sum(ran)


def test_a_trial_ends_when_its_divergence_is_known() -> None:
    whole, ran = trial_of(0.1, tolerance=0.0)
    assert (whole.samples, whole.within_mnat, ran) == (600, 0.0, 600)
    known, ran = trial_of(0.1, tolerance=1.0)
    assert known.samples <= ran < 600
    assert 0.0 < known.within_mnat <= 1.0
    assert known.kl_mnat == pytest.approx(whole.kl_mnat, abs=known.within_mnat)
    assert not known.lost
    assert trial_of(0.1, tolerance=1e9)[0].samples == 30
    assert trial_of(0.2, tolerance=1.0)[0].samples > known.samples
    assert trial_of(0.1, tolerance=1.0, labels=False)[0].float_accuracy == 1.0


def test_a_race_is_run_as_far_as_both_went() -> None:
    rival = np.random.default_rng(0).lognormal(0.0, 1.0, 100)
    race = DivergenceRace(rival)
    longer = np.append(3.0 * rival, np.zeros(500))
    assert race.is_lost(longer)
    assert race.estimate(longer) == pytest.approx(3.0 * rival.mean())
    right = rival > 1.0
    assert Race(right).estimate(np.append(right, [True] * 9)) == right.mean()


def test_trials_of_former_versions_are_settled_where_they_were_whole() -> None:
    assert [is_settled({"whole": each}) for each in (True, False)] == [True, False]
    assert is_settled({"settled": True, "whole": False})


def test_what_is_packed_comes_back() -> None:
    random = np.random.default_rng(0)
    hits, kl = random.random(99) < 0.5, random.lognormal(0.0, 3.0, 99)
    assert (unpack(pack(hits), 99) == hits).all()
    np.testing.assert_allclose(unpack_divergences(pack_divergences(kl)), kl, rtol=1e-3)
    assert np.isfinite(unpack_divergences(pack_divergences(np.array([1e9])))).all()


def test_betting_gains_nothing_on_draws() -> None:
    assert log_capital(np.zeros(10)) == pytest.approx(0.0)
    assert log_capital(np.full(10, -1.0)) > 0.0 > log_capital(np.full(10, 1.0))


def test_published_trials_are_read(tmp_path: Path) -> None:
    file = tmp_path / "trials.csv"
    file.write_text(
        "model,samples,scheme,clipping,granularity,mixed,top1,float_top1,convs\n"
        "net,1000,symmetric,entropy,per_axis,1,70.5,71.0,53\n"
    )
    found = read([file])
    expected = Configuration(1000, "symmetric", "entropy", "per_axis", "ends")
    assert found.trials == (Trial("net", expected, 0.5),)
    assert found.features == {"net": {"convs": 53.0}}
    assert not found.without("net").trials


def test_own_trials_are_read(tmp_path: Path) -> None:
    file = tmp_path / "net.jsonl"
    head = {"model": "net", "float_top1": 0.75, "features": {"convs": 5.0}}
    line = {**POINTS[3].knobs, "top1": 0.5, "kl_mnat": 2.5}
    file.write_text(f"{json.dumps(head)}\n{json.dumps(line)}\n")
    assert read([file]).trials == (Trial("net", POINTS[3], 25.0),)
    assert read([file], loss="kl").trials == (Trial("net", POINTS[3], 2.5),)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "model,samples\nnet,1\n"),
        ("b.jsonl", '{"model": "net"}\n'),
        ("c.jsonl", "no json\n"),
    ],
)
def test_unreadable_trials_are_located(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}: line [12] is no trial"):
        read([tmp_path / name])


def test_missing_trials_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read"):
        read([tmp_path / "gone.csv"])


def test_quantune_finds_the_published_optima(real_data: Path) -> None:
    data = read([real_data / "quantune_trials.csv"])
    for model in data.models:
        losses = {each.configuration: each.loss for each in data.of(model)}
        surrogate = Surrogate(data.without(model), data.features[model])
        free, told = sorted(losses, key=lambda point: point.mixed == "ends"), []
        while min([loss for _, loss in told], default=np.inf) > min(losses.values()):
            chosen = free.pop(int(np.argmax(surrogate.predict(told, free).mean)))
            told.append((chosen, losses[chosen]))
        assert len(told) <= 12


def test_a_trial_measures_the_configured_network(objective: Objective) -> None:
    point = Configuration(8, "symmetric", "minmax", "per_tensor", "none")
    found = objective.measure(point)
    again = Simulation(
        objective.network, targets.by_name("x86"), scheme="symmetric", granularity="per_tensor"
    )
    batch = next(iter(objective._evaluated))
    arguments = (batch, objective.ranges(point), objective.decision(point).assignment)
    configured = objective.simulation.configured("symmetric", "per_tensor")
    np.testing.assert_array_equal(again.run(*arguments)[0], configured.run(*arguments)[0])
    assert found.samples == 95
    assert found.accuracy > 0.9
    assert found.kl_mnat > 0.0


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_samples_beside_each_other_are_samples(
    objective: Objective, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = Configuration(8, "symmetric", "minmax", "per_tensor", "none")
    batches = list(itertools.islice(objective._evaluated, 7))
    simulation = objective.simulation.configured("symmetric", "per_tensor")
    how = objective.ranges(point), objective.decision(point).assignment
    expected = [simulation.run(batch, *how)[0] for batch in batches]
    monkeypatch.setattr(simulation, "_at_once", at_once)
    simulation.release()
    found = [first for first, *_ in simulation.each(batches, *how)]
    assert len(simulation._loaded["simulated"]) == at_once
    np.testing.assert_array_equal(found, expected)


def test_the_simulation_observes_what_the_float_network_holds(objective: Objective) -> None:
    made = calibration.instrument(objective.network, targets.host_target())
    results = (made.run(*each) for each in objective.calibration(8))
    found = calibration.observe(objective.network, results)
    here = objective.observations(8)
    assert here.tensors == found.tensors
    np.testing.assert_array_equal(np.concatenate(here.outputs), np.concatenate(found.outputs))


def test_the_first_samples_are_observed_on_the_way(objective: Objective) -> None:
    objective.observations(objective.calib.samples)
    for samples in SPACES["quantune96"].fitted(objective.calib.samples).samples:
        results = objective.simulation.observed(objective.calibration(samples))
        alone = calibration.observe(objective.network, results)
        here = objective.observations(samples)
        assert here.tensors == alone.tensors
        np.testing.assert_array_equal(here.outputs, alone.outputs)


def test_no_sample_is_run_beyond_the_fewest_that_nobody_waits_for(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "fewest", 15)
    ran = list[int]()
    run = type(objective.simulation).each

    def each(made: Simulation, batches: Iterable[Any], *how: Any) -> Iterator[Any]:
        def noted() -> Iterator[Any]:
            for batch in batches:
                ran.append(1)
                yield batch

        return run(made, noted(), *how)

    monkeypatch.setattr(Simulation, "each", each)
    how = objective.ranges(Configuration(8, "symmetric", "minmax", "per_tensor", "none")), {}
    counts, sizes = [], []
    for output in objective._outputs(objective.simulation, *how):
        counts.append(len(ran))
        sizes.append(len(output))
    assert counts[0] <= 20
    assert counts[1:] == [*range(20, 91, 10), 95]
    assert sizes == [10] * 9 + [5]


def test_configurations_differ_and_come_back(objective: Objective) -> None:
    some = Configuration(1, "asymmetric", "minmax", "per_tensor", "none")
    other = Configuration(1, "asymmetric", "minmax", "per_axis", "ends")
    first = objective.measure(some).kl_mnat
    assert objective.measure(other).kl_mnat < first
    assert objective.measure(some).kl_mnat == first


def test_the_same_network_is_run_once(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = Configuration(8, "asymmetric", "minmax", "per_axis", "none")
    found = objective.measure(point)
    monkeypatch.setattr(objective, "_outputs", None)
    assert (objective.measure(point).divergences == found.divergences).all()
    with pytest.raises(TypeError):
        objective.measure(replace(point, scheme="power_of_two"))


@pytest.mark.parametrize("mixed", ["none", "quantunev2"])
def test_fitted_weights_are_measured(objective: Objective, mixed: Mixed) -> None:
    nearest = Configuration(200, "asymmetric", "minmax", "per_axis", mixed)
    fitted, other = (
        replace(nearest, rounding="least-squares", calibrator=each) for each in ("minmax", "mse")
    )
    found = objective.measure(fitted)
    assert 0.0 < found.kl_mnat < 3.0 * objective.measure(nearest).kl_mnat
    assert found.kl_mnat != objective.measure(nearest).kl_mnat
    assert objective.rounding(fitted) is objective.rounding(fitted)
    # What is measured between them is not computed with their weights, nor they with its.
    assert objective.measure(other).kl_mnat != found.kl_mnat
    assert objective.measure(fitted).kl_mnat == found.kl_mnat


def test_methods_are_measured(objective: Objective) -> None:
    """As `mlq quantize` would use them; what is measured between them has its own weights."""
    plain = Configuration(200, "asymmetric", "minmax", "per_axis", "none")
    found = {each: objective.measure(replace(plain, methods=each)).kl_mnat for each in METHODS}
    assert len(set(found.values())) == len(METHODS)
    assert max(found.values()) < 3.0 * found["none"]
    for each in METHODS:
        assert objective.measure(replace(plain, methods=each)).kl_mnat == found[each]


def test_mixed_leaves_the_ends_in_float(objective: Objective) -> None:
    whole = objective.decision(Configuration(1, "symmetric", "mse", "per_axis", "none")).assignment
    mixed = objective.decision(Configuration(1, "symmetric", "mse", "per_axis", "ends")).assignment
    weighted = [layer.name for layer in objective.network.layers if layer.weight is not None]
    assert set(whole) - set(mixed) == {weighted[0], weighted[-1]}


def test_the_allocator_leaves_the_noisiest_layers_in_float(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise is energy: a quarter of it is asked for of the calibration samples' KL."""
    only_bytes = replace(targets.by_name("x86"), menu="f32,w8a8")
    monkeypatch.setattr(objective, "mixing", Mixing(objective, only_bytes, at_once=1))
    some = Configuration(200, "symmetric", "minmax", "per_tensor", "none")
    whole, mixed = (replace(some, mixed=each) for each in ("none", "quantunev2"))
    assert objective.mixing.known_us(mixed) is None
    assert objective.measure(mixed).kl_mnat < 0.5 * objective.measure(whole).kl_mnat
    left = set(objective.decision(whole).assignment) - set(objective.decision(mixed).assignment)
    assert 0 < len(left) < len(objective.network.layers)
    assert objective.predicted_us(whole) < objective.predicted_us(mixed)
    assert objective.mixing.known_us(mixed) == objective.predicted_us(mixed)
    assert all(objective.decision(mixed).reasons[name].startswith("f32") for name in left)


def test_the_allocator_takes_words_where_they_are_as_fast_as_bytes(objective: Objective) -> None:
    some = Configuration(200, "asymmetric", "minmax", "per_axis", "none")
    whole, mixed = (replace(some, mixed=each) for each in ("none", "quantunev2"))
    avx2 = Mixing(objective, targets.by_name("x86:avx2"), at_once=1)
    found = avx2.decision(mixed)
    assert found.us < 1.05 * avx2.decision(whole).us
    chosen = list(found.assignment.values())
    assert chosen.count("w10a12") > len(chosen) / 2
    # By what this CPU's products cost: where bytes are multiplied by themselves, fewer are words.
    assert objective.measure(mixed).kl_mnat < 0.5 * objective.measure(whole).kl_mnat


def test_a_hopeless_trial_is_stopped_early(objective: Objective) -> None:
    point = Configuration(8, "power_of_two", "entropy", "per_tensor", "ends")
    found = objective.measure(point, lambda hits, _kl: len(hits) >= 20)
    assert found.samples == 20


def test_more_calibration_samples_than_there_are(objective: Objective) -> None:
    with pytest.raises(DataError, match="has 200 samples, the configuration asks for 512"):
        objective.measure(POINTS[-1])


def test_finished_trials_outlive_the_process(tmp_path: Path) -> None:
    storage, goal = f"sqlite:///{tmp_path / 'study.db'}", SMALL.points()[9]
    for wanted in (5, 5, 9):
        study = studies.open_study(storage, "net", sampler("random", SMALL, seed=2))
        studies.run(study, toy := Toy(goal), SMALL, trials=wanted, subject="net")
        assert len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))) == wanted
    assert len(toy.measured) == 4
    with pytest.raises(UsageError, match="tunes another network"):
        studies.run(study, Toy(goal), SMALL, trials=99, subject="another")


def test_an_interrupt_ends_the_search_where_a_trial_can_end() -> None:
    """Nowhere else, where Python may drop it."""

    class Interrupted(Toy):
        def measure(self, configuration: Configuration, racing: Racing = never) -> Measurement:
            signal.raise_signal(signal.SIGINT)
            return super().measure(configuration, racing)

    study = optuna.create_study(sampler=sampler("grid", SMALL))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        studies.run(study, toy := Interrupted(SMALL.points()[9]), SMALL, trials=16)
    assert len(toy.measured) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_known_configurations_are_not_measured_again() -> None:
    study = optuna.create_study(sampler=sampler("genetic", SMALL, seed=0))
    studies.run(study, toy := Toy(SMALL.points()[9]), SMALL, trials=16)
    assert len(study.trials) == 16
    assert len(toy.measured) == len(set(toy.measured))


def test_clearly_worse_trials_are_stopped_and_never_best() -> None:
    space = SPACES["quantune96"]
    study = optuna.create_study(sampler=sampler("random", space, seed=0))
    studies.run(study, Toy(POINTS[50]), space, trials=96, loss="accuracy")
    stopped = study.get_trials(states=(TrialState.PRUNED,))
    assert stopped
    assert all(each.user_attrs["samples"] < 200 for each in stopped)
    found = best(outcomes(study))
    assert found is not None
    assert found.configuration == POINTS[50]


@pytest.mark.parametrize("name", ["quantune", "quantune-cold", "random", "genetic", "tpe"])
def test_two_objectives_find_the_front(name: str) -> None:
    """The goal has float ends, which take longer: the same without them is the front's other."""
    space = Space(samples=(1, 8), calibrator=("minmax",))
    goal = space.points()[25]
    assert goal.mixed == "ends"
    chooser = sampler(name, space, known_us=(toy := Toy(goal)).predicted_us, seed=1)
    study = studies.open_study(None, "net", chooser, objectives=2)
    studies.run(study, toy, space, trials=96)
    found = outcomes(study)
    assert [each.predicted_us for each in front(found)] == [1.0, 2.0]
    if name not in {"genetic", "tpe"}:
        assert [each.loss for each in front(found)] == [1.0, 0.0]
    assert best(found) == front(found)[-1]
    assert best(found, "kl", timed=True) == front(found)[0]


def test_races_are_against_what_is_as_fast() -> None:
    """What is worse than a slower trial only is no loser: it goes over all samples."""
    space = Space(samples=(1, 8), calibrator=("minmax",))
    goal = space.points()[25]
    study = studies.open_study(None, "net", sampler("grid", space), objectives=2)
    study.enqueue_trial(goal.knobs)
    studies.run(study, Toy(goal), space, trials=32)
    slow = [each for each in outcomes(study) if each.configuration.mixed == "ends"]
    assert [each.loss for each in slow if each.settled] == [0.0]
    quick = [
        each for each in outcomes(study) if each.configuration.mixed == "none" and each.settled
    ]
    assert min(each.loss for each in quick) == 1.0


def test_an_interrupt_is_one_wherever_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while Optuna stores what a trial found; trials before it are kept."""
    study = studies.open_study(None, "net", sampler("grid", SMALL))
    studies.run(study, Toy(SMALL.points()[9]), SMALL, trials=2)

    def interrupted(*_arguments: object, **_names: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(study._storage), "set_trial_state_values", interrupted)
    with pytest.raises(KeyboardInterrupt):
        studies.run(study, Toy(SMALL.points()[9]), SMALL, trials=4)
    assert len(studies.finished(study)) == 2


@pytest.mark.parametrize("address", ["study.db", "sqlite:////no/such/folder/study.db"])
def test_bad_storage_is_named(address: str) -> None:
    with pytest.raises(UsageError, match="cannot be opened as a study"):
        studies.open_study(address, "net", sampler("grid", SMALL))


WORKER = """
import sys, time, optuna
sys.path.insert(0, {tests!r})
from test_tuning import POINTS, SPACES, Toy
from mlq.tuning import study as studies
from mlq.tuning.sampler import sampler

class Slow(Toy):
    def measure(self, configuration, racing=None):
        time.sleep(0.05)
        return super().measure(configuration)

space = SPACES["quantune96"]
study = studies.open_study({storage!r}, "net", sampler("random", space, seed=int(sys.argv[1])))
studies.run(study, Slow(POINTS[50]), space, trials=int(sys.argv[2]), subject="net")
"""


def start(storage: str, seed: int, trials: int) -> subprocess.Popen[bytes]:
    code = textwrap.dedent(WORKER).format(tests=str(ROOT / "tests"), storage=storage)
    command = [sys.executable, "-c", code, str(seed), str(trials)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT)


def finished(storage: str) -> list[optuna.trial.FrozenTrial]:
    study = studies.open_study(storage, "net", sampler("grid", SMALL))
    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def test_a_killed_study_goes_on(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    worker = start(storage, 0, 96)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(finished(storage)) < 5:
        time.sleep(0.2)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    before = finished(storage)
    assert 5 <= len(before) < 96
    assert start(storage, 0, len(before) + 5).wait() == 0
    after = finished(storage)
    assert len(after) >= len(before) + 5
    assert [each.params for each in after[: len(before)]] == [each.params for each in before]


def test_processes_share_a_study(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    workers = [start(storage, seed, 20) for seed in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert 20 <= len(finished(storage)) <= 22


@pytest.mark.parametrize(
    ("package", "module"),
    [("optuna", "sampler"), ("optuna", "study"), ("xgboost", "surrogate")],
)
def test_a_missing_package_names_its_extra(package: str, module: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None; import mlq.tuning.{module}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert f"tuning needs {package}; install it with: pip install 'mlq[tune]'" in done.stderr
