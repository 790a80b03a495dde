"""Attention and layer norms: float nodes between integer layers, and what they take factors for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from mlq import calibration, numerics, planning, runtime, targets, variant
from mlq.compiler import quantize
from mlq.costs import TableCosts
from mlq.equalization import equalize
from mlq.errors import DiagnosticError
from mlq.network import Network, load, tensors
from mlq.precision import W8A8
from mlq.recipe import resolve
from mlq.rounding import FILE, Rounding
from mlq.simulation import Simulation

TOKENS, WIDTH, OUTLIERS, HOW_MUCH = 6, 12, [3, 7], 40.0
HEADS = """  q, k, v = Split <axis = 2> (c, parts)
  t = Transpose <perm = [0,2,1]> (k)
  s = MatMul (q, t)
  scaled = Mul (s, scale)
  p = Softmax <axis = -1> (scaled)
  o = MatMul (p, v)"""
# A block of attention behind a layer norm; a norm in pieces, as exporters wrote it before opset 17.
GRAPH = f"""<ir_version: 8, opset_import: ["" : 17]>
block (float[1,{TOKENS},{WIDTH}] input) => (float[1,{WIDTH}] output)
<int64[3] parts = {{4, 4, 4}}, float scale = {{0.5}},
 float two = {{2}}, float tiny = {{0.00001}}> {{
  a = LayerNormalization <axis = -1> (input, g1, b1)
  m = MatMul (a, w1)
  c = Add (m, c1)
{HEADS}
  w = MatMul (o, w2)
  r = Add (w, input)
  mean = ReduceMean <axes = [-1]> (r)
  d = Sub (r, mean)
  e = Pow (d, two)
  var = ReduceMean <axes = [-1]> (e)
  safe = Add (var, tiny)
  deviation = Sqrt (safe)
  n = Div (d, deviation)
  f = Mul (n, g2)
  h = Add (f, b2)
  y = MatMul (h, w3)
  z = Relu (y)
  output = ReduceMean <axes = [1], keepdims = 0> (z)
}}"""
ATTENTION = f"""<ir_version: 8, opset_import: ["" : 17]>
attention (float[1,{TOKENS},{WIDTH}] input) => (float[a,{TOKENS},{WIDTH}] output)
<int64[3] parts = {{4, 4, 4}}, float scale = {{0.5}}> {{
  c = MatMul (input, w1)
{HEADS}
  output = MatMul (o, w2)
}}"""
SHAPES = {"w1": (WIDTH, 12), "c1": (12,), "w2": (4, WIDTH), "w3": (WIDTH, WIDTH)}
OPTIONS = {"calibrator": "minmax", "effort": "quick", "max_drop": None, "precisions": "f32,w8a8"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two channels of either norm are much larger than the others, as in large transformers."""
    random, parsed = np.random.default_rng(1), onnx.parser.parse_model(GRAPH)
    for node in parsed.graph.node:
        node.name = node.output[0]
    arrays = {key: random.normal(0.0, 0.5, shape) for key, shape in SHAPES.items()}
    for norm, reader in (("1", "w1"), ("2", "w3")):
        larger = np.ones(WIDTH)
        larger[OUTLIERS] = HOW_MUCH
        arrays[f"g{norm}"] = random.uniform(0.5, 1.0, WIDTH) * larger
        arrays[f"b{norm}"] = random.normal(0.0, 0.1, WIDTH) * larger
        arrays[reader] = arrays[reader] / larger[:, None]
    parsed.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), key) for key, array in arrays.items()
    )
    path = tmp_path_factory.mktemp("transformer") / "model.onnx"
    onnx.save(parsed, path)
    return path


@pytest.fixture(scope="module")
def network(model: Path) -> Network:
    return load(model, batch=1)


def inputs(count: int) -> list[list[NDArray[np.float32]]]:
    random = np.random.default_rng(2)
    return [[random.normal(size=(1, TOKENS, WIDTH)).astype(np.float32)] for _ in range(count)]


def test_float_nodes_are_computed_by_onnx_reference(model: Path, network: Network) -> None:
    session = onnxruntime.InferenceSession(str(model))
    for (array,) in inputs(3):
        (expected,) = session.run(None, {"input": array})
        np.testing.assert_allclose(tensors(network, [array])["output"], expected, atol=1e-5)


