"""IREE's compiler: LOWERED text in, the bytes of a .vmfb out. Nothing else in mlq uses it.

The program is parsed and, if asked, given its weights in this process (as resources, never as
text); the compilation runs in a process of its own, so that a crash of the compiler is an error
like any other. Equal input gives equal bytes, and is compiled once: results are cached.
"""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.errors import CompileError
from mlq.targets import caching
from mlq.targets.base import Target
from mlq.targets.refusals import first_error, node_at_fault

_SCOPE = "model"
_PARAMETER = f'#stream.parameter.named<"{_SCOPE}"::"'
_NAMED = re.compile(rf'named<"{_SCOPE}"::"([^"]*)">')
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')  # keys that MLIR prints without escapes
_NAMED_TYPES = {"bool": "i1", "bfloat16": "bf16"}  # in numpy (with ml_dtypes) and in MLIR
SOURCE, _OUTPUT = "module.mlirbc", "module.vmfb"

# At -O2 and above IREE 3.13 fuses what makes a result of the network with what reads it, a softmax
# for one, and then cannot generate code for some of these. Without such fusions it can.
_OVERFUSED = "restricted to workgroup distributed contexts"
_FUSE_LESS = "--iree-dispatch-creation-fuse-multi-use=false"

NIBBLES = ".nibbles"
"""How the key of a weight ends of which two integers share a byte until the module is loaded."""

TAPS = ".taps"
"""How the key of a weight ends that is transformed for Winograd's convolution at load."""

# What makes more of them is computed at load, not when compiling, however much that is.
_AT_LOAD = (
    "--iree-opt-const-eval=false",
    f"--iree-opt-const-expr-max-size-increase-threshold={1 << 40}",
)

# Passes look for the patterns of all ops that there are: without those of GPUs a twentieth sooner.
_WITHOUT_GPUS = tuple(
    f"--iree-plugin=-hal_target_{name}" for name in ("cuda", "metal_spirv", "rocm", "vulkan_spirv")
)

CPU_FEATURES, TARGET_NAME = "mlq.cpu_features", "mlq.target"
"""Reflection entries of each exported function: what the module asks of the CPU that runs it, and
the name of the target that it was compiled for."""


def versions() -> dict[str, str]:
    """Versions of the wheels whose code ends up in, or decides on, a module."""
    return {name: version(name) for name in ("iree-base-compiler", "iree-base-runtime")}


def compile_module(
    text: str | bytes,
    target: Target,
    *,
    weights: Mapping[str, NDArray[Any]] | None = None,
    embed: bool = True,
    extra_flags: tuple[str, ...] = (),
    cache: Path | None = None,
) -> bytes:
    """Compile LOWERED text (or bytecode) for a target; the bytes of the .vmfb.

    With `embed` every parameter of the program becomes a constant taken from `weights`; without,
    parameters stay names that the runtime binds. `cache` overrides the folder of cached results
    (by default $MLQ_CACHE, or the user's cache folder; MLQ_CACHE=off turns it off).
    Raises CompileError with the first error line when IREE refuses or crashes.
    """
    packed = any(key.endswith((NIBBLES, TAPS)) for key in _NAMED.findall(str(text)))
    on_cpu = target.device.driver == "local"
    flags = (
        *target.iree_flags,
        *input_flags(text),
        *(_WITHOUT_GPUS if on_cpu else ()),
        *(_AT_LOAD if packed else ()),
        *extra_flags,
    )
    weights = weights if embed and weights is not None else {}
    folder = caching.folder_of(cache)
    key = key_of(text, flags, target, weights, embed=embed)
    if folder is not None and (found := caching.lookup(folder / f"{key}.vmfb")) is not None:
        return found
    with tempfile.TemporaryDirectory(prefix="mlq-") as temporary:
        here = Path(temporary)
        write_bytecode(here / SOURCE, text, target, weights, embed=embed)
        vmfb = _run_compiler(here, flags, folder, key, text)
    if folder is not None:
        caching.store(folder, f"{key}.vmfb", vmfb)
    return vmfb


def input_flags(text: str | bytes) -> tuple[str, ...]:
    """Flags that spare a program without ONNX nodes IREE's importer of them, a quarter of its time.

    A function then has no second, asynchronous self.
    """
    imported = isinstance(text, bytes) or "!torch." in text
    return () if imported else ("--iree-input-type=none",)


def write_bytecode(
    path: Path,
    text: str | bytes,
    target: Target,
    weights: Mapping[str, NDArray[Any]],
    *,
    embed: bool,
) -> None:
    """Write the program with its weights (if `embed`), and what the target adds to its text."""
    from iree.compiler import ir

    with ir.Context(), ir.Location.unknown():
        try:
            module = ir.Module.parse(_respelled(text))
        except ir.MLIRError as error:
            raise CompileError(f"IREE cannot read the module: {_first_diagnostic(error)}") from None
        for operation in module.body.operations:
            if embed and operation.operation.name == "util.global":
                _embed(operation, weights)
            if operation.operation.name == "func.func":
                _record(operation, target)
        if target.executable_target:
            device = ir.Attribute.parse(f"[{target.executable_target}]")
            module.operation.attributes["hal.device.targets"] = device
        with path.open("wb") as file:
            module.operation.write_bytecode(file)


def _respelled(text: str | bytes) -> str | bytes:
    """The program in IREE's MLIR, which spells an attribute of GPU code otherwise than ours."""
    return text.replace("#gpu<dim x>", "#gpu.dim<x>") if isinstance(text, str) else text


def _first_diagnostic(error: Any) -> str:
    for diagnostic in error.error_diagnostics:
        return f"{diagnostic.location}: {diagnostic.message}".replace("\n", " ")
    return str(error).splitlines()[0]


