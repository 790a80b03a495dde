"""Images of few channels beside floats, and of one pixel as rows: no kernel may pass their ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
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

# `flat` is the mean of each image, which other ops read as an image of one pixel.
ROWS = {
    "by_rows": "Gemm <transB = 1> (flat, w_row)",
    "row_plus": "Add (by_rows, flat)",
    "plus_row": "Add (flat, by_rows)",
    "row_times": "Mul (by_rows, flat)",
    "times_row": "Mul (flat, by_rows)",
    "row_sigmoid": "Sigmoid (by_rows)",
    "row_twice": "Add (flat, flat)",
    "row_greatest": "Add (flat_greatest, flat)",
    "row_residual": "Add (again, flat)",
}


def rows_model(channels: int, path: Path, batch: Batch) -> Network:
    """Rows of matrices, which images of one pixel are, and the same images with a margin."""
    random = np.random.default_rng(channels)
    shapes = {"w_x": (channels, 3, 1, 1), "w_row": (channels, channels), "w_read": (3, channels)}
    lines = [
        "x = Conv (input, w_x)",
        "pooled = GlobalAveragePool (x)",
        "flat = Flatten (pooled)",
        f"greatest = MaxPool <kernel_shape = [{SIZE[0]},{SIZE[1]}]> (x)",
        "flat_greatest = Flatten (greatest)",
        *(f"{name} = {text}" for name, text in list(ROWS.items())[:1]),
        "again = Gemm <transB = 1> (by_rows, w_row)",
        *(f"{name} = {text}" for name, text in list(ROWS.items())[1:]),
        *(f"{name}_read = Gemm <transB = 1> ({name}, w_read)" for name in ROWS),
        "framed = Conv <pads = [1,1,1,1]> (pooled, w_framed)",
    ]
    outputs = [*(f"{name}_read" for name in ROWS), "framed"]
    shapes["w_framed"] = (channels, channels, 3, 3)
    return written(
        lines, outputs, {k: random.normal(size=s) for k, s in shapes.items()}, path, batch
    )


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
    outputs = [each for name in OPS for each in (name, f"{name}_read")]
    arrays = {key: random.normal(size=shape) for key, shape in shapes.items()}
    return written(lines, outputs, {**arrays, "factor": np.float64(0.3)}, path, batch)


def written(
    lines: Sequence[str],
    outputs: Sequence[str],
    arrays: Mapping[str, NDArray[np.float64] | np.float64],
    path: Path,
    batch: Batch,
) -> Network:
    """The network of these nodes and weights, as an ONNX file that is read again."""
    results, body = ", ".join(f"float[a] {name}" for name in outputs), "\n".join(lines)
    parsed = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]>\n'
        f"narrow (float[1,3,{SIZE[0]},{SIZE[1]}] input) => ({results}) {{\n{body}\n}}"
    )
    for output in parsed.graph.output:
        output.type.tensor_type.ClearField("shape")
    for node in parsed.graph.node:
        node.name = node.output[0]
    for key, array in arrays.items():
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
@pytest.mark.parametrize("made", [model, rows_model])
def test_results_of_few_channels_are_exact(
    made: Callable[..., Network], channels: int, batch: Batch, images: int, tmp_path: Path
) -> None:
    target = host_target()
    network = made(channels, tmp_path / "model.onnx", batch)
    allowed = planning.supported(network, target, ["w8a8"])
    plan: Plan = planning.uniform_plan(network, resolve({}), "w8a8", allowed)
    variant = build(network, plan, ranges_of(network), target)
    random = np.random.default_rng(channels)
    image = random.normal(size=(images, 3, *SIZE)).astype(np.float32)
    expected = compute(variant.quantized, [image], {})
    found = runtime.load(variant.vmfb).run(image)
    names = [layer.name for layer in network.model.outputs]
    for name, array in zip(names, found, strict=True):
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
