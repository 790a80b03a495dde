"""From a module of ONNX nodes to plain values that any ONNX library can write: no IR, no protobuf.

The inverse of the importer: `torch.operator "onnx.X"`, `mlq.weight` and bridges between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import (
    ArrayAttr,
    Attribute,
    Block,
    DenseElementsAttr,
    DictAttr,
    FloatAttr,
    IntegerAttr,
    Location,
    Module,
    OpView,
    StringAttr,
    Value,
)

from mlq.dialect import bridge, build, context, layers
from mlq.dialect.functions import body_of, main_of
from mlq.dialect.locations import names_of
from mlq.dialect.nodes import CONSTANT, PREFIX
from mlq.errors import DiagnosticError

# The importer takes subgraphs in the order of their attributes' names, which it does not keep.
_SUBGRAPHS = {"If": ("else_branch", "then_branch"), "Loop": ("body",), "Scan": ("body",)}


@dataclass(frozen=True)
class Node:
    """One ONNX node; a value that is left out is "", a subgraph an attribute."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass
class Graph:
    """Nodes in order, small constants by name, and which name has which key of the store."""

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)


def export_graph(text: str) -> Graph:
    """The graph of `@main`; DiagnosticError at an op that is neither an ONNX node nor a weight."""
    with context(), Location.unknown():
        module = Module.parse(text)  # the ops below live as long as it does
        main = main_of(module.operation)
        block = body_of(main)
        inputs = [layers.tensor_name(argument) or "" for argument in block.arguments]
        outputs = [name or f"output{i}" for i, name in enumerate(_result_names(main))]
        return _Exporter().graph(block, inputs, outputs)


def _result_names(main: Any) -> list[str]:
    if "res_attrs" not in main.attributes:
        return [""] * len(main.type.results)
    found = []
    for each in main.attributes["res_attrs"]:
        names = [one.attr for one in DictAttr(each) if one.name == build.NAME]
        found.append(StringAttr(names[0]).value if names else "")
    return found


def node_of(op: OpView) -> Node | None:
    """One op as an ONNX node between values called i0, i1, ... and o0, o1, ...

    None if it is no ONNX node; DiagnosticError where it has subgraphs. A value that is left out
    is "".
    """
    kind = _kind(op)
    if kind is None:
        return None
    if any(list(region.blocks) for region in op.operation.regions):
        raise DiagnosticError(op, "has subgraphs")
    given = (
        "" if bridge.is_none(value) else f"i{place}"
        for place, value in enumerate(op.operation.operands)
    )
    made = (f"o{place}" for place in range(len(op.operation.results)))
    return Node(kind, build.name_of(op) or "", tuple(given), tuple(made), _attributes(op))


