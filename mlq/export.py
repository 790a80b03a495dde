"""What `mlq quantize` made, as an ONNX model with Q/DQ nodes that ONNX Runtime runs."""

from __future__ import annotations

from pathlib import Path

from mlq import variant
from mlq.artifact import Artifact
from mlq.dialect.exporter import export_graph
from mlq.dialect.weights import WeightStore
from mlq.errors import UsageError
from mlq.frontends.exporting import ExportedModel, build_model
from mlq.frontends.onnx import ImportedModel
from mlq.network import Network, load, transform
from mlq.plan import Plan
from mlq.ranges import Ranges

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
    plan, ranges = Plan.from_json(out / "plan.json"), Ranges.from_json(out / "ranges.json")
    path = Path(artifact.manifest.model.path)
    if not path.is_file():
        raise UsageError(
            f"{path}: the network that {out} was made of is not there; put it back, or export from"
            " the folder in which mlq quantize was called"
        )
    network = _network(path, plan, artifact.manifest.batch)
    if network.model.sha256 != artifact.manifest.model.sha256:
        raise UsageError(f"{path}: has changed since {out} was made of it; quantize it again")
    quantized = variant.quantize(network, plan, ranges)
    model = qdq_model(quantized.text, quantized.weights, network.model)
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


def _network(path: Path, plan: Plan, batch: int) -> Network:
    """The network with the batch of its file, if that leaves all layers of the plan in it."""
    network = load(path, batch=None, ir_level=plan.ir_level)
    names = {layer.name for layer in network.layers}
    if plan.layers.keys() <= names:
        return network
    return load(path, batch=batch, ir_level=plan.ir_level)
