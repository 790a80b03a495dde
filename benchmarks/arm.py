"""Instructions per int8 inference on 64-bit Arm: mlq, ONNX Runtime, LiteRT and IREE under qemu.

    python benchmarks/arm.py [NETWORK...] [--only LIST] [--cpus LIST] [--calls N]

The LIST of contestants is of mlq, float (mlq's kernels for floats), onnxruntime, litert (XNNPACK)
and iree; that of CPUs of neon (a core without dot products), dotprod and i8mm (matrix products,
too), all played by qemu-user. Its plugin counts what N calls after the first execute, what a
runtime spends on a call included: one thread, batch 1. Instructions are not time. Needs gcc,
qemu-aarch64, apt-get, pip.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import emulated
import networks
import numpy as np
import onnx
import onnx_to_tflite
import onnxruntime_baseline
import targets as agreement
import tflite
from networks import Network, Samples
from onnxruntime.quantization import QuantType

from mlq import artifact
from mlq.network import transform
from mlq.targets import by_name
from mlq.targets.iree import compile_module, versions
from mlq.transforms.pipelines import lowering

NAMES = (
    "resnet20_cifar10",
    "mlperf_tiny_vww_mobilenetv1",
    "squeezenet1_1",
    "mobilenetv2_1.0",
)
TARGETS = {"neon": "arm64", "dotprod": "arm64:cortex-a76", "i8mm": "arm64:neoverse-v1"}
CONTESTANTS = "mlq,float,onnxruntime,litert,iree"
_PRECISIONS = {"mlq": "w8a8", "float": "f32"}  # both mlq's
_NUMPY = "numpy==2.4.6"
PEER = ("onnxruntime==1.31.1", _NUMPY)
LITERT = (tflite.LITERT, _NUMPY)
_TOOL = Path("iree", "_runtime_libs", "iree-benchmark-module")
_SYSROOT = Path("/usr/aarch64-linux-gnu")
_ACTIVATIONS = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
# What was fastest for it, and what it takes to compile ResNet20 at all.
_TILING = ("--iree-opt-data-tiling", "--iree-llvmcpu-stack-allocation-limit=131072")

Count = Callable[[int], int]


def of_module(features: str, vmfb: Path, data: Path, calls: int) -> int:
    """Instructions of a call of a module's `main`, by processes that make 1 call and 1 + `calls`.

    IREE's start costs the same in each to some hundred instructions.
    """
    tool = emulated.wheel(f"iree-base-runtime=={versions()['iree-base-runtime']}") / _TOOL
    tool.chmod(0o755)
    command: list[str | Path] = [tool, "--device=local-sync", f"--module={vmfb}", "--function=main"]
    command += [f"--input=@{data}"]

    def whole(count: int) -> int:
        iterations = f"--benchmark_min_time={count}x"
        return emulated.counted(features, _SYSROOT, [*command, iterations])[-1]

    return (whole(1 + calls) - whole(1)) // calls


def of_python(
    script: Path, packages: Sequence[str], given: tuple[Path, Path], features: str, calls: int
) -> int:
    """Instructions of a call in a script that marks where the calls begin and end."""
    model, data = map(str, given)
    before, after, _ = emulated.python(features, script, packages, model, data, str(calls))
    return (after - before) // calls


def by_mlq(network: Network, precision: str, features: str, folder: Path) -> Path:
    """A module of mlq's, every layer in one precision if it can be."""
    made = agreement.made(network.name, network.model, network.calib, precision)
    found, target = artifact.Artifact.open(made), by_name(TARGETS[features])
    quantized = found.recall(batch=1).quantized
    lowered = transform(quantized.text, quantized.weights, lowering(target.cpu_features))
    vmfb = folder / f"mlq-{precision}-{features}.vmfb"
    vmfb.write_bytes(compile_module(lowered.text, target, weights=lowered.weights))
    return vmfb


