"""ONNX Runtime's static int8 quantization of the benchmark networks: what mlq is compared with.

    python benchmarks/onnxruntime_baseline.py all
    python benchmarks/onnxruntime_baseline.py mobilenetv2_1.0 --calibrators minmax

Its best-known recipe for x86 with VNNI: `quant_pre_process`, then `quantize_static` to Q/DQ with
U8 activations and S8 weights, per tensor and per channel, over the same calibration samples that
mlq gets; everything else as ONNX Runtime has it by default. Both the float and the int8 models run
in ONNX Runtime with one thread (calibration: with its default). What was measured is kept in
benchmarks/out/onnxruntime: NAME.json the figures, NAME.npz the logits of each model on the
evaluation samples, for comparing image by image.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import onnxruntime
from networks import Network, Samples
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_input_shape_fixed
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mlq import metrics

OUT = networks.OUT / "onnxruntime"
THREADS = 1
BATCH = 4  # divides the number of samples of every calibration set
CALIBRATORS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
GRANULARITIES = {"per_tensor": False, "per_channel": True}

Logits = NDArray[np.float32]


class Batches(CalibrationDataReader):
    """The calibration samples in batches; ONNX Runtime pulls a range of batches at a time."""

    def __init__(self, name: str, inputs: NDArray[np.float32]) -> None:
        self.feeds = [{name: inputs[i : i + BATCH]} for i in range(0, len(inputs), BATCH)]
        self.set_range(0, len(self.feeds))

    def __len__(self) -> int:
        return len(self.feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.pending = iter(self.feeds[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self.pending, None)


def quantize(
    network: Network,
    calib: Samples,
    calibrator: str,
    granularity: str,
    folder: Path,
    *,
    activations: QuantType = QuantType.QUInt8,
    exclude: Sequence[str] = (),
) -> Path:
    """Quantize to a file in `folder`, all but the nodes `exclude`; calibration is shared."""
    int8 = folder / f"{granularity}-{calibrator}.onnx"
    # The calibrators report with print, and nothing that a benchmark's reader needs.
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(
            prepared(network, folder),
            int8,
            Batches(network.input, calib.inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=GRANULARITIES[granularity],
            activation_type=activations,
            weight_type=QuantType.QInt8,
            calibrate_method=CALIBRATORS[calibrator],
            nodes_to_exclude=list(exclude),
            # Ranges are merged batch by batch: the same ranges, without all activations in memory.
            extra_options={"CalibStridedMinMax": 1},
            calibration_cache_path=folder / f"{calibrator}.json",
        )
    return int8


def prepared(network: Network, folder: Path) -> Path:
    """The float network with batch norms folded, as it is to be quantized, in `folder`."""
    file = folder / "prepared.onnx"
    if not file.exists():
        quant_pre_process(str(network.model), str(file))
    return file


def fix_batch(model: onnx.ModelProto) -> None:
    """Give a model's input a batch of one, and its output the shape that follows."""
    graph_input = model.graph.input[0]
    shape = [each.dim_value for each in graph_input.type.tensor_type.shape.dim]
    make_input_shape_fixed(model.graph, graph_input.name, [1, *shape[1:]])
    fix_output_shapes(model)


def logits(
    model: Path, input_name: str, samples: Samples, what: str, *, threads: int = THREADS
) -> Logits:
    """Run the samples through a model one by one, as a device would; 0 threads: as it likes."""
    options = onnxruntime.SessionOptions()
    # Without VNNI its fast sums of 16 bits saturate; it is to be judged at its best.
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images = track(samples.inputs, what, console=Console(stderr=True), transient=True)
    return np.concatenate([session.run(None, {input_name: x[None]})[0] for x in images])


def figures(reference: Logits, found: Logits, labels: NDArray[np.int64]) -> dict[str, float]:
    """How good the logits are, and how near to those of the float network."""
    return {
        "top1": metrics.top1(found, labels),
        "kl_mnat": metrics.kl_mnat(reference, found),
        "agreement": metrics.agreement(reference, found),
    }


