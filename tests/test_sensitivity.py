"""What layers lose: local metrics of the lockstep, layers tried alone, and what a kill leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from mlq import alone, analysis, calibration, sensitivity, targets
from mlq.analysis import Analysis, Subject
from mlq.dialect.weights import Arranged, Made, WeightStore
from mlq.frontends.data import load_data
from mlq.journal import Journal
from mlq.network import load
from mlq.numerics.sampling import row_step
from mlq.progress import Stages
from mlq.propagation import gains, own_metrics
from mlq.recipe import Recipe
from mlq.sensitivities import noise_from_sensitivities
from mlq.simulation import Simulation, uniform
from mlq.transforms.linalg import constants

Array = NDArray[Any]

PRECISIONS = ("w8a8", "w4a8")


@pytest.fixture(scope="module")
def found(analysed: Analysis) -> Analysis:
    """The bundled network at effort quick; whether or not the target can, all in two precisions."""
    sensitivities = sensitivity.measure(
        analysed.subject.batches(),
        analysed.simulation,
        analysed.choice.ranges,
        precisions=PRECISIONS,
        supported=dict.fromkeys(analysed.subject.allowed, PRECISIONS),
    )
    return replace(analysed, sensitivities=sensitivities)


def with_effort(found: Analysis, **options: str) -> Analysis:
    """The same network measured again with another effort; nothing is compiled."""
    recipe = Recipe(**{**found.subject.recipe.model_dump(), **options})
    subject = replace(found.subject, recipe=recipe)
    return analysis.measure(subject, found.observations, found.simulation, found.choice)


def values(found: Analysis, key: str, precision: str = "w8a8") -> dict[str, float]:
    return {
        name: layer.candidates[precision][key] for name, layer in found.sensitivities.layers.items()
    }


def test_own_error_is_what_a_layer_alone_does_to_its_own_result(found: Analysis) -> None:
    """The last layer's result is the output, so there O1 can be compared with it."""
    last = found.subject.network.layers[-1].name
    oracle = analysis.with_oracle(found)
    own = values(found, "own_error")[last]
    # One is the geometric mean over batches of uncentred logits, the other the mean of centred.
    assert own == pytest.approx(values(oracle, "oracle_output_error")[last], rel=0.5)


