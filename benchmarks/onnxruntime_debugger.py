"""ONNX Runtime's debugger of a quantized network, `qdq_loss_debug`: what each node loses.

    python benchmarks/onnxruntime_debugger.py NETWORK

All-int8 (U8S8, per channel, minmax, ONNX Runtime's default) and float run over the calibration
samples, every activation of both kept, as the debugger wants it. Prints JSON: by kind of error and
node noise over signal in decibels, and CPU seconds, calibration and quantization included.

activations   of what the node makes, in the quantized network, to what float makes
rounding      of what the node makes, before and after its own Q/DQ
weights       of what the node multiplies by
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import networks
import onnx
import onnxruntime
import onnxruntime_baseline as baseline
from onnxruntime.quantization import qdq_loss_debug as debugger

Errors = dict[str, dict[str, float]]


def errors(network: networks.Network, folder: Path, calibrator: str = "minmax") -> Errors:
    """By kind of error and node, what all-int8 loses."""
    samples = network.samples(network.calib)
    int8 = baseline.quantize(network, samples, calibrator, "per_channel", folder)
    prepared, augmented = baseline.prepared(network, folder), folder / "augmented.onnx"
    activations = []
    for model in (int8, prepared):
        debugger.modify_model_output_intermediate_tensors(model, augmented)
        batches = baseline.Batches(network.input, samples.inputs)
        activations.append(debugger.collect_activations(str(augmented), batches))
    found = debugger.compute_activation_error(debugger.create_activation_matching(*activations))
    weights = debugger.compute_weight_error(
        debugger.create_weight_matching(str(prepared), str(int8))
    )
    nodes = onnx.load(prepared).graph.node
    makers = {output: node.name for node in nodes for output in node.output}
    readers = {node.input[1]: node.name for node in nodes if len(node.input) > 1}
    made = {makers[tensor]: each for tensor, each in found.items() if tensor in makers}
    return {
        "activations": {node: -each["xmodel_err"] for node, each in made.items()},
        "rounding": {node: -each["qdq_err"] for node, each in made.items()},
        "weights": {readers[name]: -each for name, each in weights.items() if name in readers},
    }


def main() -> None:
    """Print what one network loses."""
    onnxruntime.set_default_logger_severity(3)
    (network,) = networks.find(sys.argv[1:])
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = errors(network, Path(folder))
    print(json.dumps({"loss": found, "seconds": time.process_time() - start}))


if __name__ == "__main__":
    main()
