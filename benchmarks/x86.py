"""Networks side by side on this x86 CPU: mlq, ONNX Runtime, OpenVINO and stock IREE, each int8 too.

    python benchmarks/x86.py [NETWORK ...] [--threads 1 2] [--seconds 20] [--settle 20] [--stock]

mlq's three forms are those that benchmarks/table.py made (benchmarks/out/mlq), maybe of older code,
which is then said; ONNX Runtime's and OpenVINO's int8 read one Q/DQ file, quantized by ONNX Runtime
from the same samples (U8S8, per channel). All are called in turn on one batch of one; a row is the
median wall and CPU time of a call, and the ratio to mlq's int8 of the medians. `--stock` adds
IREE's own import of the float network and of the Q/DQ file, which take minutes to compile. With
`--settle` each form is called for so many milliseconds before it is timed, so that its weights are
near and no thread of another still looks for work on its CPU, as when a network runs by itself.
`--no-amx` denies AMX, for which mlq has no kernels, to all, as on a CPU with AVX512-VNNI alone.
OpenVINO is in the extra mlq[bench]; its float is f32, not the bf16 that it takes where there is
AMX.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import shutil
import struct
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import backend_nodes
import iree.runtime as rt
import networks
import numpy as np
import onnxruntime
import onnxruntime_baseline as baseline
from cuda import entry_of
from networks import Network
from numpy.typing import NDArray
from table import OUT as MADE

from mlq import runtime
from mlq.latency import time_for
from mlq.targets.host import cpu_features, cpu_model

OUT = networks.OUT / "x86"
Call = Callable[[], object]
# A program for seccomp: arch_prctl(ARCH_REQ_XCOMP_PERM), which asks for AMX, ends in EPERM.
_ARCH_PRCTL, _REQUEST = 158, 0x1023
_NO_NEW_PRIVILEGES, _SECCOMP = 38, 22
_DENIED_NOW = "BENCHMARK_WITHOUT_AMX"
_DENIED = (
    (0x20, 0, 0, 0),  # the number of the system call
    (0x15, 0, 3, _ARCH_PRCTL),
    (0x20, 0, 0, 16),  # its first argument
    (0x15, 0, 1, _REQUEST),
    (0x06, 0, 0, 0x0005_0001),
    (0x06, 0, 0, 0x7FFF_0000),
)


def main() -> None:
    """Print a table for each number of threads, and the geometric means of the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="all by default")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="a network and thread count")
    parser.add_argument(
        "--settle", type=float, default=0.0, help="ms before each call (default: 0)"
    )
    parser.add_argument("--stock", action="store_true", help="stock IREE as well")
    parser.add_argument("--no-amx", action="store_true", help="as on a CPU without AMX")
    arguments = parser.parse_args()
    if arguments.no_amx:
        deny_amx()
    known = cpu_features()
    shown = " ".join(sorted(each for each in known if each.startswith("avx")))
    print(f"{cpu_model()}; {shown}")
    if "amx_int8" in known:
        print("AMX is", "denied to all" if _DENIED_NOW in os.environ else "there for all but mlq")
    for threads in arguments.threads:
        ratios: dict[str, list[float]] = {}
        for network in networks.find(arguments.networks):
            row(network, threads, arguments, ratios)
        for name, values in ratios.items():
            mean = math.exp(sum(map(math.log, values)) / len(values))
            print(f"{name:28} {mean:6.2f} times mlq int8, geometric mean of {len(values)}")


