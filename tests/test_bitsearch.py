"""Bits searched on a real network: the verb, what it stands on, and that a kill loses nothing."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from mlq import amed, calibration, columns, compensation, hardware, metrics, targets
from mlq.analysis import Subject
from mlq.bitsearch import clipping, rounding
from mlq.bitsearch.compensating import compensated
from mlq.bitsearch.exploring import Effort, explore, objective_of, read_trace
from mlq.bitsearch.judging import Front, Judge, candidates
from mlq.bitsearch.measuring import Measuring, kept, kl_of
from mlq.bitsearch.preparing import Prepared, prepare
from mlq.bitsearch.proxy import Proxy, alone, noise_alone
from mlq.bitsearch.rounding import multiplied
from mlq.cli import main
from mlq.errors import PlanError, UsageError
from mlq.frontends.data import load_data
from mlq.network import load, tensors
from mlq.plan import Plan
from mlq.precision import Precision
from mlq.progress import Stages
from mlq.recipe import resolve
from mlq.rounding import Rounding, round_weights
from mlq.search import Archive, Point, Space, State

HARDWARE = "eyeriss-12x14-ws"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def prepared(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    model = demo / "digits.onnx"
    specs = load(model, batch=None).sample_specs
    data = load_data(demo / "digits-calib.npz", specs, model_path=model, samples=64)
    recipe = resolve({"precisions": "f32,w8a8"})
    subject = Subject.of(model, data, targets.by_name("x86"), recipe, Stages(visible=False))
    return prepare(subject, (2, 3, 4, 8), tmp_path_factory.mktemp("kept") / "weights.npz")


@pytest.fixture(scope="module")
def space(prepared: Prepared) -> Space:
    return prepared.space(hardware.load(HARDWARE), (2, 3, 4, 8))


@pytest.fixture(scope="module")
def measuring(prepared: Prepared, space: Space) -> Measuring:
    return Measuring(prepared, space, 16)


def arguments(demo: Path, out: Path, *more: str) -> list[str]:
    return [
        "search", str(demo / "digits.onnx"), "--hardware", HARDWARE,
        "--calib", str(demo / "digits-calib.npz"), "--samples", "8", "--chains", "2",
        *more, "-o", str(out),
    ]  # fmt: skip


def test_windows_are_what_weights_multiply(prepared: Prepared) -> None:
    """All windows of a small layer, times its weight, are all of its results."""
    network = prepared.network
    batch = next(iter(prepared.subject.batches()))
    windows = columns.gather(network, [batch], len(batch[0]))
    values = tensors(network, batch)
    compared = 0
    for layer in network.layers:
        if layer.product is None or layer.weight is None or len(layer.flows) > 1:
            continue
        found = windows[layer.name]
        assert found.shape[:2] == (layer.product.groups, layer.product.window)
        if found.shape[2] < layer.product.pixels * len(batch[0]):
            continue
        rows = np.moveaxis(network.weights[layer.weight], layer.weight_axis, 0)
        made = rows.reshape(layer.product.groups, -1, layer.product.window) @ found
        if layer.bias is not None:
            made = made + network.weights[layer.bias].reshape(layer.product.groups, -1, 1)
        # Every result that no activation cut off is among the products.
        wanted = values[layer.name][values[layer.name] > 0].ravel()
        ordered = np.sort(made.ravel())
        near = ordered[np.searchsorted(ordered, wanted).clip(0, len(ordered) - 1)]
        before = ordered[(np.searchsorted(ordered, wanted) - 1).clip(0)]
        gap = np.minimum(np.abs(near - wanted), np.abs(before - wanted))
        assert gap.max() < 1e-4 * np.abs(ordered).max()
        compared += 1
    assert compared > 0


def test_weights_are_not_fitted_to_what_layers_are_tried_on(prepared: Prepared) -> None:
    """The first samples may be anything; the others are what weights are rounded for."""
    subject, ranges = prepared.subject, prepared.choice.ranges
    batches = [[np.array(each) for each in batch] for batch in subject.batches()]
    first = subject.data.samples // 5 // subject.batch
    assert 0 < first * subject.batch < 16
    layer = [each for each in subject.network.layers if each.product is not None][1]

    def rounded(samples: list[list[np.ndarray]]) -> np.ndarray:
        wanted = {layer.name: ["w3a3"]}
        count = subject.data.samples
        made = round_weights(samples, count, prepared.simulation, ranges, wanted)
        return made.weights[layer.weight or "", 3]

    made, last = rounded(batches), len(batches) - 1
    for place, same in [(0, True), (first - 1, True), (last, False)]:
        other = list(batches)
        other[place] = [np.zeros_like(each) for each in batches[place]]
        assert np.array_equal(rounded(other), made) == same


def test_weights_that_were_rounded_otherwise_are_not_taken_up(tmp_path: Path) -> None:
    layer = SimpleNamespace(weight="w", bias="b")
    made = Rounding({("w", 3): np.ones((2, 2), np.float32)}, biases={("b", "w3a3"): np.zeros(2)})
    kept = tmp_path / "weights.npz"
    rounding._write(kept, made)
    again = rounding._read(kept, [layer], ["w3a3"])
    assert again is not None
    np.testing.assert_array_equal(again.weights["w", 3], 1.0)
    assert rounding._read(kept, [layer], ["w2a2"]) is None
    assert rounding._read(kept, [layer], ["w3a3", "w3a2"]) is None
    with np.load(kept) as arrays:
        np.savez(kept, **{name: arrays[name] for name in arrays if name != "method"})
    assert rounding._read(kept, [layer], ["w3a3"]) is None


def test_least_squares_beats_nearest_rounding(prepared: Prepared, space: Space) -> None:
    """At the ranges of each width, on all samples: what the rounding is for."""
    simulation = prepared.simulation
    nearest = simulation.refined(simulation._narrow, {}, {})
    for name in ("w3a3", "w2a2"):
        assignment = {**prepared.base, **space.precisions(space.uniform(name))}
        losses = [
            calibration.divergence(
                prepared.observations,
                prepared.subject.batches(),
                each,
                prepared.choice.ranges,
                assignment,
            )
            for each in (simulation, nearest)
        ]
        assert losses[0] < 0.7 * losses[1]


def test_float_is_float_again_after_narrow_weights(prepared: Prepared, space: Space) -> None:
    """Biases are parameters that all runs of the module share."""
    batch = next(iter(prepared.subject.batches()))
    simulation, ranges = prepared.simulation, prepared.choice.ranges
    before = simulation.run(batch, ranges, {})[0]
    narrow = simulation.run(batch, ranges, space.precisions(space.uniform("w2a2")))[0]
    after = simulation.run(batch, ranges, {})[0]
    np.testing.assert_array_equal(before, after)
    assert metrics.kl_mnat(before, narrow) > 1.0


def test_rounded_weights_are_taken_up_again(prepared: Prepared, tmp_path: Path) -> None:
    kept_at = tmp_path / "weights.npz"
    first = prepare(prepared.subject, (3, 8), kept_at)
    stamp = kept_at.stat().st_mtime_ns
    again = prepare(prepared.subject, (3, 8), kept_at)
    assert kept_at.stat().st_mtime_ns == stamp
    for key, weight in first.simulation._rounded.items():
        np.testing.assert_array_equal(weight, again.simulation._rounded[key])
    prepare(prepared.subject, (2, 8), kept_at)
    assert kept_at.stat().st_mtime_ns != stamp


def test_ends_keep_eight_bits_and_the_rest_chooses(space: Space) -> None:
    assert space.names[0] == space.names[-1] == ("w8a8",)
    assert set(space.names[1:-1]) == {("w8a8", "w4a4", "w3a3", "w2a2")}


def test_more_bits_lose_less(measuring: Measuring, space: Space) -> None:
    names = ("w8a8", "w4a4", "w3a3", "w2a2")
    noises = [measuring.noise(space.precisions(space.uniform(name))) for name in names]
    assert noises == sorted(noises)
    shares = measuring([space.uniform(name) for name in names])
    assert shares == sorted(shares, reverse=True)
    assert measuring.samples == 16
    assert measuring.unit > 0.0
    assert kl_of(kept(123.0)) == pytest.approx(123.0)


def test_proxy_is_additive_until_it_has_seen_more(measuring: Measuring, space: Space) -> None:
    archive = Archive(space, measuring)
    noise = noise_alone(space, archive)
    assert len(archive) == len(alone(space)) == 1 + sum(size - 1 for size in space.sizes)
    proxy = Proxy(space, noise)
    point = space.uniform("w3a3")
    total = sum(noise[name]["w3a3"] for each in space.decisions[1:-1] for name in each.layers)
    ends = sum(noise[each.layers[0]]["w8a8"] for each in (space.decisions[0], space.decisions[-1]))
    assert kl_of(proxy([])([point])[0]) == pytest.approx(total + ends, rel=1e-6)


def test_weights_and_activations_are_tried_one_at_a_time(prepared: Prepared) -> None:
    """What both of a pair lose is added up; it would take a measurement for each pair to know."""
    space = prepared.space(hardware.load(HARDWARE), (2, 4, 8), (3, 8))
    lost = {8: 0.0, 4: 1.0, 3: 10.0, 2: 100.0}

    def evaluate(points: Sequence[Point]) -> list[float]:
        pairs = [map(Precision.parse, space.precisions(point).values()) for point in points]
        return [
            kept(sum(lost[each.weight_bits] + 7.0 * lost[each.activation_bits] for each in pair))
            for pair in pairs
        ]

    archive = Archive(space, evaluate)
    noise = noise_alone(space, archive)
    assert len(archive) == len(alone(space)) == 1 + 3 * (len(space.sizes) - 2)
    name = space.decisions[1].layers[0]
    added = {each: loss - noise[name]["w8a8"] for each, loss in noise[name].items()}
    assert added == pytest.approx(
        {"w8a8": 0.0, "w8a3": 70.0, "w4a8": 1.0, "w4a3": 71.0, "w2a8": 100.0, "w2a3": 170.0}
    )


def test_biases_make_up_for_what_activations_shift(prepared: Prepared, tmp_path: Path) -> None:
    """A weight serves several widths of activations, each with a bias of its own."""
    made = prepare(prepared.subject, (4, 8), tmp_path / "weights.npz", (3, 8))
    simulation = made.simulation
    layer = next(each for each in multiplied(made.network)[1:-1] if each.bias is not None)
    weights = [simulation.stored_weight(layer, name) for name in ("w4a8", "w4a3")]
    np.testing.assert_array_equal(*weights)
    own = made.network.weights[layer.bias or ""]
    moved = {
        name: simulation.stored_bias(layer, name) - own for name in ("w8a8", "w8a3", "w4a8", "w4a3")
    }
    assert not moved["w8a8"].any()
    assert moved["w8a3"].any()
    assert np.abs(moved["w4a3"] - moved["w4a8"]).max() > 0.0


def test_proxy_learns_what_addition_leaves_out(measuring: Measuring, space: Space) -> None:
    """Fitted to visits drawn at random, it predicts other such visits better than addition."""
    archive = Archive(space, measuring)
    noise = noise_alone(space, archive)
    random = np.random.default_rng(0)
    points = [tuple(int(i) for i in random.integers(space.sizes)) for _ in range(100)]
    archive.measure(points[:70])
    others = list(dict.fromkeys(points[70:]))
    found = np.log([kl_of(each) for each in measuring(others)])
    plain, fitted = Proxy(space, noise)([]), Proxy(space, noise)(archive.visits)
    errors = [
        np.mean(np.square(np.log([kl_of(share) for share in guess(others)]) - found))
        for guess in (plain, fitted)
    ]
    assert errors[1] < errors[0]
    again = Proxy(space, noise)(archive.visits)
    assert again(others) == fitted(others)


def test_chains_seek_what_the_user_asked_for_and_around() -> None:
    rungs = Effort(max_drop=0.02, chains=3).settings.rungs
    assert [rung.threshold for rung in rungs] == [
        pytest.approx(kept(4000.0 * drop)) for drop in (0.005, 0.02, 0.08)
    ]
    assert len(Effort(max_drop=0.02, chains=1).settings.rungs) == 1


def test_the_verb_writes_what_it_found(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ("--eval", str(demo / "digits-eval.npz"), "--iterations", "40", "--max-drop", "0.05")
    done = CliRunner().invoke(main, arguments(demo, out, *more), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    front = Front.from_json(out / "front.json")
    assert front.met
    assert [each.us for each in front.points] == sorted(each.us for each in front.points)
    taken = front.points[front.chosen]
    plan = Plan.from_json(out / "plan.json")
    assert {name: plan.precision(name) for name in taken.precisions} == taken.precisions
    assert "No `model.vmfb`: target x86 does not compute in" in (out / "report.md").read_text()
    assert {"front.svg", "bits.svg", "chains.svg"} <= {path.name for path in out.iterdir()}
    assert not (tmp_path / ".out.searching").exists()
    # Made longer, it goes on from what it has.
    longer = arguments(demo, out, *more[:2], "--iterations", "60", "--max-drop", "0.05")
    assert CliRunner().invoke(main, longer, catch_exceptions=False).exit_code == 0
    assert State.from_json(out / "search.json").step == 60


def test_chains_begin_within_the_size(measuring: Measuring, space: Space, tmp_path: Path) -> None:
    """Whatever was visited to learn of layers, the search itself keeps to the wall."""
    least = space.bytes(tuple(size - 1 for size in space.sizes))
    limit = 1.5 * least
    objective = objective_of(space, 0.05, limit)
    effort = Effort(max_drop=0.05, steps=10, chains=2)
    found = explore(
        space, measuring, objective, effort, folder=tmp_path, stages=Stages(visible=False)
    )
    places = [chain.place.point for chain in found.state.chains]
    assert all(space.bytes(point) <= limit for point in places)
    assert any(visit.bytes > limit for visit in found.archive.visits)
    assert all(visit.bytes <= limit for visit in candidates(found.archive, objective, 8))


def test_eight_bits_everywhere_are_compiled(demo: Path, tmp_path: Path) -> None:
    found = amed.search(
        demo / "digits.onnx",
        HARDWARE,
        str(demo / "digits-calib.npz"),
        tmp_path / "out",
        bits=(8,),
        iterations=1,
        chains=1,
    )
    assert "model.vmfb" in found.files
    assert len(found.front.points) == 1


def test_killed_it_goes_on_to_the_same_end(demo: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    more = ("--iterations", "150", "--max-drop", "0.05")
    assert CliRunner().invoke(main, arguments(demo, whole, *more)).exit_code in {0, 1}
    command = [str(Path(sys.executable).with_name("mlq")), *arguments(demo, cut, *more)]
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    state = tmp_path / ".cut.searching" / "search.json"
    give_up = time.monotonic() + 300
    while time.monotonic() < give_up and running.poll() is None:
        if state.exists() and json.loads(state.read_text())["step"] >= 20:
            break
        time.sleep(0.02)
    assert running.poll() is None, "the search ended before it could be killed"
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not cut.exists()
    assert CliRunner().invoke(main, arguments(demo, cut, *more)).exit_code in {0, 1}
    for name in ("search.json", "visits.jsonl", "plan.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name
    assert len(read_trace(cut)) >= 149


def test_a_search_of_something_else_is_not_taken_up(demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / ".out.searching"
    folder.mkdir()
    (folder / "subject.json").write_text('{"hardware": "another"}')
    with pytest.raises(
        PlanError, match=r"another activation bits, bits, calibration data, hardware, network"
    ):
        amed.search(
            demo / "digits.onnx", HARDWARE, str(demo / "digits-calib.npz"), tmp_path / "out"
        )


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--bits", "2,x", "bits are whole numbers"),
        ("--bits", "1,8", "w1a1"),
        ("--hardware", "eyeriss-12x14", "did you mean eyeriss-12x14-ws"),
        ("--chains", "0", "chains"),
        ("--max-drop", "0", "max_drop"),
        ("--max-size", "10", "no allocation fits"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    demo: Path, tmp_path: Path, option: str, value: str, said: str
) -> None:
    given = arguments(demo, tmp_path / "out", option, value, "--iterations", "1")
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_options_are_checked_in_python_too() -> None:
    with pytest.raises(UsageError, match="iterations"):
        amed.Wish.of({"iterations": 0})


def test_stopped_by_hand_it_says_how_to_go_on(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_given: object, **_named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(amed, "search", stopped)
    done = CliRunner().invoke(main, arguments(demo, tmp_path / "out"))
    assert done.exit_code == 130
    assert "the same command goes on" in done.stderr


def test_ranges_of_few_bits_are_those_with_which_logits_lose_least(prepared: Prepared) -> None:
    """By the samples that chose them; each is so many steps from the calibrator's."""
    subject, simulation, ranges = prepared.subject, prepared.simulation, prepared.choice.ranges
    observed = prepared.observations
    narrow = {
        bits: calibration.ranges_by("mse", observed, scheme="asymmetric", precision=f"w8a{bits}")
        for bits in (2, 3)
    }
    plain = simulation.refined({}, {}, {})
    found = clipping.fit_ranges(subject, plain, ranges, narrow)
    layers = multiplied(prepared.network)
    read = {layer.flows[0].tensor for layer in layers[1:-1]}
    moved = 0
    for bits, chosen in found.items():
        for name, tensor in chosen.tensors.items():
            before = narrow[bits].tensors[name]
            factor = (tensor.high - tensor.low) / (before.high - before.low)
            steps = math.log2(factor) * 4
            assert steps == pytest.approx(round(steps), abs=1e-3)
            assert name in read or factor == 1.0
            moved += factor != 1.0
    assert moved
    wide = {layer.name: "w8a8" for layer in prepared.network.layers}
    batches = [[np.array(each) for each in batch] for batch in subject.batches()]
    for bits in narrow:
        taken = {**wide, **{layer.name: f"w8a{bits}" for layer in layers[1:-1]}}
        lost = []
        for each in (narrow, found):
            clipped = plain.clipped(each)
            outputs = [clipped.run(batch, ranges, taken)[0] for batch in batches]
            lost.append(metrics.kl_mnat(np.concatenate(observed.outputs), np.concatenate(outputs)))
        assert lost[1] < lost[0]


