"""Accuracy methods: the float network stays what it is, errors get smaller, artifacts are exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from mlq import bias_correction, numerics, partial
from mlq.compiler import Result, quantize
from mlq.equalization import equalize
from mlq.errors import UsageError
from mlq.network import Network, load, tensors
from mlq.precision import W8A8
from mlq.recipe import resolve
from mlq.rounding import FILE, Rounding

OPTIONS = {"calibrator": "minmax", "effort": "quick", "max_drop": None, "target": "x86"}
# Everything that a factor passes, and what holds it back: a residual, a concat, a pool, a clip,
# a depthwise convolution, an output that is also read.
GRAPH = """<ir_version: 8, opset_import: ["" : 17]>
agraph (float[1,3,8,8] input) => (float[1,10] output) <float low = {0}, float high = {6}> {
  a = Conv <pads = [1,1,1,1]> (input, wa, ba)
  b = Clip (a, low, high)
  c = Conv <pads = [1,1,1,1], group = 6> (b, wc, bc)
  d = Relu (c)
  e = Conv (d, we, be)
  f = Conv (e, wf, bf)
  g = Relu (f)
  h = Conv (g, wh, bh)
  i = Add (h, e)
  j = Relu (i)
  k = Conv (j, wk, bk)
  l = Concat <axis = 1> (k, j)
  m = MaxPool <kernel_shape = [2,2], strides = [2,2]> (l)
  n = Conv (m, wn, bn)
  o = Relu (n)
  p = GlobalAveragePool (o)
  q = Flatten (p)
  output = Gemm <transB = 1> (q, wq, bq)
}"""
SHAPES = {
    "a": (6, 3, 3, 3),
    "c": (6, 1, 3, 3),
    "e": (4, 6, 1, 1),
    "f": (5, 4, 1, 1),
    "h": (4, 5, 1, 1),
    "k": (3, 4, 1, 1),
    "n": (8, 7, 1, 1),
    "q": (10, 8),
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """A network whose channels differ much in size."""
    random, model = np.random.default_rng(1), onnx.parser.parse_model(GRAPH)
    for name, shape in SHAPES.items():
        sizes = np.exp(random.normal(0.0, 1.5, (shape[0], *[1] * (len(shape) - 1))))
        arrays = {f"w{name}": random.normal(0.0, 0.5, shape) * sizes}
        arrays[f"b{name}"] = random.normal(0.0, 0.1, shape[0])
        model.graph.initializer.extend(
            numpy_helper.from_array(array.astype(np.float32), key) for key, array in arrays.items()
        )
    path = tmp_path_factory.mktemp("methods") / "model.onnx"
    onnx.save(model, path)
    return load(path)


def inputs(count: int) -> list[list[NDArray[np.float32]]]:
    random = np.random.default_rng(2)
    return [[random.normal(size=(1, 3, 8, 8)).astype(np.float32)] for _ in range(count)]


@pytest.mark.parametrize("granularity", ["per_axis", "per_tensor"])
def test_equalization_leaves_the_float_network_what_it_is(
    network: Network, granularity: str
) -> None:
    found = equalize(network, inputs(8), W8A8, granularity=granularity)  # type: ignore[arg-type]  # a word
    equal = Rounding(equalized=found).of(network)
    assert {layer.weight for layer in network.layers if layer.weight in found} >= {"we", "wf", "wh"}
    end = network.layers[-1].name
    for batch in inputs(8):
        before, after = (tensors(each, batch)[end] for each in (network, equal))
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def test_equalization_makes_what_is_stored_more_alike(network: Network) -> None:
    """Of a tensor that only a depthwise convolution reads all channels become as large."""
    equal = Rounding(equalized=equalize(network, inputs(8), W8A8)).of(network)
    spreads = []
    for each in (network, equal):
        (batch,) = inputs(1)
        greatest = np.abs(tensors(each, batch)[network.layers[1].flows[0].tensor]).max((0, 2, 3))
        spreads.append(float(greatest.min() / greatest.max()))
    assert spreads[1] > 2.0 * spreads[0]


def test_a_shift_is_what_means_lost() -> None:
    random = np.random.default_rng(3)
    weight = random.normal(size=(4, 3, 1, 1)).astype(np.float32)
    columns = np.abs(random.normal(size=(1, 3, 500))).astype(np.float32)
    storage = numerics.choose_params(0.0, 1.0, bits=4)  # cuts much off
    stored = numerics.fake_quantize(weight, numerics.weight_params(weight, bits=4))
    found = bias_correction.shift(weight, stored, columns, storage)
    exact, kept = columns[0], numerics.fake_quantize(columns[0], storage)
    rows = [each.reshape(4, 3) for each in (weight, stored)]
    after = rows[1] @ kept + found[:, None]
    np.testing.assert_allclose(after.mean(axis=1), (rows[0] @ exact).mean(axis=1), atol=1e-4)
    assert np.abs(found).max() > 0.01


@pytest.fixture(scope="module")
def adjusted(demo: Path) -> Result:
    """The demo's network with both methods."""
    calib, held_out = demo / "digits-calib.npz", demo / "digits-eval.npz"
    methods = "equalize,bias-correction"
    return quantize(
        demo / "digits.onnx", str(calib), eval=str(held_out), methods=methods, **OPTIONS
    )


def test_the_artifact_computes_what_was_adjusted(adjusted: Result, demo: Path) -> None:
    assert adjusted.report.device_check.max_abs_diff_lsb == 0
    assert adjusted.report.device_check.layers > 0
    calib, held_out = demo / "digits-calib.npz", demo / "digits-eval.npz"
    plain = quantize(demo / "digits.onnx", str(calib), eval=str(held_out), **OPTIONS)
    assert FILE not in plain.files
    assert plain.report.accuracy.float == adjusted.report.accuracy.float
    assert adjusted.report.agreement.int8.kl_mnat < plain.report.agreement.int8.kl_mnat


def test_a_plan_is_compiled_again_with_what_was_adjusted(
    adjusted: Result, demo: Path, tmp_path: Path
) -> None:
    adjusted.save(tmp_path / "out")
    files = partial.compile_plan(demo / "digits.onnx", tmp_path / "out" / "plan.json")
    assert files["model.vmfb"] == adjusted.vmfb


def test_methods_are_words_that_are_known() -> None:
    with pytest.raises(UsageError, match="unknown method 'equalise' \\(did you mean 'equalize'"):
        resolve({"methods": "equalise"})
    with pytest.raises(UsageError, match="bias-correction goes with granularity per_axis"):
        resolve({"methods": "bias-correction", "granularity": "per_tensor"})
    assert not resolve({"methods": "none"}).uses("equalize")
