"""Whether each convolution has the fastest tile: all that registers hold, timed on this x86 CPU.

    python benchmarks/tiles_x86.py [NETWORK ...] [--precision w8a8]

Each kernel by itself, its data near, one thread, by IREE's profiler. A row a kernel: how often the
network has it, the tile that `mlq.kernels.tiling` chooses (pixels x vectors of channels, `r` if it
lies within a row, `*` so many blocks), its microseconds, the fastest tile's; then what the network
would gain. The constants by which tiles are chosen are in `mlq/kernels/isa.py` (Pace).
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any
from unittest import mock

import networks
import numpy as np
from instructions_x86 import quantized
from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Location, Module, RankedTensorType, Type, Value

from mlq import profiling, targets
from mlq.dialect import context
from mlq.kernels import code, library, tiling
from mlq.kernels.conv import Conv
from mlq.kernels.executable import Executables, Kernel
from mlq.kernels.isa import Isa
from mlq.kernels.tiling import Columns
from mlq.network import transform
from mlq.targets.host import cpu_model
from mlq.targets.iree import compile_module
from mlq.transforms.pipelines import lowering

TARGET = targets.by_name("x86")
_WORDS = {"f32": np.float32, "i8": np.int8, "i16": np.int16, "i32": np.int32}
# Results of a kernel in a network lie where others did, whose pages are there already.
_REUSED = "glibc.malloc.mmap_threshold=2000000000:glibc.malloc.trim_threshold=4000000000"


@dataclass(frozen=True, kw_only=True)
class Tiled(Conv):
    """A convolution on given tiles."""

    given: tuple[Columns, ...]
    name: str

    @property
    def label(self) -> str:
        """Its name."""
        return self.name

    @property
    def cheapest(self) -> tuple[Columns, ...]:
        """As given."""
        return self.given


def kernels(network: networks.Network, precision: str) -> Counter[Conv]:
    """The convolutions of a network, and how many layers each computes."""
    found, dispatch = Counter[Conv](), Executables.dispatch

    def counted(self: Executables, kernel: Kernel, *given: Any, **more: Any) -> Value:
        if type(kernel) is Conv:
            found[kernel] += 1
        return dispatch(self, kernel, *given, **more)

    made = quantized(network, [precision])[precision]
    with mock.patch.object(Executables, "dispatch", counted):
        transform(made.text, made.weights, lowering(TARGET.features))
    return found


def covers(kernel: Conv) -> Iterator[tuple[Columns, ...]]:
    """Every cover of the output by blocks of one width, and one for the rest; the chosen first."""
    isa, work = kernel.isa, kernel.flat.work
    chosen = tiling.columns(isa, work)
    yield chosen
    for vectors in range(1, min(work.part, tiling.MOST_VECTORS) + 1):
        blocks, rest = divmod(work.vectors, vectors)
        most = min(tiling.fitting(isa, work, vectors), work.height * work.width)
        if work.part % vectors and work.part < work.vectors:
            continue
        # Small tiles of many vectors are no use: weights meet few pixels.
        for pixels in range(max(1, most - 5), most + 1):
            fits = pixels <= work.width
            for by_row in (True, False) if fits and work.height > 1 else (fits,):
                cover = [Columns(0, blocks, vectors, pixels, by_row)]
                if rest:
                    cover.append(Columns(blocks * vectors, 1, rest, pixels, by_row))
                if tuple(cover) != chosen:
                    yield tuple(cover)


def timed(forms: Sequence[Tiled]) -> list[float]:
    """Microseconds of each, in one module."""
    with context(), Location.unknown():
        module = Module.create()
        executables, reads = Executables(module.operation), dict[tuple[int, str], int]()
        types: list[list[Type]] = [
            [RankedTensorType.get([b.count], code.element(b.element)) for b in each.buffers]
            for each in forms
        ]
        for *given, _ in types:
            for place, kind in enumerate(given):
                reads.setdefault((place, str(kind)), len(reads))
        known = {key: kind for *given, _ in types for key, kind in keyed(given)}
        with InsertionPoint(module.body):
            results = [kind for *_, kind in types]
            main = func.FuncOp("main", ([known[key] for key in reads], results))
            with InsertionPoint(main.add_entry_block()):
                made = [
                    executables.dispatch(
                        each, [main.arguments[reads[key]] for key, _ in keyed(given)], result
                    )
                    for each, (*given, result) in zip(forms, types, strict=True)
                ]
                func.ReturnOp(made)
        text = str(module.operation.get_asm(print_generic_op_form=True))
        inputs = [np.ones(known[key].shape, _WORDS[str(known[key].element_type)]) for key in reads]
    profile = profiling.Profile()
    profile.add(text, lambda: compile_module(text, TARGET))
    (times,) = profile.times(inputs, macs=1 << 27)
    return [times[each.label] for each in forms]


def keyed(given: Sequence[Type]) -> list[tuple[tuple[int, str], Any]]:
    """Buffers that kernels may share: the same operand, as long."""
    return [((place, str(kind)), kind) for place, kind in enumerate(given)]


def shown(cover: Sequence[Columns]) -> str:
    """As `7x3r*10+7x2r*1`."""
    return "+".join(f"{c.pixels}x{c.vectors}{'r' * c.by_row}*{c.blocks}" for c in cover)


def main() -> None:
    """Print a table a network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="all by default")
    parser.add_argument("--precision", default="w8a8", help="default: w8a8")
    given = parser.parse_args()
    if not isinstance(library.best(TARGET.features), Isa):
        raise SystemExit("no kernels for this CPU")
    os.environ["GLIBC_TUNABLES"] = _REUSED
    print(cpu_model())
    for network in networks.find(given.networks):
        print(network.name)
        spent = spared = 0.0
        for kernel, count in kernels(network, given.precision).items():
            own: dict[str, Any] = {each.name: getattr(kernel, each.name) for each in fields(Conv)}
            forms = [
                Tiled(**own, given=cover, name=f"tile{i}") for i, cover in enumerate(covers(kernel))
            ]
            times = timed(forms)
            best = min(range(len(times)), key=times.__getitem__)
            spent, spared = spent + count * times[0], spared + count * (times[0] - times[best])
            print(
                f"  {kernel.label:32} {count:2} {shown(forms[0].given):18} {times[0]:8.2f} us"
                f"   {shown(forms[best].given):18} {times[best]:8.2f} us",
                flush=True,
            )
        print(f"  {spent:.0f} us; the fastest tiles would spare {spared / spent:.1%}")


if __name__ == "__main__":
    main()
