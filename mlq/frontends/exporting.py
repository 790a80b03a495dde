"""ONNX out: a graph of nodes and its weights as a model that any ONNX runtime reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlq.dialect.exporter import Graph, Node
from mlq.errors import ModelError
from mlq.frontends import writing

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

Array = NDArray[Any]

PRODUCER = "mlq"


@dataclass(frozen=True)
class ExportedModel:
    """A model whose initializers in `weights` have no data of their own until it is written."""

    graph: ModelProto
    weights: dict[str, Array] = field(repr=False)

    def to_onnx(self) -> ModelProto:
        """The whole model as one message, checked by ONNX; below 2 GB only."""
        if writing.is_large(self.weights):
            raise ModelError("2 GB of weights do not fit into one message; save the model instead")
        model = writing.filled(self.graph, self.weights)
        _check(model, "the exported model")
        return model

    def save(self, path: Path) -> None:
        """Write the model to `path`; weights of more than 2 GB to a file beside it."""
        if writing.is_large(self.weights):
            writing.save_beside(self.graph, self.weights, path)
            _check(str(path), str(path))
        else:
            path.write_bytes(self.to_onnx().SerializeToString())


def build_model(graph: Graph, weights: Mapping[str, Array], like: ModelProto) -> ExportedModel:
    """The model of a graph whose inputs, outputs and versions are those of the model `like`.

    Sizes that `like` leaves open stay open. Raises ModelError when input names differ.
    """
    from onnx import helper

    domains = _domains(like)
    model = type(like)(ir_version=like.ir_version, producer_name=PRODUCER)
    model.opset_import.extend(like.opset_import)
    known = {opset.domain for opset in model.opset_import}
    made = _graph(graph, weights, domains)
    for domain in sorted({node.domain for node in made.node} - known):
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))
    made.name = like.graph.name or "main"
    for side, names in (("input", graph.inputs), ("output", graph.outputs)):
        values = {value.name: value for value in getattr(like.graph, side)}
        if list(values) != names:
            raise ModelError(
                f"the {side}s of the graph are {names}, those of the model {[*values]}"
            )
        del getattr(made, side)[:]
        getattr(made, side).extend(values.values())
    model.graph.CopyFrom(made)
    return ExportedModel(model, {name: weights[key] for name, key in graph.weights.items()})


def _domains(like: ModelProto) -> dict[str, str]:
    """The domain of each node; the IR knows a node by its name only."""
    from mlq.frontends.reading import walk

    return {node.name: node.domain for node in walk(like.graph.node) if node.domain}


def _graph(graph: Graph, weights: Mapping[str, Array], domains: Mapping[str, str]) -> GraphProto:
    from onnx import helper, numpy_helper

    inputs, outputs = (
        [helper.make_empty_tensor_value_info(name) for name in names]
        for names in (graph.inputs, graph.outputs)
    )
    nodes = [proto_of(node, weights, domains) for node in graph.nodes]
    made = helper.make_graph(nodes, "subgraph", inputs, outputs)
    for name, array in graph.constants.items():
        made.initializer.append(numpy_helper.from_array(array, name))
    for name, key in graph.weights.items():
        array = weights[key]
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        made.initializer.add(name=name, dims=array.shape, data_type=kind)
    return made


def proto_of(node: Node, weights: Mapping[str, Array], domains: Mapping[str, str]) -> NodeProto:
    """A node for ONNX; `weights` by key are those of its subgraphs, `domains` those of nodes."""
    from onnx import helper

    domain, _, kind = node.kind.rpartition(".")
    made = helper.make_node(
        kind, node.inputs, node.outputs, name=node.name, domain=domain or domains.get(node.name, "")
    )
    for key, value in sorted(node.attributes.items()):
        made.attribute.append(_attribute(key, value, weights, domains))
    return made


def _attribute(
    key: str, value: Any, weights: Mapping[str, Array], domains: Mapping[str, str]
) -> AttributeProto:
    from onnx import AttributeProto, helper, numpy_helper

    if isinstance(value, Graph):
        value = _graph(value, weights, domains)
    elif isinstance(value, np.ndarray):
        value = numpy_helper.from_array(value)
    kind = AttributeProto.INTS if value == [] else None
    return helper.make_attribute(key, value, attr_type=kind)


def _check(model: ModelProto | str, what: str) -> None:
    from onnx import checker, shape_inference

    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{what}: ONNX refuses it: {reason}") from error
