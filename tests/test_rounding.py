"""Weights of 4 bits: rounded for what layers read, two to a byte, and recalled from OUT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlq import partial
from mlq.compiler import Result, quantize
from mlq.dialect import weights
from mlq.errors import UsageError
from mlq.recipe import resolve
from mlq.rounding import FILE

OPTIONS = {"precisions": "f32,w4a8", "calibrator": "minmax", "effort": "quick", "max_drop": None}


@pytest.fixture(scope="module")
def fitted(demo: Path) -> Result:
    """The demo's network with weights of 4 bits, by least squares."""
    calib, held_out = demo / "digits-calib.npz", demo / "digits-eval.npz"
    return quantize(demo / "digits.onnx", str(calib), eval=str(held_out), **OPTIONS)


def test_least_squares_loses_less_than_the_nearest(fitted: Result, demo: Path) -> None:
    calib, held_out = demo / "digits-calib.npz", demo / "digits-eval.npz"
    nearest = quantize(
        demo / "digits.onnx", str(calib), eval=str(held_out), **OPTIONS, rounding="nearest"
    )
    assert FILE in fitted.files
    assert FILE not in nearest.files
    losses = [each.report.agreement.int8.kl_mnat for each in (fitted, nearest)]
    assert 2.0 * losses[0] < losses[1]


def test_the_artifact_computes_what_was_rounded(fitted: Result) -> None:
    """Nibbles are unpacked at load to the integers that the reference arithmetic computes with."""
    assert fitted.report.device_check.max_abs_diff_lsb == 0
    assert fitted.report.device_check.layers > 0


def test_four_bits_take_half_of_eight(fitted: Result, demo: Path) -> None:
    calib = str(demo / "digits-calib.npz")
    eight = quantize(demo / "digits.onnx", calib, **{**OPTIONS, "precisions": "f32,w8a8"})
    saved = eight.report.size_bytes.int8 - fitted.report.size_bytes.int8
    params = sum(layer.params for layer in fitted.report.layers)
    # What unpacks them takes some bytes of code in each layer.
    assert 0.7 * params / 2 < saved < params / 2


def test_a_plan_is_compiled_again_with_the_weights_beside_it(
    fitted: Result, demo: Path, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "out")
    files = partial.compile_plan(demo / "digits.onnx", tmp_path / "out" / "plan.json")
    assert files["model.vmfb"] == fitted.vmfb
    assert files[FILE] == fitted.files[FILE]


def test_rounded_weights_lie_on_their_grid(fitted: Result, tmp_path: Path) -> None:
    fitted.save(tmp_path / "out")
    with np.load(tmp_path / "out" / FILE) as arrays:
        scales = {name: arrays[name] for name in arrays if ":scales." in name}
        assert scales
        for name, scale in scales.items():
            key, _, bits = name.partition(":scales.")
            values = arrays[weights.rounded(key, int(bits))]
            axis = values.shape.index(len(scale))
            steps = np.moveaxis(values, axis, -1) / scale
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
            assert np.max(np.abs(steps)) <= 7.0 + 1e-4


def test_least_squares_wants_a_scale_for_each_channel() -> None:
    with pytest.raises(UsageError, match="rounding least-squares"):
        resolve({"rounding": "least-squares", "granularity": "per_tensor"})
