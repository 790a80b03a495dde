"""Constants as passes meet them: `mlq.weight`, and the small ones of ONNX that stand in the IR."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import BlockArgument, DenseElementsAttr, Operation, StringAttr, Value

from mlq.dialect import bridge, build, layers, weights
from mlq.dialect.locations import names_of
from mlq.errors import ContractError


def array_of(value: Value) -> NDArray[Any] | None:
    """The numbers behind a value; None if they are not known at compile time."""
    value = _behind(value)
    key = layers.weight_key(value)
    if key is not None:
        return weights.current()[key]
    owner = _onnx_constant(value)
    if owner is None or "torch.onnx.value" not in owner.attributes:
        return None
    dense = owner.attributes["torch.onnx.value"]
    return np.array(dense) if isinstance(dense, DenseElementsAttr) else None


def known(value: Value) -> NDArray[Any]:
    """The numbers of a weight, as float64; weights of layers are constants by contract."""
    array = array_of(value)
    if array is None:
        raise ContractError(f"a weight is computed at run time: {value}")
    return array.astype(np.float64)


def key_of(value: Value) -> str:
    """The key of a constant in the weight store; for one that stands in the IR, its own name."""
    value = _behind(value)
    return layers.weight_key(value) or next(iter(names_of(value.owner.location)), "constant")


def keep(key: str, array: NDArray[Any]) -> Value:
    """A `mlq.weight` of `array`, as float32, under `key` or a key close to it."""
    array = np.ascontiguousarray(array, np.float32)
    return build.weight(weights.current().keep(key, array), build.tensor(array.shape))


def kept(value: Value, array: NDArray[Any]) -> Value:
    """The `mlq.weight` of a constant whose numbers are `array`, new if it stands in the IR."""
    behind = _behind(value)
    return behind if layers.weight_key(behind) is not None else keep(key_of(value), array)


def _behind(value: Value) -> Value:
    origin = bridge.source(value, bridge.FROM)
    return value if origin is None else origin


def _onnx_constant(value: Value) -> Operation | None:
    if isinstance(value, BlockArgument):
        return None
    owner = value.owner.operation  # an op's view may have a `name` of its own
    if owner.name != "torch.operator":
        return None
    return owner if StringAttr(owner.attributes["name"]).value == "onnx.Constant" else None