@pytest.mark.parametrize("best", [0.4, 0.9, 1.0, 1.3, 2.5])
def test_a_range_is_widened_or_narrowed_while_less_is_lost(best: float) -> None:
    tried: list[float] = []

    def loss(factor: float) -> float:
        tried.append(factor)
        return abs(math.log2(factor / best))

    found = clipping._best_factor(loss)
    assert abs(math.log2(found / best)) <= 0.125 + 1e-9
    assert len(tried) <= 2 * clipping._MOST + 1
    assert clipping._best_factor(lambda _factor: 1.0) == 1.0


def test_compensation_finds_what_an_input_lost() -> None:
    """Of a channel that is read at half of its size, twice the weight makes up; noise adds none."""
    random = np.random.default_rng(0)
    exact = random.standard_normal((2, 3, 4000)).astype(np.float32)
    rows = random.standard_normal((2, 5, 3)).astype(np.float32)
    read = exact.copy()
    read[:, 1] = 0.5 * exact[:, 1] + 7.0  # a constant is the bias's to make up for
    wanted = rows.copy()
    wanted[..., 1] *= 2.0
    np.testing.assert_allclose(
        compensation.ridge_regressed(rows, exact, read), wanted, rtol=0.02, atol=0.02
    )
    np.testing.assert_array_equal(compensation.ridge_regressed(rows, exact, exact), rows)
    few, others = exact[..., :40], random.standard_normal((2, 3, 40)).astype(np.float32)
    moved = compensation.ridge_regressed(rows, few, few + 0.01 * others)
    assert np.abs(moved - rows).max() < 0.05
    made = rows @ exact
    scaled = made * np.linspace(0.5, 2.0, 10, dtype=np.float32).reshape(2, 5, 1) - 1.0
    gains = compensation.gains(made, scaled)
    np.testing.assert_allclose(gains, 1.0 / np.linspace(0.5, 2.0, 10).reshape(2, 5), rtol=1e-4)