def by_onnxruntime(network: Network, activations: str, folder: Path) -> Path:
    """A Q/DQ model of ONNX Runtime's, made once."""
    kept = emulated.OUT / "onnxruntime" / f"{network.name}-{activations}.onnx"
    if kept.exists():
        return kept
    samples = network.samples(network.calib)
    few = Samples(samples.inputs[:4], samples.labels[:4])
    part = folder / activations
    part.mkdir()
    made = onnxruntime_baseline.quantize(
        network, few, "minmax", "per_channel", part, activations=_ACTIVATIONS[activations]
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    made.rename(kept)
    return kept


def by_litert(model: Path, folder: Path) -> Path:
    """A Q/DQ model of s8 activations as TFLite has it."""
    made = folder / f"{model.stem}.tflite"
    made.write_bytes(onnx_to_tflite.convert(model).packed())
    return made


def by_iree(model: Path, features: str, flags: tuple[str, ...]) -> Path:
    """A Q/DQ model of batch 1 as IREE compiles it, kept; mlq's flags of the target and more."""
    kept = emulated.OUT / "iree" / f"{model.stem}-{features}{'-tiled' if flags else ''}.vmfb"
    if kept.exists():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    static, imported, partial_ = (kept.with_suffix(each) for each in (".onnx", ".mlir", ".part"))
    loaded = onnx.load(model)
    onnxruntime_baseline.fix_batch(loaded)
    loaded.graph.name = "main"  # which names the function
    onnx.save(loaded, static)
    tools = Path(sys.executable).parent
    commands: list[list[str | Path]] = [
        [tools / "iree-import-onnx", static, "-o", imported],
        [tools / "iree-compile", imported, *by_name(TARGETS[features]).iree_flags, *flags],
    ]
    commands[1] += ["-o", partial_]
    for command in commands:
        emulated.run(command)
    for each in (static, imported):
        each.unlink()
    partial_.rename(kept)
    return kept


def rows(
    network: Network, only: list[str], cpus: list[str], folder: Path
) -> Iterator[tuple[str, str, Count]]:
    """What computes the network, on which CPU, and how its instructions are counted."""
    data = folder / "input.npy"
    np.save(data, network.samples(network.calib).inputs[:1])
    for name in _PRECISIONS.keys() & only:
        for features in cpus:
            vmfb = by_mlq(network, _PRECISIONS[name], features, folder)
            yield name, features, partial(of_module, features, vmfb, data)
    if "onnxruntime" in only:
        script = emulated.HERE / "arm_onnxruntime.py"
        for activations in _ACTIVATIONS:
            model = by_onnxruntime(network, activations, folder)
            for features in cpus:
                count = partial(of_python, script, PEER, (model, data), features)
                yield f"ONNX Runtime {activations}", features, count
    if "litert" in only:
        model, image = by_litert(by_onnxruntime(network, "s8", folder), folder), folder / "nhwc.npy"
        np.save(image, np.ascontiguousarray(np.load(data).transpose(0, 2, 3, 1)))
        script = emulated.HERE / "arm_litert.py"
        for features in cpus:
            count = partial(of_python, script, LITERT, (model, image), features)
            yield "LiteRT s8", features, count
    if "iree" in only:
        model = by_onnxruntime(network, "u8", folder)
        for features in cpus:
            vmfb = by_iree(model, features, _TILING)
            yield "IREE Q/DQ", features, partial(of_module, features, vmfb, data)


def main() -> None:
    """Print a line for each network, contestant and CPU as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NAMES)
    parser.add_argument("--only", default=CONTESTANTS)
    parser.add_argument("--cpus", default=",".join(TARGETS))
    parser.add_argument("--calls", type=int, default=4)
    given = parser.parse_args()
    only, cpus = given.only.split(","), given.cpus.split(",")
    for network in networks.find(given.networks):
        with tempfile.TemporaryDirectory() as folder:
            for name, features, count in rows(network, only, cpus, Path(folder)):
                found = count(given.calls) / 1e6
                cpu = emulated.CPUS[features].partition(",")[0]
                print(f"{network.name:28} {name:18} {features:8} {found:9.2f} M  {cpu}", flush=True)


if __name__ == "__main__":
    main()
