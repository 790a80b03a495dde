"""Files as other tools leave them: other floats, nodes in any order, open sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node as node

import mlq
from mlq import artifact, checking, output
from mlq.artifact import Artifact
from mlq.errors import DataError, ModelError, UsageError
from mlq.frontends.onnx import ImportedModel, import_model
from mlq.network import load
from mlq.peer import Peer
from mlq.recipe import resolve

KINDS = {
    "f16": (np.float16, TensorProto.FLOAT16),
    "bf16": (ml_dtypes.bfloat16, TensorProto.BFLOAT16),
    "f64": (np.float64, TensorProto.DOUBLE),
}
RNG = np.random.default_rng(0)
WEIGHT, BIAS, RIGHT = (RNG.normal(size=s) for s in ((6, 4, 3, 3), (6,), (6, 5)))


def network(dtype: Any, kind: int, *, ends: int) -> onnx.ModelProto:
    """A convolution and a product, all in one kind of floats, the ends perhaps in another."""
    constants = {"w": WEIGHT, "b": BIAS, "m": RIGHT, "least": np.array(0.0)}
    half = numpy_helper.from_array(np.array([0.5]).astype(dtype), "half")
    nodes = [
        node("Cast", ["x"], ["x0"], "in", to=kind),
        node("Conv", ["x0", "w", "b"], ["c"], "conv"),
        node("Max", ["c", "least"], ["r"], "max"),
        node("GlobalAveragePool", ["r"], ["p"], "pool"),
        node("Flatten", ["p"], ["f"], "flatten"),
        node("MatMul", ["f", "m"], ["g"], "product"),
        node("Constant", [], ["half"], "constant", value=half),
        node("Shape", ["g"], ["s"], "shape"),
        node("ConstantOfShape", ["s"], ["h"], "filled", value=half),
        node("Mul", ["g", "half"], ["k"], "mul"),
        node("Add", ["k", "h"], ["a"], "add"),
        node("Cast", ["a"], ["y"], "out", to=ends),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", ends, ["N", 4, 8, 8])],
        [helper.make_tensor_value_info("y", ends, ["N", 5])],
        [numpy_helper.from_array(each.astype(dtype), name) for name, each in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def imported(path: Path, message: onnx.ModelProto) -> ImportedModel:
    onnx.save(message, path)
    return import_model(path, batch=2)


@pytest.mark.parametrize("ends", ["alike", "f32"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_floats_become_f32(tmp_path: Path, kind: str, ends: str) -> None:
    dtype, number = KINDS[kind]
    given = network(dtype, number, ends=number if ends == "alike" else TensorProto.FLOAT)
    found = imported(tmp_path / "other.onnx", given)
    assert [each.dtype for each in (*found.inputs, *found.outputs)] == ["float32"] * 2
    assert {array.dtype for array in found.weights.values()} == {np.dtype("f4")}
    rounded = network(np.float32, TensorProto.FLOAT, ends=TensorProto.FLOAT)
    for tensor in rounded.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(dtype).astype("f4")
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    x = RNG.normal(size=(2, 4, 8, 8)).astype("f4")
    first, other = (
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"x": x})[0]
        for each in (found.to_onnx(), rounded)
    )
    np.testing.assert_array_equal(first, other)
    assert [layer.kind for layer in load(found.path).layers] == ["conv2d", "avg_pool2d", "matmul"]


def test_numbers_beyond_f32_are_as_large_as_can_be(tmp_path: Path) -> None:
    message = network(np.float64, TensorProto.DOUBLE, ends=TensorProto.DOUBLE)
    mask = np.array([[1e300, -1e300, np.inf, -np.inf, 1.0]])
    message.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    message.graph.node[-1].input[0] = "masked"
    message.graph.node.insert(len(message.graph.node) - 1, node("Min", ["a", "mask"], ["masked"]))
    found = imported(tmp_path / "n.onnx", message)
    (kept,) = (
        numpy_helper.to_array(t) for t in found.to_onnx().graph.initializer if t.name == "mask"
    )
    most = np.finfo(np.float32).max
    np.testing.assert_array_equal(kept, np.array([[most, -most, np.inf, -np.inf, 1.0]], "f4"))


def test_graphs_inside_nodes_become_f32(tmp_path: Path) -> None:
    message, half = network(*KINDS["f16"], ends=TensorProto.FLOAT16), TensorProto.FLOAT16
    branches = [
        helper.make_graph(
            [node(kind, ["a"], [kind])], kind, [], [helper.make_tensor_value_info(kind, half, None)]
        )
        for kind in ("Relu", "Neg")
    ]
    chosen = node("If", ["which"], ["i"], "if", then_branch=branches[0], else_branch=branches[1])
    message.graph.input.append(helper.make_tensor_value_info("which", TensorProto.BOOL, [1]))
    message.graph.node.insert(len(message.graph.node) - 1, chosen)
    message.graph.node[-1].input[0] = "i"
    found = imported(tmp_path / "n.onnx", message)
    (kept,) = (each for each in found.graph.graph.node if each.op_type == "If")
    for attribute in kept.attribute:
        assert attribute.g.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_what_has_no_layer_keeps_its_floats(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [3])],
    )
    message = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(message, tmp_path / "n.onnx")
    found = import_model(tmp_path / "n.onnx")
    assert [each.dtype for each in (*found.inputs, *found.outputs)] == ["float64", "float16"]


def test_onnx_runtime_is_given_the_floats_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "n.onnx"
    onnx.save(network(*KINDS["f16"], ends=TensorProto.FLOAT16), path)
    x = RNG.normal(size=(1, 4, 8, 8)).astype("f4")
    assert Peer(path).run({"x": x})["y"].dtype == np.float16
    Peer(path).call({"x": x})()


def test_nodes_are_put_in_order(tmp_path: Path) -> None:
    sorted_, mixed = (network(np.float32, TensorProto.FLOAT, ends=TensorProto.FLOAT) for _ in "ab")
    nodes = [each.SerializeToString() for each in mixed.graph.node]
    del mixed.graph.node[:]
    mixed.graph.node.extend(map(onnx.NodeProto.FromString, reversed(nodes)))
    found = [imported(tmp_path / "n.onnx", each) for each in (sorted_, mixed)]
    x = {"x": RNG.normal(size=(2, 4, 8, 8)).astype("f4")}
    first, other = (
        onnxruntime.InferenceSession(each.to_onnx().SerializeToString()).run(None, x)[0]
        for each in found
    )
    np.testing.assert_array_equal(first, other)


def test_nodes_that_wait_for_each_other_are_named(tmp_path: Path) -> None:
    message = network(np.float32, TensorProto.FLOAT, ends=TensorProto.FLOAT)
    message.graph.node[2].input[1] = "g"
    with pytest.raises(
        ModelError, match=r"node '\w+' \(\w+\) reads what is made of its own result"
    ):
        imported(tmp_path / "n.onnx", message)


def sound(path: Path) -> Path:
    """Convolutions over a sequence whose length is open, as is the length of another input."""
    constants = {"w": WEIGHT[:, :, 0], "v": WEIGHT[:, :1, 1], "m": RIGHT}
    nodes = [
        node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1]),
        node("Relu", ["c"], ["r"], "relu"),
        node("Conv", ["z", "v"], ["d"], "other"),
        node("GlobalAveragePool", ["r"], ["p"], "pool"),
        node("GlobalAveragePool", ["d"], ["q"], "pool of other"),
        node("Add", ["p", "q"], ["s"], "sum"),
        node("Flatten", ["s"], ["f"], "flatten"),
        node("MatMul", ["f", "m"], ["y"], "product"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, "T"]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 1, None]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(each.astype("f4"), name) for name, each in constants.items()],
    )
    message = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(message, path)
    return path


def test_open_sizes_are_fixed_by_name_or_by_axis(tmp_path: Path) -> None:
    path = sound(tmp_path / "n.onnx")
    open_, fixed = import_model(path, batch=1), import_model(path, batch=1, sizes="T=20, z.2=9")
    assert [each.shape for each in open_.inputs] == [(1, 4, None), (1, 1, None)]
    assert [each.shape for each in fixed.inputs] == [(1, 4, 20), (1, 1, 9)]
    assert {each.name for each in load(path).layers} < {
        each.name for each in load(path, sizes="T=20,z.2=9").layers
    }
    with pytest.raises(ModelError, match=r"no input has an open size 'H'; there are: T, z\.2$"):
        import_model(path, batch=1, sizes="H=20")
    with pytest.raises(ModelError, match=r"'N'; there are: T, z\.2$"):
        import_model(path, batch=1, sizes="N=20")


@pytest.mark.parametrize("text", ["T", "T=", "T=x", "=3", "T=0", "T=-2", "T=2;z.2=9"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=f"sizes '{text}': '{text}' is no NAME=N"):
        resolve({"sizes": text})


def test_an_artifact_knows_the_sizes_it_was_made_with(tmp_path: Path) -> None:
    path, out, sizes = sound(tmp_path / "n.onnx"), tmp_path / "out", "T=20,z.2=9"
    with pytest.raises(DataError, match="give --sizes, or real samples"):
        mlq.quantize(path, "random:4")
    shaped = {"x": RNG.normal(size=(2, 4, 20)).astype("f4"), "z": np.ones((2, 1, 9), np.float32)}
    said = mlq.quantize(path, shaped, max_drop=None).files["report.md"]
    assert "`--sizes x.2=20,z.2=9`, which the samples have, would fix them." in said
    made = mlq.quantize(path, "random:4", sizes=sizes, max_drop=None)
    output.write(out, made.files)
    found = Artifact.open(out)
    assert [each.shape for each in found.specs] == [(None, 4, 20), (None, 1, 9)]
    assert "would fix them" not in made.files["report.md"]
    again = found.recall(batch=1)
    assert again.plan.sizes == sizes
    assert [each.name for each in again.network.layers] == [e.name for e in made.report.layers]
    given = {"x": RNG.normal(size=(3, 4, 20)).astype("f4"), "z": np.ones((3, 1, 9), np.float32)}
    np.savez(tmp_path / "x.npz", **given)
    assert artifact.run(out / "model.vmfb", tmp_path / "x.npz")["y"].shape == (3, 5)
    assert len(checking.check(path, sizes=sizes).layers) == len(made.report.layers)
