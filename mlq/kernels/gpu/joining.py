"""Many kernels in one launch: workgroups of a cluster wait for each other between them.

A launch takes a GPU some microseconds, of which a small layer needs a part to compute. So clusters
of workgroups, each with its share of the batch, go through all layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir.dialects import memref
from torch_mlir.ir import (
    Attribute,
    DenseI32ArrayAttr,
    IntegerType,
    MemRefType,
    Operation,
    StringAttr,
    Value,
)

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.isa import Gpu
from mlq.kernels.gpu.planning import WHOLE, Room
from mlq.kernels.gpu.threads import THREADS, Threaded

_CLUSTERS = 32  # at most: two workgroups on each multiprocessor
# Cycles; and how much longer large kernels took in clusters than they are estimated to.
_LAUNCH, _WAIT, _LONGER = 7000.0, 1000.0, 1.2


def clusters_for(batch: int) -> int:
    """How many clusters share a batch: as many as there may be, with as many images each."""
    return max(n for n in range(1, _CLUSTERS + 1) if batch % n == 0)


def room_of(isa: Gpu, clusters: int) -> Room:
    """What a kernel has for itself in one of so many clusters."""
    warps = isa.cluster * THREADS // isa.warp
    return Room(min(isa.cluster, WHOLE.processors / clusters), warps)


def is_worth(kernel: Threaded, share: Threaded) -> bool:
    """Whether a kernel takes less time with clusters than in a launch of its own."""
    return _LONGER * share.cycles + _WAIT < kernel.cycles + _LAUNCH


@dataclass(frozen=True)
class Span:
    """Where a buffer is: from which byte of one of all on; how far apart those of clusters are."""

    buffer: int
    first: int
    apart: int


@dataclass(frozen=True)
class Step:
    """A kernel of one cluster's share, and its buffers; whether it reads what was just written."""

    kernel: Threaded
    spans: tuple[Span, ...]
    waits: bool


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Steps one after the other; all buffers are of bytes, the last `results` are written."""

    isa: Gpu
    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...]
    results: int
    clusters: int

    @property
    def label(self) -> str:
        """As `joined9_conv3x3_4x32x32_16`."""
        return f"joined{len(self.steps)}_{self.steps[-1].kernel.label}"

    @property
    def grid(self) -> tuple[int, int, int]:
        """Workgroups of all clusters."""
        return self.clusters * self.isa.cluster, 1, 1

    @property
    def attributes(self) -> dict[str, Attribute]:
        """What the compiler must know: the workgroup, and that so many make a cluster."""
        text = (
            "#iree_codegen.translation_info<pipeline = #iree_codegen.no_pipeline"
            f" workgroup_size = [{THREADS}, 1, 1] subgroup_size = {self.isa.warp}>"
        )
        cluster = DenseI32ArrayAttr.get([self.isa.cluster, 1, 1])
        return {"translation_info": Attribute.parse(text), "nvvm.cluster_dim": cluster}

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one thread."""
        for each in memory[-self.results :]:
            _escape(each)
        words = max(step.kernel.shared_words for step in self.steps)
        if words:
            threads.shared(words)
        cluster, rank = code.split(group[0], self.isa.cluster)
        for step in self.steps:
            if step.waits:
                _wait()
            parts = zip(step.spans, step.kernel.buffers, strict=True)
            views = [_view(memory[span.buffer], span, buffer, cluster) for span, buffer in parts]
            self._emit(step.kernel, views, rank)

    def _emit(self, kernel: Threaded, memory: Sequence[Value], rank: Index) -> None:
        """A kernel's workgroups, one of each turn for each of a cluster's."""
        across, down, _ = kernel.grid
        turns = -(-across * down // self.isa.cluster)

        def turn(number: Index) -> None:
            if turns > 1 and kernel.shared_words:
                threads.wait()
            kernel.emit(memory, [number, 0])

        code.loop(rank, turns * self.isa.cluster, self.isa.cluster, turn)


def _view(memory: Value, span: Span, buffer: Buffer, cluster: Index) -> Value:
    first = code.index(code.plus(code.times(cluster, span.apart), span.first))
    type_ = MemRefType.get([buffer.count], code.element(buffer.element))
    return memref.view(type_, memory, first, [])


def _escape(memory: Value) -> None:
    """Let an address escape, so that LLVM moves no access to this memory across barriers.

    IREE declares buffers `noalias`, and LLVM takes one whose address stays for private.
    """
    pointer = memref.extract_aligned_pointer_as_index(memory)
    number = Operation.create(
        "arith.index_cast", results=[IntegerType.get_signless(64)], operands=[pointer]
    ).result
    Operation.create(
        "llvm.inline_asm",
        operands=[number],
        attributes={
            "asm_string": StringAttr.get(""),
            "constraints": StringAttr.get("l,~{memory}"),
            "has_side_effects": Attribute.parse("unit"),
        },
    )


def _wait() -> None:
    """Until all workgroups of a cluster are here, and what they wrote is there for all."""
    Operation.create("nvvm.cluster.arrive")
    Operation.create("nvvm.cluster.wait")
