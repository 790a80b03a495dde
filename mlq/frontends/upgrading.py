"""ONNX's own tools on a model of any size: check, convert the opset, infer the shapes.

They see small constants whole, and of large ones only the type, as if they were graph inputs.
Ops that ONNX does not know are lent a domain of their own, which its tools leave alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import checker, defs, helper, inliner, numpy_helper, shape_inference, version_converter

from mlq.errors import ModelError
from mlq.frontends.reading import label, walk

Array = NDArray[Any]

OPSET = 17
OLDEST_OPSET = 7
_IR_VERSION = 8
_FOREIGN = "mlq.foreign"
# Larger constants decide no shape.
_SMALL_ELEMENTS = 1024
_OWN_DOMAINS = ("", "ai.onnx")
# Ops whose shapes ONNX cannot infer although their definition, which takes their place, says them.
_INLINED = [("", "MeanVarianceNormalization")]


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the model uses; 0 when it does not say."""
    return max((o.version for o in model.opset_import if o.domain in _OWN_DOMAINS), default=0)


def check_versions(path: Path, model: onnx.ModelProto) -> None:
    """Refuse opsets that cannot be converted, and nodes of a domain that has no version.

    A model of foreign ops only gets an opset for the constants to come; one of an older opset whose
    ops are still the same gets the oldest that can be converted.
    """
    _lift(model)
    opset, newest = opset_of(model), defs.onnx_opset_version()
    if not opset and not any(node.domain in _OWN_DOMAINS for node in walk(model.graph.node)):
        model.opset_import.append(helper.make_opsetid("", OPSET))
    elif not OLDEST_OPSET <= opset <= newest:
        says = f"uses ONNX opset {opset}" if opset else "does not say which ONNX opset it uses"
        raise ModelError(
            f"{path}: the model {says}; export it with one of {OLDEST_OPSET} to {newest},"
            f" best {OPSET}"
        )
    domains = {each.domain for each in model.opset_import} | set(_OWN_DOMAINS)
    for node in walk(model.graph.node):
        if node.domain not in domains:
            raise ModelError(
                f"{path}: node {label(node)} is of domain {node.domain!r}, for which the model"
                " imports no opset; export the model again"
            )


def upgrade(path: Path, model: onnx.ModelProto, constants: dict[str, Array]) -> onnx.ModelProto:
    """The same network at opset 17 or newer, checked, without functions of its own."""
    model.ir_version = max(model.ir_version, _IR_VERSION)
    _normalize_domains(model)
    _write_defaults(model)
    if model.functions:
        model = _apply(path, inliner.inline_local_functions, model, constants)
    if any(("", node.op_type) in _INLINED for node in model.graph.node):
        model = _apply(path, _inline, model, constants)
    _exile_foreign(model)
    _apply(path, _check, model, constants)
    if opset_of(model) >= OPSET:
        return model
    return _apply(path, lambda m: version_converter.convert_version(m, OPSET), model, constants)


def infer(path: Path, model: onnx.ModelProto, constants: dict[str, Array]) -> onnx.ModelProto:
    """The model with the type of every value; ModelError when the shapes do not fit together."""
    return _apply(
        path,
        lambda m: shape_inference.infer_shapes(
            m, check_type=True, strict_mode=True, data_prop=True
        ),
        model,
        constants,
    )


