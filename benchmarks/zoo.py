"""Architectures that mlq was not built on: torchvision's, with random weights.

    pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu
    python benchmarks/zoo.py [NETWORK ...] [--size 96]

Each is exported to ONNX (batch norms with statistics drawn at random, so that folding them changes
something) and quantized by `mlq quantize` with random samples. What is measured is whether that
works, how much of the network is integer, how long it takes, and what it is worth. What a network
of random weights loses says nothing.

`left` are float ops that mlq has no op for; `s` is the time of `mlq quantize` by the clock with
nothing cached; `int8` and `mixed` are how many times as fast as float those are (CPU time, one
thread). Last come the float tensors of `mlq check --numerics`, and how many of them are wrong.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torchvision import models

from mlq.report import Report

NETWORKS = (
    "mobilenet_v3_small",
    "mnasnet0_5",
    "shufflenet_v2_x0_5",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "efficientnet_b0",
    "googlenet",
    "densenet121",
    "convnext_tiny",
)
_BRANCHES = {"googlenet", "inception_v3"}  # that have outputs for training only


def main() -> None:
    """A line for each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=NETWORKS)
    parser.add_argument("--size", type=int, default=96, help="height and width of the images")
    parser.add_argument("--samples", type=int, default=8)
    arguments = parser.parse_args()
    print(f"{'':20}{'layers':>7}{'float':>6}{'left':>5}{'s':>6}{'int8':>6}{'mixed':>6}  numerics")
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{name}.onnx")
            export(name, path, arguments.size)
            print(f"{name:20}{line(path, f'random:{arguments.samples}')}", flush=True)


def export(name: str, path: Path, size: int) -> None:
    """Write a network of random weights, with a dynamic batch."""
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": False} if name in _BRANCHES else {}
    network = models.get_model(name, weights=None, **options).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.05)
            module.running_var.uniform_(0.5, 1.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.randn(1, 3, size, size),),
            str(path),
            opset_version=17,
            dynamo=False,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        )


def line(path: Path, samples: str) -> str:
    """What `mlq quantize` makes of a network, or how it ended."""
    out = path.with_suffix("")
    start = time.perf_counter()
    done = run(path.parent, "quantize", path.name, "--calib", samples, "-o", out.name)
    seconds = time.perf_counter() - start
    if done.returncode:
        return f"  exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}"
    report = Report.model_validate_json((out / "report.json").read_text())
    kept = sum(layer.precision == "f32" for layer in report.layers)
    ms = report.latency_ms
    checked = run(path.parent, "check", path.name, "--numerics").stdout
    *_, last = checked.strip().splitlines()
    return (
        f"{len(report.layers):7}{kept:6}{len(report.float_ops):5}{seconds:6.0f}"
        f"{ms.float.cpu_p50 / ms.int8.cpu_p50:6.2f}{ms.float.cpu_p50 / ms.mixed.cpu_p50:6.2f}"
        f"  {last}"
    )


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of mlq, its cache in the folder where it runs."""
    mlq = Path(sys.executable).with_name("mlq")
    variables = {**os.environ, "MLQ_CACHE": str(folder / "cache")}
    return subprocess.run(
        [mlq, *words], cwd=folder, env=variables, check=False, capture_output=True, text=True
    )


if __name__ == "__main__":
    main()
