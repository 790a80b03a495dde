"""What it costs to know which layers are sensitive, and how well it is known: mlq and other tools.

    python benchmarks/peers.py [NETWORK ...] [--nncf PYTHON] [--aimet PYTHON]

PYTHON is that of an environment with nncf, onnxruntime and openvino, or with aimet-onnx. All get
the same calibration samples, and judge, where they let one choose, by the mean KL to float.

mlq quick             two inferences
mlq default           and each layer alone on a few samples, at most five passes
mlq extensive         and each layer alone on all samples (O1), ranked here by the expected KL
ONNX Runtime          its debugger, by each of its three errors (onnxruntime_debugger.py)
NNCF                  how its accuracy control ranks, by all-int8 with one group in float
AIMET QuantAnalyzer   the quantizers of one op alone
AIMET AMP             phase 1: one quantizer group alone, the weights and activations of an op

`analysis` is CPU seconds from the samples to the list, on one core: calibration and judging, in mlq
without the choice of a calibrator, in others with building what is run. `process` is those of the
whole process: its start, imports and, in mlq, compiling the modules that measure.
Spearman's rank correlation with O1, by KL and by expected KL, is over the layers that the tool
lists, of all that mlq has. A layer of fused ops is as sensitive as the most sensitive of its ops.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import foreign
import networks
import onnx
import onnxruntime_baseline as baseline
import oracle
from scipy.stats import spearmanr

from mlq.recipe import METRICS

ORACLE = ("oracle_kl_mnat", "oracle_expected_mnat")
NNCF = {"onnx": "NNCF, ONNX Runtime", "openvino": "NNCF, OpenVINO"}
AIMET = {"analyzer": "AIMET QuantAnalyzer", "amp": "AIMET AMP, phase 1"}
EFFORTS = {
    "quick": METRICS["combined"],
    "default": METRICS["output-expected"],
    "extensive": METRICS["output-expected"],
}
BATCH = 8


@dataclass(frozen=True)
class Ranked:
    """A list of layers: what each loses, the more the worse, and what the list cost."""

    tool: str
    loss: Mapping[str, float]
    analysis: float
    said: foreign.Said


def ranked(network: networks.Network, arguments: argparse.Namespace) -> Iterator[Ranked]:
    """The list of each tool; ONNX Runtime has three of one run."""
    yield from _mlq(network)
    command = [sys.executable, str(foreign.FOLDER / "onnxruntime_debugger.py"), network.name]
    said = foreign.run(command)
    for kind, loss in said.content["loss"].items():
        yield Ranked(f"ONNX Runtime, {kind}", loss, said.content["seconds"], said)
    calib = network.samples(network.calib).inputs
    for form, tool in NNCF.items() if arguments.nncf is not None else ():
        with tempfile.TemporaryDirectory() as folder:
            model = baseline.prepared(network, Path(folder))
            said = foreign.launched(arguments.nncf, "nncf_control.py", model, calib, form)
        yield Ranked(tool, said.content["ranking"], said.content["seconds"], said)
    for form, tool in AIMET.items() if arguments.aimet is not None else ():
        said = foreign.launched(
            arguments.aimet, "aimet_analysis.py", network.model, calib, form, str(BATCH)
        )
        yield Ranked(tool, said.content["loss"], said.content["seconds"], said)


def _mlq(network: networks.Network) -> Iterator[Ranked]:
    """What `mlq sensitivity` finds by effort; oracle.py says what its parts cost."""
    parts = oracle.measured(network).seconds
    quick = parts["calibrate"] + parts["lockstep"]
    more = {"quick": 0.0, "default": parts["few"], "extensive": parts["oracle"]}
    options = ["--calib", str(network.calib), "--precisions", oracle.PRECISIONS, "--json"]
    for effort, metric in EFFORTS.items():
        command = ["sensitivity", str(network.model), *options, "--effort", effort]
        said = foreign.run([str(Path(sys.executable).with_name("mlq")), *command])
        layers = said.content["layers"].items()
        loss = {name: each["candidates"][oracle.BASE][metric] for name, each in layers}
        yield Ranked(f"mlq {effort}", loss, quick + more[effort], said)


def row(network: networks.Network, found: Ranked) -> str:
    """A line of the table."""
    known = oracle.measured(network).sensitivities.layers
    truth = {name: each.candidates[oracle.BASE] for name, each in known.items()}
    loss = foreign.by_layer(onnx.load(network.model), list(truth), found.loss)
    values = list(loss.values())
    ranks = [spearmanr(values, [truth[name][key] for name in loss]).statistic for key in ORACLE]
    return (
        f"{found.tool:26}{len(loss):4} of{len(truth):3}{found.analysis:10.2f}"
        f"{found.said.seconds:9.1f}{ranks[0]:7.2f}{ranks[1]:7.2f}"
    )


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks (default: all)")
    for tool in ("nncf", "aimet"):
        parser.add_argument(f"--{tool}", type=Path, metavar="PYTHON", help="of its environment")
    arguments = parser.parse_args()
    for network in networks.find(arguments.names):
        print(f"{network.name}, {len(network.samples(network.calib).labels)} samples")
        print(f"{'':26}{'layers':>10}{'analysis':>10}{'process':>9}{'KL':>7}{'exp.':>7}")
        for found in ranked(network, arguments):
            print(row(network, found), flush=True)


if __name__ == "__main__":
    main()
