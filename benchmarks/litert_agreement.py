"""Whether LiteRT under the emulator computes what ONNX Runtime does with the model it is made of.

    python benchmarks/litert_agreement.py [NETWORK...] [--cpu CPU] [--samples N]

For each network of arm.py: samples with the same class, the cosine of all outputs, the greatest
difference in steps of the output's scale, and how many operators XNNPACK took.
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
    cosine = np.vdot(found, expected) / np.linalg.norm(found) / np.linalg.norm(expected)
    steps = np.abs(found - expected).max() / _output_scale(model)
    return (
        f"{network.name:28} {cpu:8} {agreeing:4} of {len(found)} classes  cosine {cosine:.5f}  "
        f"{steps:3.0f} steps  XNNPACK has {operators - len(left)} of {operators} operators"
        + "".join(f" {name}" for name in left)
    )


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
