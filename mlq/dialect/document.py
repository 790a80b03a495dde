"""The dialect's page in the docs, made from the op classes and their verifiers."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Any, get_args, get_origin

from torch_mlir.ir import OpResult, Value

from mlq.dialect import build, demands, layers, namespace, ops, verify

# Verifiers that nearly every op asks; what they say stands once at the top.
_COMMON = ("expect_shape", "well_quantized", "known_layout", "known_activation")

_INTRODUCTION = f"""\
# The mlq dialect

<!-- Made by docs/generate.py from mlq/dialect; do not edit. -->

Ops are registered, verified and pure, and written in MLIR's generic form. Tensors are of `f32`, or
of `!quant.uniform` types: precision is in the types, so a float layer and an integer one are the
same op. Activations are stored as `!quant.uniform<u8:f32, scale:zero_point>`, weights as
`!quant.uniform<i8<-127:127>:f32:axis, {{...}}>`, biases as i32 whose scale is that of the input
times that of the weight. An integer layer whose result is f32 hands over its unrounded accumulator
times its scale.

Ops carry these attributes besides their own:

| attribute | on | meaning |
|---|---|---|
| `{build.NAME}` | what makes an activation, arguments | unique name, from the ONNX node |
| `{build.PRECISION}` | layers | what the plan chose |
| `{build.RANGE}` | what makes an activation, arguments | the reals it takes, as calibrated |
| `{build.EXTREMES}` | the same | the reals it takes, all of them, where they are others |
| `{build.SENSITIVITY}` | layers | what the layer loses at reduced precision |

A verifier's message has the op's location, which is the ONNX node's name. Any op may say:
"""


def document() -> str:
    """The whole page."""
    common = (text for name in _COMMON for text in _complaints(name, nested=False))
    made = [_INTRODUCTION, _bullets(common), "## Attributes\n"]
    made += [_attribute(cls) for cls in _classes(namespace.Mlq.Attribute)]
    made.append("## Ops\n")
    made += [_op(cls) for cls in _classes(namespace.Mlq.Operation)]
    return "\n".join(made)


def _classes(base: type) -> Iterator[type]:
    """The classes of the dialect on a base, in the order of their file."""
    return (
        cls
        for module in (namespace, ops)
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, base) and cls.__module__ == module.__name__
    )


def _attribute(cls: Any) -> str:
    parameters = ", ".join(
        f"{name}: {_type(kind)}" for name, kind in inspect.get_annotations(cls).items()
    )
    name = cls.__name__.removesuffix("Attr").lower()
    return f"### `#mlq.{name}<{parameters}>`\n\n{_doc(cls)}\n"


def _op(cls: Any) -> str:
    name, fields = cls.OPERATION_NAME, inspect.get_annotations(cls)
    parts = [f"### `{name}`", _doc(cls)]
    if issubclass(cls, layers.LAYERS):
        parts.append("A layer: a plan chooses its precision.")
    elif issubclass(cls, layers.MOVES):
        parts.append("Moves elements, and storage with them: its type is that of its input.")
    for role in ("Operands", "Attributes", "Results"):
        shown = [_field(field, kind) for field, kind in fields.items() if _role(kind) == role]
        if shown:
            parts.append(f"{role}: {', '.join(shown)}.")
    refusals = _bullets(_complaints(name.removeprefix("mlq.")))
    return "\n\n".join([*parts, f"Refused with\n\n{refusals}" if refusals else ""]).rstrip() + "\n"


def _role(kind: Any) -> str:
    known = {OpResult: "Results", Value: "Operands"}
    roles = [known.get(get_origin(each) or each) for each in (kind, *get_args(kind))]
    return next(filter(None, roles), "Attributes")


def _field(name: str, kind: Any) -> str:
    if _role(kind) != "Attributes" or kind is Any:
        optional = isinstance(kind, UnionType) or type(None) in get_args(kind)
        return f"`{name}`{' (may be absent)' if optional else ''}"
    return f"`{name}` ({_type(kind)})"


def _bullets(texts: Iterable[str]) -> str:
    return "".join(f"- {text}\n" for text in dict.fromkeys(texts))


def _type(kind: Any) -> str:
    own = {
        cls.__name__: f"`#mlq.{cls.__name__.removesuffix('Attr').lower()}`"
        for cls in _classes(namespace.Mlq.Attribute)
    }
    words = {"StringAttr": "string", "FloatAttr": "float", "IntegerAttr": "integer"}
    return str((own | words).get(kind.__name__, kind.__name__))


def _doc(cls: type) -> str:
    return inspect.getdoc(cls) or ""


def _complaints(function: str, *, nested: bool = True) -> Iterator[str]:
    """What a verifier can answer; with `nested`, also what those it asks do, but for the common."""
    check = getattr(verify, function, None) or getattr(demands, function)
    tree = ast.parse(textwrap.dedent(inspect.getsource(check)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant | ast.JoinedStr):
            yield from filter(None, [_text(node.value)])
        elif nested and isinstance(node, ast.Call):
            asked = ast.unparse(node.func).removeprefix("demands.")
            own = asked.startswith("_") and hasattr(verify, asked)
            known = getattr(vars(demands).get(asked), "__module__", "") == demands.__name__
            if own or (known and asked not in _COMMON):
                yield from _complaints(asked)


def _text(value: ast.Constant | ast.JoinedStr) -> str:
    """A complaint with dots where its values go."""
    if isinstance(value, ast.Constant):
        return value.value if isinstance(value.value, str) else ""
    return "".join(
        part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "..."
        for part in value.values
    )
