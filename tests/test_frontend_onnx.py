"""What import_model makes of ONNX files, good and bad; ONNX Runtime on the file is the oracle."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch_mlir.ir import Location, Module

from mlq.dialect import context
from mlq.errors import ModelError
from mlq.frontends import finite
from mlq.frontends.onnx import ImportedModel, import_model
from mlq.frontends.specs import TensorSpec

NETWORKS = (
    "mlperf_tiny_ic_resnet8",
    "mlperf_tiny_vww_mobilenetv1",
    "mobilenetv2_1.0",
    "resnet18_pqf",
    "resnet20_cifar10",
    "resnet50_pqf",
    "squeezenet1_1",
    "vgg_s_cifar10",
)
LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))

node = helper.make_node
rng = np.random.default_rng(0)


def reals(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def value(name: str, shape: Any = None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    inputs: list[onnx.ValueInfoProto] | None = None,
    output: onnx.ValueInfoProto | None = None,
    domains: tuple[str, ...] = (),
) -> onnx.ModelProto:
    """A graph from x [N, 4, 8, 8] to y."""
    tensors = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    inputs = [value("x", ["N", 4, 8, 8])] if inputs is None else inputs
    # Files of old opsets list their initializers among the inputs.
    listed = [value(t.name, t.dims, t.data_type) for t in tensors] if opset < 9 else []
    graph = helper.make_graph(nodes, "g", inputs + listed, [output or value("y")], tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=3 if opset < 9 else 8)


@pytest.fixture
def imported(tmp_path: Path) -> Any:
    """Import a model message through a file."""

    def through_file(message: onnx.ModelProto, **options: Any) -> ImportedModel:
        path = tmp_path / "model.onnx"
        path.write_bytes(message.SerializeToString())
        return import_model(path, **options)

    return through_file


def run(message: onnx.ModelProto | Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime computes, without its own rewrites."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    what = str(message) if isinstance(message, Path) else message.SerializeToString()
    return ort.InferenceSession(what, options).run(None, feeds)


def feeds_of(found: ImportedModel, batch: int = 2) -> dict[str, np.ndarray]:
    return {s.name: reals(*(size or batch for size in s.shape)) for s in found.inputs}


def kinds(found: ImportedModel) -> list[str]:
    return [each.op_type for each in found.graph.graph.node]


def refused(message: str) -> Any:
    """Expect one line that says so, and that begins with the file."""
    return pytest.raises(ModelError, match=rf"^[^\n]*\.onnx: [^\n]*{message}[^\n]*; [^\n]*$")


CONV_BN = {"w": reals(4, 4, 3, 3), "v": np.abs(reals(4))}
BN = ["v", "v", "v", "v"]

# Name: nodes, constants, opsets, op types after import.
OLD_MODELS: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], list[int], list[str]]] = {
    "batch norm, dropout and clip with attributes": (
        [
            node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
            node("BatchNormalization", ["a", *BN], ["b"], spatial=1, momentum=0.9),
            node("Dropout", ["b"], ["c", "mask"], ratio=0.3),
            node("Clip", ["c"], ["y"], min=0.0, max=6.0),
        ],
        CONV_BN,
        [7, 8],
        ["Conv", "BatchNormalization", "Clip"],
    ),
    "dropout at the end": (
        [
            node("BatchNormalization", ["x", *BN], ["b"]),
            node("Dropout", ["b"], ["y"], ratio=0.3),
        ],
        CONV_BN,
        [9, 11],
        ["BatchNormalization"],
    ),
    "pad with attributes": (
        [node("Pad", ["x"], ["y"], pads=[0, 0, 1, 1, 0, 0, 1, 1], value=1.0)],
        {},
        [7, 10],
        ["Pad"],
    ),
    "upsample with attribute": (
        [node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0])],
        {},
        [7, 8],
        ["Resize"],
    ),
    "upsample": (
        [node("Upsample", ["x", "s"], ["y"])],
        {"s": np.array([1, 1, 2, 2], np.float32)},
        [9],
        ["Resize"],
    ),
    "slice with attributes": (
        [node("Slice", ["x"], ["y"], axes=[2, 3], starts=[1, 1], ends=[7, 8])],
        {},
        [7, 9],
        ["Slice"],
    ),
    "axes as attributes": (
        [
            node("ReduceMean", ["x"], ["a"], axes=[2, 3], keepdims=1),
            node("Squeeze", ["a"], ["b"], axes=[2, 3]),
            node("Softmax", ["b"], ["c"], axis=1),
            node("Unsqueeze", ["c"], ["y"], axes=[2]),
        ],
        {},
        [7, 11, 12],
        ["ReduceMean", "Squeeze", "Softmax", "Unsqueeze"],
    ),
    "softmax over the rest": (
        [node("Softmax", ["x"], ["y"], axis=1)],
        {},
        [7, 12],
        ["Flatten", "Softmax", "Reshape"],
    ),
    "split with attribute": (
        [
            node("Split", ["x"], ["a", "b"], axis=1, split=[1, 3]),
            node("Concat", ["b", "a"], ["y"], axis=1),
        ],
        {},
        [7, 12],
        ["Split", "Concat"],
    ),
    "flatten by computed shape": (
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"], axis=0),
            node("Unsqueeze", ["n"], ["n1"], axes=[0]),
            node("Concat", ["n1", "rest"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["r"]),
            node("Gemm", ["r", "w", "v"], ["y"], transB=1),
        ],
        {"zero": np.array(0, np.int64), "rest": ints(-1), "w": reals(4, 256), "v": reals(4)},
        [7, 9, 11],
        ["Reshape", "Gemm"],
    ),
    "constant nodes": (
        [
            node("Constant", [], ["k"], value=numpy_helper.from_array(reals(1, 4, 1, 1))),
            node("Identity", ["k"], ["k1"]),
            node("Mul", ["x", "k1"], ["a"]),
            node("Identity", ["a"], ["y"]),
        ],
        {},
        [7, 13],
        ["Mul"],
    ),
    "weights from ConstantOfShape": (
        [
            node("ConstantOfShape", ["s"], ["k"], value=numpy_helper.from_array(reals(1))),
            node("Conv", ["x", "k"], ["y"]),
        ],
        {"s": ints(4, 4, 1, 1)},
        [9, 13],
        ["Conv"],
    ),
}


@pytest.mark.parametrize(
    ("name", "opset"), [(name, opset) for name, case in OLD_MODELS.items() for opset in case[2]]
)
def test_old_opsets_compute_the_same(name: str, opset: int, imported: Any) -> None:
    nodes, constants, _, expected = OLD_MODELS[name]
    message = model(nodes, constants, opset=opset)
    found = imported(message)
    assert (found.opset, kinds(found)) == (opset, expected)
    feeds = feeds_of(found)
    np.testing.assert_array_equal(run(found.to_onnx(), feeds)[0], run(message, feeds)[0])


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_networks_of_opset_9(path: Path) -> None:
    found = import_model(path)
    assert found.opset == 9
    assert not {"Constant", "ConstantOfShape", "Dropout", "Identity"} & set(kinds(found))


@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks(name: str, real_data: Path) -> None:
    path = real_data / "models" / f"{name}.onnx"
    started = time.process_time()
    found = import_model(path)
    print(f"{name}: {time.process_time() - started:.2f} s")  # noqa: T201 -- shown by pytest -s
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.inputs[0].shape[0] is None
    assert len(found.text) < 200_000
    feeds = feeds_of(found, batch=1)
    np.testing.assert_array_equal(run(found.to_onnx(), feeds)[0], run(path, feeds)[0])


def test_module_is_at_contract_imported(imported: Any) -> None:
    nodes, constants, *_ = OLD_MODELS["flatten by computed shape"]
    found = imported(model(nodes, constants, opset=11))
    with context(), Location.unknown():
        Module.parse(found.text).operation.verify()
    assert found.inputs == (TensorSpec("x", (None, 4, 8, 8), "float32"),)
    assert found.outputs == (TensorSpec("y", (None, 4), "float32"),)
    assert '@main(%arg0: tensor<?x4x8x8xf32> {mlq.name = "x"}' in found.text
    assert '(tensor<?x4xf32> {mlq.name = "y"})' in found.text
    assert '"mlq.weight"() {key = "w"} : () -> tensor<4x256xf32>' in found.text
    assert "dense<[-1, 256]> : tensor<2xsi64>" in found.text
    assert 'torch.operator "onnx.Gemm"' in found.text
    assert re.search(r'^#loc\d* = loc\("Gemm_5"\)$', found.text, re.MULTILINE)
    assert (found.nodes, found.parameters, set(found.weights)) == (2, 1028, {"w", "v"})
    np.testing.assert_array_equal(found.weights["w"], constants["w"])


def test_small_constants_stay_readable(imported: Any) -> None:
    found = imported(
        model(
            [
                node("Clip", ["x", "low", "high"], ["a"]),
                node("Where", ["mask", "a", "x"], ["b"]),
                node("Conv", ["b", "w", "one"], ["y"]),
            ],
            {
                "low": np.float32(0.0),
                "high": np.float32(6.0),
                "mask": np.ones((8, 8), bool),
                "w": reals(1, 4, 1, 1),
                "one": reals(1),
            },
        )
    )
    assert set(found.weights) == {"w", "one"}
    for text in ("dense<6.000000e+00> : tensor<f32>", "dense<true> : tensor<8x8xi1>"):
        assert f'"onnx.Constant"() {{torch.onnx.value = {text}}}' in found.text
    assert "dense_resource" not in found.text


def test_integer_tables_are_weights(imported: Any) -> None:
    found = imported(
        model(
            [node("Gather", ["table", "i"], ["y"])],
            {"table": np.arange(4096, dtype=np.int64).reshape(1024, 4)},
            inputs=[value("i", ["N"], TensorProto.INT64)],
            output=value("y", None, TensorProto.INT64),
        )
    )
    assert '"mlq.weight"() {key = "table"} : () -> tensor<1024x4xi64>' in found.text
    assert found.inputs[0].dtype == "int64"
    assert found.parameters == 0


def test_names_are_unique(imported: Any) -> None:
    found = imported(
        model(
            [
                node("Relu", ["x"], ["a"], name="same"),
                node("Relu", ["a"], ["b"], name="same"),
                node("Relu", ["b"], ["c"], name="x"),
                node("Relu", ["c"], ["d"]),
                node("Relu", ["d"], ["y"], name="Relu_3"),
            ]
        )
    )
    names = [each.name for each in found.graph.graph.node]
    assert names == ["same", "same_1", "x_1", "Relu_3_1", "Relu_3"]


def test_batch_is_dynamic_unless_fixed(imported: Any) -> None:
    message = model([node("Flatten", ["x"], ["y"])])
    assert imported(message).outputs[0].shape == (None, 256)
    fixed = imported(message, batch=3)
    assert (fixed.inputs[0].shape, fixed.outputs[0].shape) == ((3, 4, 8, 8), (3, 256))
    assert "tensor<3x4x8x8xf32>" in fixed.text


def test_static_batch_can_be_changed(imported: Any) -> None:
    message = model([node("Relu", ["x"], ["y"])], inputs=[value("x", [1, 4, 8, 8])])
    assert imported(message).inputs[0].shape == (1, 4, 8, 8)
    assert imported(message, batch=5).outputs[0].shape == (5, 4, 8, 8)
    assert imported(message, batch="any").outputs[0].shape == (None, 4, 8, 8)


def test_batch_inside_the_graph_is_refused(imported: Any) -> None:
    message = model(
        [node("Reshape", ["x", "t"], ["y"])],
        {"t": ints(1, -1)},
        inputs=[value("x", [1, 4, 8, 8])],
        output=value("y", [1, 256]),
    )
    assert imported(message, batch=1).outputs[0].shape == (1, 256)
    with refused("output 'y' has 1 rows at batch 2"):
        imported(message, batch=2)
    with refused("output 'y' has 1 rows at batch any: the batch 1 is fixed inside the graph"):
        imported(message, batch="any")
    undeclared = model(
        [node("Reshape", ["x", "t"], ["y"], name="flat")],
        {"t": ints(1, 256)},
        inputs=[value("x", ["N", 4, 8, 8])],
    )
    assert imported(undeclared, batch=1).outputs[0].shape == (1, 256)
    for batch, before in ((2, "[2, 4, 8, 8]"), ("any", "[?, 4, 8, 8]")):
        with refused(re.escape(f"'flat' (Reshape): makes [1, 256] of {before}")):
            imported(undeclared, batch=batch)
    with refused("batch 0"):
        imported(message, batch=0)


def test_shape_arithmetic_folds_at_fixed_batch(imported: Any) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "two", "four"], ["hw"]),
        node("Mul", ["hw", "two"], ["twice"]),
        node("Slice", ["s", "zero", "two"], ["nc"]),
        node("Concat", ["nc", "twice"], ["sizes"], axis=0),
        node("Resize", ["x", "", "", "sizes"], ["y"], mode="nearest"),
    ]
    constants = {"zero": ints(0), "two": ints(2), "four": ints(4)}
    found = imported(model(nodes, constants), batch=2)
    assert kinds(found) == ["Resize"]
    assert found.outputs[0].shape == (2, 4, 16, 16)


def test_branch_of_a_decided_if_is_inlined(imported: Any) -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(kind, ["x"], [f"{name}_y"])], name, [], [value(f"{name}_y", ["N", 4, 8, 8])]
        )
        for name, kind in (("then", "Relu"), ("else", "Neg"))
    }
    message = model([node("If", ["c"], ["y"], **branches)], {"c": np.array(0, bool)})
    assert kinds(imported(message)) == ["Neg"]


def test_undecided_if_keeps_its_graphs(imported: Any) -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(kind, ["a"], [f"{name}_y"])], name, [], [value(f"{name}_y", ["N", 4, 8, 8])]
        )
        for name, kind in (("then", "Relu"), ("else", "Neg"))
    }
    found = imported(
        model(
            [node("Identity", ["x"], ["a"]), node("If", ["c"], ["y"], **branches)],
            inputs=[value("x", ["N", 4, 8, 8]), value("c", [], TensorProto.BOOL)],
        )
    )
    assert kinds(found) == ["If"]
    assert found.text.count("torch.operator_terminator") == 2


def test_dropout_that_is_used_stays(imported: Any) -> None:
    masked = model(
        [node("Dropout", ["x"], ["a", "m"]), node("Where", ["m", "a", "x"], ["y"])], opset=13
    )
    assert kinds(imported(masked)) == ["Dropout", "Where"]
    mask = model([node("Dropout", ["x"], ["a", "y"])], output=value("y", None, TensorProto.BOOL))
    assert kinds(imported(mask)) == ["Dropout"]
    nodes = [node("Dropout", ["x", "", "training"], ["a"]), node("Relu", ["a"], ["y"])]
    assert kinds(imported(model(nodes, {"training": np.array(1, bool)}))) == ["Dropout", "Relu"]
    assert kinds(imported(model(nodes, {"training": np.array(0, bool)}))) == ["Relu"]


def test_unknown_ops_are_no_error(imported: Any) -> None:
    message = model(
        [
            node("Nonesuch", ["x"], ["a"], name="mystery"),
            node("Fancy", ["a"], ["b"], domain="com.example"),
            node("Relu", ["b"], ["y"]),
        ],
        opset=9,
        domains=("com.example",),
    )
    message.graph.value_info.extend([value("a", ["N", 4, 8, 8]), value("b", ["N", 6])])
    found = imported(message)
    assert [(each.op_type, each.domain) for each in found.graph.graph.node] == [
        ("Nonesuch", ""),
        ("Fancy", "com.example"),
        ("Relu", ""),
    ]
    assert found.outputs[0].shape == (None, 6)
    assert 'torch.operator "onnx.Nonesuch"' in found.text


def test_functions_are_inlined(imported: Any) -> None:
    message = model([node("Twice", ["x"], ["y"], domain="local")], domains=("local",))
    message.functions.append(
        helper.make_function(
            "local",
            "Twice",
            ["a"],
            ["b"],
            [node("Add", ["a", "a"], ["b"])],
            [helper.make_opsetid("", 17)],
        )
    )
    assert kinds(imported(message)) == ["Add"]


def test_defaults_of_functions_survive_inlining(imported: Any) -> None:
    message = model([node("Leak", ["x"], ["y"], domain="local")], domains=("local",))
    leaky = node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    opsets = [helper.make_opsetid("", 17)]
    message.functions.append(
        helper.make_function(
            "local",
            "Leak",
            ["a"],
            ["b"],
            [leaky],
            opsets,
            attribute_protos=[helper.make_attribute("slope", 0.25)],
        )
    )
    found = imported(message)
    assert kinds(found) == ["LeakyRelu"]
    feeds = feeds_of(found)
    np.testing.assert_array_equal(run(found.to_onnx(), feeds)[0], run(message, feeds)[0])


@pytest.mark.parametrize("attributes", [{}, {"axes": [0, 1, 2, 3]}])
def test_mean_variance_normalization_over_its_axes(attributes: Any, imported: Any) -> None:
    message = model([node("MeanVarianceNormalization", ["x"], ["y"], **attributes)])
    found = imported(message)
    feeds = feeds_of(found)
    expected = run(message, feeds)[0]
    np.testing.assert_allclose(run(found.to_onnx(), feeds)[0], expected, rtol=1e-4, atol=1e-5)


def test_ops_of_other_domains_are_not_taken_for_those_of_onnx(imported: Any) -> None:
    message = model(
        [
            node("Relu", ["x"], ["a"], domain="com.example"),
            node("Fancy", ["a"], ["b"], domain="com.example"),
            node("Relu", ["b"], ["y"]),
        ],
        domains=("com.example",),
    )
    message.graph.value_info.extend([value(name, ["N", 4, 8, 8]) for name in "ab"])
    found = imported(message)
    operators = re.findall(r'torch.operator "([^"]*)"', found.text)
    assert operators == ["onnx.com.example.Relu", "onnx.Fancy", "onnx.Relu"]
    assert kinds(found) == ["Relu", "Fancy", "Relu"]


def test_sums_are_additions(imported: Any) -> None:
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Sum", ["a", "x"], ["b"], name="two"),
        node("Sum", ["a", "b", "x"], ["c"], name="three"),
        node("Sum", ["c"], ["y"]),
    ]
    message = model(nodes)
    found = imported(message)
    added = found.graph.graph.node[1:]
    assert [(each.op_type, each.name) for each in added] == [
        ("Add", "two"),
        ("Add", "three/1"),
        ("Add", "three"),
    ]
    feeds = feeds_of(found)
    np.testing.assert_array_equal(run(found.to_onnx(), feeds)[0], run(message, feeds)[0])


def test_older_opsets_whose_ops_are_the_same(imported: Any) -> None:
    found = imported(model([node("Relu", ["x"], ["a"]), node("Softmax", ["a"], ["y"])], opset=6))
    assert (found.opset, kinds(found)[0]) == (6, "Relu")
    feeds = feeds_of(found)
    rows = np.exp(np.maximum(feeds["x"], 0)).reshape(2, -1)
    expected = (rows / rows.sum(axis=1, keepdims=True)).reshape(2, 4, 8, 8)
    np.testing.assert_allclose(run(found.to_onnx(), feeds)[0], expected, rtol=1e-5)


def test_models_without_inputs(imported: Any) -> None:
    found = imported(model([node("Relu", ["c"], ["y"])], {"c": reals(4)}, inputs=[]))
    assert (found.inputs, found.outputs[0].shape) == ((), (4,))
    assert "@main() -> (tensor<4xf32>" in found.text


def test_sizes_of_zero_are_sizes(imported: Any) -> None:
    inputs = [value("x", [2, 4]), value("axes", [0], TensorProto.INT64)]
    nodes = [node("ReduceSum", ["x", "axes"], ["y"])]
    found = imported(model(nodes, inputs=inputs, output=value("y", [1, 1])))
    assert found.inputs[1].shape == (0,)
    assert "!torch.vtensor<[0],si64>" in found.text


def test_declared_sizes_count_where_none_can_be_inferred(imported: Any) -> None:
    def reshaped(batch: int | str, output: list[Any]) -> ImportedModel:
        inputs = [value("x", [batch, 3, 4]), value("shape", [3], TensorProto.INT64)]
        nodes = [node("Reshape", ["x", "shape"], ["y"])]
        return imported(model(nodes, inputs=inputs, output=value("y", output)))

    assert reshaped(2, [2, 6, 2]).outputs[0].shape == (2, 6, 2)
    assert reshaped(2, ["a", 6, "b"]).outputs[0].shape == (None, 6, None)
    assert reshaped("N", [2, 6, 2]).outputs[0].shape == (None, None, None)


def external(tensor: onnx.TensorProto, **entries: Any) -> onnx.TensorProto:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=str(text))
    return tensor


def test_external_data_is_mapped(imported: Any, tmp_path: Path) -> None:
    weights = reals(32, 4, 16, 16)
    message = model([node("Conv", ["x", "w"], ["y"], pads=[8] * 4)], {"w": weights})
    (tmp_path / "data.bin").write_bytes(b"pad" + weights.tobytes())
    external(message.graph.initializer[0], location="data.bin", offset=3, length=weights.nbytes)
    found = imported(message)
    assert isinstance(found.weights["w"], np.memmap)
    np.testing.assert_array_equal(found.weights["w"], weights)
    content = (tmp_path / "model.onnx").read_bytes() + (tmp_path / "data.bin").read_bytes()
    assert found.sha256 == hashlib.sha256(content).hexdigest()


def test_prepared_model_can_be_saved(imported: Any, tmp_path: Path) -> None:
    nodes, constants, *_ = OLD_MODELS["flatten by computed shape"]
    found = imported(model(nodes, constants, opset=11))
    found.save_onnx(tmp_path / "saved.onnx")
    feeds = feeds_of(found)
    expected = run(found.to_onnx(), feeds)[0]
    np.testing.assert_array_equal(run(tmp_path / "saved.onnx", feeds)[0], expected)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"location": "gone.bin"}, "'w' is stored in .*gone.bin, which cannot be read"),
        ({"location": "data.bin", "offset": 8}, "'w' lies beyond the end of .*data.bin"),
        ({"location": "data.bin", "length": 8}, "'w' has 8 bytes where its shape .* needs 16"),
        ({"location": "data.bin", "offset": "x"}, "'w' lies beyond the end"),
        ({"location": "../data.bin"}, "'w' points to '../data.bin', outside"),
        ({}, "'w' points to '', outside"),
    ],
)
def test_bad_external_data(
    entries: dict[str, Any], says: str, imported: Any, tmp_path: Path
) -> None:
    message = model([node("Conv", ["x", "w"], ["y"])], {"w": reals(1, 4, 1, 1)})
    (tmp_path / "data.bin").write_bytes(bytes(16))
    external(message.graph.initializer[0], **entries)
    with refused(says):
        imported(message)


@pytest.mark.big
def test_more_than_two_gigabytes(imported: Any, tmp_path: Path) -> None:
    size = 24_576
    with (tmp_path / "w.bin").open("wb") as stream:
        stream.truncate(4 * size * size)  # sparse: takes no disk
    message = model([node("MatMul", ["x", "w"], ["y"])], opset=11, inputs=[value("x", ["N", size])])
    message.graph.initializer.append(
        external(TensorProto(name="w", dims=[size, size], data_type=1), location="w.bin")
    )
    found = imported(message)
    assert found.parameters == size * size
    assert isinstance(found.weights["w"], np.memmap)
    assert len(found.text) < 2000
    with pytest.raises(ModelError, match="save_onnx"):
        found.to_onnx()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08"])
def test_not_a_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with refused("not an ONNX model, or truncated"):
        import_model(path)


def test_no_such_file(tmp_path: Path) -> None:
    with refused("cannot be read"):
        import_model(tmp_path / "none.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with refused("cannot be read"):
        import_model(tmp_path / "folder.onnx")


def test_truncated_anywhere(demo: Path, tmp_path: Path) -> None:
    content = (demo / "digits.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(1, len(content), len(content) // 40):
        path.write_bytes(content[:length])
        with refused(""):
            import_model(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weight_that_is_not_finite(bad: float, imported: Any) -> None:
    weights = reals(4, 4, 1, 1)
    weights[2, 1] = bad
    with refused("initializer 'w' holds NaN or infinity"):
        imported(model([node("Conv", ["x", "w"], ["y"])], {"w": weights}))


def test_mapped_weight_that_is_not_finite(
    imported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finite, "_PIECE_BYTES", 1000)
    weights = reals(32, 4, 16, 16)
    message = model([node("Conv", ["x", "w"], ["y"], pads=[8] * 4)], {"w": weights})
    external(message.graph.initializer[0], location="data.bin")
    weights.tofile(tmp_path / "data.bin")
    assert imported(message).parameters == weights.size
    weights[-1, -1, -1, -1] = np.nan
    weights.tofile(tmp_path / "data.bin")
    with refused("initializer 'w' holds NaN or infinity"):
        imported(message)


def test_large_sums_and_masks_are_finite(imported: Any) -> None:
    huge = np.full((4, 4, 1, 1), np.finfo(np.float32).max, np.float32)
    assert imported(model([node("Conv", ["x", "w"], ["y"])], {"w": huge})).parameters == 16
    mask = np.full((4, 8, 8), -np.inf, np.float32)
    assert imported(model([node("Add", ["x", "m"], ["y"])], {"m": mask})).parameters == 256


MALFORMED: dict[str, tuple[onnx.ModelProto, str]] = {
    "old opset": (model([node("Dropout", ["x"], ["y"])], opset=6), "uses ONNX opset 6"),
    "op newer than the opset": (model([node("Mish", ["x"], ["y"])], opset=6), "uses ONNX opset 6"),
    "future opset": (model([node("Relu", ["x"], ["y"])], opset=999), "uses ONNX opset 999"),
    "unknown domain": (
        model([node("Relu", ["x"], ["y"], domain="nowhere", name="r")]),
        r"node 'r' \(Relu\) is of domain 'nowhere'",
    ),
    "missing value": (model([node("Relu", ["nothing"], ["y"])]), "nothing"),
    "unknown attribute": (model([node("Relu", ["x"], ["y"], name="r", q=1)]), "q.*Name: r"),
    "shapes that do not fit": (
        model([node("Conv", ["x", "w"], ["y"], name="c")], {"w": reals(4, 4, 9)}),
        "node name: c",
    ),
    "wrong channels": (
        model([node("MatMul", ["x", "w"], ["y"], name="m")], {"w": reals(9, 2)}),
        "node name: m",
    ),
    "unknown shape": (
        model([node("Nonesuch", ["x"], ["a"], name="n"), node("Relu", ["a"], ["y"])]),
        r"node 'n' \(Nonesuch\): the shape of its output 'a' is unknown",
    ),
    "input without shape": (
        model([node("Relu", ["x"], ["y"])], inputs=[value("x")]),
        "input 'x' has no shape",
    ),
    "input of text": (
        model([node("Identity", ["x"], ["y"])], inputs=[value("x", [1], TensorProto.STRING)]),
        "input 'x' is not a tensor of numbers",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str, imported: Any) -> None:
    message, says = MALFORMED[name]
    with refused(says):
        imported(message)


def test_twice_the_same_initializer(imported: Any) -> None:
    message = model([node("Add", ["x", "c"], ["y"])], {"c": reals(8)})
    message.graph.initializer.append(message.graph.initializer[0])
    with refused("an initializer has the name 'c' twice"):
        imported(message)


def test_elements_and_shape_disagree(imported: Any) -> None:
    message = model([node("Add", ["x", "c"], ["y"])], {"c": reals(8)})
    message.graph.initializer[0].dims[0] = 9
    with refused("'c' has 32 bytes where its shape .* needs 36"):
        imported(message)
    message.graph.initializer[0].ClearField("raw_data")
    message.graph.initializer[0].float_data.extend([1.0, 2.0])
    with refused("'c' does not hold the elements"):
        imported(message)
