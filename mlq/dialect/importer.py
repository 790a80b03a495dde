"""From an ONNX graph to the IMPORTED contract: `torch.operator "onnx.*"`, weights by name.

The upstream importer does the work; what differs is that no number of a large constant ever reaches
the IR, that small ones are readable attributes, and that `@main` takes and gives builtin tensors.
Importing this module imports `onnx`; nothing but the ONNX frontend does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from torch_mlir.dialects import func
from torch_mlir.extras import onnx_importer
from torch_mlir.ir import (
    ArrayAttr,
    Attribute,
    DenseElementsAttr,
    DictAttr,
    FunctionType,
    InsertionPoint,
    IntegerType,
    Location,
    Module,
    Operation,
    StringAttr,
    Type,
    Value,
)

from mlq.dialect import bridge, context
from mlq.dialect.ops import WeightOp
from mlq.errors import ModelError


def import_graph(model: Any, weights: Collection[str]) -> str:
    """Text, with locations, of the module whose `@main` is the graph of `model`.

    Initializers named in `weights` need no data: they become `mlq.weight`. The location of each op
    is its node's name, so names must be unique. Raises ModelError for what MLIR has no type for.
    """
    with context(), Location.unknown():
        module = Module.create(Location.name(model.graph.name or "main"))
        try:
            _define_main(onnx_importer.ModelInfo(model).main_graph, module, weights)
        except onnx_importer.OnnxImportError as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"{reason}; replace the node or cut the graph before it") from error
        module.operation.verify()
        return str(module.operation.get_asm(enable_debug_info=True))


def _define_main(info: Any, module: Module, weights: Collection[str]) -> None:
    cache = _Types(module.context)
    inputs = {
        name: _vtensor(cache, value.type, f"input {name!r}")
        for name, value in info.input_map.items()
    }
    outputs = [_vtensor(cache, v.type, f"output {v.name!r}") for v in info.graph_proto.output]
    signature = FunctionType.get(
        [bridge.builtin_of(t) for t in inputs.values()], list(map(bridge.builtin_of, outputs))
    )
    main = func.FuncOp("main", signature, ip=InsertionPoint(module.body))
    main.arg_attrs = _names(inputs)
    main.res_attrs = _names([value.name for value in info.graph_proto.output])
    block = main.add_entry_block([Location.name(name) for name in inputs])
    importer = _Importer(info, main, block, cache, weights)
    importer.bind(inputs, block.arguments)
    importer.import_all()


class _Types(onnx_importer.ContextCache):
    """Constants as dense attributes: a dense resource cannot be read back from Python."""

    def tensor_proto_to_attr(self, tensor: Any) -> Attribute:
        array = onnx_importer.onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.bool_:
            return DenseElementsAttr.get(
                array, shape=array.shape, type=IntegerType.get_signless(1, self._c)
            )
        if array.dtype.kind not in "fiu":
            return super().tensor_proto_to_attr(tensor)
        return DenseElementsAttr.get(
            np.ascontiguousarray(array).reshape(array.shape), signless=False
        )

    def type_proto_to_type(self, proto: Any) -> Type:
        """An output that is not wanted has no type; upstream warns of each."""
        return super().type_proto_to_type(proto or onnx_importer.onnx.TypeProto())


class _Importer(onnx_importer.NodeImporter):
    """The upstream importer, with weights by name and builtin tensors at the border."""

    def __init__(
        self, info: Any, main: Operation, block: Any, cache: _Types, weights: Collection[str]
    ) -> None:
        module = main.operation.parent
        super().__init__(
            info,
            parent_op=main,
            block=block,
            context_cache=cache,
            module_op=module,
            module_cache=onnx_importer.ModuleCache(module, cache),
        )
        self._weights = weights
        self._populate_graph_attrs(main)

    def bind(self, inputs: dict[str, Type], arguments: Any) -> None:
        """Let the graph's inputs be the function's arguments."""
        for (name, vtensor), argument in zip(inputs.items(), arguments, strict=True):
            with InsertionPoint(self._b), Location.name(name):
                self._nv_map[name] = _from_builtin(argument, vtensor)

    def import_initializer(self, initializer: Any, extern_name: str | None = None) -> Value:
        name = extern_name or initializer.name
        if name not in self._weights:
            return super().import_initializer(initializer, extern_name)
        vtensor = self._cc.tensor_proto_to_type(initializer)
        with InsertionPoint(self._b), Location.name(name):
            weight = WeightOp(StringAttr.get(name), bridge.builtin_of(vtensor))
            self._nv_map[name] = _from_builtin(weight.output, vtensor)
        return self._nv_map[name]

    def import_all(self, func: bool = True) -> None:  # noqa: FBT001, FBT002 -- upstream's signature
        super().import_all(func)
        terminator = self._b.operations[len(self._b.operations) - 1]
        for i, value in enumerate(terminator.operands):
            with InsertionPoint(terminator), value.owner.location:
                terminator.operands[i] = bridge.to_builtin(value)
        if not list(self._none_value.uses):
            self._none_value.owner.erase()


def _vtensor(cache: _Types, proto: Any, what: str) -> Type:
    if not proto.tensor_type.elem_type:
        raise ModelError(f"{what} is not a tensor; cut the graph so that it is")
    return cache.type_proto_to_type(proto)


def _from_builtin(value: Value, vtensor: Type) -> Value:
    return Operation.create(bridge.FROM, results=[vtensor], operands=[value]).result


def _names(names: Collection[str]) -> ArrayAttr:
    return ArrayAttr.get([DictAttr.get({"mlq.name": StringAttr.get(name)}) for name in names])