def measure(network: Network, calibrators: Sequence[str]) -> dict[str, Any]:
    """Measure the variants of one network that are not known yet, and keep all that is known."""
    OUT.mkdir(parents=True, exist_ok=True)
    at = OUT / f"{network.name}.json"
    key = network.fingerprint(onnxruntime.__version__, f"{THREADS} {BATCH}")
    result, arrays = _known(at, key)
    wanted = [(g, c) for c in calibrators for g in GRANULARITIES]
    if all(f"{g}-{c}" in result["variants"] for g, c in wanted):
        return result
    calib, samples = network.samples(network.calib), network.samples(network.eval)
    if "float" not in arrays:
        arrays["labels"] = samples.labels
        arrays["float"] = logits(network.model, network.input, samples, f"{network.name} float")
        result["samples"] = {"calib": len(calib.labels), "eval": len(samples.labels)}
        result["float"] = figures(arrays["float"], arrays["float"], samples.labels)
        result["float"]["size_bytes"] = network.model.stat().st_size
        _keep(at, result, arrays)
    with tempfile.TemporaryDirectory() as folder:
        for granularity, calibrator in wanted:
            name = f"{granularity}-{calibrator}"
            if name in result["variants"]:
                continue
            start = time.perf_counter()
            model = quantize(network, calib, calibrator, granularity, Path(folder))
            seconds = time.perf_counter() - start
            arrays[name] = logits(model, network.input, samples, f"{network.name} {name}")
            result["variants"][name] = {
                **figures(arrays["float"], arrays[name], samples.labels),
                "size_bytes": model.stat().st_size,
                "quantize_seconds": round(seconds, 1),
            }
            _keep(at, result, arrays)
    return result


def _known(at: Path, key: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What an earlier run kept, if it was made from the same files by the same ONNX Runtime."""
    if at.exists() and at.with_suffix(".npz").exists():
        result = json.loads(at.read_text())
        if result["key"] == key:
            with np.load(at.with_suffix(".npz")) as arrays:
                return result, dict(arrays)
    version = onnxruntime.__version__
    return {"key": key, "onnxruntime": version, "threads": THREADS, "variants": {}}, {}


def _keep(at: Path, result: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    np.savez_compressed(at.with_suffix(".npz"), **arrays)
    at.write_text(json.dumps(result, indent=1) + "\n")


def best(result: dict[str, Any]) -> str:
    """The variant nearest to float: lowest KL on the evaluation samples, a choice in its favour."""
    variants = result["variants"]
    return min(variants, key=lambda name: variants[name]["kl_mnat"])


def show(results: dict[str, dict[str, Any]]) -> Table:
    """One row per network and variant."""
    table = Table("network", "n", "model", "top-1 %", "KL mn", "agreement %", "MB")
    for name, result in results.items():
        for variant, found in {"float": result["float"], **result["variants"]}.items():
            table.add_row(
                name,
                str(result["samples"]["eval"]),
                variant,
                f"{100 * found['top1']:.2f}",
                f"{found['kl_mnat']:.1f}",
                f"{100 * found['agreement']:.2f}",
                f"{found['size_bytes'] / 1e6:.2f}",
            )
        table.add_section()
    return table


def main() -> None:
    """Measure what is asked for, and print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+", metavar="NETWORK", help="names, or all")
    parser.add_argument(
        "--calibrators",
        nargs="+",
        choices=CALIBRATORS,
        default=list(CALIBRATORS),
        help="all of ONNX Runtime's by default",
    )
    arguments = parser.parse_args()
    onnxruntime.set_default_logger_severity(3)
    chosen = networks.find(arguments.networks)
    results = {network.name: measure(network, arguments.calibrators) for network in chosen}
    print(f"ONNX Runtime {onnxruntime.__version__}, {THREADS} thread")
    Console(width=100).print(show(results))


if __name__ == "__main__":
    main()
