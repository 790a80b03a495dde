"""Networks that end before their last nodes: `--outputs`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node as node

import mlq
from mlq import artifact, checking, output, partial
from mlq.artifact import Artifact
from mlq.cli import main
from mlq.errors import ModelError, UsageError
from mlq.frontends.onnx import import_model
from mlq.plan import Plan

RNG = np.random.default_rng(0)
FLOAT = TensorProto.FLOAT


def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, shape)


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """Boxes and scores of eight places, then what IREE has no code for."""
    constants = {
        "w": RNG.normal(size=(16, 3, 3, 3)),
        "places": RNG.normal(size=(4, 16, 1, 1)),
        "classes": RNG.normal(size=(2, 16, 1, 1)),
        "bound": np.array(1.0),
    }
    # Branches read values of the graph outside of them.
    kept = helper.make_graph([node("Identity", ["s"], ["kept"])], "a", [], [value("kept", 1, 2, 8)])
    turned = helper.make_graph(
        [node("Neg", ["s"], ["turned"])], "b", [], [value("turned", 1, 2, 8)]
    )
    nodes = [
        node("Conv", ["x", "w"], ["c"], "conv", pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["c"], ["r"], "relu"),
        node("Conv", ["r", "places"], ["p"], "where"),
        node("Conv", ["r", "classes"], ["q"], "what"),
        node("Reshape", ["p", "four"], ["b"], "flat"),
        node("Reshape", ["q", "two"], ["s"], "rows"),
        node("Transpose", ["b"], ["boxes"], "turn", perm=[0, 2, 1]),
        node("ReduceMax", ["x"], ["highest"], "highest", keepdims=0),
        node("Greater", ["highest", "bound"], ["either"], "either"),
        node("If", ["either"], ["scores"], "branch", then_branch=kept, else_branch=turned),
        node("NonMaxSuppression", ["boxes", "scores", "most", "", "limit"], ["chosen"], "nms"),
    ]
    stored = [numpy_helper.from_array(a.astype("f4"), name) for name, a in constants.items()]
    stored += [
        numpy_helper.from_array(np.array([1, 4, 8]), "four"),
        numpy_helper.from_array(np.array([1, 2, 8]), "two"),
        numpy_helper.from_array(np.array([3]), "most"),
    ]
    chosen = helper.make_tensor_value_info("chosen", TensorProto.INT64, ["n", 3])
    inputs = [value("x", 1, 3, 4, 8), value("limit", 1)]
    graph = helper.make_graph(nodes, "g", inputs, [chosen], stored)
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "detector.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_what_nothing_is_made_of_any_more_is_dropped(detector: Path) -> None:
    found = import_model(detector, outputs="s, boxes")
    assert [(each.name, each.shape) for each in found.outputs] == [
        ("s", (1, 2, 8)),
        ("boxes", (1, 8, 4)),
    ]
    assert [each.name for each in found.inputs] == ["x"]
    assert {each.op_type for each in found.graph.graph.node}.isdisjoint({"If", "NonMaxSuppression"})
    assert not found.quantized_nodes
    # Inside the graph of a node, too, values are read.
    found = import_model(detector, outputs="scores")
    kinds = [each.op_type for each in found.graph.graph.node]
    assert kinds == ["Conv", "Relu", "Conv", "Reshape", "ReduceMax", "Greater", "If"]


def test_the_rest_computes_what_it_did(detector: Path) -> None:
    x = RNG.normal(size=(1, 3, 4, 8)).astype("f4")
    found = import_model(detector, outputs="p,r")
    session = onnxruntime.InferenceSession(found.to_onnx().SerializeToString())
    made = dict(zip(("p", "r"), session.run(None, {"x": x}), strict=True))
    whole = onnx.load(detector)
    whole.graph.output.extend([value("p", 1, 4, 2, 4), value("r", 1, 16, 2, 4)])
    given = {"x": x, "limit": np.zeros(1, "f4")}
    peer = onnxruntime.InferenceSession(whole.SerializeToString())
    for name, array in zip(("p", "r"), peer.run(["p", "r"], given), strict=True):
        np.testing.assert_array_equal(made[name], array)


def test_names_that_are_none_are_named(detector: Path) -> None:
    with pytest.raises(ModelError, match=r"no node makes 'boxs' of --outputs; is it 'boxes'\?$"):
        import_model(detector, outputs="boxs")
    with pytest.raises(ModelError, match=r"no node makes 'x' of --outputs"):
        import_model(detector, outputs="x")
    with pytest.raises(UsageError, match="'s' is there twice"):
        import_model(detector, outputs="s,boxes,s")


def test_a_value_of_unknown_type_is_named(detector: Path) -> None:
    whole = onnx.load(detector)
    whole.graph.node.append(node("Odd", ["boxes"], ["odd"], "odd", domain="others"))
    whole.opset_import.append(helper.make_opsetid("others", 1))
    onnx.save(whole, detector)
    with pytest.raises(ModelError, match="the type of 'odd' is unknown; end at another value"):
        import_model(detector, outputs="odd")


def test_an_artifact_knows_where_its_network_ends(detector: Path, tmp_path: Path) -> None:
    """From the plan, so that it is compiled and compared with the network again."""
    made = mlq.quantize(detector, "random:4", outputs="boxes,s", effort="quick", costs="table")
    out = tmp_path / "out"
    made.save(out)
    plan = Plan.from_json(out / "plan.json")
    assert plan.outputs == "boxes,s"
    assert len(checking.check(detector, outputs="boxes,s").layers) == len(made.report.layers)
    recalled = Artifact.open(out).recall(batch=1)
    assert [each.name for each in recalled.network.model.outputs] == ["boxes", "s"]
    again = tmp_path / "again"
    output.write(again, partial.compile_plan(detector, out / "plan.json"))
    x = tmp_path / "x.npz"
    np.savez(x, x=RNG.normal(size=(1, 3, 4, 8)).astype("f4"))
    first, second = (artifact.run(each / "model.vmfb", x) for each in (out, again))
    assert set(first) == {"boxes", "s"}
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)


def test_branches_read_the_network_around_them(detector: Path, tmp_path: Path) -> None:
    """Those of the integer network that of integers: passes clone what is inside of nodes, too."""
    made = mlq.quantize(detector, "random:4", outputs="scores,s", effort="quick", costs="table")
    made.save(tmp_path / "out")
    for sign in (1, -1):
        x = np.full((1, 3, 4, 8), 2.0 * sign, "f4")
        np.savez(tmp_path / "x.npz", x=x)
        found = artifact.run(tmp_path / "out" / "model.vmfb", tmp_path / "x.npz")
        np.testing.assert_array_equal(found["scores"], sign * found["s"])


def test_a_check_is_of_what_is_left(detector: Path) -> None:
    whole, cut = (
        CliRunner().invoke(main, ["check", str(detector), *more])
        for more in ([], ["--outputs", "s"])
    )
    assert "NonMaxSuppression" in whole.output
    assert cut.exit_code == 0
    assert "NonMaxSuppression" not in cut.output
