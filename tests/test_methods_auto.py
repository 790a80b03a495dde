"""`--methods auto`: what helps is taken, what does not is left, and the report tells."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from test_methods import GRAPH, SHAPES

from mlq import calibration, methods, partial, targets
from mlq.analysis import Subject
from mlq.compiler import Result, quantize
from mlq.errors import DiagnosticError, UsageError
from mlq.frontends.data import load_data
from mlq.methods import Losses, Methods, better, prepare
from mlq.network import load
from mlq.progress import Stages
from mlq.recipe import resolve
from mlq.report import Report
from mlq.rounding import FILE

OPTIONS = {"calibrator": "minmax", "effort": "quick", "precisions": "f32,w8a8", "costs": "table"}
BOTH: Methods = ("equalize", "bias-correction")


def model(folder: Path, *, spread: float) -> Path:
    """The network of test_methods; how much its channels differ in size."""
    random, made = np.random.default_rng(1), onnx.parser.parse_model(GRAPH)
    for name, shape in SHAPES.items():
        sizes = np.exp(random.normal(0.0, spread, (shape[0], *[1] * (len(shape) - 1))))
        arrays = {f"w{name}": random.normal(0.0, 0.5, shape) * sizes}
        arrays[f"b{name}"] = random.normal(0.0, 0.1, shape[0])
        made.graph.initializer.extend(
            numpy_helper.from_array(array.astype(np.float32), key) for key, array in arrays.items()
        )
    onnx.save(made, folder / "model.onnx")
    return folder / "model.onnx"


def samples(first: float = 1.0, then: float = 1.0) -> NDArray[np.float32]:
    """Samples of which the first half is so large, and the other so."""
    found = np.random.default_rng(2).normal(size=(64, 3, 8, 8))
    return (found * np.repeat([first, then], 32)[:, None, None, None]).astype(np.float32)


def subject(path: Path, data: NDArray[np.float32], **options: Any) -> Subject:
    recipe = resolve({**OPTIONS, "methods": "auto", **options})
    calib = load_data({"input": data}, load(path).sample_specs, model_path=path)
    return Subject.of(path, calib, targets.by_name("x86"), recipe, Stages(visible=False))


def test_a_method_that_helps_is_taken(tmp_path: Path) -> None:
    path = model(tmp_path, spread=1.5)
    found = prepare(subject(path, samples()))
    tried = found.methods.tried
    assert set(tried) == {"none", "bias-correction", "equalize", "equalize,bias-correction"}
    assert "equalize" in found.methods.taken
    assert found.rounding.equalized
    assert tried[found.methods.taken] < 0.2 * tried["none"]
    asked = prepare(subject(path, samples(), methods=found.methods.taken))
    assert asked.methods.tried == {}
    assert found.rounding.files() == asked.rounding.files()
    assert found.choice.ranges == asked.choice.ranges
    # What quantized networks are compared with is what the network computed that was given.
    plain = prepare(subject(path, samples(), methods="none"))
    for each in (found, asked):
        np.testing.assert_allclose(
            np.concatenate(each.observations.reference),
            np.concatenate(plain.observations.outputs),
            rtol=1e-5,
        )


def test_a_method_that_harms_is_left(tmp_path: Path) -> None:
    """Fitted to small inputs, channels grow into a clip that large ones meet."""
    found = prepare(subject(model(tmp_path, spread=0.0), samples(0.05, 2.0)))
    tried = found.methods.tried
    assert tried["equalize"] > 10.0 * tried["none"]
    assert found.methods.taken == "none"
    assert found.rounding.files() == {}
    assert found.observations.given is None


def test_what_is_tried_is_counted(tmp_path: Path) -> None:
    path = model(tmp_path, spread=1.5)
    found = prepare(subject(path, samples())).methods
    # Half of 64 samples for each of four sets, and those that equalization and two fits looked at.
    assert found.probed_samples == 4 * 32
    assert found.float_passes == 2.0
    fits = 32 + 2 * (32 - 6) + (64 - 12) * ("bias-correction" in found.taken)
    assert found.numpy_samples == fits
    plain = prepare(subject(path, samples(), methods="none")).methods
    assert (plain.probed_samples, plain.float_passes, plain.numpy_samples) == (0, 1.0, 0)
    asked = prepare(subject(path, samples(), methods="equalize,bias-correction")).methods
    assert (asked.probed_samples, asked.float_passes, asked.numpy_samples) == (0, 2.0, 32 + 52)


def test_what_numpy_cannot_compute_leaves_the_methods_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        op = SimpleNamespace(location="here", operation=SimpleNamespace(name="odd"))
        raise DiagnosticError(op, "cannot be computed")

    monkeypatch.setattr(methods, "tensors", refuse)
    found = prepare(subject(model(tmp_path, spread=1.5), samples())).methods
    assert found.tried == {}
    assert found.taken.startswith("none (numpy cannot compute the network: here: 'odd'")


def test_few_samples_say_nothing(tmp_path: Path) -> None:
    found = prepare(subject(model(tmp_path, spread=1.5), samples()[:1])).methods
    assert found.tried == {}
    assert found.taken == "none (there are too few samples to judge methods by)"


def lost(**by_name: NDArray[np.float64]) -> dict[Methods, Losses]:
    """Losses [N, 2] by set, in KL."""
    names: dict[str, Methods] = {"none": (), "corrected": ("bias-correction",), "both": BOTH}
    return {names[key]: np.stack([each, each], axis=1) for key, each in by_name.items()}


def test_a_gain_that_may_be_chance_is_none() -> None:
    random = np.random.default_rng(0)
    plain = random.gamma(2.0, 1.0, 64)
    taken = [
        better(lost(none=plain, corrected=plain + random.normal(0.0, 1.0, 64), both=plain))
        for _ in range(200)
    ]
    assert taken.count(()) > 185
    assert better(lost(none=plain, corrected=0.9 * plain, both=plain)) == ("bias-correction",)
    assert better(lost(none=plain, corrected=0.9 * plain, both=0.8 * plain)) == BOTH
    # Equal is not better, and of equals the shorter set is taken.
    assert better(lost(none=plain, corrected=plain)) == ()
    assert better(lost(none=plain, both=0.9 * plain, corrected=0.9 * plain)) == ("bias-correction",)
    assert better(lost(none=plain, corrected=np.full(64, np.inf))) == ()
    assert better(lost(none=plain[:1], corrected=0.1 * plain[:1])) == ()


def test_a_lone_output_is_judged_by_its_energy() -> None:
    energies = np.random.default_rng(0).gamma(2.0, 1.0, 64)
    by_set = {(): energies, BOTH: 0.5 * energies}
    assert better({k: np.stack([0.0 * v, v], axis=1) for k, v in by_set.items()}) == BOTH


def test_sets_to_choose_from() -> None:
    assert resolve({"methods": "auto"}).method_sets == (
        (),
        ("bias-correction",),
        ("equalize",),
        BOTH,
    )
    assert resolve({"methods": "auto", "granularity": "per_tensor"}).method_sets == (
        (),
        ("equalize",),
    )
    # Least squares corrects biases by itself.
    narrow = resolve({"methods": "auto", "precisions": "f32,w4a8"})
    assert narrow.method_sets == ((), ("equalize",))
    assert resolve({"methods": "bias-correction, equalize"}).method_sets == (BOTH,)
    with pytest.raises(UsageError, match="list nothing beside it"):
        resolve({"methods": "auto,equalize"})


@pytest.fixture(scope="module")
def chosen(demo: Path) -> Result:
    return automatic(demo)


def automatic(demo: Path) -> Result:
    """The demo's network with the methods that help it."""
    return quantize(demo / "digits.onnx", str(demo / "digits-calib.npz"), methods="auto", **OPTIONS)


