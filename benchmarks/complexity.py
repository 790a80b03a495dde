"""What sensitivity costs by the size of a network, from 0.1 to 60 million parameters.

    python benchmarks/complexity.py

Synthetic networks: a stem to 32x32 pixels, then so many 3x3 convolutions of one width at 8x8, and a
classifier, so that work grows as parameters do. CPU seconds of one thread for effort quick (both
inferences) on 8 random samples, compilation left out. Real networks are those that
benchmarks/oracle.py measured, scaled to as many samples. Kept in benchmarks/out/complexity.json.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import networks
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mlq import analysis, targets
from mlq.analysis import Subject
from mlq.frontends.data import load_data
from mlq.network import load
from mlq.progress import Stages
from mlq.recipe import resolve

FILE = networks.OUT / "complexity.json"
SAMPLES = 8
# Width and depth of each.
SIZES = ((48, 4), (72, 6), (112, 8), (176, 10), (288, 13), (448, 16), (720, 13))


def synthetic(width: int, depth: int) -> onnx.ModelProto:
    """A chain of convolutions of one width, seeded, on images of 3x32x32."""
    random = np.random.default_rng(width * depth)
    nodes, weights = [], []

    def weight(name: str, shape: tuple[int, ...]) -> str:
        scale = np.sqrt(2.0 / np.prod(shape[1:]))
        values: NDArray[np.float32] = random.normal(0.0, scale, shape).astype(np.float32)
        weights.append(numpy_helper.from_array(values, name))
        return name

    current, channels = "input", 3
    for index in range(depth + 1):
        stride, made = (4 if index == 0 else 1), f"relu{index}"
        inputs = [current, weight(f"w{index}", (width, channels, 3, 3))]
        attributes = {"strides": [stride] * 2, "pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", inputs, [f"c{index}"], f"conv{index}", **attributes))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [made], made))
        current, channels = made, width
    nodes.append(helper.make_node("GlobalAveragePool", [current], ["pool"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pool"], ["flat"], "flat"))
    nodes.append(
        helper.make_node("Gemm", ["flat", weight("fc", (10, width))], ["output"], "fc", transB=1)
    )
    graph = helper.make_graph(
        nodes,
        "synthetic",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def cost(width: int, depth: int) -> dict[str, float]:
    """Parameters and CPU seconds of one synthetic network."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "synthetic.onnx")
        onnx.save(synthetic(width, depth), path)
        specs = load(path, batch=1).sample_specs
        data = load_data(f"random:{SAMPLES}", specs, model_path=path)
        recipe = resolve({"effort": "quick", "calibrator": "minmax"})
        target, stages = targets.by_name("x86"), Stages(visible=True)
        subject = Subject.of(path, data, target, recipe, stages)
        simulation = analysis.simulate(subject, at_once=1)
        next(simulation.observed(subject.batches()))
        start = time.process_time()
        observations = analysis.observe(subject, simulation)
        choice = analysis.choose_ranges(subject, observations, simulation)
        analysis.measure(subject, observations, simulation, choice)
        seconds = time.process_time() - start
        return {
            "params": float(sum(layer.params for layer in subject.network.layers)),
            "macs": float(sum(layer.macs for layer in subject.network.layers)),
            "seconds": seconds,
        }


def points() -> list[dict[str, float]]:
    """What each synthetic network costs, smallest first; each is measured once."""
    known: dict[str, dict[str, float]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    for width, depth in SIZES:
        key = f"{width}x{depth}"
        if key not in known:
            known[key] = cost(width, depth)
            FILE.parent.mkdir(parents=True, exist_ok=True)
            FILE.write_text(json.dumps(known))
    return sorted(known.values(), key=lambda point: point["params"])


def fit(found: list[dict[str, float]]) -> tuple[float, float, float, float]:
    """Seconds, and more per million parameters, of the line; its R^2 and exponent in logarithms.

    The line has the least squares of relative errors: sizes span three decades, and the largest
    would decide alone.
    """
    params = np.array([each["params"] for each in found]) / 1e6
    seconds = np.array([each["seconds"] for each in found])
    slope, offset = np.polyfit(params, seconds, 1, w=1.0 / seconds)
    logarithms = np.log(seconds)
    left = logarithms - np.log(offset + slope * params)
    explained = 1.0 - float(np.sum(left**2) / np.sum((logarithms - logarithms.mean()) ** 2))
    exponent = float(np.polyfit(np.log(params), logarithms, 1)[0])
    return float(offset), float(slope), explained, exponent


def main() -> None:
    """Print a row for each network, and the line through them."""
    found = points()
    for each in found:
        size, macs = each["params"] / 1e6, each["macs"] / 1e6
        print(f"{size:8.2f} M {macs:9.0f} M MACs {each['seconds']:8.2f} s")
    print(said(found))


def said(found: list[dict[str, float]]) -> str:
    """The line through the points, in words."""
    offset, slope, explained, exponent = fit(found)
    return (
        f"seconds = {offset:.3f} + {slope:.3f} for each million parameters, R^2 of logarithms"
        f" {explained:.3f};"
        f" the exponent of the best power is {exponent:.2f}"
    )


if __name__ == "__main__":
    main()
