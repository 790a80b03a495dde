"""What layers cost: timed in the networks they are layers of, and reckoned with."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import mlq
from mlq import planning, profiling, timing, variant
from mlq.analysis import Analysis
from mlq.costs import MeasuredCosts, TableCosts
from mlq.errors import TargetError
from mlq.network import Transformed
from mlq.progress import Stages
from mlq.recipe import resolve
from mlq.targets import by_name, host_target, iree
from mlq.targets.base import Target
from mlq.transforms.pipelines import joining

PRECISIONS = "f32,w8a8,w4a8"


def measured(analysed: Analysis, target: Target | None = None, **options: Any) -> timing.Costs:
    """The costs of the small network's layers."""
    subject = analysed.subject
    recipe = resolve({"precisions": PRECISIONS, **options})
    ranges = analysed.choice.ranges
    stages, target = Stages(visible=False), target or subject.target
    return timing.Timing(subject.network, target, recipe, ranges, stages).costs(subject.data)


@pytest.fixture(scope="module")
def costs(analysed: Analysis) -> timing.Costs:
    return measured(analysed)


def test_every_layer_has_a_time_at_each_of_its_precisions(
    analysed: Analysis, costs: timing.Costs
) -> None:
    assert isinstance(costs, MeasuredCosts)
    assert "timed at each precision on this CPU" in costs.source
    for layer in analysed.subject.network.layers:
        for precision in ("f32", *analysed.subject.allowed[layer.name]):
            assert costs.layer_us(layer, precision) > 0.0


def test_a_layer_of_more_work_takes_longer(analysed: Analysis, costs: timing.Costs) -> None:
    layers = sorted(analysed.subject.network.layers, key=lambda layer: layer.macs)
    most = costs.layer_us(layers[-1], "f32")
    assert all(costs.layer_us(layer, "f32") < most for layer in layers[: len(layers) // 2])


def test_a_time_is_taken_once(
    analysed: Analysis, costs: timing.Costs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the same command makes the same plan again."""

    def compiled(_made: Transformed, _target: Target) -> bytes:
        raise AssertionError("compiled again")

    monkeypatch.setattr(variant, "compiled", compiled)
    assert measured(analysed) == costs


def test_plans_reckon_with_what_was_measured(analysed: Analysis, costs: timing.Costs) -> None:
    subject = analysed.subject
    planner = planning.Planner.of(
        subject.network,
        subject.target,
        resolve({"precisions": PRECISIONS}),
        analysed.sensitivities,
        costs,
    )
    for choice, layer in zip(planner.problem.layers, subject.network.layers, strict=True):
        for precision, option in choice.options.items():
            assert option.us == costs.layer_us(layer, precision)
    elements = 1000
    table = TableCosts(subject.target)
    assert costs.cast_us(elements, "w8a8") > table.cast_us(elements, "w8a8")


def test_the_table_serves_where_nothing_can_be_timed(analysed: Analysis) -> None:
    assert measured(analysed, costs="table") == TableCosts(host_target())
    cortex = by_name("cortex-m:m4")
    assert measured(analysed, cortex) == TableCosts(cortex)


def test_programs_take_turns_and_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else the machine does for a second meets all programs, and none for good."""
    monkeypatch.setenv("MLQ_CACHE", "off")
    order, took = list[int](), iter([9.0, 7.0, 2.0, 8.0, 3.0, 6.0])

    def once(_folder: Path, module: int, _inputs: int, _calls: int) -> dict[str, float]:
        order.append(module)
        return {"kernel": next(took)}

    monkeypatch.setattr(profiling, "_once", once)
    profile = profiling.Profile()
    for text in ("one", "other"):
        profile.add(text, lambda: b"")
    assert profile.times([], macs=1) == [{"kernel": 2.0}, {"kernel": 6.0}]
    assert order == [0, 1, 0, 1, 0, 1]


def test_a_profiler_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLQ_CACHE", "off")
    profile = profiling.Profile()
    profile.add("", lambda: b"no module")
    with pytest.raises(TargetError, match="iree-benchmark-module cannot time the module: "):
        profile.times([], macs=1)


def test_a_file_is_measured_by_itself(demo: Path) -> None:
    found = timing.measure_model(demo / "digits.onnx", resolve({}))
    assert {name for each in found.layers for name in each.us} == {"f32", "w8a8", "w10a12"}
    assert all(us > 0.0 for each in found.layers for us in each.us.values())
    with pytest.raises(TargetError, match="target cuda:sm_80 cannot be timed: "):
        timing.measure_model(demo / "digits.onnx", resolve({"target": "cuda:sm_80"}))


def test_what_is_no_layer_is_not_reckoned_to_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IREE fuses a float addition with the norm behind it, and that is there in any precision."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    made (float[1,4,16] x) => (float[1,4,16] y) {
        a = LayerNormalization (x, g)
        c = Add (a, x)
        n = LayerNormalization (c, g)
        y = MatMul (n, w) }"""
    model, random = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in (("w", (16, 16)), ("g", (16,))):
        array = random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, tmp_path / "n.onnx")
    by_iree = [{"main$async_dispatch_0_reduction": us} for us in (9.0, 7.5)]
    monkeypatch.setattr(profiling.Profile, "times", lambda *_given, **_options: by_iree)
    recipe = resolve({"precisions": "f32,w8a8"})
    found = timing.measure_model(tmp_path / "n.onnx", recipe)
    assert {each.name: each.us["f32"] for each in found.layers} == {"c": 1.5, "y": 0.0}


def test_nothing_is_compiled_twice(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation's two programs; float and int8, timed and used; mixed, and its check."""
    monkeypatch.setenv("MLQ_CACHE", "off")
    programs = list[bytes]()
    attempt = iree.attempt

    def counted(here: Path, flags: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        programs.append((here / iree.SOURCE).read_bytes())
        return attempt(here, flags)

    monkeypatch.setattr(iree, "attempt", counted)
    samples = demo / "digits-calib.npz"
    made = mlq.quantize(demo / "digits.onnx", samples, precisions="f32,w8a8", samples=40)
    assert len(programs) >= 6 + 2 * bool(joining(host_target().features))
    # Where no layer is worth a float, mixed is int8, and is made again to be checked.
    kept = {layer.precision for layer in made.report.layers} - {"w8a8"}
    assert len(programs) - len(set(programs)) == (not kept)
    assert made.report.device_check.max_abs_diff_lsb == 0
