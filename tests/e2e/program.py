"""A module made case by case, run by the compiler and by the reference, and compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import func
from torch_mlir.ir import FunctionType, InsertionPoint, Location, Module, Type, Value

from mlq import numerics, reference, runtime, targets
from mlq.dialect import build, context, functions, quant
from mlq.dialect.shapes import DYNAMIC
from mlq.dialect.weights import WeightStore, bound
from mlq.numerics import QuantParams
from mlq.targets.iree import compile_module
from mlq.transforms import parse_pipeline

Array = NDArray[Any]


def kind_of(
    name: str,
    scale: float | tuple[float, ...],
    zero_point: int | tuple[int, ...] = 0,
    *,
    axis: int | None = None,
    limits: tuple[int, int] | None = None,
) -> QuantParams:
    """Parameters of storage called `u8`, `i16`, ..."""
    scales = scale if isinstance(scale, tuple) else (scale,)
    zero_points = zero_point if isinstance(zero_point, tuple) else (zero_point,) * len(scales)
    signed = name[0] == "i"
    return QuantParams(int(name[1:]), signed, scales, zero_points, axis, limits)


class Program:
    """The inputs, weights and named results of the cases in one module, lowered by a pipeline."""

    def __init__(
        self, seed: int, *, batch: int | None = None, pipeline: str = "@lower-linalg"
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.batch = batch  # the size of a dynamic axis 0 at run time
        self.pipeline = pipeline
        self.arrays: list[Array] = []
        self.weights = WeightStore()
        self.results: dict[str, Value] = {}

    def params(self, name: str = "u8", *, exact: bool = False) -> QuantParams:
        """Per-tensor parameters; `exact` scales are powers of two, so that results tie often."""
        low, high = kind_of(name, 1.0).limits
        scale = 2.0 ** -self.random.integers(0, 4) if exact else self.random.uniform(0.01, 0.2)
        zero_point = int(self.random.integers(low, high + 1))
        return kind_of(name, float(np.float32(scale)), zero_point)

    def input(self, shape: list[int], params: QuantParams | None = None) -> Value:
        """An argument with random contents: storage of `params`, or reals."""
        sizes = [self.batch or shape[0], *shape[1:]] if shape else shape
        if params is None:
            array = self.random.normal(0.0, 3.0, sizes).astype(np.float32)
        else:
            low, high = params.limits
            array = self.random.integers(low, high + 1, sizes).astype(params.dtype)
        return self.given(array, params)

    def given(self, array: Array, params: QuantParams | None = None) -> Value:
        """An argument with these contents."""
        self.arrays.append(array)
        shape = [DYNAMIC, *array.shape[1:]] if self.batch else list(array.shape)
        element = None if params is None else quant.type_of(params)
        name = f"input{len(self.arrays)}"
        return functions.add_argument(self._function, build.tensor(shape, element), name)

    def weight(
        self,
        shape: list[int],
        axis: int | None,
        *,
        exact: bool = False,
        most: int = 127,
        bits: int = 8,
    ) -> tuple[Value, QuantParams]:
        """A symmetric stored weight, per axis or per tensor, magnitudes up to `most`."""
        count = 1 if axis is None else shape[axis]
        scale = 2.0 ** -self.random.integers(3, 7, count).astype(float)
        if not exact:
            scale = self.random.uniform(0.002, 0.05, count)
        scales = tuple(np.float32(scale).astype(float).tolist())
        limit = (1 << bits - 1) - 1
        params = kind_of(f"i{bits}", scales, axis=axis, limits=(-limit, limit))
        array = self.random.integers(-most, most + 1, shape).astype(params.dtype)
        return self._constant(array, quant.type_of(params)), params

    def bias(self, input: QuantParams, weight: QuantParams, size: int) -> Value:
        """A stored bias for accumulators of these two."""
        array = self.random.integers(-5000, 5001, size).astype(np.int32)
        return self._constant(array, quant.type_of(numerics.bias_params(input, weight)))

    def real_weight(self, shape: list[int]) -> Value:
        """A weight of reals."""
        return self._constant(self.random.normal(0.0, 0.3, shape).astype(np.float32), None)

    def result(self, name: str, value: Value) -> Value:
        """Compare this tensor."""
        self.results[name] = build.named(value, name)
        return value

    def _constant(self, array: Array, element: Type | None) -> Value:
        key = f"w{len(self.weights)}"
        self.weights[key] = array
        return build.weight(key, build.tensor(list(array.shape), element))

    def run(self, cases: Callable[[Program], None]) -> tuple[dict[str, Array], dict[str, Array]]:
        """What the compiled cases yield, and what the reference does, by name."""
        with context(), Location.unknown(), bound(self.weights):
            module = Module.create()
            with InsertionPoint(module.body):
                self._function = func.FuncOp("main", FunctionType.get([], []))
                block = self._function.add_entry_block()
            with InsertionPoint(block):
                cases(self)
                func.ReturnOp([])
            functions.set_results(self._function, list(self.results.values()))
            module.operation.verify()
            kinds = [quant.params_of(v.type.element_type) for v in self.results.values()]
            expected = reference.run(module, self.arrays)
            parse_pipeline(self.pipeline).run(module.operation)
            text = module.operation.get_asm(print_generic_op_form=True)
        vmfb = compile_module(text, targets.by_name("x86"), weights=self.weights)
        arrays = [a.view(f"i{a.itemsize}") if a.dtype.kind == "u" else a for a in self.arrays]
        found = runtime.load(vmfb).run(*arrays)
        stored = [a if p is None else a.view(p.dtype) for a, p in zip(found, kinds, strict=True)]
        return dict(zip(self.results, stored, strict=True)), expected
