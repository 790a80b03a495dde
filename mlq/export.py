"""What `mlq quantize` made, as an ONNX model with Q/DQ nodes that ONNX Runtime runs."""

from __future__ import annotations

from pathlib import Path

from mlq.artifact import Artifact
from mlq.dialect.exporter import export_graph
from mlq.dialect.weights import WeightStore
from mlq.errors import UsageError
from mlq.frontends.exporting import ExportedModel, build_model
from mlq.frontends.onnx import ImportedModel
from mlq.network import transform

LOWER = "@lower-qdq"


def to_qdq(out: Path, destination: Path) -> Path:
    """Write the network in the finished folder `out` to `destination`; returns the path.

    The network, its plan and its ranges make it anew, with the batch that the model's file says.
    On a CPU without VNNI, ONNX Runtime adds up in 16 bits, which saturate: there it agrees when
    the session's option "session.x64quantprecision" is "1". UsageError when the network's file is
    not where it was, or not what it was.
    """
    if destination.is_dir():
        raise UsageError(f"{destination}: is a folder; name the file to write, such as model.onnx")
    artifact = Artifact.open(out)
    found = artifact.recall(batch=None)
    if not found.complete:
        found = artifact.recall(batch=artifact.manifest.batch)
    quantized = found.quantized
    model = qdq_model(quantized.text, quantized.weights, found.network.model)
    destination.parent.mkdir(parents=True, exist_ok=True)
    model.save(destination)
    return destination


def qdq_model(text: str, weights: WeightStore, like: ImportedModel) -> ExportedModel:
    """A module at contract QUANTIZED, whatever its batch, as ONNX.

    `like` is the model it was made of, which says what inputs and outputs are called, which sizes
    of theirs are open, and which versions of ONNX hold.
    """
    lowered = transform(text, weights, LOWER, generic=False)
    return build_model(export_graph(lowered.text), lowered.weights, like.graph)