@pytest.mark.parametrize("name", ["w8a2", "w3a3"])
def test_compensated_allocations_lose_less_on_other_samples(
    prepared: Prepared, demo: Path, tmp_path: Path, name: str
) -> None:
    widths = Precision.parse(name)
    bits, activation_bits = (widths.weight_bits, 8), (widths.activation_bits, 8)
    made = prepare(prepared.subject, bits, tmp_path / "weights.npz", activation_bits)
    space = made.space(hardware.load(HARDWARE), bits, activation_bits)
    specs = made.network.sample_specs
    judge = Judge(made, load_data(demo / "digits-eval.npz", specs, model_path=demo / "digits.onnx"))
    archive = Archive(space, lambda points: [1.0] * len(points))
    before = judge.judge(archive, archive.measure([space.uniform(name)])[0])
    better = compensated(made, before.precisions)
    after = judge.again(before, better, "compensated")
    assert after.improved == "compensated"
    assert after.judged_kl_mnat < 0.9 * before.judged_kl_mnat
    wide = space.precisions(space.uniform("w8a8"))
    assert compensated(made, wide) is made
    for layer in multiplied(made.network):
        stored = better.simulation.stored_weight(layer, before.precisions[layer.name])
        params = better.simulation.weight_params(layer, Precision.parse("w8a8"))
        rows = np.moveaxis(stored, layer.weight_axis, 0).reshape(len(params.scale), -1)
        most = (1 << Precision.parse(before.precisions[layer.name]).weight_bits - 1) - 1
        assert max(len(np.unique(np.abs(row))) for row in rows) <= most + 1


def test_what_compensates_does_not_depend_on_samples_that_allocations_are_measured_on(
    prepared: Prepared, space: Space
) -> None:
    subject = prepared.subject
    first = subject.data.samples // 5 // subject.batch
    batches = [[np.array(each) for each in batch] for batch in subject.batches()]
    precisions = space.precisions(space.uniform("w3a3"))
    found = []
    for place in (None, first - 1, first):
        seen = list(batches)
        if place is not None:
            seen[place] = [np.zeros_like(each) for each in seen[place]]
        other = SimpleNamespace(**{**vars(subject), "batches": lambda seen=seen: iter(seen)})
        made = compensated(replace(prepared, subject=other), precisions)
        layer = multiplied(prepared.network)[1]
        found.append(made.simulation.stored_bias(layer, "w3a3"))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[2] - found[0]).max() > 0.0