def test_a_layers_own_noise_is_computed_where_it_is_compared(
    found: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In some rows only, of a network with strides, groups and residuals: the same sums."""
    monkeypatch.setattr("mlq.simulation._COMPARED", 100)
    subject, ranges = found.subject, found.choice.ranges
    assignments = [uniform(subject.network, each, subject.allowed) for each in ("w8a8", "w8a16")]

    def energies() -> Array:
        made = Simulation(subject.network, subject.target, chains=2, own=True)
        assert any(size > 1 for size in sizes)
        return next(made.lockstep(subject.batches(), ranges, assignments))[-1]

    sizes = list[int]()

    def noted(shape: Sequence[int], most: int) -> int:
        sizes.append(row_step(shape, most))
        return sizes[-1]

    monkeypatch.setattr("mlq.transforms.alone.row_step", noted)
    thin = energies()
    monkeypatch.setattr("mlq.transforms.alone.row_step", lambda *_: 1)
    np.testing.assert_array_equal(energies(), thin)


def test_rows_of_a_matrix_are_compared_with_the_images_that_they_are(found: Analysis) -> None:
    """Of several samples, too: what the classifier reads is the mean of an image, flattened."""
    subject, simulation = found.subject, found.simulation
    assert subject.batch > 1
    chains = [uniform(subject.network, "w8a8", subject.allowed)] * len(PRECISIONS)
    results = next(simulation.lockstep(subject.batches(), found.choice.ranges, chains))
    energies = results[-1].reshape(len(chains), -1, 2)
    for names, (signal, noise) in zip(simulation.compared, energies[0], strict=True):
        assert 0 <= noise < 0.01 * signal, names


def test_fewer_bits_lose_more_by_every_metric_that_says_what_is_lost(found: Analysis) -> None:
    for key in ("own_error", "own_share", "propagated_error", "combined_error"):
        eight, four = values(found, key), values(found, key, "w4a8")
        weighted = [layer.name for layer in found.subject.network.layers if layer.weight]
        assert all(four[name] > eight[name] > 0.0 for name in weighted)


def test_combined_ranks_like_the_oracle(found: Analysis) -> None:
    """Not a law; on this network a broken gain or own error would show."""
    oracle = values(analysis.with_oracle(found), "oracle_output_error")
    guess = values(found, "combined_error")
    ranks = [np.argsort(np.argsort(list(each.values()))) for each in (oracle, guess)]
    assert np.corrcoef(*ranks)[0, 1] > 0.6


def test_few_samples_expect_what_all_of_them_lose(found: Analysis) -> None:
    """What a layer changes in a few samples, met by all predictions, ranks as its KL over all."""
    few = values(with_effort(found, effort="default"), "output_expected_mnat")
    whole = values(analysis.with_oracle(found), "oracle_kl_mnat")
    ranks = [np.argsort(np.argsort(list(each.values()))) for each in (few, whole)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8
    # Samples beyond the ranges count less in it than in the mean.
    assert 0.2 * sum(whole.values()) < sum(few.values()) < 1.2 * sum(whole.values())


def test_oracle_predicts_what_all_layers_lose_together(found: Analysis) -> None:
    oracle = values(analysis.with_oracle(found), "oracle_output_error", "w4a8")
    pairs = list(analysis.pairs(found))
    assignment = dict.fromkeys(oracle, "w4a8")
    together, signal = 0.0, 0.0
    for batch, reference in pairs:
        value = found.simulation.run(batch, found.choice.ranges, assignment)[0]
        centred = [each - each.mean(axis=1, keepdims=True) for each in (value, reference)]
        together += float(np.sum(np.square(centred[0] - centred[1])))
        signal += float(np.sum(np.square(centred[1])))
    assert sum(oracle.values()) == pytest.approx(together / signal, rel=0.5)


def test_efforts_cost_what_they_say(found: Analysis) -> None:
    samples = found.subject.data.samples
    assert found.sensitivities.samples_alone == 0
    default, extensive = (with_effort(found, effort=each) for each in ("default", "extensive"))
    assert 0 < default.sensitivities.samples_alone <= alone.MOST_PASSES * samples
    runs = sum(len(layer.candidates) for layer in extensive.sensitivities.layers.values())
    assert extensive.sensitivities.samples_alone == runs * samples
    assert set(values(extensive, "output_error")) == set(values(default, "output_error"))


def test_extensive_and_oracle_are_the_same_measurement(found: Analysis) -> None:
    extensive = with_effort(found, effort="extensive")
    oracle = analysis.with_oracle(with_effort(found, effort="quick"))
    assert values(extensive, "output_kl_mnat") == values(oracle, "oracle_kl_mnat")


def test_samples_beyond_those_whose_outputs_were_kept_count_too(
    found: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLQ_CACHE", "off")
    cut = replace(found.observations, outputs=found.observations.outputs[:1])
    less = analysis.with_oracle(replace(found, observations=cut))
    whole = values(analysis.with_oracle(found), "oracle_output_error")
    assert values(less, "oracle_output_error") == pytest.approx(whole, rel=1e-3)


def test_killed_the_oracle_goes_on(
    found: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "measured.journal"
    alone.try_alone(found.sensitivities, pairs_of(found), *running(found), journal=Journal(file))
    written = file.read_text()
    half = written[: len(written) // 2]  # in the middle of a line, most likely
    file.write_text(half)
    before, calls = len(Journal(file)), []
    each = type(found.simulation).each
    monkeypatch.setattr(
        type(found.simulation), "each", lambda *given: calls.append(1) or each(*given)
    )
    again = alone.try_alone(
        found.sensitivities, pairs_of(found), *running(found), journal=Journal(file)
    )
    lines = [json.loads(line) for line in written.split("\n") if line]
    assert 0 < before < len(lines)
    assert len(calls) == len(lines) - before
    monkeypatch.undo()
    fresh = alone.try_alone(found.sensitivities, pairs_of(found), *running(found))
    assert again == fresh


def test_stopped_by_hand_it_says_whether_it_goes_on(
    found: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_given: object, **_named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(alone, "try_alone", stopped)
    with pytest.raises(KeyboardInterrupt, match="the same command goes on from here"):
        analysis.with_oracle(found)
    monkeypatch.setenv("MLQ_CACHE", "off")
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        analysis.with_oracle(found)


def pairs_of(found: Analysis) -> list[alone.Pair]:
    return list(analysis.pairs(found))


def running(found: Analysis) -> tuple[object, object, object]:
    return found.simulation, found.choice.ranges, found.observations.predictions


def test_gains_multiply_along_a_chain_and_add_over_branches(found: Analysis) -> None:
    """Energies made up so that the noise of each layer is three quarters passed on, one its own."""
    network = found.subject.network
    chain = {}
    for layer in network.layers:
        chain |= {(layer.name, "output"): (100.0, 4.0), (layer.name, "own"): (100.0, 1.0)}
    reach = gains(network, chain)
    last, before = network.layers[-1], network.layers[-2]
    assert reach[last.name] == 1.0
    assert reach[before.name] == pytest.approx(0.75)
    metrics = own_metrics(network, chain, {before.name: (100.0, 1.0)})[before.name]
    assert metrics["own_error"] == 0.01
    assert metrics["own_share"] == 0.25
    assert metrics["propagated_error"] == pytest.approx(0.75 * 1.0 / 100.0)
    assert metrics["combined_error"] == pytest.approx(0.25**0.25 * 0.0075**0.75)


def test_a_residual_passes_what_its_activation_lets_through(found: Analysis) -> None:
    network = found.subject.network
    joined = next(
        layer for layer in network.layers if {"residual"} <= {flow.role for flow in layer.flows}
    )
    main, residual = (
        next(flow.sources[0] for flow in joined.flows if (flow.role == "residual") is side)
        for side in (False, True)
    )
    readers = {name: [b for a, b in network.edges if a == name] for name in (main, residual)}
    assert readers[main] == [joined.name]
    quiet = {
        (layer.name, role): (100.0, 4.0 if role == "output" else 1.0)
        for layer in network.layers
        for role in ("output", "own")
    }
    reach = gains(network, quiet)
    # 4 - 1 are passed on, 0.3 x 4 of it by the residual.
    assert reach[main] == pytest.approx(reach[joined.name] * (3.0 - 1.2) / 4.0)


def test_every_metric_can_be_what_allocation_goes_by(found: Analysis) -> None:
    everything = analysis.with_oracle(with_effort(found, effort="default")).sensitivities
    keys = set(next(iter(everything.layers.values())).candidates["w8a8"])
    for key in keys:
        noise = noise_from_sensitivities(everything, key)
        total = sum(each["w8a8"] for each in noise.values())
        assert total == pytest.approx(everything.kl_mnat)


def test_silent_batches_do_not_break_the_mean(found: Analysis) -> None:
    """A network that loses nothing in some batch still has finite metrics."""
    quiet = [[np.zeros_like(array) for array in batch] for batch, _ in pairs_of(found)[:1]]
    measured = sensitivity.measure(
        quiet,
        found.simulation,
        calibration.ranges_by("minmax", found.observations, scheme="asymmetric"),
        precisions=PRECISIONS,
        supported=dict.fromkeys(found.subject.allowed, PRECISIONS),
    )
    numbers = [
        value
        for layer in measured.layers.values()
        for each in layer.candidates.values()
        for value in each.values()
    ]
    assert np.isfinite(numbers).all()


def test_a_parameter_is_made_of_a_weight_once_while_it_is_in_use() -> None:
    seen: list[Array] = []

    def doubled(weight: Array) -> Array:
        seen.append(weight)
        return 2.0 * weight

    store, made = WeightStore(), Made()
    for key, source in (("one", "w"), ("same", "w"), ("other", "v")):
        store.arranged[key] = Arranged(source, doubled, "doubled")
    w, v, changed = (np.full(3, each, np.float32) for each in (1.0, 2.0, 3.0))
    before = store.parameters({"w": w, "v": v}, made)
    after = store.parameters({"w": w, "v": changed}, made)
    assert [id(each) for each in seen] == [id(w), id(v), id(changed)]
    assert after["one"] is after["same"] is before["one"]
    assert after["other"].tolist() == [6.0, 6.0, 6.0]
    assert len(made) == 2, "a parameter that is not in use is kept"


def test_weights_are_where_their_kernels_look_for_them(
    found: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where elements go is found out when a module is lowered; they go where `pack` puts them."""
    given = found.simulation.simulated_weights(found.subject.base, ":simulated")
    placed = found.simulation._modules["simulated"][1].parameters(given, {})
    monkeypatch.setattr(constants, "_NUMBERED", 0)
    packing = Simulation(found.subject.network, targets.host_target(), chains=0)
    packed = packing._modules["simulated"][1].parameters(given, {})
    assert placed.keys() == packed.keys() > given.keys()
    for key, array in packed.items():
        np.testing.assert_array_equal(placed[key], array)
        assert placed[key].dtype == array.dtype


def test_layers_that_change_in_turn_give_what_a_fresh_start_gives(found: Analysis) -> None:
    """Tables and parameters that are kept from run to run belong to the run at hand."""
    simulation, ranges = found.simulation, found.choice.ranges
    names = [layer.name for layer in found.subject.network.layers]
    batch = next(iter(found.subject.batches()))
    assignments = [
        dict.fromkeys(names, "w8a8"),
        dict.fromkeys(names[1:], "w8a8"),
        {**dict.fromkeys(names, "w8a8"), names[1]: "w4a8"},
        {},
    ]
    in_turn = [simulation.run(batch, ranges, each)[0] for each in (*assignments, *assignments)]
    for assignment, *pair in zip(assignments, in_turn[:4], in_turn[4:], strict=True):
        simulation.release()
        fresh = simulation.run(batch, ranges, assignment)[0]
        for each in pair:
            np.testing.assert_array_equal(each, fresh)
    assert not np.array_equal(in_turn[0], in_turn[1])
    assert not np.array_equal(in_turn[0], in_turn[2])


@pytest.mark.parametrize(("shape", "batch"), [("1, -1", 1), ("0, -1", 8)])
def test_samples_come_one_by_one_where_the_graph_fixes_a_batch(
    tmp_path: Path, shape: str, batch: int
) -> None:
    """As exporters write heads of detectors, and attention, for a batch of one."""
    made = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[1,3,8,8] input) => (float[1,192] output)
        <int64[2] flat = {{{shape}}}> {{
          a = Tanh (input)
          output = Reshape (a, flat)
        }}"""
    )
    path = tmp_path / "model.onnx"
    onnx.save(made, path)
    data = load_data("random:16", load(path).sample_specs, model_path=path)
    given = targets.by_name("x86"), Recipe(), Stages(visible=False)
    assert Subject.of(path, data, *given).batch == batch