class _Exporter:
    """Names for every value of a module; no two values share one, nor do two nodes."""

    def __init__(self) -> None:
        self._values: dict[Value, str] = {}
        self._taken: set[str] = set()
        self._nodes: set[str] = set()

    def graph(self, block: Block, inputs: list[str], outputs: list[str]) -> Graph:
        """The ops of a block; `outputs` are the names that its results have to have."""
        made = Graph(outputs=outputs)
        self._taken.update(filter(None, (*inputs, *outputs)))
        for name, argument in zip(inputs, block.arguments, strict=True):
            self._values[argument] = name or _free("input", self._taken)
            made.inputs.append(self._values[argument])
        *ops, last = [op.operation.opview for op in block.operations]
        returned = [_behind(value) for value in last.operation.operands]
        for name, value in zip(outputs, returned, strict=True):
            if _is_made_in(block, value):
                self._values.setdefault(value, name)
        for op in ops:
            self._add(op, made)
        for name, value in zip(outputs, returned, strict=True):
            if self._values[value] != name:
                node = _free(f"{name}:identity", self._nodes)
                made.nodes.append(Node("Identity", node, (self._values[value],), (name,), {}))
        return made

    def _add(self, op: OpView, graph: Graph) -> None:
        kind = op.operation.name
        results = list(op.operation.results)
        if kind in {bridge.FROM, bridge.TO}:
            self._values[results[0]] = self._values[op.operation.operands[0]]
        elif results and bridge.is_none(results[0]):
            self._values[results[0]] = ""
        elif (key := layers.weight_key(results[0]) if results else None) is not None:
            self._values[results[0]] = name = _free(key, self._taken)
            graph.weights[name] = key
        elif kind == "torch.operator" and _kind(op) is not None:
            self._add_node(op, graph)
        else:
            raise DiagnosticError(op, "is no ONNX node; run mlq-lower-to-qdq")

    def _add_node(self, op: OpView, graph: Graph) -> None:
        kind, value = _kind(op) or "", _constant(op)
        results = list(op.operation.results)
        stem = build.name_of(op) or next(iter(names_of(op.location)), kind)
        if value is not None:
            self._values[results[0]] = name = _free(stem, self._taken)
            graph.constants[name] = value
            return
        for i, result in enumerate(results):
            if result not in self._values:
                unused = i > 0 and not list(result.uses)
                name = "" if unused else _free(stem if i == 0 else f"{stem}:{i}", self._taken)
                self._values[result] = name
        graph.nodes.append(
            Node(
                kind,
                _free(stem, self._nodes),
                tuple(self._values[operand] for operand in op.operation.operands),
                tuple(self._values[result] for result in results),
                {**_attributes(op), **self._subgraphs(op, kind)},
            )
        )

    def _subgraphs(self, op: OpView, kind: str) -> dict[str, Graph]:
        regions = [region for region in op.operation.regions if list(region.blocks)]
        names = _SUBGRAPHS.get(kind, ())
        if len(names) != len(regions):
            raise DiagnosticError(op, "has subgraphs of which the names are not known")
        found = {}
        for name, region in zip(names, regions, strict=True):
            block = region.blocks[0]
            count = len(list(block.operations)[-1].operation.operands)
            outputs = [_free(f"{name}:output", self._taken) for _ in range(count)]
            found[name] = self.graph(block, [""] * len(block.arguments), outputs)
        return found


def _is_made_in(block: Block, value: Value) -> bool:
    """Whether a node of this very block makes the value, so that it can have any name."""
    if layers.is_argument(value) or value.owner.operation.block != block:
        return False
    op = value.owner.opview
    return _kind(op) is not None and _constant(op) is None


def _behind(value: Value) -> Value:
    origin = bridge.source(value, bridge.TO)
    return value if origin is None else origin


def _kind(op: OpView) -> str | None:
    """The ONNX operator of a node; None for other ops."""
    if op.operation.name != "torch.operator":
        return None
    name = StringAttr(op.operation.attributes["name"]).value
    return str(name).removeprefix("onnx.") if name.startswith("onnx.") else None


def _constant(op: OpView) -> NDArray[Any] | None:
    """The array of a Constant that has one: an initializer."""
    key = f"{PREFIX}value"
    if _kind(op) != CONSTANT or key not in op.operation.attributes:
        return None
    found = _python(op, op.operation.attributes[key])
    return found if isinstance(found, np.ndarray) else None


def _attributes(op: OpView) -> dict[str, Any]:
    attributes = build.all_attributes_of(op)
    return {
        key.removeprefix(PREFIX): _python(op, value)
        for key, value in attributes.items()
        if key.startswith(PREFIX)
    }


def _python(op: OpView, attribute: Attribute) -> Any:
    if isinstance(attribute, ArrayAttr):
        return [_python(op, each) for each in attribute]
    if isinstance(attribute, (IntegerAttr, FloatAttr, StringAttr)):
        return attribute.value
    if isinstance(attribute, DenseElementsAttr):
        return np.array(attribute)
    raise DiagnosticError(op, f"has an attribute that ONNX has no form for: {attribute}")


def _free(stem: str, taken: set[str]) -> str:
    """`stem`, or with a number when another has that name; taken from now on."""
    name, count = stem, 1
    while name in taken:
        count += 1
        name = f"{stem}.{count}"
    taken.add(name)
    return name
