"""The IR mlq works in: its own ops, upstream's quantized types, and constants by name."""

from __future__ import annotations

import sys
from types import ModuleType

from torch_mlir.dialects import torch
from torch_mlir.ir import Context, Location, Module
from torch_mlir.passmanager import PassManager

from mlq.dialect import ops
from mlq.dialect.namespace import Mlq

# For every op that is looked at the bindings import the Python module of its dialect and, where it
# has none, search the disk for it once more: half the time that lowering to kernels takes.
_MODULES = {
    "mlq": ops,
    **{name: ModuleType(name) for name in ("flow", "hal", "stream", "torch_c", "util")},
}
for _name, _module in _MODULES.items():
    sys.modules.setdefault(f"torch_mlir.dialects.{_name}", _module)


def context() -> Context:
    """A context that parses and verifies everything mlq reads and builds."""
    made = Context()
    # LOWERED modules carry IREE's ops (util, stream, hal), which only their generic form can name.
    made.allow_unregistered_dialects = True
    torch.register_dialect(made)
    with made, Location.unknown():
        Mlq.load()
        # torch_c has no register function of its own; a pass that needs it loads it.
        load_torch_c = "builtin.module(torch-func-backend-type-conversion)"
        PassManager.parse(load_torch_c).run(Module.create().operation)
    return made
