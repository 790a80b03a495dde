"""Weights of 4 bits: rounded for what layers read, two to a byte, and recalled from OUT."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from mlq import numerics, partial
from mlq.compiler import Result, quantize
from mlq.dialect import weights
from mlq.errors import UsageError
from mlq.network import Network, load
from mlq.recipe import resolve
from mlq.rounding import FILE, Rounding, recalled, round_weights

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


def test_weights_of_an_older_mlq_are_refused(fitted: Result, demo: Path, tmp_path: Path) -> None:
    fitted.save(tmp_path / "out")
    with np.load(tmp_path / "out" / FILE) as arrays:
        known = dict(arrays)
    name = next(each for each in known if ":corrected." in each)
    known[name.replace(":corrected.w4a8", ":rounded.4")] = known.pop(name)
    np.savez(tmp_path / FILE, **known)
    with pytest.raises(UsageError, match="is of an older mlq; quantize the network again"):
        recalled(load(demo / "digits.onnx"), tmp_path / FILE)


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


def convolution(folder: Path, channels: int) -> Network:
    """One layer, which sees what is left and what is right."""
    random = np.random.default_rng(3)
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[1,{channels},6,6] input) => (float[1,4,6,6] output) {{
          output = Conv <pads = [1,1,1,1]> (input, w, b)
        }}"""
    )
    arrays = {"w": random.normal(size=(4, channels, 3, 3)), "b": np.zeros(4)}
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), key) for key, array in arrays.items()
    )
    onnx.save(model, folder / "model.onnx")
    return load(folder / "model.onnx")


def rounded(
    network: Network, samples: NDArray[Any], precision: str, greatest: float = 9.0
) -> Rounding:
    """By samples [N, C, 6, 6], stored up to the `greatest`."""
    storage = numerics.choose_params(0.0, greatest, bits=8)
    simulation: Any = SimpleNamespace(
        network=network, stored_activation=lambda *_flow_bits_ranges: storage
    )
    batches, ranges = [[each[None]] for each in samples], SimpleNamespace()
    wanted = {network.layers[0].name: [precision]}
    return round_weights(batches, len(samples), simulation, ranges, wanted)  # type: ignore[arg-type]  # ranges are asked for nothing


def leaning(channels: int) -> NDArray[np.float32]:
    """Samples that are zero but for their right edge."""
    made = np.random.default_rng(4).uniform(0.0, 1.0, (40, channels, 6, 6)).astype(np.float32)
    made[..., :-1] = 0.0
    return made


def test_pictures_are_seen_in_a_mirror_too(tmp_path: Path) -> None:
    for channels, is_picture in ((3, True), (2, False)):
        network, samples = convolution(tmp_path, channels), leaning(channels)[:5]
        # Few samples, so that all positions are drawn, in whatever order.
        made = [
            next(iter(rounded(network, each, "w3a8").weights.values()))
            for each in (samples, np.ascontiguousarray(samples[..., ::-1]))
        ]
        # In a mirror, left and right are of equal weight, and either may be rounded first.
        assert (np.mean(np.isclose(*made)) > 0.9) == is_picture


def test_what_eight_bits_clip_is_not_made_up_for(tmp_path: Path) -> None:
    """One sample that is out of range moves no bias, by which all others would be wrong."""
    network, samples = convolution(tmp_path, 2), leaning(2)
    samples[20] *= 1000.0
    (shift,) = rounded(network, samples, "w8a8", greatest=1.0).biases.values()
    assert np.max(np.abs(shift)) < 0.05
