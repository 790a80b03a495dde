"""Whether LiteRT under the emulator computes what ONNX Runtime does with the model it is made of.

    python benchmarks/litert_agreement.py [NETWORK...] [--cpu CPU] [--samples N]

For each network of arm.py: samples with the same class and the cosine of all outputs; how near both
are to the float network, since a network amplifies what is rounded otherwise; by how much each
layer by itself differs, given the operands that LiteRT has there; how many operators XNNPACK took.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import arm
import emulated
import networks
import numpy as np
import onnx
import onnx_to_tflite
import onnxruntime
import onnxruntime_baseline
import tflite
from networks import Network, Samples
from numpy.typing import NDArray
from onnx import TensorProto
from onnx_to_tflite import Conversion
from onnxruntime_baseline import Logits

OPSET, IR_VERSION = 17, 8


def compared(network: Network, cpu: str, count: int, folder: Path) -> str:
    """A line about one network."""
    samples = network.samples(network.eval)
    few = Samples(samples.inputs[:count], samples.labels[:count])
    model = arm.by_onnxruntime(network, "s8", folder)
    expected = onnxruntime_baseline.logits(model, network.input, few, network.name)
    exact = onnxruntime_baseline.logits(network.model, network.input, few, f"{network.name} float")
    made = onnx_to_tflite.convert(model)
    arrays = _run(made.packed(), few.inputs, cpu, folder)
    found, operators, left = arrays[made.graph.output[0].name], arrays["operators"], arrays["left"]
    agreeing = np.sum(found.argmax(-1) == expected.argmax(-1))
    steps = _layers(made, _run(made.packed(every=True), few.inputs[:1], cpu, folder))
    return (
        f"{network.name}, {cpu}: {agreeing} of {len(found)} classes\n"
        f"  cosine {_cosine(found, expected):.5f}; to float {_cosine(found, exact):.5f}, "
        f"ONNX Runtime's {_cosine(expected, exact):.5f}\n"
        f"  {len(steps)} layers, each by itself: {steps.count(0)} equal, "
        f"others within {max(steps)} of 255\n"
        f"  XNNPACK has {operators - len(left)} of {operators} operators {' '.join(left)}"
    ).rstrip()


def _run(model: bytes, inputs: NDArray[np.float32], cpu: str, folder: Path) -> dict[str, Any]:
    """What a TFLite model returns for each input, by name, and what arm_litert.py says of it."""
    file, images, kept = folder / "model.tflite", folder / "images.npy", folder / "kept.npz"
    file.write_bytes(model)
    np.save(images, np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)))
    given = [str(each) for each in (file, images, "1", kept)]
    emulated.python(cpu, emulated.HERE / "arm_litert.py", arm.LITERT, *given)
    with np.load(kept) as arrays:
        return dict(arrays)


def _layers(made: Conversion, values: dict[str, Any]) -> list[int]:
    """By how much each layer's integers differ at most from ONNX Runtime's of the same operands."""
    constants = dict(made.constants)
    for node in made.graph.node:
        if node.op_type == "QuantizeLinear":
            constants.update(zip(node.input[1:], made.parameters(node), strict=True))

    def value(name: str) -> NDArray[np.int8]:
        array = values[made.out.tensors[made.indices[name]].name]
        order = (0, 3, 1, 2) if array.ndim == 4 else (0, 1)
        return np.ascontiguousarray(array.transpose(order).reshape(made.shapes[name]))

    found = []
    for node in made.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear", "Flatten"}:
            last = made.quantizer(node.output[0])
            nodes = [*(made.makers[name] for name in node.input if name in made.makers), node, last]
            read = {name for each in nodes for name in each.input}
            operands = {name: value(name) for name in read & made.indices.keys()}
            weights = {name: constants[name] for name in read & constants.keys()}
            expected = _evaluated(nodes, operands, weights)
            difference = expected.astype(np.int32) - value(last.output[0])
            found.append(int(np.abs(difference).max()))
    return found


def _evaluated(
    nodes: list[onnx.NodeProto], operands: dict[str, Any], constants: dict[str, Any]
) -> NDArray[np.int8]:
    """What ONNX Runtime makes of a few nodes."""
    graph = onnx.helper.make_graph(
        nodes,
        "layer",
        [
            onnx.helper.make_tensor_value_info(n, TensorProto.INT8, a.shape)
            for n, a in operands.items()
        ],
        [onnx.helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.INT8, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    options = onnxruntime.SessionOptions()
    # Without this it multiplies integers on x86, which may saturate.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    result: NDArray[np.int8] = session.run(None, operands)[0]
    return result


def _cosine(one: Logits, other: Logits) -> float:
    return float(np.vdot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=arm.NAMES)
    parser.add_argument("--cpu", choices=emulated.CPUS, default="dotprod")
    parser.add_argument("--samples", type=int, default=50)
    given = parser.parse_args()
    print(f"LiteRT {tflite.LITERT.partition('==')[2]}")
    for network in networks.find(given.networks):
        with tempfile.TemporaryDirectory() as folder:
            print(compared(network, given.cpu, given.samples, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
