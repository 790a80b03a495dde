"""The bundled network is what its README line promises: small, unfolded, accurate, real data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

LARGEST = 1_000_000  # bytes of everything that is bundled


def test_bundle_is_small(demo: Path) -> None:
    assert sum(path.stat().st_size for path in demo.iterdir()) < LARGEST


def test_network_has_the_layers_of_its_big_relatives(demo: Path) -> None:
    model = onnx.load(demo / "digits.onnx")
    onnx.checker.check_model(model, full_check=True)
    nodes = model.graph.node
    assert {"BatchNormalization", "Add", "Clip", "MaxPool", "GlobalAveragePool", "Gemm"} <= {
        node.op_type for node in nodes
    }
    groups = [onnx.helper.get_node_attr_value(n, "group") for n in nodes if n.op_type == "Conv"]
    assert max(groups) > 1, "no depthwise convolution"
    assert len({node.name for node in nodes}) == len(nodes)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_splits_are_disjoint(demo: Path) -> None:
    with (
        np.load(demo / "digits-calib.npz") as calibration,
        np.load(demo / "digits-eval.npz") as evaluation,
    ):
        known = {image.tobytes() for image in calibration["images"]}
        assert len(known) == 200
        assert not known & {image.tobytes() for image in evaluation["images"]}


def test_accuracy_is_the_one_written_beside_it(demo: Path) -> None:
    facts = json.loads((demo / "digits.json").read_text())
    how = facts["preprocess"]
    with np.load(demo / "digits-eval.npz") as data:
        images, labels = data["images"], data["labels"]
    fed = ((images * how["scale"] - how["mean"]) / how["std"]).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(demo / "digits.onnx")
    (logits,) = session.run([facts["output"]], {facts["input"]: fed.astype(np.float32)})
    assert len(labels) == facts["eval_samples"]
    # One digit may tip over between ONNX Runtime's versions.
    assert abs((logits.argmax(1) == labels).mean() - facts["float_top1"]) <= 1 / len(labels)
    assert facts["float_top1"] > 0.97
