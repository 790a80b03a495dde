"""A graph made ready to lower: opset 17 or newer, every shape known, nothing left to compute."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from mlq.errors import ModelError
from mlq.frontends import upgrading
from mlq.frontends.folding import fold
from mlq.frontends.ordering import put_in_order
from mlq.frontends.reading import Source, label, walk
from mlq.frontends.reshaping import inferred_shapes, settle_reshapes
from mlq.frontends.specs import ANY, Batch, TensorSpec, shape_text
from mlq.frontends.sums import split_sums
from mlq.frontends.widening import widen

Array = NDArray[Any]
# What an open first axis is called.
_SAMPLES = "samples"


def prepare(
    source: Source, batch: Batch | None, sizes: Mapping[str, int]
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model to import, without initializers, and its constants.

    `batch` becomes the first axis of every input, `sizes` others that are open. ModelError
    names the node that is at fault.
    """
    path, model, constants = source.path, source.model, dict(source.constants)
    put_in_order(path, model.graph)
    _name_nodes(model.graph)
    widen(model, constants)
    upgrading.check_versions(path, model)
    _drop_initialized_inputs(path, model.graph, constants)
    old = _fix_inputs(path, model.graph, batch)
    _fix_sizes(path, model.graph, sizes)
    model = upgrading.upgrade(path, model, constants)
    split_sums(model.graph)
    declared = _forget_shapes(model.graph)
    model = upgrading.infer(path, model, constants)
    while (
        _recall_shapes(model.graph, declared)
        or settle_reshapes(model.graph, constants)
        or fold(model, constants)
        or (not old and not sizes and _recall_sizes(model.graph, declared))
    ):
        model = upgrading.infer(path, model, constants)
    upgrading.restore_foreign(model)
    _expect_types(path, model.graph)
    _expect_elements(path, model.graph)
    if batch is not None:
        _expect_batch(path, model.graph, declared, batch, old)
    _name_nodes(model.graph)
    return model, constants


def consumers(graph: onnx.GraphProto) -> dict[str, set[str]]:
    """Which kinds of ops read each value."""
    kinds: dict[str, set[str]] = {}
    for node in walk(graph.node):
        for name in node.input:
            kinds.setdefault(name, set()).add(node.op_type)
    return kinds


def attach(
    model: onnx.ModelProto, constants: dict[str, Array], without_data: Collection[str]
) -> None:
    """Make the constants initializers of the model again; of some only name and type."""
    for name, array in constants.items():
        if name in without_data:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.initializer.add(name=name, dims=array.shape, data_type=kind)
        else:
            model.graph.initializer.append(numpy_helper.from_array(array, name))


def spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """What the model says of an input or output."""
    tensor = value.type.tensor_type
    shape = (size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return TensorSpec(value.name, tuple(shape), dtype.name)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name that neither another node nor an input of the graph has."""
    taken = {value.name for value in graph.input}
    given = {node.name for node in walk(graph.node)}
    for i, node in enumerate(walk(graph.node)):
        name = stem = node.name or f"{node.op_type}_{i}"
        count = 0
        while name in taken or (name != node.name and name in given):
            count += 1
            name = f"{stem}_{count}"
        node.name = name
        taken.add(name)


def _drop_initialized_inputs(
    path: Path, graph: onnx.GraphProto, constants: dict[str, Array]
) -> None:
    kept = [value for value in graph.input if value.name not in constants]
    if not graph.output:
        raise ModelError(f"{path}: the graph has no output; export the model with one")
    del graph.input[:]
    graph.input.extend(kept)


def _fix_inputs(path: Path, graph: onnx.GraphProto, batch: Batch | None) -> set[int]:
    """Set the batch; negative sizes become dynamic. Gives the static batches replaced."""
    replaced = set()
    for value in graph.input:
        tensor = value.type.tensor_type
        if not tensor.elem_type or tensor.elem_type == onnx.TensorProto.STRING:
            raise ModelError(
                f"{path}: input {value.name!r} is not a tensor of numbers; cut the graph behind it"
            )
        if not tensor.HasField("shape"):
            raise ModelError(
                f"{path}: input {value.name!r} has no shape; export the model with its rank"
            )
        for size in tensor.shape.dim:
            if size.HasField("dim_value") and size.dim_value < 0:
                size.ClearField("dim_value")
        if batch is not None and tensor.shape.dim:
            first = tensor.shape.dim[0]
            if first.HasField("dim_value") and first.dim_value != batch:
                replaced.add(first.dim_value)
            if batch == ANY:
                first.dim_param = _SAMPLES
            else:
                first.dim_value = batch
    return replaced


def _fix_sizes(path: Path, graph: onnx.GraphProto, sizes: Mapping[str, int]) -> None:
    """Give open axes of inputs their sizes, by the names that they have or by input and axis."""
    open_ = {}
    for value in graph.input:
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.HasField("dim_value"):
                open_[f"{value.name}.{axis}"] = size
    names = {size.dim_param for size in open_.values()} - {""}
    for name in sizes:
        if name not in {*open_, *names}:
            known = ", ".join(sorted({size.dim_param or at for at, size in open_.items()}))
            raise ModelError(
                f"{path}: no input has an open size {name!r};"
                f" {f'there are: {known}' if known else 'all of them are fixed'}"
            )
    for at, size in open_.items():
        chosen = sizes.get(at, sizes.get(size.dim_param, 0))
        if chosen:
            size.dim_value = chosen


def _forget_shapes(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    """Drop, and give back, what the exporter said of shapes: it may be out of date."""
    declared = {}
    for value in (*graph.value_info, *graph.output):
        if _has_shape(value):
            declared[value.name] = onnx.TypeProto.FromString(value.type.SerializeToString())
    del graph.value_info[:]
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return declared


def _recall_shapes(graph: onnx.GraphProto, declared: dict[str, onnx.TypeProto]) -> bool:
    """Believe the exporter where nothing can be inferred (unknown ops); whether that adds any."""
    known = {value.name for value in (*graph.value_info, *graph.output) if _has_shape(value)}
    made = {name for node in graph.node for name in node.output if name}
    missing = (made - known) & declared.keys()
    results = {value.name: value for value in graph.output}
    for name in missing:
        value = results.get(name) or graph.value_info.add(name=name)
        value.type.CopyFrom(declared[name])
    return bool(missing)


def _recall_sizes(graph: onnx.GraphProto, declared: dict[str, onnx.TypeProto]) -> bool:
    """Believe the exporter on sizes of results that nothing else says; whether that adds any.

    Not where an input is dynamic: exporters often leave the static sizes of before in the results.
    """
    shapes = [value.type.tensor_type.shape.dim for value in graph.input]
    if not all(size.HasField("dim_value") for shape in shapes for size in shape):
        return False
    found = False
    for value in graph.output:
        said = declared.get(value.name, value.type).tensor_type.shape.dim
        known = value.type.tensor_type.shape.dim
        if not _agree(said, known):
            continue
        for before, after in zip(said, known, strict=True):
            if before.dim_value > 0 and not after.HasField("dim_value"):
                after.dim_value = before.dim_value
                found = True
    return found


def _agree(said: Sequence[Any], known: Sequence[Any]) -> bool:
    """Whether two shapes are of one rank, and of one size wherever both have one."""
    return len(said) == len(known) and all(
        before.dim_value == after.dim_value
        for before, after in zip(said, known, strict=True)
        if before.HasField("dim_value") and after.HasField("dim_value")
    )


def _expect_types(path: Path, graph: onnx.GraphProto) -> None:
    known = {value.name for value in (*graph.value_info, *graph.output) if _has_shape(value)}
    for node in graph.node:
        for name in filter(None, node.output):
            if name not in known:
                raise ModelError(
                    f"{path}: node {label(node)}: the shape of its output {name!r} is unknown;"
                    " store it in the model (value_info) or cut the graph before this node"
                )


def _expect_elements(path: Path, graph: onnx.GraphProto) -> None:
    """Refuse a reshape that cannot keep all elements: ONNX does not ask, and some would be lost."""
    shapes = inferred_shapes(graph)
    for node in graph.node:
        if node.op_type != "Reshape" or node.domain:
            continue
        before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
        if before is None or after is None or not all(isinstance(size, int) for size in after):
            continue
        known = [size for size in before if isinstance(size, int)]
        if known != before or prod(known) != prod(map(int, after)):
            sizes = tuple(size if isinstance(size, int) else None for size in before)
            raise ModelError(
                f"{path}: node {label(node)}: makes {after} of {shape_text(sizes)}, which has other"
                " elements; if the batch is fixed inside the graph, leave --batch out, or export"
                " the model with a dynamic batch"
            )


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    """Whether the type is complete; what is no tensor (a sequence) needs no shape."""
    kind = value.type.WhichOneof("value")
    if kind == "tensor_type":
        return bool(value.type.tensor_type.HasField("shape"))
    return kind is not None


def _expect_batch(
    path: Path,
    graph: onnx.GraphProto,
    declared: dict[str, onnx.TypeProto],
    batch: Batch,
    replaced: set[int],
) -> None:
    """Refuse a graph in which the old batch is baked: an output that keeps it says so."""
    for value in graph.output:
        if value.name not in declared:
            continue
        before = declared[value.name].tensor_type.shape.dim[:1]
        after = value.type.tensor_type.shape.dim[:1]
        if before and after and before[0].dim_value in replaced:
            got = after[0].dim_value
            if after[0].HasField("dim_value") and got != batch:
                raise ModelError(
                    f"{path}: output {value.name!r} has {got} rows at batch {batch}: the batch"
                    f" {before[0].dim_value} is fixed inside the graph; leave --batch out, or"
                    " export the model with a dynamic batch"
                )
