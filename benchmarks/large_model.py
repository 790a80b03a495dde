"""A network of more than 2 GB, its weights in a file of their own: `mlq check` reads it.

    python benchmarks/large_model.py

24 matrix products of 4800 x 4800 in f32; prints the bytes of the weights and what `mlq check` says.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, LAYERS = 4800, 24


def write(path: Path) -> int:
    """Write the network; returns the bytes of its weights."""
    random, nodes, weights, value = np.random.default_rng(0), [], [], "x"
    for layer in range(LAYERS):
        array = random.standard_normal((WIDTH, WIDTH), dtype=np.float32) / np.float32(WIDTH**0.5)
        weights.append(numpy_helper.from_array(array, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]))
        value = f"r{layer}"
    shape = ["N", WIDTH]
    first, last = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", value)
    )
    graph = helper.make_graph(nodes, "large", [first], [last], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(
        model, path, save_as_external_data=True, location="weights", size_threshold=1024
    )
    return (path.parent / "weights").stat().st_size


def main() -> None:
    """Write it to a temporary folder and have it checked."""
    mlq = Path(sys.executable).with_name("mlq")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.onnx")
        print(f"{write(path):,} bytes of weights", flush=True)
        subprocess.run([mlq, "check", path], check=True)


if __name__ == "__main__":
    main()
