"""The Q/DQ model runs in ONNX Runtime and computes what `mlq.reference` computes.

Where they differ is derived. ONNX Runtime sums float32 products (with its optimisations off: in
every layer; with them on: in those with a residual), so a value that lies within the error of that
sum of a tie may be rounded to the other neighbour: one stored integer by one, and rarely. From
there on the two networks round differently, each as far from the float network as quantization
puts it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch_mlir.ir import Location, Module

from mlq import export, network, reference
from mlq.dialect import build, context, functions
from mlq.dialect.ops import ConcatOp
from mlq.errors import ModelError, UsageError
from mlq.frontends import writing
from mlq.frontends.data import load_data
from mlq.manifest import FileFacts, Manifest, ModelFile
from mlq.network import Network, Transformed
from mlq.output import MANIFEST
from mlq.peer import Peer
from mlq.plan import LayerPlan, Plan
from mlq.ranges import Histogram, Ranges, TensorRange
from mlq.rendering import MODULE
from mlq.transforms.concatenation import is_continued
from mlq.transforms.pipelines import quantize_pipeline

Array = NDArray[Any]
Arrays = dict[str, Array]

# A float32 sum of K products of 8-bit integers errs by about sqrt(K) * 2^-24 of its size, which is
# some 2^8 steps of the result: 2^-11 of a step for the 1000 products of the largest layers here.
# An error of e steps turns 2 e of all roundings.
RARELY = 2.0**-10
# The same relative error, of an unrounded float result.
FLOAT = 2.0**-14
# Two networks, each as far from a third as quantization noise, are at most so far from each other
# if their noises have nothing in common.
INDEPENDENT = 2.0**0.5

X = "float[batch,4,10,10] input"
NETWORKS = {
    "conv": f"""({X}) => (float[batch,10] output) {{
        a = Conv <pads=[1,1,1,1], strides=[2,2]> (input, w8_4_3_3, b8)
        c = Relu (a)
        d = Conv <dilations=[2,2], group=2> (c, w6_4_2_2, b6)
        e = Clip (d, zero, six)
        f = Flatten (e)
        output = Gemm <transB=1> (f, w10_54, b10) }}""",
    "depthwise": f"""({X}) => (float[batch,6,10,10] output) {{
        a = Conv <pads=[1,1,1,1], group=4> (input, w4_1_3_3, b4)
        c = Relu (a)
        d = Conv (c, w6_4_1_1)
        e = Relu (d)
        output = Conv <pads=[1,1,1,1], group=6> (e, w6_1_3_3) }}""",
    "residual": f"""({X}) => (float[batch,4,8,8] output) {{
        a = Conv <pads=[1,1,1,1]> (input, w4_4_3_3, b4)
        c = Relu (a)
        d = Conv <pads=[1,1,1,1]> (c, v4_4_3_3)
        e = Add (d, c)
        f = Relu (e)
        g = Conv <pads=[1,1,1,1]> (f, u4_4_3_3)
        h = Add (f, g)
        output = Conv (h, t4_4_3_3) }}""",
    "functions": f"""({X}) => (float[batch,3,8,8] output) {{
        a = Conv (input, w4_4_3_3, b4)
        c = HardSwish (a)
        d = GlobalAveragePool (c)
        e = Conv (d, v4_4_1_1)
        f = HardSigmoid <alpha=0.2> (e)
        g = Mul (c, f)
        h = Sigmoid (g)
        i = Mul (g, h)
        j = Resize <coordinate_transformation_mode="asymmetric", nearest_mode="floor"> (i, , twice)
        k = LeakyRelu <alpha=0.1> (j)
        output = Conv <strides=[2,2], pads=[1,1,0,0]> (k, w3_4_3_3) }}""",
    "grown": f"""({X}) => (float[batch,3,20,20] output) {{
        a = Conv (input, w4_4_1_1, b4)
        c = Resize <mode="linear"> (a, , twice)
        d = Conv <pads=[1,1,1,1]> (c, w3_4_3_3)
        output = Relu (d) }}""",
    "concat": f"""({X}) => (float[batch,3,5,5] output) {{
        a = Conv (input, w4_4_1_1, b4)
        c = Relu (a)
        d = Conv <pads=[1,1,1,1]> (input, w6_4_3_3)
        e = Concat <axis=1> (c, d, c)
        f = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (e)
        output = Conv (f, w3_14_1_1) }}""",
    "pools": f"""({X}) => (float[batch,4] output) {{
        a = Conv (input, w4_4_1_1, b4)
        c = AveragePool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (a)
        d = Conv (c, v4_4_1_1)
        e = AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,0], ceil_mode=1,
            count_include_pad=1> (d)
        f = Conv (e, u4_4_1_1)
        g = GlobalAveragePool (f)
        h = Flatten (g)
        output = Gemm (h, w4_4, b4) }}""",
    "gemm": """(float[batch,16] input) => (float[batch,5] output) {
        a = Gemm <transB=1> (input, w12_16, b12)
        c = Relu (a)
        d = MatMul (c, w12_8)
        e = Add (d, b8)
        f = Gemm (e, w8_5)
        output = Relu (f) }""",
    "matmul": """(float[batch,6,16] input) => (float[batch,6,5] output) {
        a = MatMul (input, w16_12)
        c = Add (a, b12)
        d = Relu (c)
        output = MatMul (d, w12_5) }""",
    "moves": f"""({X}) => (float[batch,3] output) {{
        a = Conv (input, w4_4_1_1, b4)
        c = Slice (a, starts, ends, axes, steps)
        d = Pad (c, pads)
        e = Relu (d)
        f = Transpose <perm=[0,2,3,1]> (e)
        g = Reshape (f, shape)
        output = Gemm (g, w150_3) }}""",
}
CONSTANTS = {
    "zero": np.float32(0.0),
    "six": np.float32(0.75),
    "twice": np.array([1, 1, 2, 2], np.float32),
    "starts": np.array([1, 1], np.int64),
    "ends": np.array([9, 2**31 - 1], np.int64),
    "axes": np.array([2, 3], np.int64),
    "steps": np.array([2, 2], np.int64),
    "pads": np.array([0, 1, 0, 0, 0, 1, 1, 0], np.int64),
    "shape": np.array([-1, 150], np.int64),
}


def made(body: str, path: Path, seed: int = 0) -> Path:
    """A model of `body`; `w8_4_3_3` and `b8` are random initializers of these shapes.

    `t`, `u` and `v` are weights as `w` is: that ONNX Runtime makes exact cannot be shared.
    """
    header = '<ir_version: 8, opset_import: ["": 17]>\nmade '
    model = onnx.parser.parse_model(header + body)
    rng = np.random.default_rng(seed)
    for name in sorted(set(re.findall(r"\b[a-z]\w+\b", body))):
        if name in CONSTANTS:
            array = CONSTANTS[name]
        elif re.fullmatch(r"[bt-w][\d_]+", name):
            shape = [int(size) for size in name[1:].split("_")]
            fan = np.prod(shape[1:]) if len(shape) > 1 else 4
            array = (rng.normal(size=shape) / np.sqrt(fan)).astype(np.float32)
        else:
            continue
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def random_inputs(found: Network, count: int, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        spec.name: rng.normal(size=(count, *spec.shape[1:])).astype(np.float32)
        for spec in found.model.inputs
    }


def execute(text: str, weights: Any, inputs: Arrays) -> Arrays:
    with context(), Location.unknown():
        return reference.run(Module.parse(text), inputs, weights)


def observed(found: Network, inputs: Arrays) -> Ranges:
    """Ranges of what `inputs` make of the float network."""
    tensors = execute(found.text, found.weights, inputs)
    kept = {}
    for name in found.observed:
        low, high = float(tensors[name].min()), float(tensors[name].max())
        counts = Histogram(low=low, high=max(high, low + 1), counts=(1,))
        kept[name] = TensorRange(
            minimum=low, maximum=high, low=low, high=high, calibrator="minmax", histogram=counts
        )
    return Ranges(calibrator="minmax", samples=1, tensors=kept)


def quantized(
    found: Network, ranges: Ranges, folder: Path, default: str = "w8a8", **how: str
) -> Transformed:
    file = folder / "ranges.json"
    file.write_text(ranges.to_json())
    how = {"scheme": "asymmetric", "granularity": "per_axis", **how}
    pipeline = quantize_pipeline(ranges=str(file), default=default, **how)
    return found.transform(pipeline, generic=False)


def exported(found: Network, module: Transformed, path: Path) -> Path:
    export.qdq_model(module.text, module.weights, found.model).save(path)
    return path


def run(path: Path, inputs: Arrays, *, optimise: bool) -> Arrays:
    return Peer(path, optimise=optimise).run(inputs)


def every_tensor(path: Path, inputs: Arrays) -> Arrays:
    """What each node of a model makes, as ONNX Runtime computes it node by node."""
    model = onnx.load(path)
    known = {output.name for output in model.graph.output}
    for node in model.graph.node:
        model.graph.output.extend(
            helper.make_empty_tensor_value_info(name) for name in node.output if name not in known
        )
    exposed = path.with_suffix(".exposed.onnx")
    onnx.save(model, exposed)
    return run(exposed, inputs, optimise=False)


def differences(module: Transformed, theirs: Arrays, inputs: Arrays) -> dict[str, Array]:
    """Steps between ONNX Runtime's stored tensors and those of the reference, layer by layer.

    Each layer of the reference reads what ONNX Runtime stored, so that no difference is passed on.
    """
    found = {}
    with context(), Location.unknown():
        program = Module.parse(module.text)
        block = functions.body_of(functions.main_of(program.operation))
        machine = reference.Machine(module.weights)
        machine.values.update(zip(block.arguments, inputs.values(), strict=True))
        for op in list(block.operations)[:-1]:
            results = machine.execute(op.operation.opview)
            name = build.name_of(op)
            if name is not None and results[0].dtype.kind in "iu":
                keys = (f"{name}:clip", f"{name}:quantize", name)
                stored = [theirs[k] for k in keys if k in theirs and theirs[k].dtype.kind in "iu"]
                view = op.operation.opview
                if isinstance(view, ConcatOp) and is_continued(view):
                    assert not stored, "a concat of two, of a chain that is one node"
                else:
                    found[name] = np.abs(stored[0].astype(np.int64) - results[0])
                    results = stored[:1]
            machine.values.update(zip(op.operation.results, results, strict=True))
    return found


def result(module: Transformed, inputs: Arrays) -> Array:
    """What the reference makes of the network's only output: the last tensor of all."""
    return list(execute(module.text, module.weights, inputs).values())[-1]


