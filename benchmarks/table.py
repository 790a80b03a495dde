"""The table of the README: each network in float, all-int8 and mixed, beside ONNX Runtime's int8.

    make table                                  every network, and the README's table rewritten
    python benchmarks/table.py resnet18_pqf     some networks, printed only

Each network is quantized by `mlq quantize` in a process of its own, from the calibration samples
that ONNX Runtime gets too; its output stays in benchmarks/out/mlq and is used again as long as
network, samples, options and mlq's sources are the same. Everything is compared image by image
with the float network as ONNX Runtime runs it, so a row `float` with a KL of more than nothing
would show an error of import or preprocessing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnxruntime
import onnxruntime_baseline as baseline
from networks import Network
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from mlq import metrics
from mlq.targets.host import cpu_model

OUT = networks.OUT / "mlq"
README = networks.ROOT / "README.md"
BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
# What `mlq quantize --eval --save-stages` leaves of the evaluation: logits of each network.
LOGITS = Path("stages") / "logits.npz"
TARGET = "x86"
LIMIT_MNAT = 12.0  # what the mixed network may be away from float: about 0.3 points of top-1

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One network in one form; `top1` and what follows it as in the table, in its units."""

    network: str
    samples: int
    form: str
    top1: float
    drop: tuple[float, float, float] | None
    kl: NDArray[np.float64]  # of each image, milli-nats
    agreement: float
    float_layers: str
    size_bytes: int

    def cells(self) -> list[str]:
        """What stands in the table."""
        change = ""
        if self.drop is not None:
            difference, low, high = (100 * value for value in self.drop)
            change = f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]"
        return [
            self.network,
            str(self.samples),
            self.form,
            f"{100 * self.top1:.2f}",
            change,
            f"{self.kl.mean():.1f}",
            f"{100 * self.agreement:.1f}",
            self.float_layers,
            f"{self.size_bytes / 1e6:.2f}",
        ]


HEADER = (
    "network",
    "n",
    "form",
    "top-1 %",
    "to float, points [95 %]",
    "KL mn",
    "agree %",
    "float layers",
    "MB",
)


class QuantizeError(Exception):
    """`mlq quantize` failed on a network; its last line of output says why."""


def quantize(network: Network, options: Sequence[str], *, reuse: bool) -> Path:
    """Quantize with mlq, unless what stands was made from the same things; the folder it is in."""
    out, key_file = OUT / network.name, OUT / f"{network.name}.key"
    command = ["quantize", str(network.model), "--calib", str(network.calib)]
    command += ["--eval", str(network.eval), "--target", TARGET, "--save-stages", *options]
    key = network.fingerprint(networks.fingerprint(_sources()), *options)
    if (out / "report.json").exists() and (reuse or _text(key_file) == key):
        return out
    OUT.mkdir(parents=True, exist_ok=True)
    key_file.unlink(missing_ok=True)
    shutil.rmtree(out, ignore_errors=True)  # so that what is found there afterwards is new
    mlq = Path(sys.executable).with_name("mlq")
    done = subprocess.run(
        [mlq, *command, "-o", str(out)], check=False, capture_output=True, text=True
    )
    (OUT / f"{network.name}.log").write_text(done.stdout + done.stderr)
    # 1 means that the drop asked for was missed: the best that was found is there, and is shown.
    if done.returncode not in {0, 1} or not (out / "report.json").exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else "no output"
        raise QuantizeError(f"mlq quantize ended with {done.returncode}: {reason}")
    key_file.write_text(key)
    return out


def _sources() -> list[Path]:
    """All that mlq's behaviour is made of, in an order that is the same everywhere."""
    return sorted(
        path
        for path in (networks.ROOT / "mlq").rglob("*")
        if path.is_file() and path.suffix in {".py", ".json", ".toml", ".npz", ".onnx"}
    )


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def rows(network: Network, out: Path | None) -> list[Row]:
    """The rows of one network: those of mlq only where its output is given."""
    result = baseline.measure(network, list(baseline.CALIBRATORS))
    with np.load(baseline.OUT / f"{network.name}.npz") as arrays:
        reference, labels = arrays["float"], arrays["labels"]
        name = baseline.best(result)
        runtime = arrays[name]
    size = result["variants"][name]["size_bytes"]
    form = f"ONNX Runtime int8, {name.replace('_', ' ').replace('-', ', ')}"
    beside = _row(network, form, (reference, runtime, labels), "", size)
    if out is None:
        size = result["float"]["size_bytes"]
        return [_row(network, "float", (reference, reference, labels), "", size), beside]
    report = json.loads((out / "report.json").read_text())
    made = []
    with np.load(out / LOGITS) as arrays:
        if "labels" in arrays and not np.array_equal(arrays["labels"], labels):
            raise QuantizeError(f"{out / LOGITS}: not the samples of {network.eval}")
        for form in ("float", "int8", "mixed"):
            kept = _float_layers(report) if form == "mixed" else ""
            found = (reference, arrays[form], labels)
            label = form if form == "float" else f"mlq {form}"
            made.append(_row(network, label, found, kept, report["size_bytes"][form]))
    return [made[0], beside, *made[1:]]


