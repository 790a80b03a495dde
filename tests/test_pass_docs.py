"""Every pass's docstring is a test: its Before, run through it, is its After.

Weights in an example are all ones. Its options, if any, stand in an `Options:` block as in a
pipeline; `key=@{...}` there is a file of that JSON, and the option is its path.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_mlir.dialects import quant
from torch_mlir.ir import FloatType, Location, Module, Type

from mlq.dialect import context
from mlq.dialect.weights import WeightStore, bound
from mlq.transforms import PASSES, parse_pipeline
from mlq.transforms.base import walk

BLOCK = re.compile(r"^(Before|Options|After):\n((?:[ ]+.*\n|\n)+)", re.MULTILINE)
INLINE_FILE = re.compile(r"([\w-]+)=@(\{.*?\})(?=\s+[\w-]+=|\s*\Z)", re.DOTALL)


@pytest.mark.parametrize("name", sorted(PASSES))
def test_docstring_example(name: str, tmp_path: Path) -> None:
    doc = (inspect.getdoc(PASSES[name]) or "") + "\n"
    blocks = dict(BLOCK.findall(doc))
    assert {"Before", "After"} <= blocks.keys(), "a pass shows what it does: Before: and After:"
    options = with_files(blocks.get("Options", ""), tmp_path)

    ran = run(blocks["Before"], f"{name}{{{options}}},canonicalize")
    assert ran == run(blocks["After"], "canonicalize")
    shown = ran != run(blocks["Before"], "canonicalize")
    assert shown or name.startswith("mlq-verify-"), "the example shows nothing"


def with_files(options: str, folder: Path) -> str:
    """The options, with what they give inline written to files in `folder`."""
    for key, text in INLINE_FILE.findall(options):
        (folder / f"{key}.json").write_text(text)
    named = INLINE_FILE.sub(lambda m: f"{m[1]}={folder / m[1]}.json", options)
    return " ".join(named.split())


def run(text: str, pipeline: str) -> str:
    with context(), Location.unknown():
        module = Module.parse(text)
        with bound(ones(module)):
            parse_pipeline(pipeline).run(module.operation)
        return str(module)


def ones(module: Module) -> WeightStore:
    """A store with every weight that the module names."""
    store = WeightStore()
    for op in walk(module.operation, "mlq.weight"):
        made = op.results[0].type
        dtype = storage_dtype(made.element_type)
        store[op.attributes["key"].value] = np.ones(made.shape, dtype)
    return store


def storage_dtype(element: Type) -> np.dtype[Any]:
    """What numpy stores for it; four bits take a byte."""
    if isinstance(element, FloatType):
        return np.dtype(f"float{element.width}")
    if isinstance(element, quant.QuantizedType):
        sign = "int" if element.is_signed else "uint"
        return np.dtype(f"{sign}{max(8, element.storage_type_integral_width)}")
    return np.dtype(f"int{max(8, element.width)}")


def test_ctrl_c_in_a_walk_stays_what_it_is() -> None:
    class Stops(type):
        def __instancecheck__(cls, _instance: object) -> bool:
            raise KeyboardInterrupt

    class Stopping(metaclass=Stops):
        pass

    with context(), Location.unknown():
        module = Module.parse("module {}")
        with pytest.raises(KeyboardInterrupt):
            walk(module.operation, Stopping)
