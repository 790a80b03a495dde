"""How far each layer is from the most that this CPU multiplies: 1e9 products a second, one thread.

    python benchmarks/layers_x86.py NETWORK [...] [--precisions f32,w8a8]

The most is that of the inner loop of the kernels on data in the first cache, without the rest of a
kernel (micro-kernel peak), by the tile that is fastest, measured in the same run. Layers are timed
in their networks by IREE's profiler. Prints a row a layer, then what the whole network reaches.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from networks import find
from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Location, Module, RankedTensorType, Value

from mlq import profiling, targets, timing
from mlq.dialect import context
from mlq.hardware import Layer as Product
from mlq.kernels import code, library
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer, Executables
from mlq.kernels.isa import Isa, Unit
from mlq.kernels.reduction import Step
from mlq.kernels.storage import Kind
from mlq.network import load
from mlq.precision import BYTE_BITS, Precision
from mlq.recipe import resolve
from mlq.targets.host import cpu_model
from mlq.targets.iree import compile_module, versions

TARGET = targets.by_name("x86")
# Elements of each pixel that a tile reads over and over, and how often.
RUN, TIMES = 64, 4000


@dataclass(frozen=True)
class InnerLoop:
    """The inner loop of a convolution on a tile of `pixels` by `vectors` of channels."""

    isa: Isa
    unit: Unit
    pixels: int
    vectors: int

    @property
    def label(self) -> str:
        """As `peak_f32_4x3`."""
        return f"peak_{self.unit.element}_{self.pixels}x{self.vectors}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Pixels, weights; the sums."""
        channels = self.vectors * self.isa.lanes
        return (
            Buffer(self.unit.element, self.pixels * RUN),
            Buffer(self.unit.weight, RUN * channels),
            Buffer(self.unit.total, self.pixels * channels),
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """One workgroup."""
        return 1, 1, 1

    @property
    def products(self) -> int:
        """Multiply-accumulates of a call."""
        return TIMES * RUN * self.pixels * self.vectors * self.isa.lanes

    def emit(self, memory: Sequence[Value], _group: Sequence[Index]) -> None:
        """The loop, and its sums stored, or it would be left out."""
        reduction, (span, *_) = self.unit.reduction, self.unit.reduction.spans
        zero = code.splat(code.constant(0, self.unit.total), self.isa.lanes)
        channels = self.vectors * self.isa.lanes

        def once(_time: Index, *sums: Value) -> list[Value]:
            def step(at: Index, *sums: Value) -> list[Value]:
                windows = [pixel * RUN for pixel in range(self.pixels)]
                weights = code.times(at, channels)
                read = Step(memory[0], windows, (at, 0), memory[1], weights, span, span)
                return reduction.added(sums, read)

            return code.loop(0, RUN, span, step, sums)

        begun = reduction.begun([zero] * self.vectors, self.pixels)
        sums = reduction.ended(code.loop(0, TIMES, 1, once, begun), [zero] * self.vectors)
        for i, each in enumerate(sums):
            code.store(each, memory[-1], i * self.isa.lanes)


def tiles(isa: Isa, unit: Unit) -> list[InnerLoop]:
    """Every tile that registers hold."""
    sizes = ((pixels, vectors) for pixels in range(1, 15) for vectors in range(1, 5))
    return [
        InnerLoop(isa, unit, *size)
        for size in sizes
        if unit.reduction.registers(*size) <= isa.registers
    ]


def peak(isa: Isa, unit: Unit) -> tuple[float, InnerLoop]:
    """1e9 products a second of the fastest tile."""
    loops = tiles(isa, unit)
    text, buffers = program(loops)
    words = {"f32": np.float32, "i16": np.int16, "i8": np.int8}
    inputs = [np.ones(each.count, words[each.element]) for each in buffers]
    macs = sum(each.products for each in loops)
    profile = profiling.Profile()
    profile.add(text, lambda: compile_module(text, TARGET))
    (times,) = profile.times(inputs, macs=macs)
    rates = {each: each.products / times[each.label] / 1e3 for each in loops}
    best = max(rates, key=rates.__getitem__)
    return rates[best], best


def program(loops: Sequence[InnerLoop]) -> tuple[str, list[Buffer]]:
    """A function that runs each loop once, and what it takes: pixels and weights of each."""
    with context(), Location.unknown():
        module = Module.create()
        executables = Executables(module.operation)
        kinds = [
            [RankedTensorType.get([b.count], code.element(b.element)) for b in each.buffers]
            for each in loops
        ]
        reads = [kind for *some, _ in kinds for kind in some]
        with InsertionPoint(module.body):
            main = func.FuncOp("main", (reads, [kind for *_, kind in kinds]))
            with InsertionPoint(main.add_entry_block()):
                arguments = iter(main.arguments)
                made = [
                    executables.dispatch(each, [next(arguments), next(arguments)], kind)
                    for each, (*_, kind) in zip(loops, kinds, strict=True)
                ]
                func.ReturnOp(made)
        text = str(module.operation.get_asm(print_generic_op_form=True))
    return text, [buffer for each in loops for buffer in each.buffers[:-1]]


def main() -> None:
    """Print a table a network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--precisions", default="f32,w8a8", help="default: f32,w8a8")
    arguments = parser.parse_args()
    isa = library.best(TARGET.features)
    if not isinstance(isa, Isa):
        raise SystemExit("no kernels for this CPU")
    recipe = resolve({"precisions": arguments.precisions})
    precisions = ("f32", *recipe.reduced_precisions())
    print(f"{cpu_model()}; {isa.name}; IREE {versions()['iree-base-compiler']}; one thread")
    most = {}
    for precision in precisions:
        unit = isa.unit(kind_of(Precision.parse(precision)))
        most[precision], tile = peak(isa, unit)
        shape = f"{tile.pixels} pixels by {tile.vectors} vectors"
        print(f"peak of {precision}: {most[precision]:.1f} (a tile of {shape})")
    for network in find(arguments.networks):
        found = {each.name: each.us for each in timing.measure_model(network.model, recipe).layers}
        heads = "".join(f"{each + ' us':>10} {'1e9/s':>7} {'peak':>5}" for each in precisions)
        print(f"\n{network.name:44} {'products':>9} {heads}")
        layers = [layer for layer in load(network.model, batch=1).layers if layer.macs]
        for layer in layers:
            shape = layer.product
            what = f"{layer.name[:24]:24} " + (describe(shape) if shape else layer.kind)
            print(
                f"{what[:44]:44} {layer.macs / 1e6:8.2f}M "
                + cells(layer.macs, found[layer.name], most)
            )
        sums = {
            each: sum(found[layer.name].get(each, found[layer.name]["f32"]) for layer in layers)
            for each in precisions
        }
        macs = sum(layer.macs for layer in layers)
        print(f"{'all':44} {macs / 1e6:8.2f}M " + cells(macs, sums, most), flush=True)


def kind_of(precision: Precision) -> Kind:
    """What images hold."""
    if precision.is_float:
        return "f32"
    return "u16" if precision.activation_bits > BYTE_BITS else "u8"


def describe(shape: Product) -> str:
    """As `3x3s2 64-128`."""
    size = "x".join(map(str, shape.kernel))
    stride = f"s{shape.strides[0]}" if shape.strides and shape.strides[0] > 1 else ""
    groups = f" g{shape.groups}" if shape.groups > 1 else ""
    return f"{size}{stride} {shape.channels}-{shape.filters}{groups}"


def cells(macs: int, us: dict[str, float], most: dict[str, float]) -> str:
    """Time, rate, and part of the peak for each precision."""
    row = ""
    for precision, best in most.items():
        if precision in us:
            rate = macs / us[precision] / 1e3
            row += f"{us[precision]:10.1f} {rate:7.1f} {100 * rate / best:4.0f}%"
    return row


if __name__ == "__main__":
    main()