def _row(
    network: Network,
    form: str,
    found: tuple[Logits, Logits, NDArray[np.int64]],
    float_layers: str,
    size_bytes: int,
) -> Row:
    reference, logits, labels = found
    before, after = metrics.correct(reference, labels), metrics.correct(logits, labels)
    difference = float(after.mean() - before.mean())
    drop = None if form == "float" else (difference, *metrics.paired_interval(before, after))
    return Row(
        network.name,
        len(labels),
        form,
        float(after.mean()),
        drop,
        np.array(
            [metrics.kl_mnat(a[None], b[None]) for a, b in zip(reference, logits, strict=True)]
        ),
        metrics.agreement(reference, logits),
        float_layers,
        size_bytes,
    )


def _float_layers(report: dict[str, Any]) -> str:
    precisions = [layer["precision"] for layer in report["layers"]]
    return f"{sum(name in {'f32', 'f16'} for name in precisions)} of {len(precisions)}"


def markdown(table: Sequence[Row], max_drop: str) -> str:
    """The table, what it was made with, and the two claims it is there to check."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    before = ""
    for row in table:
        cells = row.cells()
        if row.network == before:
            cells[:2] = ["", ""]
        before = row.network
        lines.append("| " + " | ".join(cells) + " |")
    made = (
        f"{cpu_model()}; ONNX Runtime {onnxruntime.__version__}, U8S8, same calibration samples,"
        " the best by KL on these very images of {per tensor, per channel} x {minmax, entropy,"
        " percentile}; mlq's calibrator is chosen on the calibration samples, its mixed plan is"
        f" held to `--max-drop {max_drop}` on these images."
        " Intervals are paired: bootstrap over the same images. KL and agreement are against float"
        " in ONNX Runtime; MB is 10^6 bytes."
    )
    return "\n".join([*lines, "", made, *claims(table)])


def claims(table: Sequence[Row]) -> list[str]:
    """On how many networks int8 is as near to float as ONNX Runtime's, and mixed near enough."""
    by_network: dict[str, dict[str, Row]] = {}
    for row in table:
        by_network.setdefault(row.network, {})[row.form.split(",")[0]] = row
    full = {name: forms for name, forms in by_network.items() if "mlq mixed" in forms}
    if not full:
        return []
    nearer, behind = [], []
    for name, forms in full.items():
        low, high = _interval(forms["mlq int8"].kl - forms["ONNX Runtime int8"].kl)
        nearer += [name] if high < 0 else []
        behind += [name] if low > 0 else []
    far = [name for name, forms in full.items() if forms["mlq mixed"].kl.mean() > LIMIT_MNAT]
    said = (
        f"All-int8 against ONNX Runtime's best, by the paired 95 % interval of the KL: nearer to"
        f" float on {len(nearer)}, level on {len(full) - len(nearer) - len(behind)}, behind on"
        f" {len(behind)} of {len(full)}{_named(behind)}. Mixed is within {LIMIT_MNAT:.0f} mn on"
        f" {len(full) - len(far)} of {len(full)}{_named(far, 'not ')}."
    )
    return ["", said]


def _interval(difference: NDArray[np.float64]) -> tuple[float, float]:
    """Bootstrap interval of the mean, 95 %, over resampled images."""
    picks = np.random.default_rng(0).integers(difference.size, size=(2000, difference.size))
    low, high = np.quantile(difference[picks].mean(axis=1), (0.025, 0.975)).tolist()
    return low, high


def _named(names: Sequence[str], word: str = "") -> str:
    return f" ({word}{', '.join(names)})" if names else ""


def write(text: str) -> None:
    """Replace what stands between the README's two marks."""
    page = README.read_text()
    if BEGIN not in page or END not in page:
        raise SystemExit(f"{README.name} has no {BEGIN} and {END}: the table has no place there")
    head, rest = page.split(BEGIN, 1)
    README.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}")


def main() -> None:
    """Measure, print, and write the table when it is whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="all by default")
    parser.add_argument("--max-drop", default="0.003", help="as of mlq quantize (default: 0.003)")
    parser.add_argument("--reuse", action="store_true", help="take outputs of an older mlq as well")
    parser.add_argument("--baseline-only", action="store_true", help="ONNX Runtime's rows only")
    arguments = parser.parse_args()
    onnxruntime.set_default_logger_severity(3)
    chosen = networks.find(arguments.networks)
    table: list[Row] = []
    failures = [
        failure
        for network in track(chosen, "networks", console=Console(stderr=True))
        if (failure := _add(table, network, arguments))
    ]
    text = markdown(table, arguments.max_drop)
    print(text)
    if failures:
        raise SystemExit("\n".join(failures))
    if not arguments.baseline_only and len(chosen) == len(networks.NAMES):
        write(text)


def _add(table: list[Row], network: Network, arguments: argparse.Namespace) -> str:
    """Add a network's rows; where mlq fails, say why and leave the others their turn."""
    if arguments.baseline_only:
        table += rows(network, None)
        return ""
    options = ("--max-drop", arguments.max_drop)
    try:
        table += rows(network, quantize(network, options, reuse=arguments.reuse))
    except QuantizeError as error:
        return f"{network.name}: {error}"
    return ""


if __name__ == "__main__":
    main()
