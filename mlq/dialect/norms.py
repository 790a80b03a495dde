"""Layer norms, as nodes or in pieces: constants that take in a factor on the last axis."""

from __future__ import annotations

from torch_mlir.ir import BlockArgument, Value

from mlq.dialect import bridge, build, layers
from mlq.dialect.exporter import Node, node_of


def scaled_by(value: Value) -> tuple[str, ...] | None:
    """Keys of the weights [C] that, divided by a factor for each channel, divide a torch value.

    The scale and the bias of a LayerNormalization of the last axis, the factor of a Mul, and in
    turn what an Add of a constant adds to those. None where it is anything else, or is read more
    than once before it is a tensor of mlq's.
    """
    if isinstance(value, BlockArgument):
        return None
    node = node_of(value.owner.opview)
    constants = [_constant(operand, value) for operand in value.owner.operation.operands]
    if node is None or len(list(value.uses)) != 1:
        return None
    if node.kind == "LayerNormalization" and _normalizes_last(node, value):
        known = [key for key in constants[1:] if key is not None]
        return tuple(known) if len(known) == len(constants) - 1 else None
    if node.kind not in {"Mul", "Add"} or (constants[0] is None) == (constants[1] is None):
        return None
    key = next(each for each in constants if each is not None)
    if node.kind == "Mul":
        return (key,)
    rest = scaled_by(value.owner.operation.operands[int(constants[0] is not None)])
    return None if rest is None else (key, *rest)


def _normalizes_last(node: Node, value: Value) -> bool:
    tensor = bridge.builtin_of(value.type)
    rank = None if tensor is None else len(tensor.shape)
    return node.attributes.get("axis", -1) in {-1, None if rank is None else rank - 1}


def _constant(operand: Value, like: Value) -> str | None:
    """The key of a weight with a number for each channel of a last axis, read only here."""
    origin = bridge.source(operand, bridge.FROM)
    key = layers.weight_key(origin)
    tensor = bridge.builtin_of(like.type)
    if origin is None or key is None or tensor is None:
        return None
    alone = len(list(operand.uses)) == len(list(origin.uses)) == 1
    channels = list(tensor.shape)[-1:]
    return key if alone and channels and build.shape_of(origin) == channels else None