def restore_foreign(model: onnx.ModelProto) -> None:
    """Take back the domain that `upgrade` lent to unknown ops."""
    for node in walk(model.graph.node):
        if node.domain == _FOREIGN:
            node.domain = ""
    kept = [each for each in model.opset_import if each.domain != _FOREIGN]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def with_domains_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or a copy: other domains' ops that are called like one of ONNX, by domain too.

    For the importer, which forgets domains and would take them for ONNX's own.
    """
    opset = opset_of(model)
    if not any(_is_namesake(node, opset) for node in walk(model.graph.node)):
        return model
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    for node in walk(apart.graph.node):
        if _is_namesake(node, opset):
            node.op_type = f"{node.domain}.{node.op_type}"
    return apart


def _is_namesake(node: onnx.NodeProto, opset: int) -> bool:
    return node.domain not in _OWN_DOMAINS and defs.has(node.op_type, opset, "")


def _lift(model: onnx.ModelProto) -> None:
    """Call an older opset the oldest supported one where that makes no difference."""
    for each in model.opset_import:
        version = each.version
        if (
            each.domain in _OWN_DOMAINS
            and 0 < version < OLDEST_OPSET
            and all(_is_unchanged(node, version) for node in walk(model.graph.node))
        ):
            each.version = OLDEST_OPSET


def _is_unchanged(node: onnx.NodeProto, opset: int) -> bool:
    """Whether the op is the same in `opset` as in the oldest supported one; foreign ones are."""
    if node.domain not in _OWN_DOMAINS or not defs.has(node.op_type, ""):
        return True
    if not defs.has(node.op_type, opset, ""):
        return False
    before, after = (defs.get_schema(node.op_type, v, "") for v in (opset, OLDEST_OPSET))
    return bool(before.since_version == after.since_version)


def _write_defaults(model: onnx.ModelProto) -> None:
    """Give each call of a function the attributes it leaves out, which the inliner would lose."""
    defaults = {(f.domain, f.name, f.overload): list(f.attribute_proto) for f in model.functions}
    for domain, kind in _INLINED:
        if defs.has(kind, opset_of(model), domain):
            attributes = defs.get_schema(kind, opset_of(model), domain).attributes.values()
            values = [attribute.default_value for attribute in attributes]
            defaults[domain, kind, ""] = [value for value in values if value.name]
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for node in (node for body in bodies for node in walk(body)):
        given = {attribute.name for attribute in node.attribute}
        left_out = defaults.get((node.domain, node.op_type, node.overload), [])
        node.attribute.extend(value for value in left_out if value.name not in given)


def _normalize_domains(model: onnx.ModelProto) -> None:
    opset = opset_of(model)
    others = [each for each in model.opset_import if each.domain not in _OWN_DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", opset), *others])
    for node in walk(model.graph.node):
        if node.domain in _OWN_DOMAINS:
            node.domain = ""


def _exile_foreign(model: onnx.ModelProto) -> None:
    unknown = [
        node
        for node in walk(model.graph.node)
        if not node.domain and not defs.has(node.op_type, "")
    ]
    for node in unknown:
        node.domain = _FOREIGN
    if unknown:
        model.opset_import.append(helper.make_opsetid(_FOREIGN, 1))


def _inline(model: onnx.ModelProto) -> onnx.ModelProto:
    inlined: onnx.ModelProto = inliner.inline_selected_functions(
        model, _INLINED, inline_schema_functions=True
    )
    return inlined


def _check(model: onnx.ModelProto) -> onnx.ModelProto:
    for value in model.graph.output:
        # The checker wants a shape; which one, inference will say.
        if value.type.tensor_type.elem_type:
            value.type.tensor_type.shape.SetInParent()
    checker.check_model(model)
    return model


def _apply(
    path: Path,
    tool: Callable[[onnx.ModelProto], onnx.ModelProto],
    model: onnx.ModelProto,
    constants: dict[str, Array],
) -> onnx.ModelProto:
    """Run `tool` on the model with its constants lent to it; what it says becomes one line."""
    try:
        result = tool(_lend(model, constants))
    except (
        RuntimeError,
        ValueError,
        TypeError,
        checker.ValidationError,
        shape_inference.InferenceError,
    ) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: {reason}; correct the model or export it again") from error
    return _take_back(result, constants)


def _lend(model: onnx.ModelProto, constants: dict[str, Array]) -> onnx.ModelProto:
    lent = onnx.ModelProto()
    lent.CopyFrom(model)
    for name, array in constants.items():
        if array.size <= _SMALL_ELEMENTS:
            lent.graph.initializer.append(numpy_helper.from_array(array, name))
        else:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            lent.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    return lent


def _take_back(lent: onnx.ModelProto, constants: dict[str, Array]) -> onnx.ModelProto:
    for tensor in lent.graph.initializer:
        if tensor.name not in constants:
            constants[tensor.name] = numpy_helper.to_array(tensor)
    inputs = [value for value in lent.graph.input if value.name not in constants]
    lent.graph.ClearField("initializer")
    lent.graph.ClearField("input")
    lent.graph.input.extend(inputs)
    return lent
