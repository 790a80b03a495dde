"""Name every op that makes an activation after the ONNX node that it comes from."""

from __future__ import annotations

from torch_mlir.dialects import func
from torch_mlir.ir import ArrayAttr, DictAttr, Operation, OpView, StringAttr

from mlq.dialect import bridge, build, layers
from mlq.dialect.functions import body_of
from mlq.dialect.locations import names_of
from mlq.dialect.ops import WeightOp
from mlq.transforms.base import Pass, register_pass, walk


@register_pass
class NameLayers(Pass):
    """Give each op that makes an activation, and each argument, a unique `mlq.name`.

    The name is that of the first ONNX node in the op's location. Where several ops come from one
    node, the layer among them has the name, else the last, and the others add their kind. Names
    that stand already stay.

    Before:
        func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
          %0 = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>}
            : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("sum")
          return %0 : tensor<4xf32>
        }
    After:
        func.func @main(%x: tensor<4xf32> {mlq.name = "input0"}) -> tensor<4xf32> {
          %0 = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "sum"} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
          return %0 : tensor<4xf32>
        }
    """

    name = "mlq-name-layers"

    def run(self, module: Operation) -> None:
        for function in walk(module, func.FuncOp):
            _name_ops(function)


def _name_ops(function: func.FuncOp) -> None:
    ops = [op for op in body_of(function).operations if _makes_activation(op)]
    taken = {name for op in ops if (name := build.name_of(op)) is not None}
    _name_arguments(function, taken)
    unnamed = [(op, _node(op)) for op in ops if build.name_of(op) is None]
    # Layers have the name of their node, a reshape around one has not.
    owners: dict[str, OpView] = {}
    for op, node in unnamed:
        if isinstance(op, layers.LAYERS) or not isinstance(owners.get(node), layers.LAYERS):
            owners[node] = op
    unnamed.sort(key=lambda pair: pair[1] != "" and pair[0] is not owners[pair[1]])
    for op, node in unnamed:
        name = _free(node, op.operation.name.rpartition(".")[2], taken)
        op.operation.attributes[build.NAME] = StringAttr.get(name)
        taken.add(name)


def _node(op: OpView) -> str:
    return next(iter(names_of(op.location)), "")


def _makes_activation(op: OpView) -> bool:
    name = op.operation.name
    return name == bridge.TO or (name.startswith("mlq.") and not isinstance(op, WeightOp))


def _name_arguments(function: func.FuncOp, taken: set[str]) -> None:
    count = len(function.type.inputs)
    if not count:
        return
    known = list(function.attributes["arg_attrs"]) if "arg_attrs" in function.attributes else []
    known += [DictAttr.get({})] * (count - len(known))
    entries = [{each.name: each.attr for each in DictAttr(attributes)} for attributes in known]
    taken |= {StringAttr(each[build.NAME]).value for each in entries if build.NAME in each}
    for index, each in enumerate(entries):
        if build.NAME not in each:
            name = _free(f"input{index}", "argument", taken)
            each[build.NAME] = StringAttr.get(name)
            taken.add(name)
    function.attributes["arg_attrs"] = ArrayAttr.get([DictAttr.get(each) for each in entries])


def _free(wanted: str, kind: str, taken: set[str]) -> str:
    """The wanted name, else with the op's kind, else with a number too."""
    if wanted and wanted not in taken:
        return wanted
    base = f"{wanted}:{kind}" if wanted else kind
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}.{count}"
    return name
