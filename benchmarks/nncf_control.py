"""NNCF's accuracy control on an ONNX file: run by comparison.py in an environment of its own.

    python benchmarks/nncf_control.py MODEL.onnx CALIB.npy MILLINATS OUT.onnx

The environment needs nncf, onnx and onnxruntime, not mlq. What is held is the mean KL to float, in
milli-nats, on the calibration samples, at most MILLINATS above that of float itself (nothing).
Prints JSON: how many of the layers with weights, sums and pools stayed float, and the KL.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

import nncf
import numpy as np
import onnx
import onnxruntime

LAYERS = {"Conv", "Gemm", "MatMul", "Add", "AveragePool", "GlobalAveragePool"}


def outputs(model: onnx.ModelProto, samples: Iterable[dict[str, Any]]) -> Any:
    """Logarithms of what softmax makes of the logits."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    logits = np.concatenate([session.run(None, each)[0] for each in samples]).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def main() -> None:
    """Quantize, write the network, and say what it loses."""
    path, calib, budget, out = sys.argv[1:]
    # ONNX Runtime starts as many threads as there are cores to run on, and they spin.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    model = onnx.load(path)
    name = model.graph.input[0].name
    items = [{name: each[None]} for each in np.load(calib)]
    exact = outputs(model, items)

    def divergence(found: onnx.ModelProto) -> float:
        ours = exact - outputs(found, items)
        return float(1000.0 * np.mean(np.sum(np.exp(exact) * ours, axis=1)))

    def validate(found: onnx.ModelProto, _data: Any) -> tuple[float, None]:
        # NNCF divides by what it has of float, which must not be nothing.
        return 1.0 - divergence(found) / 1000.0, None

    data = nncf.Dataset(items)
    made = nncf.quantize_with_accuracy_control(
        model,
        data,
        data,
        validate,
        max_drop=float(budget) / 1000.0,
        drop_type=nncf.DropType.ABSOLUTE,
    )
    onnx.save(made, out)
    stored = {each.output[0] for each in made.graph.node if each.op_type == "DequantizeLinear"}
    layers = [each for each in made.graph.node if each.op_type in LAYERS]
    kept = [each for each in layers if not stored & set(each.input)]
    print(json.dumps({"float_layers": len(kept), "kl_mnat": divergence(made)}))


if __name__ == "__main__":
    main()
