"""The IR mlq works in: its own ops, upstream's quantized types, and constants by name."""

from __future__ import annotations

from torch_mlir.dialects import torch
from torch_mlir.ir import Context, Location, Module
from torch_mlir.passmanager import PassManager

from mlq.dialect.ops import Mlq


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
