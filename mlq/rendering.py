"""The files of the output folder, from what a run found and its report."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from mlq.dialect.weights import WeightStore
from mlq.formats import MODULE, Files, ship
from mlq.frontends.data import Dataset
from mlq.manifest import manifest
from mlq.output import MANIFEST
from mlq.pages import content
from mlq.pages.html import html
from mlq.pages.markdown import markdown
from mlq.ranges import Ranges
from mlq.report import Report
from mlq.reporting import Findings
from mlq.targets.static import STATIC_LIBRARY

PREPROCESS = "preprocess.json"
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')  # keys that MLIR prints as they are


def files(found: Findings, report: Report, *, save_stages: bool) -> Files:
    """Everything that `mlq quantize` writes, by its name in the folder."""
    made: Files = {
        MODULE: found.shipped["mixed"].vmfb,
        **report_files(report, found.analysis.choice.ranges),
        "plan.json": found.variants["mixed"].plan.to_json(),
        "ranges.json": found.analysis.choice.ranges.to_json(),
        "sensitivities.json": found.analysis.sensitivities.to_json(),
        "recipe.toml": found.recipe.to_toml(),
        **found.analysis.rounding.files(),
        **preprocessing(found.analysis.subject.data),
        **_program(found),
        **(_stages(found) if save_stages else {}),
    }
    listed = manifest(
        found.network.model,
        found.recipe,
        found.stages,
        made,
        command=found.command,
        calibration=found.analysis.subject.data,
        evaluation=found.judge.data,
    )
    made[MANIFEST] = listed.to_json()
    return made


def report_files(report: Report, ranges: Ranges) -> Files:
    """The report in its three forms; `ranges` are those that the network was quantized with."""
    page = content.page(report, ranges)
    return {
        "report.json": report.to_json(),
        "report.md": markdown(page),
        "report.html": html(page),
    }


def preprocessing(data: Dataset) -> Files:
    """How images became inputs, in the form that `--preprocess` reads; nothing for arrays."""
    if data.preprocess is None:
        return {}
    body = data.preprocess.model_dump_json(indent=2, exclude_none=True)
    return {PREPROCESS: f'{{"preprocess": {body}}}\n'}


def _program(found: Findings) -> Files:
    """The network in C, for a target that no IREE runtime serves."""
    target = found.planner.target
    if "vmfb" in target.formats:
        return {}
    made = ship(found.shipped["mixed"].lowered, target, STATIC_LIBRARY)
    return {f"program/{name}": content for name, content in made.items()}


def _stages(found: Findings) -> Files:
    """Each contract's module with its weights, the other two networks, and what all three said."""
    network, mixed = found.network, found.shipped["mixed"]
    lowered = mixed.lowered
    contracts = {
        "00-imported": (network.model.text, network.model.weights),
        "10-graph": (network.text, network.weights),
        "20-quantized": (mixed.quantized.text, mixed.quantized.weights),
        "30-lowered": (lowered.text, lowered.weights),
    }
    made: Files = {}
    for name, (text, weights) in contracts.items():
        made[f"stages/{name}.mlir"] = text
        made[f"stages/{name}.npz"] = archived(_mentioned(text, weights))
    for name in ("float", "int8"):
        made[f"stages/{name}.vmfb"] = found.shipped[name].vmfb
    labels = found.judge.data.labels
    known = {} if labels is None else {"labels": labels}
    made["stages/logits.npz"] = archived({**found.judge.outputs, **known})
    return made


def _mentioned(text: str, weights: WeightStore) -> dict[str, Any]:
    """The weights that a module names, as `mlq-opt --weights` wants them."""
    named = set(re.findall(r'key = "([^"]*)"', text)) | set(re.findall(r'::"([^"]*)">', text))
    return {k: array for k, array in weights.items() if k in named or not _PLAIN.fullmatch(k)}


def archived(arrays: dict[str, Any]) -> bytes:
    """Arrays as the bytes of an `.npz`."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()
