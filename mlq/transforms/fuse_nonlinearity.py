"""Fuse the steps that exporters take an activation apart into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch_mlir.ir import BlockArgument, InsertionPoint, Location, Operation, OpView, Value

from mlq.dialect import bridge, build
from mlq.dialect.ops import ActivateOp, MulOp, NonlinearityOp
from mlq.numerics import nonlinear
from mlq.numerics.nonlinear import Function, Step
from mlq.transforms import affine
from mlq.transforms.base import Pass, register_pass
from mlq.transforms.cleaning import clean, ops_of
from mlq.transforms.raising.node import kind_of

_TIMES_INPUT = Step("times_input")


@register_pass
class FuseNonlinearity(Pass):
    """Make one `mlq.nonlinearity` of functions in a row, and of one times what it was made of.

    So x * sigmoid(x), x * clip(x + 3, 0, 6) / 6 and x * (1 + erf(x / sqrt(2))) / 2 are an op each,
    and one table. Numbers that are added or multiplied count as functions, and so do clamps, but
    they alone make none.

    Before:
        func.func @main(%x: tensor<1x4xf32>) -> tensor<1x4xf32> {
          %s = "mlq.nonlinearity"(%x) {function = "sigmoid"} : (tensor<1x4xf32>) -> tensor<1x4xf32>
          %y = "mlq.mul"(%x, %s) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>}
            : (tensor<1x4xf32>, tensor<1x4xf32>) -> tensor<1x4xf32>
          return %y : tensor<1x4xf32>
        }
    After:
        func.func @main(%x: tensor<1x4xf32>) -> tensor<1x4xf32> {
          %y = "mlq.nonlinearity"(%x) {function = "sigmoid | times_input"}
            : (tensor<1x4xf32>) -> tensor<1x4xf32>
          return %y : tensor<1x4xf32>
        }
    """

    name = "mlq-fuse-nonlinearity"

    def run(self, module: Operation) -> None:
        for op in ops_of(module):
            if isinstance(op, MulOp):
                found = _gated(op)
            elif isinstance(op, NonlinearityOp) or kind_of(op) in affine.ARITHMETIC:
                found = _in_a_row(op)
            else:
                continue
            if found is not None:
                _replace(op, found)
        clean(module)


@dataclass(frozen=True)
class _Chain:
    """A function of a builtin tensor, and where the nodes that it is made of are."""

    source: Value
    function: Function
    locations: tuple[Location, ...]

    def after(self, link: _Chain) -> _Chain:
        """What `link` does, then this."""
        function, locations = link.function + self.function, link.locations + self.locations
        return _Chain(link.source, function, locations)

    @property
    def looks_back(self) -> bool:
        """Whether a step needs the input again, so that it must stay the input."""
        return _TIMES_INPUT in self.function


def _replace(op: OpView, chain: _Chain) -> None:
    with InsertionPoint(op), Location.fused(chain.locations):
        made = build.nonlinearity(chain.source, chain.function)
        result = op.operation.results[0]
        result.replace_all_uses_with(
            made if isinstance(op, MulOp | NonlinearityOp) else bridge.from_builtin(made)
        )
    op.operation.erase()


def _gated(op: MulOp) -> _Chain | None:
    """A product of a tensor and of what is made of it."""
    sides = op.lhs, op.rhs
    if build.Activation.of(op).kind != "none" or build.shape_of(op.lhs) != build.shape_of(op.rhs):
        return None
    for source, other in (sides, sides[::-1]):
        origin, chain = _origin(source), _extended(_Chain(other, (), ()))
        while chain is not None and chain.source != origin:
            chain = _extended(chain)
        if chain is not None and chain.function:
            return _Chain(origin, (*chain.function, _TIMES_INPUT), (*chain.locations, op.location))
    return None


def _in_a_row(op: OpView) -> _Chain | None:
    """Functions up to one whose input is no function, if it is not all sums and products."""
    chain = _link(op)
    longer = None if chain is None else _extended(chain)
    while longer is not None:
        chain, longer = longer, _extended(longer)
    if chain is None or chain.function == _steps(op) or _is_affine(chain.function):
        return None
    return chain


def _extended(chain: _Chain) -> _Chain | None:
    """The chain and the function before it; None where there is none that it can be joined with."""
    origin = _origin(chain.source)
    ends = isinstance(origin, BlockArgument) or {_uses(origin), _uses(chain.source)} != {1}
    if chain.looks_back or ends:
        return None
    behind = bridge.source(origin, bridge.TO)
    maker = origin if behind is None else behind
    link = None if isinstance(maker, BlockArgument) else _link(maker.owner.opview)
    return None if link is None else chain.after(link)


def _link(op: OpView) -> _Chain | None:
    """An op as a function of its input."""
    function = _steps(op)
    if function is None:
        return None
    found = None if isinstance(op, NonlinearityOp | ActivateOp) else affine.of(op)
    source = op.operation.operands[0] if found is None else bridge.to_builtin(found.input)
    return _Chain(_origin(source), function, (op.location,))


def _origin(value: Value) -> Value:
    """The tensor itself, where what became an op was seen as a torch value in between."""
    behind = bridge.source(value, bridge.TO)
    origin = None if behind is None else bridge.source(behind, bridge.FROM)
    return value if origin is None else origin


def _steps(op: OpView) -> Function | None:
    if isinstance(op, NonlinearityOp):
        return nonlinear.parse(op.function.value)
    if isinstance(op, ActivateOp):
        activation = build.Activation.of(op)
        return (Step("clip", activation.bounds),)
    found = affine.of(op) if kind_of(op) in affine.ARITHMETIC else None
    if found is None or found.scale.size != 1 or found.shift.size != 1:
        return None
    scale, shift = found.scale.item(), found.shift.item()
    if not np.isfinite([scale, shift]).all():
        return None
    added = () if shift == 0.0 else (Step("add", (shift,)),)
    return (Step("multiply", (scale,)), *added) if scale != 1.0 else added


def _is_affine(function: Sequence[Step]) -> bool:
    return all(step.name in {"add", "multiply"} for step in function)


def _uses(value: Value) -> int:
    """How many ops read a tensor, on either side of a bridge."""
    users = [use.owner.operation for use in value.uses]
    return sum(len(list(user.result.uses)) if user.name == bridge.FROM else 1 for user in users)