def test_the_report_says_what_was_tried(chosen: Result) -> None:
    report = chosen.report
    assert report.methods == "bias-correction"
    assert len(report.methods_kl_mnat) == 4
    assert report.methods_kl_mnat["bias-correction"] < report.methods_kl_mnat["none"]
    assert report.inferences.float == 2.0
    assert report.inferences.methods_probe_samples == 4 * 64
    assert report.inferences.numpy_samples > 0
    assert 'methods = "auto"' in chosen.files["recipe.toml"]
    for page in ("report.md", "report.html"):
        assert "Accuracy methods" in chosen.files[page]
        assert f"{report.inferences.methods_probe_samples} to choose" in chosen.files[page]
    assert Report.model_validate_json(chosen.files["report.json"]) == report


def test_the_folder_can_be_made_again(chosen: Result, demo: Path, tmp_path: Path) -> None:
    chosen.save(tmp_path / "out")
    assert (tmp_path / "out" / FILE).is_file()
    files = partial.compile_plan(demo / "digits.onnx", tmp_path / "out" / "plan.json")
    assert files["model.vmfb"] == chosen.vmfb
    again = automatic(demo)
    for name in ("model.vmfb", FILE, "plan.json", "ranges.json", "sensitivities.json"):
        assert again.files[name] == chosen.files[name], name


def test_losses_are_those_that_calibrators_are_judged_by(tmp_path: Path) -> None:
    """The mean of what `losses` finds on the probe is what `choose` reports."""
    path = model(tmp_path, spread=0.5)
    here = subject(path, samples(), methods="none", calibrator="auto")
    found = prepare(here)
    seen, ranges = found.observations, found.choice.ranges
    batches = list(here.batches())
    few = list(zip(batches, seen.outputs, strict=True))[: -(-12 // here.batch)]
    assignment = dict.fromkeys((each.name for each in here.network.layers), "w8a8")
    value = calibration.losses(few, seen.predictions, found.simulation, ranges, assignment)
    assert value[:, 0].mean() == pytest.approx(found.choice.tried[ranges.calibrator])