def _embed(operation: Any, weights: Mapping[str, NDArray[Any]]) -> None:
    from iree.compiler import ir

    attributes = operation.attributes
    if "initial_value" not in attributes:
        return
    # IREE prints the key without escapes, so everything up to the closing `">` is the key.
    value = str(attributes["initial_value"])
    if not value.startswith(_PARAMETER):
        return
    key = value[len(_PARAMETER) : value.rindex('"> : ')]
    if key not in weights:
        raise CompileError(f"the module asks for weight '{key}', which the weight store lacks")
    kind = ir.RankedTensorType(ir.TypeAttr(attributes["type"]).value)
    array = np.ascontiguousarray(weights[key])
    if tuple(kind.shape) != array.shape or not _stores(kind.element_type, array.dtype):
        raise CompileError(
            f"weight '{key}' is {array.dtype}{list(array.shape)}, the module declares {kind}"
        )
    # A 0-d buffer has no format that the bindings accept; its bytes do.
    flat = array.reshape(-1).view(np.uint8)
    if array.dtype.name == "bfloat16":
        # IREE's emulation of bf16 cannot convert resources.
        attributes["initial_value"] = ir.DenseElementsAttr.get(
            array.view(np.uint16), type=kind.element_type, shape=array.shape
        )
        return
    attributes["initial_value"] = ir.DenseResourceElementsAttr.get_from_buffer(flat, key, kind)


def _stores(element_type: Any, dtype: np.dtype[Any]) -> bool:
    """Whether an array's bytes are the bytes of a tensor of the element type."""
    if dtype.name in _NAMED_TYPES:
        return str(element_type) == _NAMED_TYPES[dtype.name]
    prefix = {"f": "f", "i": "i", "u": "i"}.get(dtype.kind, "?")
    return str(element_type) == f"{prefix}{8 * dtype.itemsize}"


def _record(function: Any, target: Target) -> None:
    from iree.compiler import ir

    entries = {TARGET_NAME: ir.StringAttr.get(target.name)}
    if target.cpu_features:
        entries[CPU_FEATURES] = ir.StringAttr.get(" ".join(sorted(target.cpu_features)))
    if "iree.reflection" in function.attributes:
        old = ir.DictAttr(function.attributes["iree.reflection"])
        entries |= {named.name: named.attr for named in old}
    function.attributes["iree.reflection"] = ir.DictAttr.get(entries)


def _run_compiler(
    here: Path, flags: tuple[str, ...], cache: Path | None, key: str, text: str | bytes
) -> bytes:
    done = attempt(here, flags)
    if done.returncode and _OVERFUSED in done.stderr:
        flags = (*flags, _FUSE_LESS)
        done = attempt(here, flags)
    output = here / _OUTPUT
    if done.returncode == 0 and output.exists():
        return output.read_bytes()
    reason = first_error(done.stderr, done.returncode)
    if node := node_at_fault(reason, text):
        raise CompileError(
            f"IREE has no code for ONNX {node} as it stands in this network; export the model with"
            " other nodes, or end it before that one: --outputs with the values that it reads"
        )
    if cache is None:
        raise CompileError(f"IREE cannot compile the module: {reason}")
    kept = caching.store(cache, f"failed-{key[:16]}.mlirbc", (here / SOURCE).read_bytes())
    again = " ".join(["iree-compile", *flags, str(kept), "-o", _OUTPUT])
    raise CompileError(f"IREE cannot compile the module: {reason}; to reproduce: {again}")


def attempt(
    here: Path, flags: tuple[str, ...], output: str = _OUTPUT
) -> subprocess.CompletedProcess[str]:
    """Run the compiler on the program in a folder, its output beside it.

    It verifies what each of its passes made only where it failed without, for better words: that
    takes a quarter of its time; what it verifies to number values for analyses, a twelfth.
    """
    from iree.compiler.tools.binaries import find_tool

    # Relative names: no path of this machine may reach the module.
    command = [find_tool("iree-compile"), *flags, SOURCE, "-o", output]
    for verify in (("--verify=false", "--mlir-print-assume-verified"), ("--verify=true",)):
        done = subprocess.run(  # noqa: S603  (our own command, no shell)
            [*command, *verify],
            cwd=here,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode in (0, -signal.SIGINT) or _OVERFUSED in done.stderr:
            break
    return done


def key_of(
    text: str | bytes,
    flags: tuple[str, ...],
    target: Target,
    weights: Mapping[str, NDArray[Any]],
    *,
    embed: bool,
) -> str:
    """A SHA-256 of everything that decides what comes out."""
    digest = hashlib.sha256()
    for part in _key_parts(text, flags, target, weights, embed=embed):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _key_parts(
    text: str | bytes,
    flags: tuple[str, ...],
    target: Target,
    weights: Mapping[str, NDArray[Any]],
    *,
    embed: bool,
) -> Iterator[bytes | memoryview]:
    asked = (target.name, sorted(target.cpu_features), target.executable_target)
    yield repr((sorted(versions().items()), flags, asked, embed)).encode()
    yield text.encode() if isinstance(text, str) else text
    for name in sorted(_mentioned(text, weights)):
        array = np.ascontiguousarray(weights[name])
        yield f"{name} {array.dtype.str} {array.shape}".encode()
        yield array.reshape(-1).view(np.uint8).data


def _mentioned(text: str | bytes, weights: Mapping[str, NDArray[Any]]) -> Iterable[str]:
    """Weights the program may ask for: those its text names, and all where that is uncertain."""
    if isinstance(text, bytes):
        return weights
    named = set(_NAMED.findall(text))
    return [key for key in weights if key in named or not _PLAIN.fullmatch(key)]
