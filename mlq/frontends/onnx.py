"""ONNX in: a checked, upgraded graph at contract IMPORTED, its weights by name beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlq.dialect.weights import WeightStore
from mlq.errors import ModelError
from mlq.frontends import writing
from mlq.frontends.finite import is_finite
from mlq.frontends.specs import WEIGHTED, Batch, TensorSpec, parse_outputs, parse_sizes

if TYPE_CHECKING:
    from onnx import ModelProto

# Other constants up to these sizes stay attributes, where lowerings read axes, pads and bounds.
_FEW_REALS = 8
_FEW_INTEGERS = 1024


@dataclass(frozen=True)
class ImportedModel:
    """A network as mlq works on it, and what was learned while reading it.

    `text` is the module at contract IMPORTED; locations are the ONNX node names. `weights` holds
    what its `mlq.weight` ops name. `graph` is the prepared ONNX model, in which the initializers
    that are in `weights` have no data. `opset` is the file's; `sha256` covers external data too;
    of the file's nodes so many as `quantized_nodes` were on integers that stand for reals.
    """

    path: Path
    sha256: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: int
    parameters: int
    text: str
    weights: WeightStore
    graph: ModelProto
    quantized_nodes: int = 0

    def to_onnx(self) -> ModelProto:
        """The prepared model with its weights, as ONNX Runtime takes it; below 2 GB only."""
        if writing.is_large(self.weights):
            raise ModelError(f"{self.path}: 2 GB do not fit into one message; use save_onnx")
        return writing.filled(self.graph, self.weights)

    def save_onnx(self, path: Path) -> None:
        """Write the prepared model to `path`, its weights to one file beside it; any size."""
        writing.save_beside(self.graph, self.weights, path)


def import_model(
    path: str | Path,
    *,
    batch: Batch | None = None,
    sizes: str = "",
    outputs: str = "",
    in_floats: bool = False,
) -> ImportedModel:
    """Read the ONNX file at `path`; `batch` fixes, or opens, the first axis of every input.

    `sizes` fixes others that are open (`specs.parse_sizes`); with `outputs` the graph ends at these
    values (`cutting.cut`).
    Opset 7 and newer, older ones whose ops are the same, external data, any size; floats of other
    widths than f32 become f32. A network that is quantized already is taken for the float one that
    it stands for if it is to be `in_floats`. ModelError, one line, for what is malformed.
    """
    # onnx takes 0.3 s to load; who reads no model should not wait for it.
    from mlq.dialect.importer import import_graph
    from mlq.frontends import cutting, preparing, quantized, reading, upgrading

    file = Path(path)
    if isinstance(batch, int) and batch < 1:
        raise ModelError(f"{file}: cannot be given batch {batch}; a batch is at least 1")
    source = cutting.cut(reading.read(file), parse_outputs(outputs))
    quantized_nodes = quantized.as_floats(source) if in_floats else 0
    opset = upgrading.opset_of(source.model)
    model, constants = preparing.prepare(source, batch, parse_sizes(sizes))
    roles = preparing.consumers(model.graph)
    weights = {k: v for k, v in constants.items() if _is_weight(v, roles.get(k, set()))}
    _expect_finite(file, weights, roles)
    preparing.attach(model, constants, without_data=weights.keys())
    try:
        text = import_graph(upgrading.with_domains_apart(model), weights.keys())
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error
    return ImportedModel(
        path=file,
        sha256=source.sha256,
        opset=opset,
        inputs=tuple(map(preparing.spec, model.graph.input)),
        outputs=tuple(map(preparing.spec, model.graph.output)),
        nodes=len(model.graph.node),
        parameters=sum(array.size for array in weights.values() if array.dtype.kind not in "iu"),
        text=text,
        weights=WeightStore(weights),
        graph=model,
        quantized_nodes=quantized_nodes,
    )


def _is_weight(array: NDArray[Any], roles: set[str]) -> bool:
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        return array.ndim > 0 and (array.size > _FEW_REALS or bool(roles & WEIGHTED))
    return array.dtype.kind in "iu" and array.size > _FEW_INTEGERS


def _expect_finite(
    path: Path, weights: Mapping[str, NDArray[Any]], roles: Mapping[str, set[str]]
) -> None:
    for name, array in weights.items():
        # A mask may well be infinite, the weight of a layer never.
        if not is_finite(array) and (roles[name] & WEIGHTED or np.isnan(array).any()):
            raise ModelError(
                f"{path}: initializer {name!r} holds NaN or infinity;"
                " export the model from a checkpoint that is sound"
            )