def expect_agreement(found: Network, module: Transformed, path: Path, inputs: Arrays) -> Array:
    """Check a Q/DQ model against the reference; returns the reference's output."""
    name = found.model.outputs[0].name
    expected = result(module, inputs)
    real = run(found.model.path, inputs, optimise=True)[name]
    noise = np.sqrt(np.mean((expected - real) ** 2))
    steps = differences(module, every_tensor(path, inputs), inputs)
    assert max((each.max() for each in steps.values()), default=0) <= 1
    count = sum(each.size for each in steps.values())
    assert sum(np.count_nonzero(each) for each in steps.values()) <= max(1, RARELY * count)
    for optimise in (True, False):
        got = run(path, inputs, optimise=optimise)[name]
        assert got.shape == expected.shape
        distance = np.sqrt(np.mean((got - expected) ** 2))
        assert distance <= INDEPENDENT * noise + FLOAT * np.abs(expected).max()
    return expected


@pytest.mark.parametrize("granularity", ["per_axis", "per_tensor"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_made_networks_agree(name: str, granularity: str, tmp_path: Path) -> None:
    found = network.load(made(NETWORKS[name], tmp_path / "model.onnx"), batch=None)
    ranges = observed(found, random_inputs(found, 32, seed=1))
    module = quantized(found, ranges, tmp_path, granularity=granularity)
    path = exported(found, module, tmp_path / "model.qdq.onnx")
    inputs = random_inputs(found, 64, seed=2)
    expect_agreement(found, module, path, inputs)


@pytest.mark.parametrize("name", ["conv", "depthwise", "concat", "gemm", "moves"])
def test_without_residuals_onnx_runtime_computes_the_very_same(name: str, tmp_path: Path) -> None:
    """Its integer kernels sum exactly too; the float result of the last layer is left."""
    found = network.load(made(NETWORKS[name], tmp_path / "model.onnx"), batch=None)
    module = quantized(found, observed(found, random_inputs(found, 32, seed=1)), tmp_path)
    path = exported(found, module, tmp_path / "model.qdq.onnx")
    inputs = random_inputs(found, 64, seed=2)
    expected = result(module, inputs)
    got = run(path, inputs, optimise=True)["output"]
    assert np.abs(got - expected).max() <= FLOAT * np.abs(expected).max()


@pytest.mark.parametrize("precision", ["w4a8", "w4a16", "w8a16", "w8a4", "w12a12", "w10a12"])
def test_other_widths_agree(precision: str, tmp_path: Path) -> None:
    found = network.load(made(NETWORKS["concat"], tmp_path / "model.onnx"), batch=None)
    ranges = observed(found, random_inputs(found, 32, seed=1))
    module = quantized(found, ranges, tmp_path, precision)
    path = exported(found, module, tmp_path / "model.qdq.onnx")
    inputs = random_inputs(found, 64, seed=2)
    expected = result(module, inputs)
    steps = differences(module, every_tensor(path, inputs), inputs)
    assert max(each.max() for each in steps.values()) <= 1
    for optimise in (True, False):
        got = run(path, inputs, optimise=optimise)["output"]
        assert np.abs(got - expected).max() <= 2.0**-8 * np.abs(expected).max()


def test_the_float_network_comes_out_as_it_went_in(tmp_path: Path) -> None:
    """No layer quantized: the export inverts import and raising; nodes mlq does not know stay."""
    body = f"""({X}) => (float[batch,4,10,10] output, float[batch,4,10,10] second) {{
        a = Conv <pads=[1,1,1,1]> (input, w4_4_3_3, b4)
        c = Softplus (a)
        s = ReduceSum <keepdims=1> (c)
        positive = Greater (s, zero)
        second = If (positive) <
            then_branch = more () => (t) {{ t = Add (c, six) }},
            else_branch = less () => (t) {{ t = Neg (c) }}>
        d = Conv <pads=[1,1,1,1]> (second, w4_4_3_3)
        e = Elu <alpha=0.25> (d)
        output = Add (e, a) }}"""
    source = made(body, tmp_path / "model.onnx")
    found = network.load(source, batch=None)
    model = export.qdq_model(found.text, found.weights, found.model)
    model.save(tmp_path / "again.onnx")
    inputs = random_inputs(found, 3, seed=1)
    expected, got = (
        run(path, inputs, optimise=False) for path in (source, tmp_path / "again.onnx")
    )
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=FLOAT, atol=FLOAT)


def test_names_versions_and_open_sizes_are_the_models(tmp_path: Path) -> None:
    found = network.load(made(NETWORKS["residual"], tmp_path / "model.onnx"), batch=None)
    module = quantized(found, observed(found, random_inputs(found, 8, seed=1)), tmp_path)
    model = export.qdq_model(module.text, module.weights, found.model).to_onnx()
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [value.name for value in model.graph.output] == ["output"]
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    names = Counter(node.name for node in model.graph.node)
    assert max(names.values()) == 1
    assert {layer.name for layer in found.layers} <= names.keys()


def test_weights_are_stored_as_integers(tmp_path: Path) -> None:
    found = network.load(made(NETWORKS["conv"], tmp_path / "model.onnx"), batch=None)
    module = quantized(found, observed(found, random_inputs(found, 8, seed=1)), tmp_path)
    model = export.qdq_model(module.text, module.weights, found.model).to_onnx()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    stored = {
        name: tensor.data_type for name, tensor in tensors.items() if name.endswith((":i8", ":i32"))
    }
    assert Counter(stored.values()) == {TensorProto.INT8: 3, TensorProto.INT32: 3}
    scales = [tensors[f"{name}:scale"] for name in stored]
    assert all(tensor.data_type == TensorProto.FLOAT for tensor in scales)


def test_large_models_keep_their_weights_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = network.load(made(NETWORKS["conv"], tmp_path / "model.onnx"), batch=None)
    module = quantized(found, observed(found, random_inputs(found, 8, seed=1)), tmp_path)
    inputs = random_inputs(found, 4, seed=2)
    expected = run(exported(found, module, tmp_path / "a.onnx"), inputs, optimise=True)
    monkeypatch.setattr(writing, "_MAX_INLINE_BYTES", 100)
    path = exported(found, module, tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx.data").is_file()
    np.testing.assert_array_equal(run(path, inputs, optimise=True)["output"], expected["output"])
    with pytest.raises(ModelError, match="save the model instead"):
        export.qdq_model(module.text, module.weights, found.model).to_onnx()


@pytest.fixture(scope="module")
def digits(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Ranges, Path]:
    """The bundled network, its ranges over the bundled samples, and a folder to write to."""
    found = network.load(demo / "digits.onnx", batch=None)
    (samples,) = load_data(
        demo / "digits-calib.npz", found.model.inputs, model_path=demo / "digits.onnx"
    ).batches(1000)
    return found, observed(found, samples), tmp_path_factory.mktemp("digits")


def evaluation(demo: Path, found: Network) -> tuple[Arrays, Array]:
    data = load_data(demo / "digits-eval.npz", found.model.inputs, model_path=demo / "digits.onnx")
    (samples,) = data.batches(1000)
    assert data.labels is not None
    return samples, data.labels


def test_the_bundled_network_agrees(demo: Path, digits: tuple[Network, Ranges, Path]) -> None:
    found, ranges, folder = digits
    module = quantized(found, ranges, folder)
    path = exported(found, module, folder / "digits.qdq.onnx")
    samples, labels = evaluation(demo, found)
    expected = expect_agreement(found, module, path, samples)
    step = (expected.max() - expected.min()) / 255
    for optimise in (True, False):
        logits = run(path, samples, optimise=optimise)["output"]
        assert (logits.argmax(1) == expected.argmax(1)).all()
        # One rounding to the other side reaches the logits as one of theirs.
        assert np.abs(logits - expected).max() <= step
        assert (logits.argmax(1) == labels).mean() > 0.97


def test_onnx_runtime_fuses_what_it_can(digits: tuple[Network, Ranges, Path]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    found, ranges, folder = digits
    path = exported(found, quantized(found, ranges, folder), folder / "digits.qdq.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)
    residuals = 3
    convolutions = sum(layer.kind == "conv2d" for layer in found.layers)
    assert kinds["QLinearConv"] == convolutions - residuals
    assert kinds["QGemm"] == 1
    assert kinds["QLinearGlobalAveragePool"] == 1


def test_a_mixed_plan_agrees(demo: Path, digits: tuple[Network, Ranges, Path]) -> None:
    found, ranges, folder = digits
    out = written_folder(found, ranges, folder / "mixed")
    path = export.to_qdq(out, out / "exports" / "model.qdq.onnx")
    samples, labels = evaluation(demo, found)
    logits = run(path, samples, optimise=True)["output"]
    assert (logits.argmax(1) == labels).mean() > 0.97
    model = onnx.load(path)
    stored = [t for t in model.graph.initializer if t.data_type == TensorProto.INT8 and t.dims[1:]]
    quantizable = [layer for layer in found.layers if layer.weight is not None]
    assert len(stored) == len(quantizable) - 1


def written_folder(found: Network, ranges: Ranges, out: Path) -> Path:
    """What `mlq quantize` leaves behind, as far as an export reads it; one layer stays float."""
    first, *rest = found.layers
    plan = Plan(
        target="x86",
        ir_level="fused",
        scheme="asymmetric",
        granularity="per_axis",
        layers={
            first.name: LayerPlan(precision="f32"),
            **{layer.name: LayerPlan(precision="w8a8") for layer in rest},
        },
    )
    out.mkdir()
    (out / MODULE).write_bytes(b"")
    (out / "plan.json").write_text(plan.to_json())
    (out / "ranges.json").write_text(ranges.to_json())
    empty = FileFacts(
        bytes=0, sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    manifest = Manifest(
        command="mlq quantize",
        target="x86",
        batch=1,
        threads=1,
        seed=0,
        model=ModelFile(path=str(found.model.path), sha256=found.model.sha256),
        data={},
        inputs=(),
        outputs=(),
        versions={},
        stages=(),
        files={MODULE: empty},
    )
    (out / MANIFEST).write_text(manifest.to_json())
    return out


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [("path", "gone.onnx", "is not there"), ("sha256", "0", "has changed since")],
)
def test_another_network_is_refused(
    digits: tuple[Network, Ranges, Path], field: str, value: str, complaint: str, tmp_path: Path
) -> None:
    found, ranges, _ = digits
    out = written_folder(found, ranges, tmp_path / "out")
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["model"][field] = value
    (out / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=complaint):
        export.to_qdq(out, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_folder_is_no_place_for_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the file"):
        export.to_qdq(tmp_path, tmp_path)


def test_a_real_network_agrees(real_data: Path, tmp_path: Path) -> None:
    """Slices and pads between integers, nine residuals."""
    model = real_data / "models" / "resnet20_cifar10.onnx"
    if not model.is_file():
        pytest.skip(f"{model} does not exist")
    found = network.load(model, batch=None)
    calibration, held_out = (
        next(
            load_data(
                real_data / f"cifar10-{part}.npz",
                found.model.inputs,
                model_path=model,
                samples=8,
            ).batches(8)
        )
        for part in ("calib", "eval")
    )
    module = quantized(found, observed(found, calibration), tmp_path)
    path = exported(found, module, tmp_path / "model.qdq.onnx")
    expected = expect_agreement(found, module, path, held_out)
    for optimise in (True, False):
        logits = run(path, held_out, optimise=optimise)[found.model.outputs[0].name]
        assert (logits.argmax(1) == expected.argmax(1)).all()
