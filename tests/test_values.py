"""The values that travel between stages: the same bytes every time, and one line when wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mlq.errors import PlanError
from mlq.plan import LayerPlan, Plan
from mlq.ranges import Histogram, Ranges, TensorRange
from mlq.sensitivities import LayerSensitivity, Sensitivities, noise_from_sensitivities

HISTOGRAM = Histogram(low=-1.0, high=3.0, counts=(1, 2, 0, 4))
RANGE = TensorRange(
    minimum=-0.1, maximum=2.9, low=0.0, high=2.5, calibrator="mse", histogram=HISTOGRAM
)
RANGES = Ranges(calibrator="mse", samples=64, tensors={"input": RANGE, "conv1": RANGE})
PLAN = Plan(
    target="x86",
    ir_level="fused",
    scheme="asymmetric",
    granularity="per_axis",
    layers={
        "conv2": LayerPlan(precision="w8a8", reason="w8a8: predicted 0.3 mn"),
        "conv1": LayerPlan(precision="f32"),
    },
)
SENSITIVITIES = Sensitivities(
    samples=8,
    metric="noise_share",
    kl_mnat=10.0,
    layers={
        "conv1": LayerSensitivity(
            op="conv2d",
            macs=100,
            params=9,
            candidates={
                "w8a8": {"noise_share": 3.0, "activation_sqnr_db": 20.0},
                "w4a8": {"noise_share": 30.0, "activation_sqnr_db": 10.0},
            },
        ),
        "pool": LayerSensitivity(
            op="avg_pool2d",
            macs=10,
            params=0,
            candidates={"w8a8": {"noise_share": 1.0, "activation_sqnr_db": 30.0}},
        ),
    },
)


@pytest.mark.parametrize("value", [RANGES, PLAN, SENSITIVITIES])
def test_json_both_ways(value: Ranges | Plan | Sensitivities, tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_text(value.to_json(), encoding="utf-8")
    again = type(value).from_json(path)
    assert again == value
    assert again.to_json() == value.to_json()
    assert json.loads(value.to_json())["schema_version"] == 1


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(min_size=1, max_size=5))
def test_floats_and_names_survive_exactly(low: float, name: str) -> None:
    each = TensorRange(
        minimum=low, maximum=low, low=low, high=low, calibrator=name, histogram=HISTOGRAM
    )
    ranges = Ranges(calibrator="auto", samples=1, tensors={name: each})
    assert Ranges.model_validate(json.loads(ranges.to_json())) == ranges


def test_equal_values_are_equal_bytes() -> None:
    turned = Plan.model_validate(
        {**PLAN.model_dump(), "layers": dict(reversed(PLAN.layers.items()))}
    )
    assert turned.to_json() == PLAN.to_json()


def test_json_is_laid_out_for_people() -> None:
    assert PLAN.to_json().splitlines()[:7] == [
        "{",
        '  "granularity": "per_axis",',
        '  "ir_level": "fused",',
        '  "layers": {',
        '    "conv1": {',
        '      "precision": "f32",',
        '      "reason": ""',
    ]
    assert '        "counts": [1, 2, 0, 4],' in RANGES.to_json().splitlines()


def test_values_are_frozen() -> None:
    with pytest.raises(ValidationError):
        PLAN.target = "arm"  # type: ignore[misc]  # on purpose


BAD = [
    ("{", "line 1, column 2: not JSON"),
    ("[]", "the file: "),
    ('{"samples": 1}', "calibrator: Field required"),
    ('{"calibrator": "a", "calibrator": "b"}', "the key 'calibrator' stands twice"),
    (RANGES.to_json().replace('"low": 0.0', '"low": NaN'), "low: "),
    (RANGES.to_json().replace('"low": 0.0', '"low": 7.5'), "low 7.5 is above high 2.5"),
    (RANGES.to_json().replace('"low": -1.0', '"low": 3.0'), "must be below high 3.0"),
    (RANGES.to_json().replace('"samples": 64', '"samples": "x"'), "samples: "),
    (RANGES.to_json().replace('"samples"', '"sample"'), "samples: Field required (and 1 more)"),
    (RANGES.to_json().replace('version": 1', 'version": 2'), "schema_version: Input should be 1"),
    (RANGES.to_json().replace("[1, 2, 0, 4]", "[1, -2]"), "tensors.conv1.histogram.counts.1: "),
    (RANGES.to_json().replace("[1, 2, 0, 4]", "[]"), "histogram.counts: "),
    ("[" * 100_000, "not JSON"),
]


@pytest.mark.parametrize(("text", "complaint"), BAD)
def test_a_bad_file_gives_one_line(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PlanError) as caught:
        Ranges.from_json(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert complaint in message
    assert message.endswith("have mlq write the ranges file again")
    assert "\n" not in message


def test_an_unreadable_file_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"gone\.json: cannot be read: No such file"):
        Plan.from_json(tmp_path / "gone.json")
    (tmp_path / "image.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match=r"image\.json: cannot be read: not UTF-8 text"):
        Plan.from_json(tmp_path / "image.json")


def test_a_layer_the_plan_does_not_name_is_float() -> None:
    assert PLAN.precision("conv2") == "w8a8"
    assert PLAN.precision("other") == "f32"


def test_check_finds_what_does_not_fit() -> None:
    fits = {"conv1": {"f32"}, "conv2": {"f32", "w8a8"}, "more": {"f32"}}
    PLAN.check(fits)
    with pytest.raises(PlanError) as caught:
        PLAN.check({"conv1": {"f32"}, "conv2_": {"f32", "w8a8"}}, source="out/plan.json")
    assert str(caught.value) == (
        "out/plan.json: conv2: the network has no such layer; did you mean 'conv2_'?"
        " correct the name or delete the entry"
    )
    with pytest.raises(PlanError) as caught:
        PLAN.check({"conv1": {"f32"}, "conv2": {"f32", "w8a16"}})
    assert str(caught.value) == (
        "plan.json: conv2: cannot be w8a8; did you mean 'w8a16'? choose one of f32, w8a16"
    )


def test_noise_is_shared_out_over_the_layers() -> None:
    assert noise_from_sensitivities(SENSITIVITIES) == {
        "conv1": {"f32": 0.0, "w8a8": 7.5, "w4a8": 75.0},
        "pool": {"f32": 0.0, "w8a8": 2.5},
    }


def test_decibels_become_noise_to_signal() -> None:
    noise = noise_from_sensitivities(SENSITIVITIES, "activation_sqnr_db")
    assert noise["conv1"]["w8a8"] == pytest.approx(10.0 * 10.0 / 11.0)
    assert noise["pool"]["w8a8"] == pytest.approx(10.0 * 1.0 / 11.0)
    assert noise["conv1"]["w4a8"] == pytest.approx(10.0 * 100.0 / 11.0)


def test_sqnr_delta_counts_what_the_layer_adds() -> None:
    """From 30 dB to 20 dB (0.009 added) against from 30 dB to 30 dB (nothing added)."""

    def layer(sqnr: float, delta: float) -> LayerSensitivity:
        metrics = {"activation_sqnr_db": sqnr, "activation_sqnr_delta_db": delta}
        return LayerSensitivity(op="conv2d", macs=1, params=1, candidates={"w8a8": metrics})

    layers = {"a": layer(20.0, -10.0), "b": layer(30.0, 0.0), "c": layer(20.0, -20.0)}
    sensitivities = SENSITIVITIES.model_copy(update={"layers": layers})
    noise = noise_from_sensitivities(sensitivities, "activation_sqnr_delta_db")
    assert noise["b"]["w8a8"] == 0.0
    assert noise["a"]["w8a8"] == pytest.approx(10.0 * 0.0090 / (0.0090 + 0.0099))


def test_a_missing_metric_names_layer_and_choices() -> None:
    with pytest.raises(PlanError) as caught:
        noise_from_sensitivities(SENSITIVITIES, "fisher")
    assert str(caught.value) == (
        "sensitivities: conv1: w8a8: has no metric 'fisher';"
        " choose one of activation_sqnr_db, noise_share"
    )


def test_a_network_that_loses_nothing_has_no_noise() -> None:
    quiet = SENSITIVITIES.model_copy(update={"layers": {}})
    assert noise_from_sensitivities(quiet) == {}
