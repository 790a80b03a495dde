"""TFLite models as LiteRT reads them, written by the schema in LiteRT's wheel."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from typing import Any

import emulated
import flatbuffers
import numpy as np
from numpy.typing import NDArray

LITERT = "ai-edge-litert==2.3.0"
# The version of each operator that has int8, which is not always its first.
_VERSIONS = {
    "ADD": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "FULLY_CONNECTED": 4,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "PAD": 2,
    "QUANTIZE": 1,
}


def schema() -> Any:
    """TFLite's schema as LiteRT's wheel has it, which is Python on any machine."""
    folder = emulated.wheel(LITERT) / "ai_edge_litert"
    if str(folder) not in sys.path:  # not the package, which loads its library for Arm
        sys.path.append(str(folder))
    return importlib.import_module("schema_py_generated")


@dataclass
class Flatbuffer:
    """A TFLite model under construction: one subgraph, its tensors and operators in order."""

    kinds: Any = field(default_factory=schema)
    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buffers.append(self.kinds.BufferT())  # the first is the empty one

    def tensor(
        self,
        name: str,
        given: NDArray[Any] | tuple[tuple[int, ...], type[Any]],
        scale: Any = None,
        zero_point: Any = 0,
        axis: int = 0,
    ) -> int:
        """A constant tensor, or one of a shape and a type; quantized if it has a scale."""
        made = self.kinds.TensorT(name=name)
        shape, dtype = (given.shape, given.dtype) if isinstance(given, np.ndarray) else given
        made.shape = [int(size) for size in shape]
        made.type = getattr(self.kinds.TensorType, np.dtype(dtype).name.upper())
        if isinstance(given, np.ndarray):
            made.buffer = len(self.buffers)
            data = np.frombuffer(given.tobytes(), np.uint8)
            self.buffers.append(self.kinds.BufferT(data=data))
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            points = np.broadcast_to(np.asarray(zero_point, np.int64), scales.shape)
            made.quantization = self.kinds.QuantizationParametersT(
                scale=scales, zeroPoint=np.ascontiguousarray(points), quantizedDimension=axis
            )
        self.tensors.append(made)
        return len(self.tensors) - 1

    def operator(
        self, code: str, inputs: list[int], outputs: list[int], options: str = "", **given: Any
    ) -> None:
        """An operator; the name of its options, if it has any, and what they say."""
        if code not in self.codes:
            self.codes.append(code)
        made = self.kinds.OperatorT(self.codes.index(code), inputs, outputs)
        if options:
            made.builtinOptionsType = getattr(self.kinds.BuiltinOptions, options)
            made.builtinOptions = getattr(self.kinds, f"{options}T")(**given)
        self.operators.append(made)

    def packed(self, inputs: list[int], outputs: list[int]) -> bytes:
        """The model as a file has it."""
        codes = []
        for name in self.codes:
            code = getattr(self.kinds.BuiltinOperator, name)
            codes.append(self.kinds.OperatorCodeT(code, None, _VERSIONS[name], code))
        graph = self.kinds.SubGraphT(self.tensors, inputs, outputs, self.operators, "main")
        model = self.kinds.ModelT(3, codes, [graph], "mlq's benchmarks", self.buffers)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
