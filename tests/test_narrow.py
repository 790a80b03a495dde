"""Images of few channels beside floats, which are not padded: no kernel may pass their ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mlq import planning, runtime
from mlq.frontends.specs import Batch
from mlq.network import Network, compute, load
from mlq.plan import Plan
from mlq.ranges import Histogram, Ranges, TensorRange
from mlq.recipe import resolve
from mlq.targets import host_target
from mlq.variant import build

# Of each op there is one whose result is an output, in floats, and one that integers read.
OPS = {
    "scaled": "Mul (x, factor)",
    "depthwise": "Conv <group = {channels}, pads = [1,1,1,1]> (x, w_depthwise)",
    "pointwise": "Conv (x, w_pointwise)",
    "square": "Conv <pads = [1,1,1,1]> (x, w_square)",
    "greatest": "MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (x)",
    "mean": "AveragePool <kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1> (x)",
    "whole": "GlobalAveragePool (x)",
    "sum": "Add (x, y)",
    "product": "Mul (x, y)",
    "gated": "Mul (x, whole_kept)",
    "sigmoid": "Sigmoid (x)",
    "joined": "Concat <axis = 1> (x, y)",
}
SIZE = 6, 5


def model(channels: int, path: Path, batch: Batch = 1) -> Network:
    """All ops on images of so many channels, each beside a convolution of integers and alone."""
    random = np.random.default_rng(channels)
    shapes = {
        "w_x": (channels, 3, 1, 1),
        "w_y": (channels, 3, 1, 1),
        "w_depthwise": (channels, 1, 3, 3),
        "w_pointwise": (channels, channels, 1, 1),
        "w_square": (channels, channels, 3, 3),
    }
    lines = ["x = Conv (input, w_x)", "y = Conv (input, w_y)"]
    for name, text in OPS.items():
        shapes[f"w_{name}_read"] = (3, 2 * channels if name == "joined" else channels, 1, 1)
        lines += [
            f"{name} = {text.format(channels=channels)}",
            f"{name}_kept = {text.format(channels=channels)}",
            f"{name}_read = Conv ({name}_kept, w_{name}_read)",
        ]
    outputs = ", ".join(f"float[a,b,c,d] {name}, float[a,b,c,d] {name}_read" for name in OPS)
    body = "\n".join(lines)
    parsed = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]>\n'
        f"narrow (float[1,3,{SIZE[0]},{SIZE[1]}] input) => ({outputs}) {{\n{body}\n}}"
    )
    for output in parsed.graph.output:
        output.type.tensor_type.ClearField("shape")
    for node in parsed.graph.node:
        node.name = node.output[0]
    arrays = {key: random.normal(size=shape) for key, shape in shapes.items()}
    for key, array in {**arrays, "factor": np.float64(0.3)}.items():
        tensor = numpy_helper.from_array(np.asarray(array, np.float32), key)
        parsed.graph.initializer.append(tensor)
    onnx.save(parsed, path)
    return load(path, batch=batch)


def ranges_of(network: Network) -> Ranges:
    """The same range for every tensor: what is to be exact is exact in any."""
    histogram = Histogram(low=-4.0, high=4.0, counts=(1,))
    same = TensorRange(
        minimum=-4.0, maximum=4.0, low=-4.0, high=4.0, calibrator="minmax", histogram=histogram
    )
    tensors = dict.fromkeys(network.observed, same)
    return Ranges(schema_version=1, calibrator="minmax", samples=1, tensors=tensors)


@pytest.mark.parametrize("channels", [1, 4, 7])
@pytest.mark.parametrize(("batch", "images"), [(1, 1), (3, 3), ("any", 1), ("any", 3)])
def test_results_of_few_channels_are_exact(
    channels: int, batch: Batch, images: int, tmp_path: Path
) -> None:
    target = host_target()
    network = model(channels, tmp_path / "model.onnx", batch)
    allowed = planning.supported(network, target, ["w8a8"])
    plan: Plan = planning.uniform_plan(network, resolve({}), "w8a8", allowed)
    variant = build(network, plan, ranges_of(network), target)
    random = np.random.default_rng(channels)
    image = random.normal(size=(images, 3, *SIZE)).astype(np.float32)
    expected = compute(variant.quantized, [image], {})
    found = runtime.load(variant.vmfb).run(image)
    names = [layer.name for layer in network.model.outputs]
    assert len(found) == len(names) == 2 * len(OPS)
    for name, array in zip(names, found, strict=True):
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
