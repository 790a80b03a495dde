"""The two forms of a tensor in a Q/DQ graph: as it is stored, and the reals that it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import IntegerType, Operation, Type, Value

from mlq import numerics
from mlq.dialect import bridge, build, layers, nodes, quant, weights
from mlq.numerics import QuantParams
from mlq.numerics.integer import UNBOUNDED, Bounds

# ONNX's own QuantizeLinear stores more than a byte from opset 21 on; ONNX Runtime's always does.
_WIDE_DOMAIN = "com.microsoft."
_BYTE_BITS, _ACCUMULATOR_BITS = 8, 32


class Tensors:
    """ONNX values of one block by the mlq values that they stand for; made where first needed."""

    def __init__(self) -> None:
        self._stored: dict[Value, Value] = {}
        self._real: dict[Value, Value] = {}
        self._params: dict[str, list[Value]] = {}

    def put(self, value: Value, made: Value) -> None:
        """Let `made` stand for the quantized `value`."""
        self._stored[value] = made

    def stored(self, value: Value) -> Value:
        """The ONNX value of a tensor in the form that it has: integers when it is quantized."""
        if value in self._stored:
            return self._stored[value]
        return self._entered(value)

    def real(self, value: Value) -> Value:
        """The ONNX value of a tensor in floats: dequantized, once, when it is quantized."""
        if value not in self._stored:
            return self._entered(value)
        if value not in self._real:
            name, element = name_of(value), build.element_of(value)
            self._real[value] = self.dequantized(self._stored[value], element, name)
        return self._real[value]

    def quantized(self, real: Value, element: Type, name: str, bounds: Bounds = UNBOUNDED) -> Value:
        """`real` stored as `element`; activation bounds are kept in integers, where they bind."""
        params = params_of(element)
        limits = numerics.activation_bounds(params, bounds)
        free = limits == (np.iinfo(params.dtype).min, np.iinfo(params.dtype).max)
        if _is_wide(params) and not free:
            # ONNX Runtime's Clip has no 16-bit integers; in reals the same steps are kept.
            least, most = numerics.dequantize(np.array(limits, params.dtype), params)
            real, free = clipped(real, least, most, f"{name}:clip"), True
        kind = f"{_WIDE_DOMAIN}QuantizeLinear" if _is_wide(params) else "QuantizeLinear"
        type_ = retyped(real.type, nodes.element_name(params.dtype))
        operands = [real, *self._parameters(element, name)]
        stored = nodes.node(kind, operands, type_, f"{name}:quantize", **_axis(params))
        if free:
            return stored
        least, most = np.array(limits, params.dtype)
        return clipped(stored, least, most, f"{name}:clip")

    def dequantized(self, stored: Value, element: Type, name: str) -> Value:
        """The reals that `stored` means."""
        params = params_of(element)
        kind = f"{_WIDE_DOMAIN}DequantizeLinear" if _is_wide(params) else "DequantizeLinear"
        operands = [stored, *self._parameters(element, name)]
        type_ = retyped(stored.type, "f32")
        return nodes.node(kind, operands, type_, f"{name}:dequantize", **_axis(params))

    def _parameters(self, element: Type, name: str) -> list[Value]:
        """Scale and zero point of a type, once for all tensors that have it."""
        key = str(element)
        if key not in self._params:
            params = params_of(element)
            scale, zero_point = f"{name}:scale", f"{name}:zero_point"
            made = [(np.asarray(params.scale, np.float32), scale)]
            if params.bits < _ACCUMULATOR_BITS:  # ONNX Runtime wants none on a bias
                made.append((np.asarray(params.zero_point, params.dtype), zero_point))
            if params.axis is None:
                self._params[key] = [nodes.constant(each.reshape(()), n) for each, n in made]
            else:
                self._params[key] = [_vector(each, n) for each, n in made]
        return self._params[key]

    def _entered(self, value: Value) -> Value:
        """A builtin tensor of floats, from over the bridge."""
        origin = bridge.source(value, bridge.TO)
        if origin is not None:
            return origin
        if value not in self._real:
            self._real[value] = bridge.from_builtin(value)
        return self._real[value]


def _vector(array: NDArray[Any], name: str) -> Value:
    """As many numbers as channels: a weight."""
    key = weights.current().keep(name, array)
    element = None if array.dtype.kind == "f" else integer(array.dtype)
    made = build.weight(key, build.tensor(array.shape, element))
    return from_builtin(made, nodes.element_name(array.dtype))


def clipped(x: Value, least: Any, most: Any, name: str) -> Value:
    """Clip of reals or of stored integers; the bounds are numpy scalars of the tensor's type."""
    bounds = [
        nodes.constant(np.asarray(bound), f"{name}:{which}")
        for bound, which in ((least, "min"), (most, "max"))
    ]
    return nodes.node("Clip", [x, *bounds], x.type, name)


def name_of(value: Value) -> str:
    """A name for what is made of a tensor: its own, or the key of the weight that it is."""
    return layers.tensor_name(value) or layers.weight_key(value) or _fallback(value)


def retyped(vtensor: Type, element: str) -> Type:
    """The torch type with the same shape and other elements."""
    return nodes.vtensor(shape_of(vtensor), element)


def shape_of(vtensor: Type) -> Sequence[int]:
    """The shape of a torch type of known rank."""
    found = bridge.builtin_of(vtensor)
    assert found is not None
    return list(found.shape)


def element_of(vtensor: Type) -> str:
    """How a torch type spells its elements."""
    return str(vtensor).rpartition(",")[2].removesuffix(">")


def from_builtin(value: Value, element: str) -> Value:
    """See a builtin tensor as a torch one; builtin integers have no sign, so it is to be given."""
    type_ = nodes.vtensor(build.shape_of(value), element)
    return Operation.create(bridge.FROM, results=[type_], operands=[value]).result


def integer(dtype: np.dtype[Any]) -> Type:
    """The builtin integer, which has no sign, that takes as many bytes as numpy's."""
    return IntegerType.get_signless(8 * dtype.itemsize)


def params_of(element: Type) -> QuantParams:
    """The parameters of an element type that is quantized for sure."""
    params = quant.params_of(element)
    assert params is not None
    return params


def _fallback(value: Value) -> str:
    """Casts have no name of their own: that of what they cast."""
    operands = [] if layers.is_argument(value) else list(value.owner.operation.operands)
    return name_of(operands[0]) if operands else "tensor"


def _is_wide(params: QuantParams) -> bool:
    return _BYTE_BITS < params.bits < _ACCUMULATOR_BITS


def _axis(params: QuantParams) -> dict[str, int]:
    return {} if params.axis is None else {"axis": params.axis}
