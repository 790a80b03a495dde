"""Whether LiteRT under the emulator computes what ONNX Runtime does with the model it is made of.

    python benchmarks/litert_agreement.py [NETWORK...] [--cpu CPU] [--samples N]

For each network of arm.py: samples with the same class, the cosine of all outputs, the greatest
difference in steps of the output's scale; how near both are to the float network, since a network
amplifies what is rounded otherwise; and how many operators XNNPACK took.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import arm
import emulated
import networks
import numpy as np
import onnx
import onnxruntime_baseline
import tflite
from networks import Network, Samples
from onnxruntime_baseline import Logits


def compared(network: Network, cpu: str, count: int, folder: Path) -> str:
    """A line about one network."""
    samples = network.samples(network.eval)
    few = Samples(samples.inputs[:count], samples.labels[:count])
    model = arm.by_onnxruntime(network, "s8", folder)
    expected = onnxruntime_baseline.logits(model, network.input, few, network.name)
    images, kept = folder / "images.npy", folder / "kept.npz"
    np.save(images, np.ascontiguousarray(few.inputs.transpose(0, 2, 3, 1)))
    script, packages = emulated.HERE / "arm_litert.py", arm.LITERT
    given = [str(each) for each in (arm.by_litert(model, folder), images, "1", kept)]
    emulated.python(cpu, script, packages, *given)
    with np.load(kept) as arrays:
        found, operators, left = arrays["outputs"], int(arrays["operators"]), arrays["left"]
    agreeing = np.sum(found.argmax(-1) == expected.argmax(-1))
    exact = onnxruntime_baseline.logits(network.model, network.input, few, f"{network.name} float")
    steps = np.abs(found - expected).max() / _output_scale(model)
    return (
        f"{network.name:28} {cpu:8} {agreeing:4} of {len(found)} classes  "
        f"cosine {_cosine(found, expected):.5f}  {steps:3.0f} steps  "
        f"to float {_cosine(found, exact):.5f}, ONNX Runtime {_cosine(expected, exact):.5f}  "
        f"XNNPACK has {operators - len(left)} of {operators} operators"
        + "".join(f" {name}" for name in left)
    )


def _cosine(one: Logits, other: Logits) -> float:
    return float(np.vdot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))


def _output_scale(model: Path) -> float:
    """The step of what the model returns."""
    graph = onnx.load(model).graph
    (last,) = (each for each in graph.node if graph.output[0].name in each.output)
    (scale,) = (each for each in graph.initializer if each.name == last.input[1])
    return float(onnx.numpy_helper.to_array(scale))


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
