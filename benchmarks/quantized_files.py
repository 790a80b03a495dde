"""Networks that ONNX Runtime quantized, given to mlq: what the file loses, its reals, and mlq.

    python benchmarks/quantized_files.py [NETWORK ...]      (default: three small ones)

Each network as four files: Q/DQ with weights per channel (U8S8), the same in operators on integers
(QLinearConv, ...), Q/DQ that is symmetric and per tensor (S8S8), and with scales that each call
measures ("dynamic"). KL to the original float network, milli-nats, on the evaluation samples: of
the file in ONNX Runtime, exact; of the float network that mlq takes it for (`reals`); of the mixed
one that `mlq quantize` makes of that. Then the median CPU time of a call with one thread: mlq's
mixed network, and ONNX Runtime's of the file at its fastest, exact or not.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnxruntime_baseline as baseline
from networks import Network
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

import mlq
from mlq import metrics, runtime
from mlq.latency import time_for
from mlq.network import load
from mlq.peer import Peer

SMALL = ("mlperf_tiny_ic_resnet8", "resnet20_cifar10", "mlperf_tiny_vww_mobilenetv1")
SECONDS = 4.0
_BYTES = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
_SIGNED = {"activation_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": True}}
STATIC: dict[str, dict[str, Any]] = {
    "Q/DQ": {"quant_format": QuantFormat.QDQ, "per_channel": True, **_BYTES},
    "operators": {"quant_format": QuantFormat.QOperator, "per_channel": True, **_BYTES},
    "symmetric": {"quant_format": QuantFormat.QDQ, "weight_type": QuantType.QInt8, **_SIGNED},
}


def files(network: Network, folder: Path) -> dict[str, Path]:
    """Each form of a network, and its file."""
    prepared, calib = baseline.prepared(network, folder), network.samples(network.calib)
    found = {name: folder / f"{name.replace('/', '')}.onnx" for name in (*STATIC, "dynamic")}
    # Some of it says with print what nobody who reads a table needs.
    with contextlib.redirect_stdout(io.StringIO()):
        for name, options in STATIC.items():
            batches = baseline.Batches(network.input, calib.inputs)
            quantize_static(prepared, found[name], batches, **options)
        quantize_dynamic(prepared, found["dynamic"], per_channel=True)
    return found


def row(network: Network, path: Path) -> str:
    """What a file, its reals and mlq's network lose, and how long a call takes."""
    samples, name = network.samples(network.eval), network.input
    reals = path.with_suffix(".reals.onnx")
    load(path).model.save_onnx(reals)
    found = [
        baseline.logits(each, name, samples, each.stem) for each in (network.model, path, reals)
    ]
    made = mlq.quantize(path, {name: network.samples(network.calib).inputs}, max_drop=0.003)
    ours, x = runtime.load(made.vmfb), samples.inputs[:1]
    found.append(np.concatenate([ours.run(each[None])[0] for each in samples.inputs]))
    calls = [ours.prepare(x), Peer(path, exact=False).call({name: x})]
    times = [each.cpu_p50 for each in time_for(calls, seconds=SECONDS)]
    losses = (f"{metrics.kl_mnat(found[0], each):>8.2f}" for each in found[1:])
    return " ".join((*losses, *(f"{each:>8.3f}" for each in times)))


def main(names: list[str]) -> None:
    """Print a row for each file."""
    columns = ("file", "reals", "mlq", "mlq ms", "file ms")
    print(f"{'KL mn, then CPU ms':42} {' '.join(f'{each:>8}' for each in columns)}")
    for network in networks.find(names or SMALL):
        with tempfile.TemporaryDirectory() as folder:
            for name, path in files(network, Path(folder)).items():
                print(f"{network.name:28} {name:13} {row(network, path)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
