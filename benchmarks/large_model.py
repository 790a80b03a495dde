"""A network of more than 2 GB, its weights in a file of their own, from `mlq check` to a module.

    python benchmarks/large_model.py [--width 4800] [--folder FOLDER]

24 matrix products of 4800 x 4800 in f32; prints the bytes of the weights, what mlq says, and the
most memory that each stage took. FOLDER (by default a temporary one) needs eight times the bytes of
the weights, for the modules that are compared are kept there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS = 24


def write(path: Path, width: int) -> int:
    """Write the network; returns the bytes of its weights."""
    random, nodes, weights, value = np.random.default_rng(0), [], [], "x"
    for layer in range(LAYERS):
        array = random.standard_normal((width, width), dtype=np.float32) / np.float32(width**0.5)
        weights.append(numpy_helper.from_array(array, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]))
        value = f"r{layer}"
    shape = ["N", width]
    first, last = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", value)
    )
    graph = helper.make_graph(nodes, "large", [first], [last], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(
        model, path, save_as_external_data=True, location="weights", size_threshold=1024
    )
    return (path.parent / "weights").stat().st_size


def quantize(mlq: Path, folder: Path) -> None:
    """Check it, quantize it, run the module, and say what memory that took."""
    model, out = folder / "large.onnx", folder / "out"
    environment = {**os.environ, "MLQ_CACHE": str(folder / "cache")}
    subprocess.run([mlq, "check", model], check=True)
    command = [mlq, "quantize", model, "--calib", "random:16", "-o", out]
    subprocess.run(command, check=True, env=environment)
    subprocess.run([mlq, "run", out, "--input", "random:1"], check=True)
    for stage in json.loads((out / "manifest.json").read_text())["stages"]:
        print(f"{stage['name']:<24}{stage['seconds']:8.1f} s  peak {stage['peak_rss_mb']:8,.0f} MB")
    compiler = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"the largest process, compilers included: {compiler:,.0f} MB")


def main() -> None:
    """Write it to the folder and quantize it there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=4800)
    parser.add_argument("--folder", type=Path, help="where there is room; a temporary folder")
    arguments = parser.parse_args()
    mlq = Path(sys.executable).with_name("mlq")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(
            f"{write(Path(folder, 'large.onnx'), arguments.width):,} bytes of weights", flush=True
        )
        quantize(mlq, Path(folder))


if __name__ == "__main__":
    main()
