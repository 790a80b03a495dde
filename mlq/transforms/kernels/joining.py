"""Calls of small kernels, one after the other, as one call of a joined kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Operation, RankedTensorType, Value

from mlq.dialect.shapes import DYNAMIC
from mlq.kernels import code
from mlq.kernels.executable import Buffer, Executables, Kernel
from mlq.kernels.gpu.isa import Gpu
from mlq.kernels.gpu.joining import SQUADS, Joined, Span, Step, size_of
from mlq.kernels.gpu.threads import Threaded
from mlq.kernels.library import Device
from mlq.transforms.kernels.images import constant
from mlq.transforms.linalg.constants import Constant

_ALIGNMENT = 64
_CLUSTERS = 16  # of 8 workgroups that a card runs at once


def join(module: Operation, executables: Executables, isa: Device) -> None:
    """Join what a device can join."""
    if not isinstance(isa, Gpu) or not isa.cluster:
        return
    for function in module.regions[0].blocks[0]:
        if isinstance(function, func.FuncOp) and not function.is_external:
            batch = _batch_of(function)
            _drop_unread(function, executables)
            for calls in list(_runs(function, executables, batch)):
                _replace(calls, executables, isa, batch)


def _batch_of(function: func.FuncOp) -> int:
    """The first size of the first input."""
    shapes = [each.shape for each in function.type.inputs if isinstance(each, RankedTensorType)]
    return shapes[0][0] if shapes and shapes[0] else 1


def _runs(function: func.FuncOp, executables: Executables, batch: int) -> Iterable[list[Value]]:
    """Calls without anything between that reads what they make; two of them at least."""
    run: list[Value] = []
    for op in list(function.entry_block):
        made = next(iter(op.results), None)
        kernel = None if made is None else executables.made.get(made)
        if kernel is not None and _share_of(kernel, batch, _clusters_for(batch)) is not None:
            run.append(made)
        elif any(operand in run for operand in op.operands):
            if len(run) > 1:
                yield run
            run = []
    if len(run) > 1:
        yield run


def _drop_unread(function: func.FuncOp, executables: Executables) -> None:
    """Erase what other ops would see of images that only kernels read."""
    for op in reversed(list(function.entry_block)):
        unread = op.results and not any(list(result.uses) for result in op.results)
        if unread and op.results[0] not in executables.made:
            op.erase()


def _clusters_for(batch: int) -> int:
    return max(n for n in range(1, _CLUSTERS + 1) if batch % n == 0)


def _share_of(kernel: Kernel, batch: int, clusters: int) -> Threaded | None:
    """The kernel of one cluster's part of the batch; None for one that has no parts."""
    return kernel.share(batch, clusters, SQUADS) if isinstance(kernel, Threaded) else None


@dataclass
class _Memory:
    """The buffers of a joined kernel as they are found."""

    inputs: list[Value] = field(default_factory=list)
    constants: list[np.ndarray[Any, Any]] = field(default_factory=list)
    filled: int = 0


def _replace(calls: list[Value], executables: Executables, isa: Gpu, batch: int) -> None:
    clusters = _clusters_for(batch)
    kernels = [executables.made[call] for call in calls]
    inside = set(calls)
    results = [call for call in calls if any(_user(use) not in inside for use in call.uses)]
    places, packed, inputs = {}, [], []
    constants, scratch = 0, 0
    for call, kernel in zip(calls, kernels, strict=True):
        for operand, buffer in zip(call.owner.operands, kernel.buffers, strict=False):
            if operand in places or operand in inside:
                continue
            known = Constant.of(operand)
            if known is None:
                places[operand] = ("input", len(inputs), 0)
                inputs.append((operand, buffer))
            else:
                raw = np.ascontiguousarray(known.array).reshape(-1).view(np.int8)
                places[operand] = ("constant", 0, constants)
                packed.append(np.pad(raw, (0, -len(raw) % _ALIGNMENT)))
                constants += len(packed[-1])
        if call not in results:
            places[call] = ("scratch", 0, scratch)
            scratch += -(-size_of(kernel.buffers[-1]) // _ALIGNMENT) * _ALIGNMENT
        else:
            places[call] = ("result", results.index(call), 0)
    order = {"input": 0, "constant": len(inputs), "result": len(inputs) + 1}
    order["scratch"] = order["result"] + len(results)
    buffers = [
        *(Buffer("i8", size_of(buffer)) for _, buffer in inputs),
        Buffer("i8", constants),
        *(Buffer("i8", size_of(executables.made[each].buffers[-1])) for each in results),
        Buffer("i8", max(scratch, _ALIGNMENT)),
    ]
    steps, unseen = [], set()
    for call, kernel in zip(calls, kernels, strict=True):
        share = _share_of(kernel, batch, clusters)
        spans, reads = [], set()
        values = [*list(call.owner.operands)[: len(kernel.buffers) - 1], call]
        for value, buffer in zip(values, kernel.buffers, strict=True):
            kind, number, first = places[value]
            apart = 0 if kind == "constant" else size_of(buffer) // clusters
            spans.append(Span(order[kind] + number, first, apart))
            reads.add(value)
        waits = bool(unseen & reads)
        if waits:
            unseen = set()
        unseen.add(call)
        steps.append(Step(share, tuple(spans), waits))
    joined = Joined(
        isa=isa, steps=tuple(steps), buffers=tuple(buffers), results=len(results) + 1, clusters=clusters
    )
    types = [each.type for each in results]
    types.append(RankedTensorType.get([buffers[-1].count], code.element("i8")))
    last = calls[-1].owner
    with InsertionPoint(last), last.location:
        weights = constant("joined", np.concatenate(packed))
        operands = [*(value for value, _ in inputs), weights]
        made = executables.replace(calls, joined, operands, *types)
    for old, new in zip(results, made, strict=False):
        old.replace_all_uses_with(new)
    executables.erase(calls)


def _user(use: Any) -> Value | None:
    return next(iter(use.owner.results), None)
