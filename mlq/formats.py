"""The forms that a network is shipped in: a module, with its weights apart, or C."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path

from mlq import runtime
from mlq.deployment import c_array, program_files
from mlq.errors import TargetError
from mlq.network import Transformed
from mlq.precision import one_of
from mlq.targets.base import Target
from mlq.targets.iree import compile_module
from mlq.targets.static import STATIC_LIBRARY, compile_program
from mlq.variant import compiled, joined

MODULE, PARAMETERS = "model.vmfb", "model.irpa"
FORMATS = ("vmfb", "vmfb+irpa", STATIC_LIBRARY, "c-array")
_ARRAY = "model_vmfb"

# A parameter that a global stands for, and the global's name; a global that is read, and as what.
_NAMED = re.compile(r'named<"model"::"([^"]*)">.*?sym_name = "(\w+)"')
_LOADED = re.compile(r'(%\w+) = "util.global.load"\(\).*?global = @(\w+)')
_VALUE = re.compile(r"%\w+")

Files = dict[str, bytes | str]


def ship(lowered: Transformed, target: Target, form: str) -> Files:
    """The files of a network at contract LOWERED in one of FORMATS.

    `vmfb+irpa` keeps the weights outside of the module: modules for several targets share them.
    `static-library` is C and an object file without runtime, `c-array` a module inside of C.
    TargetError where the target has no such form.
    """
    one_of(FORMATS, form, "format")
    if form not in target.formats:
        raise TargetError(
            f"{target.name} has no format {form}; choose from {', '.join(target.formats)}"
        )
    if form == STATIC_LIBRARY:
        return program_files(compile_program(lowered.text, target, lowered.weights), target)
    if form == "vmfb+irpa":
        vmfb = compile_module(lowered.text, target, embed=False)
        return {MODULE: vmfb, PARAMETERS: _parameters(lowered)}
    vmfb = compiled(joined(lowered, target), target)
    return {MODULE: vmfb, **(c_array(vmfb, _ARRAY) if form == "c-array" else {})}


def _parameters(lowered: Transformed) -> bytes:
    """The weights that a module uses, as a .irpa file; what it only declares or loads is not."""
    mentions = Counter(_VALUE.findall(lowered.text))
    loaded = {name for value, name in _LOADED.findall(lowered.text) if mentions[value] > 1}
    named = _NAMED.findall(lowered.text)
    asked = {key: lowered.weights[key] for key, name in named if name in loaded}
    with tempfile.TemporaryDirectory(prefix="mlq-") as folder:
        path = Path(folder, PARAMETERS)
        runtime.save_parameters(path, asked)
        return path.read_bytes()