def test_what_onnx_reference_cannot_compute_is_named(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "odd" : 1]>
    g (float[1,4] input) => (float[1,4] output) <float[1,4] a> {
    a = odd.Thing (input)  output = Add (a, input) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    odd = load(tmp_path / "model.onnx", batch=1)
    with pytest.raises(DiagnosticError, match="ONNX's reference cannot compute it"):
        tensors(odd, [np.zeros((1, 4), np.float32)])


def test_what_a_float_node_makes_is_cast_at_a_price(network: Network) -> None:
    """Probabilities are made by softmax, which no plan chooses a precision for."""
    costs = TableCosts(targets.host_target())
    layer = next(
        each
        for each in network.layers
        if each.kind == "batch_matmul" and not all(flow.sources for flow in each.flows)
    )
    floats = {each.name: "f32" for each in network.layers}
    paid = planning.predicted_us(network, costs, floats | {layer.name: "w8a8"})
    paid -= planning.predicted_us(network, costs, floats)
    own = costs.layer_us(layer, "w8a8") - costs.layer_us(layer, "f32")
    casts = [costs.cast_us(flow.elements, "w8a8") for flow in layer.flows]
    assert len(casts) == 2
    assert paid == pytest.approx(own + sum(casts))


def test_norms_take_factors_in_and_the_float_network_stays(network: Network) -> None:
    found = equalize(network, inputs(8), W8A8)
    assert set(found) >= {"g1", "b1", "w1", "g2", "b2", "w3"}
    equal = Rounding(equalized=found).of(network)
    for batch in inputs(3):
        before, after = (tensors(each, batch)["output"] for each in (network, equal))
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def test_one_module_simulates_networks_of_other_weights(network: Network) -> None:
    """Those that layers have, and those that norms have taken factors in."""
    equal = Rounding(equalized=equalize(network, inputs(8), W8A8)).of(network)
    made, again = (Simulation(each, targets.host_target(), chains=0) for each in (network, equal))
    executable = calibration.instrument(equal, targets.host_target())
    observed = calibration.observe(equal, (executable.run(*each) for each in inputs(8)))
    ranges = calibration.ranges_by("minmax", observed, scheme="asymmetric")
    integer = {layer.name: "w8a8" for layer in network.layers if layer.weight is not None}
    (batch,) = inputs(1)
    for assignment in ({}, integer):
        own = made.run(batch, ranges, assignment)[0]
        (expected,) = again.run(batch, ranges, assignment)
        np.testing.assert_array_equal(
            made.reweighted(equal).run(batch, ranges, assignment)[0], expected
        )
        assert np.any(own != expected)
        np.testing.assert_array_equal(made.run(batch, ranges, assignment)[0], own)


@pytest.mark.parametrize(("norm", "weight"), [("a", "w1"), ("h", "w3")])
def test_migrated_outliers_no_longer_cost_the_other_channels(
    network: Network, norm: str, weight: str
) -> None:
    equal = Rounding(equalized=equalize(network, inputs(8), W8A8)).of(network)
    (batch,) = inputs(1)
    lost = []
    for each in (network, equal):
        x, w = tensors(each, batch)[norm], each.weights[weight]
        stored = numerics.fake_quantize(x, numerics.choose_params(float(x.min()), float(x.max())))
        lost.append(float(np.square(stored @ w - x @ w).mean()))
    assert lost[1] < lost[0] / 10.0


def test_the_artifact_computes_what_was_migrated(model: Path, tmp_path: Path) -> None:
    calib = tmp_path / "calib.npz"
    np.savez(calib, input=np.concatenate([batch[0] for batch in inputs(16)]))
    result = quantize(model, str(calib), methods="equalize", **OPTIONS)
    assert result.report.device_check.max_abs_diff_lsb == 0
    assert {"w1", "w3"} <= {layer.weight for layer in load(model, batch=1).layers}
    with np.load(io.BytesIO(result.files[FILE])) as kept:
        assert any("g1" in key for key in kept.files)


@pytest.mark.parametrize("precision", ["f32", "w8a8", "w8a16", "w12a12"])
def test_a_batch_of_any_size_has_the_results_of_one_that_is_known(
    precision: str, tmp_path: Path
) -> None:
    """Without the layer norms, whose sums IREE takes in another order."""
    target, path = targets.host_target(), tmp_path / "model.onnx"
    random, parsed = np.random.default_rng(1), onnx.parser.parse_model(ATTENTION)
    for key, shape in (("w1", (WIDTH, 12)), ("w2", (4, WIDTH))):
        array = random.normal(0.0, 0.5, shape).astype(np.float32)
        parsed.graph.initializer.append(numpy_helper.from_array(array, key))
    onnx.save(parsed, path)
    network = load(path, batch=1)
    executable = calibration.instrument(network, target)
    observed = calibration.observe(network, (executable.run(*each) for each in inputs(4)))
    ranges = calibration.ranges_by("minmax", observed, scheme="asymmetric")
    x = np.concatenate([each for (each,) in inputs(3)])
    results = []
    for batch in (1, 3, "any"):
        made = load(path, batch=batch)
        allowed = planning.supported(made, target, [precision])
        plan = planning.uniform_plan(made, resolve({}), precision, allowed)
        products = [each.name for each in made.layers if each.kind == "batch_matmul"]
        assert [plan.precision(name) for name in products] == [precision] * 2
        run = runtime.load(variant.build(made, plan, ranges, target).vmfb).run
        samples = [each[None] for each in x] if batch == 1 else [x]
        results.append(np.concatenate([run(each)[0] for each in samples]))
    for found in results[1:]:
        np.testing.assert_array_equal(found, results[0])