def deny_amx() -> None:
    """Begin again as a process that is not given AMX: libraries ask for it once, as they load."""
    if _DENIED_NOW in os.environ:
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _DENIED))
    program = struct.pack("HP", len(_DENIED), ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    filtered = prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or prctl(_SECCOMP, 2, program)
    if filtered:
        raise OSError(ctypes.get_errno(), "the kernel denies nothing")
    os.execve(  # noqa: S606  this very program, no shell
        sys.executable, [sys.executable, *sys.argv], os.environ | {_DENIED_NOW: "1"}
    )


def row(
    network: Network, threads: int, given: argparse.Namespace, ratios: dict[str, list[float]]
) -> None:
    """Time all forms of one network and print them."""
    made = MADE / network.name
    if not (made / "model.vmfb").exists():
        print(f"{network.name}: left out; make it with benchmarks/table.py {network.name}")
        return
    if (made / "model.vmfb").stat().st_mtime < _changed():
        print(f"{network.name}: of older code; make it again with benchmarks/table.py", flush=True)
    samples = network.samples(network.calib)
    x = samples.inputs[:1]
    calls = forms(network, made, x, threads, stock=given.stock)
    found = time_for(list(calls.values()), seconds=given.seconds, settle=given.settle / 1e3)
    times = dict(zip(calls, found, strict=True))
    ours = times["mlq int8"].p50
    print(f"{network.name}, threads: {threads}, batch 1")
    for name, each in times.items():
        ratio = each.p50 / ours
        ratios.setdefault(name, []).append(ratio)
        print(f"  {name:26} {each.p50:9.3f} ms  {each.cpu_p50:9.3f} CPU ms  {ratio:6.2f}")


@cache
def _changed() -> float:
    """When mlq's code was last written."""
    return max(path.stat().st_mtime for path in Path(runtime.__file__).parent.rglob("*.py"))


def forms(
    network: Network, made: Path, x: NDArray[np.float32], threads: int, *, stock: bool
) -> dict[str, Call]:
    """Every form of a network that can be run here, as a call."""
    stages = made / "stages"
    modules = {
        "mlq float": stages / "float.vmfb",
        "mlq int8": stages / "int8.vmfb",
        "mlq mixed": made / "model.vmfb",
    }
    qdq = quantized(network)
    if stock:
        modules |= {"IREE float": imported(network.model), "IREE Q/DQ": imported(qdq)}
    calls: dict[str, Call] = {
        name: runtime.load(path, entry=entry_of(_module(path)), threads=threads).prepare(x)
        for name, path in modules.items()
        if path.stat().st_size
    }
    for name, path in (("float", network.model), ("int8", qdq)):
        calls[f"ONNX Runtime {name}"] = session(path, network.input, x, threads)
    calls |= openvino_calls({"float": network.model, "int8": qdq}, x, threads)
    return calls


def _module(path: Path) -> rt.VmModule:
    """To be looked at: stock IREE names a module's function after the ONNX graph."""
    return rt.VmModule.mmap(rt.VmInstance(), str(path))


def quantized(network: Network) -> Path:
    """The network as ONNX Runtime quantizes it, kept from run to run."""
    path = OUT / f"{network.name}.qdq.onnx"
    if not path.exists():
        folder = OUT / network.name
        folder.mkdir(parents=True, exist_ok=True)
        calib = network.samples(network.calib)
        baseline.quantize(network, calib, "minmax", "per_channel", folder).rename(path)
    return path


def imported(model: Path) -> Path:
    """The module that stock IREE makes of an ONNX file; an empty one where it makes none."""
    path = OUT / f"{model.stem}.stock.vmfb"
    if not path.exists():
        OUT.mkdir(parents=True, exist_ok=True)
        copied = shutil.copy(model, OUT / f"{model.stem}.stock.onnx")  # it writes beside the model
        try:
            path.write_bytes(backend_nodes.stock(Path(copied)))
        except backend_nodes.StageError as error:
            print(f"stock IREE does not compile {model.name}: {error}")
            path.touch()
    return path


def session(model: Path, name: str, x: NDArray[np.float32], threads: int) -> Call:
    """A call of ONNX Runtime, at its fastest, whether or not that is exact on this CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    made = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: made.run(None, {name: x})


def openvino_calls(
    models: dict[str, Path], x: NDArray[np.float32], threads: int
) -> dict[str, Call]:
    """OpenVINO's calls; none, with a word about it, where it is not installed."""
    try:
        import openvino
    except ImportError:
        print("OpenVINO is not installed: pip install 'mlq[bench]'")
        return {}
    core, calls = openvino.Core(), dict[str, Call]()
    config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    config["INFERENCE_PRECISION_HINT"] = "f32"
    for name, path in models.items():
        model = core.read_model(path)
        model.reshape(list(x.shape))
        request = core.compile_model(model, "CPU", config).create_infer_request()
        request.set_input_tensor(openvino.Tensor(x))
        calls[f"OpenVINO {name}"] = request.infer
    return calls


if __name__ == "__main__":
    main()
