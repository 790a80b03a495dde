"""An ONNX file as mlq wants it: the graph without its constants, and the constants as arrays.

What is stored outside of the file is mapped, not read, so that the size of a model does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from mlq.errors import ModelError

Array = NDArray[Any]

# Up to this many bytes, what is stored outside is read into memory: a map would cost more.
_MAP_BYTES = 1 << 16
_PIECE_BYTES = 1 << 24


@dataclass(frozen=True)
class Source:
    """What stands in a file: the model without initializers, these by name, and the digest.

    `sha256` is that of the file, continued over the files that hold its external data.
    """

    path: Path
    model: onnx.ModelProto
    constants: dict[str, Array]
    sha256: str


def read(path: Path) -> Source:
    """Read and check what can be checked without understanding the graph; ModelError otherwise."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give an .onnx file") from None
    model = _parse(path, content)
    digest = hashlib.sha256(content)
    del content
    tensors = _Tensors(path)
    constants = {}
    for tensor in model.graph.initializer:
        if not tensor.name or tensor.name in constants:
            what = f"has the name {tensor.name!r} twice" if tensor.name else "has no name"
            raise ModelError(f"{path}: an initializer {what}; export the model again")
        constants[tensor.name] = tensors.array(tensor, f"initializer {tensor.name!r}")
    for node in walk(model.graph.node):
        for attribute in node.attribute:
            if attribute.t.data_location == onnx.TensorProto.EXTERNAL:
                array = tensors.array(attribute.t, f"node {label(node)}")
                attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))
    model.graph.ClearField("initializer")
    for file in sorted(tensors.files):
        for piece in _file_pieces(file):
            digest.update(piece)
    # A copy, because a parsed message keeps the memory of the fields that were cleared.
    slim: onnx.ModelProto = onnx.ModelProto.FromString(model.SerializeToString())
    return Source(path, slim, constants, digest.hexdigest())


def walk(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from walk(graph.node)


def label(node: onnx.NodeProto) -> str:
    """How messages name a node: 'conv1' (Conv), or the one that makes 'x' (Conv)."""
    who = repr(node.name) if node.name else f"that makes {(*node.output, '')[0]!r}"
    return f"{who} ({node.op_type})"


def put_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make these the nodes of a graph; they may be its own."""
    made = [node.SerializeToString() for node in nodes]
    # From bytes, because clearing the list would clear them.
    del graph.node[:]
    graph.node.extend(map(onnx.NodeProto.FromString, made))


def value_names(graph: onnx.GraphProto) -> set[str]:
    """The names of all that nodes read and make, those of the graphs inside them too."""
    return {name for node in walk(graph.node) for name in (*node.input, *node.output)}


def unused(name: str, taken: set[str]) -> str:
    """The name, or one like it, that is not among those taken; it is then."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _parse(path: Path, content: bytes) -> onnx.ModelProto:
    broken = f"{path}: not an ONNX model, or truncated; export it again or fetch it again"
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except DecodeError:
        raise ModelError(broken) from None
    if not model.HasField("graph") or not model.ir_version:
        raise ModelError(broken)
    if model.graph.sparse_initializer:
        name = model.graph.sparse_initializer[0].values.name
        raise ModelError(f"{path}: initializer {name!r} is sparse; store it as a dense tensor")
    return model


class _Tensors:
    """Arrays out of tensor messages; `files` are those that held external data."""

    def __init__(self, path: Path) -> None:
        self.files: set[Path] = set()
        self._path = path

    def array(self, tensor: onnx.TensorProto, what: str) -> Array:
        """The array that `tensor` stands for; `what` names it in an error."""
        shape = tuple(tensor.dims)
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        except KeyError:
            raise ModelError(
                f"{self._path}: {what} has the unknown element type {tensor.data_type};"
                " export the model again"
            ) from None
        # Types that numpy does not have (bfloat16, int4, ...) are ONNX's to unpack.
        plain = dtype.isbuiltin == 1 and dtype.kind != "O"
        length = prod(shape) * dtype.itemsize if plain else None
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raw = self._external(tensor, what, length)
        elif plain and tensor.HasField("raw_data"):
            raw = np.frombuffer(tensor.raw_data, np.uint8)
        else:
            return self._unpacked(tensor, what)
        if not plain:
            inline = onnx.TensorProto(dims=shape, data_type=tensor.data_type)
            inline.raw_data = raw.tobytes()
            return self._unpacked(inline, what)
        if raw.size != length:
            raise ModelError(
                f"{self._path}: {what} has {raw.size} bytes where its shape {list(shape)} needs"
                f" {length}; the model is truncated, export it again or fetch it again"
            )
        return raw.view(dtype).reshape(shape)

    def _unpacked(self, tensor: onnx.TensorProto, what: str) -> Array:
        try:
            return np.asarray(numpy_helper.to_array(tensor)).reshape(tuple(tensor.dims))
        except (ValueError, TypeError):
            raise ModelError(
                f"{self._path}: {what} does not hold the elements that its shape"
                f" {list(tensor.dims)} needs; the model is truncated, export it again"
            ) from None

    def _external(
        self, tensor: onnx.TensorProto, what: str, length: int | None
    ) -> NDArray[np.uint8]:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = self._beside(entries.get("location", ""), what)
        try:
            size = file.stat().st_size
        except OSError as error:
            raise ModelError(
                f"{self._path}: {what} is stored in {file}, which cannot be read"
                f" ({error.strerror}); put it beside the model"
            ) from None
        try:
            start = int(entries.get("offset", 0))
            count = int(entries.get("length", size - start if length is None else length))
        except ValueError:
            start, count = -1, 0
        if not 0 <= start <= start + count <= size:
            raise ModelError(
                f"{self._path}: {what} lies beyond the end of {file};"
                " the file is truncated, export the model again or fetch it again"
            )
        self.files.add(file)
        if count <= _MAP_BYTES:
            return np.fromfile(file, np.uint8, count, offset=start)
        return np.memmap(file, np.uint8, mode="r", offset=start, shape=(count,))

    def _beside(self, location: str, what: str) -> Path:
        inside = PurePosixPath(location)
        if not location or inside.is_absolute() or ".." in inside.parts:
            raise ModelError(
                f"{self._path}: {what} points to {location!r}, outside of the model's folder;"
                " save the model with its data beside it"
            )
        return self._path.parent / location


def _file_pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            yield piece
