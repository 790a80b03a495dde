"""Measure what layers cost on this x86 CPU: the table in mlq/targets/x86.py.

    python benchmarks/costs_x86.py [--runs 31]

Each shape below becomes one mlq op in each precision, is lowered and compiled as any network is,
and timed alone: one thread, CPU time, all in turns, medians. A row of the table is total operations
over total time. Prints what was measured, then the rows as the target's file has them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import prod

import numpy as np
from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, IntegerType, Location, Module, Type, Value

from mlq import runtime, targets
from mlq.dialect import build, context, quant
from mlq.dialect.build import Activation
from mlq.dialect.weights import WeightStore
from mlq.latency import Latency, time_calls
from mlq.network import transform
from mlq.targets.host import cpu_model
from mlq.targets.iree import compile_module, versions
from mlq.transforms.pipelines import lowering

TARGET = targets.by_name("x86")
RNG = np.random.default_rng(0)
INPUT_SCALE, WEIGHT_SCALE, OUTPUT_SCALE = 0.02, 0.005, 0.03
PRECISIONS = {"f32": 0, "w8a8": 8, "w8a16": 16}
"""The columns, and in how many bits activations are stored; 0 for floats."""


@dataclass(frozen=True)
class Shape:
    """A layer to time, NHWC: `row` of the table, sizes in, kernel k, stride s, c to o channels."""

    row: str
    h: int
    c: int
    o: int
    k: int = 1
    s: int = 1

    @property
    def input(self) -> tuple[int, ...]:
        return (1, self.c) if self.row == "matmul" else (1, self.h, self.h, self.c)

    @property
    def output(self) -> tuple[int, ...]:
        side = self.h // self.s
        return (1, self.o) if self.row == "matmul" else (1, side, side, self.o)

    @property
    def depthwise(self) -> bool:
        return self.row.endswith(".depthwise")

    @property
    def weight(self) -> tuple[int, ...]:
        if self.row == "matmul":
            return (self.c, self.o)
        return (self.k, self.k, 1 if self.depthwise else self.c, self.o)

    @property
    def arguments(self) -> int:
        return 2 if self.row == "add" else 1

    @property
    def operations(self) -> int:
        """What targets.Work calls operations."""
        if self.row in {"add", "avg_pool2d"}:
            return self.arguments * prod(self.input)
        return prod(self.output) * prod(self.weight[:-1])


# Layers of the networks mlq is tried on: ResNets, SqueezeNet, MobileNets, a VGG.
SHAPES = (
    Shape("conv2d", 56, 64, 64, k=3),
    Shape("conv2d", 28, 128, 128, k=3),
    Shape("conv2d", 14, 256, 256, k=3),
    Shape("conv2d", 56, 64, 128, k=3, s=2),
    Shape("conv2d", 32, 16, 16, k=3),
    Shape("conv2d", 8, 64, 64, k=3),
    Shape("conv2d", 224, 3, 64, k=7, s=2),
    Shape("conv2d.pointwise", 56, 256, 64),
    Shape("conv2d.pointwise", 14, 1024, 256),
    Shape("conv2d.pointwise", 56, 24, 144),
    Shape("conv2d.pointwise", 14, 384, 64),
    Shape("conv2d.pointwise", 12, 128, 128),
    Shape("conv2d.depthwise", 56, 144, 144, k=3),
    Shape("conv2d.depthwise", 14, 384, 384, k=3),
    Shape("conv2d.depthwise", 112, 32, 32, k=3),
    Shape("conv2d.depthwise", 56, 144, 144, k=3, s=2),
    Shape("matmul", 1, 2048, 1000),
    Shape("matmul", 1, 512, 1000),
    Shape("matmul", 1, 64, 10),
    Shape("add", 56, 64, 64),
    Shape("add", 14, 256, 256),
    Shape("add", 32, 16, 16),
    Shape("avg_pool2d", 7, 512, 512, k=7, s=7),
    Shape("avg_pool2d", 8, 64, 64, k=8, s=8),
)


def program(shape: Shape, bits: int) -> tuple[str, WeightStore]:
    """A function whose body is the layer, between casts to and from storage where it is integer."""
    with context(), Location.unknown():
        module, store = Module.create(), WeightStore()
        element = _activation(INPUT_SCALE, bits)
        reads, gives = (
            build.tensor(sizes, IntegerType.get_signless(bits) if bits else None)
            for sizes in (shape.input, shape.output)
        )
        with InsertionPoint(module.body):

            @func.FuncOp.from_py_func(*[reads] * shape.arguments, name="main")
            def _main(*arguments: Value) -> Value:
                inside = build.tensor(shape.input, element)
                seen = [quant.scast(x, inside).result if bits else x for x in arguments]
                result = layer(shape, seen, store, bits)
                return quant.scast(result, gives).result if bits else result

        return str(module), store


def layer(shape: Shape, arguments: Sequence[Value], store: WeightStore, bits: int) -> Value:
    """The one op of a program; its constants go to the store."""
    element = _activation(OUTPUT_SCALE, bits)
    relu = Activation.relu()
    if shape.row == "add":
        return build.add(*arguments, activation=relu, element=element)
    window = (shape.k, shape.k), (shape.s, shape.s)
    if shape.row == "avg_pool2d":
        kernel, strides = window
        return build.avg_pool2d(
            arguments[0], kernel=kernel, strides=strides, layout="nhwc", element=element
        )
    weight, bias = constants(shape, store, bits)
    if shape.row == "matmul":
        return build.matmul(*arguments, weight, bias=bias, activation=relu, element=element)
    return build.conv2d(
        arguments[0],
        weight,
        bias=bias,
        strides=window[1],
        pads=[(shape.k - 1 + side) // 2 for side in (0, 0, 1, 1)],
        groups=shape.c if shape.depthwise else 1,
        layout="nhwc",
        activation=relu,
        element=element,
    )


def constants(shape: Shape, store: WeightStore, bits: int) -> tuple[Value, Value]:
    """Weight and bias, as large as trained ones are."""
    bias_scale = INPUT_SCALE / _steps(bits) * WEIGHT_SCALE
    # Of what is not depthwise, so small that no sum of wide activations needs more than 32 bits.
    spread = 30 if shape.depthwise else 12
    weight = RNG.normal(0, spread * WEIGHT_SCALE, shape.weight).astype(np.float32)
    bias = RNG.normal(0, 1, shape.o).astype(np.float32)
    if bits:
        weight = np.clip(np.rint(weight / WEIGHT_SCALE), -127, 127).astype(np.int8)
        bias = np.rint(bias / bias_scale).astype(np.int32)
    store["weight"], store["bias"] = weight, bias
    elements = [f"i8<-127:127>:f32, {WEIGHT_SCALE}", f"i32:f32, {bias_scale}"] if bits else []
    types = [
        build.tensor(store[key].shape, Type.parse(f"!quant.uniform<{each}>") if each else None)
        for key, each in zip_longest(("weight", "bias"), elements)
    ]
    return build.weight("weight", types[0]), build.weight("bias", types[1])


def _steps(bits: int) -> int:
    """Into how many steps one of 8 bits is divided."""
    return 1 << max(bits - 8, 0)


def _activation(scale: float, bits: int) -> Type | None:
    if not bits:
        return None
    return Type.parse(f"!quant.uniform<u{bits}:f32, {scale / _steps(bits)}:{1 << bits - 1}>")


def compiled(text: str, store: WeightStore) -> runtime.Executable:
    """A program as the compiler makes it, loaded."""
    lowered = transform(text, store, lowering(TARGET.features))
    return runtime.load(compile_module(lowered.text, TARGET, weights=lowered.weights))


def chain(length: int) -> runtime.Executable:
    """So many matrix products too small to take time: what remains is what a dispatch costs."""
    with context(), Location.unknown():
        module, store = Module.create(), WeightStore()
        kind = build.tensor((1, 8))
        with InsertionPoint(module.body):

            @func.FuncOp.from_py_func(kind, name="main")
            def _main(value: Value) -> Value:
                for index in range(length):
                    store[f"w{index}"] = RNG.standard_normal((8, 8), np.float32)
                    value = build.matmul(value, build.weight(f"w{index}", build.tensor((8, 8))))
                return value

        return compiled(str(module), store)


def dispatch_us(runs: int, length: int = 65) -> float:
    """Microseconds that one more dispatch adds to a call."""
    calls = [chain(n).prepare(np.zeros((1, 8), np.float32)) for n in (1, length)]
    one, many = time_calls(calls, runs=runs * 10)
    return (many.cpu_p50 - one.cpu_p50) * 1e3 / (length - 1)


def executable(shape: Shape, bits: int) -> runtime.Executable:
    """The layer alone."""
    return compiled(*program(shape, bits))


def inputs(shape: Shape, bits: int) -> list[np.ndarray]:
    """What the layer reads, at random."""
    if bits:
        dtype = np.dtype(f"uint{bits}")
        return [RNG.integers(0, 1 << bits, shape.input, dtype) for _ in range(shape.arguments)]
    return [RNG.standard_normal(shape.input, np.float32) for _ in range(shape.arguments)]


def measured(runs: int) -> Iterator[tuple[Shape, list[Latency]]]:
    """Each shape with its latency in each precision."""
    for shape in SHAPES:
        calls = [
            executable(shape, bits).prepare(*inputs(shape, bits)) for bits in PRECISIONS.values()
        ]
        yield shape, time_calls(calls, runs=runs)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=31, help="calls of each layer")
    runs = parser.parse_args().runs
    print(f"{cpu_model()}; IREE {versions()['iree-base-compiler']}; one thread\n")
    names = "".join(f" {each:>8}" for each in PRECISIONS)
    print(f"{'layer':68}{names} us{names} 1e9 operations/s")
    totals: dict[str, list[float]] = {}
    bandwidth = 0.0
    for shape, latencies in measured(runs):
        times = [latency.cpu_p50 * 1e3 for latency in latencies]
        rates = [shape.operations / us / 1e3 for us in times]
        columns = ["".join(f" {each:8.1f}" for each in found) for found in (times, rates)]
        print(f"{shape!s:68}{columns[0]}   {columns[1]}", flush=True)
        total = totals.setdefault(shape.row, [0.0] * (1 + len(times)))
        total[:] = [a + b for a, b in zip(total, (shape.operations, *times), strict=True)]
        if shape.row == "add":
            moved = 4 * (shape.operations + prod(shape.output))
            bandwidth = max(bandwidth, moved / times[0])
    print()
    for row, (operations, *times) in totals.items():
        rates = zip(PRECISIONS, (operations / us / 1e3 for us in times), strict=True)
        print(f'"{row}": {{{", ".join(f"{name!r}: {rate:.1f}" for name, rate in rates)}}},')
    print(f"bytes_per_us={bandwidth:.0f}, dispatch_us={dispatch_us(runs):.2f}  (from f32 layers)")


if __name__ == "__main__":
    main()
