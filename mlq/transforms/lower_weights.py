"""Turn weights into what IREE calls parameters: globals whose values come by name."""

from __future__ import annotations

import re

from torch_mlir.dialects import func
from torch_mlir.ir import (
    Attribute,
    FlatSymbolRefAttr,
    InsertionPoint,
    Operation,
    OpView,
    StringAttr,
    Type,
    TypeAttr,
    UnitAttr,
    Value,
)

from mlq.dialect import functions, quant
from mlq.dialect.ops import WeightOp
from mlq.errors import DiagnosticError
from mlq.transforms.base import Pass, register_pass, walk

_SCOPE = "model"
_PARAMETER = re.compile(rf'#stream\.parameter\.named<"{_SCOPE}"::"([^"]*)">')


@register_pass
class LowerWeights(Pass):
    """Load each `mlq.weight` from a global that is a parameter of its key, in scope "model".

    A program in this form is compiled with its weights as constants, or without any: then they are
    given when it is loaded, and can be swapped. One global serves all ops of its key and type.

    A function of mlq-simulate takes those that only kernels read as arguments instead, its last
    ones: `mlq.given` lists their keys. A global costs the compiler more than all kernels that read
    it, and such a module is compiled for one search.

    Before:
        func.func @f() -> tensor<2xf32> {
          %w = "mlq.weight"() {key = "conv.weight"} : () -> tensor<2xf32>
          return %w : tensor<2xf32>
        }
    After:
        "util.global"() {sym_name = "w0", sym_visibility = "private", type = tensor<2xf32>,
          initial_value = #stream.parameter.named<"model"::"conv.weight"> : tensor<2xf32>}
          : () -> ()
        func.func @f() -> tensor<2xf32> {
          %w = "util.global.load"() {global = @w0, is_immutable} : () -> tensor<2xf32>
          return %w : tensor<2xf32>
        }
    """

    name = "mlq-lower-weights"

    def run(self, module: Operation) -> None:
        body = module.regions[0].blocks[0]
        before = next(iter(body.operations), None)
        for op in body.operations:
            if isinstance(op, func.FuncOp) and "mlq.rows" in op.attributes:
                _give(op)
        made: dict[tuple[str, str], str] = {}
        for op in walk(module, WeightOp):
            key, type_ = op.key.value, op.output.type
            _check(op)
            symbol = made.get((key, str(type_)))
            if symbol is None:
                symbol = made[key, str(type_)] = f"w{len(made)}"
                with InsertionPoint(before), op.location:
                    declare(symbol, key, type_)
            with InsertionPoint(op), op.location:
                op.output.replace_all_uses_with(load(symbol, type_))
            op.operation.erase()


def _give(function: func.FuncOp) -> None:
    """Make arguments of the weights that only kernels read: what else reads them does so once."""
    given: dict[tuple[str, str], Value] = {}
    for op in walk(function.operation, WeightOp):
        if any(use.owner.name != "flow.dispatch" for use in op.output.uses):
            continue
        _check(op)
        key, type_ = op.key.value, op.output.type
        if (key, str(type_)) not in given:
            given[key, str(type_)] = functions.add_argument(function, type_, key)
        op.output.replace_all_uses_with(given[key, str(type_)])
        op.operation.erase()
    function.attributes["mlq.given"] = functions.strings([(key,) for key, _ in given])


def _check(op: OpView) -> None:
    if quant.is_quantized(op.output.type):
        raise DiagnosticError(op, "is of quantized type; run mlq-lower-to-linalg before this pass")
    if '"' in op.key.value or "\\" in op.key.value:
        raise DiagnosticError(op, f"has a key that no parameter can have: {op.key.value!r}")


def declare(symbol: str, key: str, type_: Type) -> None:
    """A global whose value is the parameter of a key."""
    value = Attribute.parse(f'#stream.parameter.named<"{_SCOPE}"::"{key}"> : {type_}')
    Operation.create(
        "util.global",
        attributes={
            "sym_name": StringAttr.get(symbol),
            "sym_visibility": StringAttr.get("private"),
            "type": TypeAttr.get(type_),
            "initial_value": value,
        },
    )


def key_of(declared: OpView) -> str | None:
    """The key of the parameter that is a global's value; None if it has another."""
    attributes = declared.operation.attributes
    value = str(attributes["initial_value"]) if "initial_value" in attributes else ""
    match = _PARAMETER.match(value)
    return match[1] if match else None


def load(symbol: str, type_: Type) -> Value:
    """The value of a global."""
    return Operation.create(
        "util.global.load",
        results=[type_],
        attributes={"global": FlatSymbolRefAttr.get(symbol), "is_immutable": UnitAttr.get()},
    ).result
