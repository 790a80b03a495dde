"""What a target is: how to compile for it, what it computes in, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mlq.errors import TargetError
from mlq.targets.device import Device


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one layer asks of a device, whatever its precision.

    `macs` counts multiply-accumulates, 0 for layers that only add. `form` names a shape of the op
    that runs at a speed of its own ("pointwise", "depthwise"); "" is the general one.
    """

    kind: str
    macs: int
    params: int
    input_elements: int
    output_elements: int
    form: str = ""

    @property
    def operations(self) -> int:
        """What a rate divides: multiply-accumulates, or the elements read where there are none."""
        return self.macs or self.input_elements


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Bytes that one element takes on the target at a precision: its weights, its activations."""

    weight: float
    activation: float


@dataclass(frozen=True, kw_only=True)
class Costs:
    """A roofline: a layer takes its overhead plus the longer of computing and moving.

    `giga_ops` holds 1e9 operations (see Work) per second for each row ("conv2d", or
    "conv2d.depthwise" for one form of it) and precision; a precision absent from a kind's row is
    one the target does not offer for it. `bytes_per_us` is the memory bandwidth one layer sees.
    """

    giga_ops: Mapping[str, Mapping[str, float]]
    bytes_per_us: float
    dispatch_us: float
    source: str

    def rate(self, kind: str, form: str, precision: str) -> float | None:
        """1e9 operations per second, or None where the kind cannot run in the precision."""
        general = self.giga_ops.get(kind, {})
        if precision not in general:
            return None
        return self.giga_ops.get(f"{kind}.{form}", general).get(precision, general[precision])


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device family, as data: nothing else in mlq knows which target it works for.

    `minimise` is what a plan saves when the user says no more than how accurate it must be;
    `cpu_features` is what a compiled module asks of the CPU that runs it, `gpu_features` what the
    GPU computes in that kernels are generated for. `formats` are the forms of artifact (`mlq
    compile --format`) there are. `float_only` says why nothing can be integer, for a target where
    that is so, `fixed_batch` why a module cannot leave the batch open. `executable_target` is the
    compiler's own description of the device, for devices that it knows by no name. `menu` are the
    precisions that plans are made of unless others are asked for.
    """

    name: str
    summary: str
    iree_flags: tuple[str, ...]
    costs: Costs
    storage: Mapping[str, Storage]
    layout: Literal["nchw", "nhwc"] = "nhwc"
    minimise: Literal["us", "bytes"] = "us"
    cpu_features: frozenset[str] = field(default=frozenset())
    gpu_features: frozenset[str] = field(default=frozenset())
    device: Device = field(default_factory=Device)
    formats: tuple[str, ...] = ("vmfb", "vmfb+irpa", "c-array")
    float_only: str = ""
    fixed_batch: str = ""
    executable_target: str = ""
    menu: str = "f32,w8a8"

    def expect_open_batch(self) -> None:
        """TargetError where a module cannot leave the batch open."""
        if self.fixed_batch:
            raise TargetError(
                f"{self.name} needs a batch that is known: {self.fixed_batch};"
                " give --batch a number"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Op kinds that have a precision on this target."""
        return tuple(row for row in self.costs.giga_ops if "." not in row)

    @property
    def features(self) -> frozenset[str]:
        """What generated kernels may use."""
        return self.cpu_features | self.gpu_features

    @property
    def cost_source(self) -> str:
        """Where the costs come from, in words for the report."""
        return self.costs.source

    def precisions(self, kind: str) -> tuple[str, ...]:
        """Precisions an op kind can run in, as the table lists them; f32 for an unknown kind."""
        return tuple(self.costs.giga_ops.get(kind, {"f32": 0.0}))

    def supports(self, kind: str, precision: str) -> bool:
        """Whether an op of this kind can run in this precision."""
        return precision in self.precisions(kind)

    def cost_us(self, work: Work, precision: str) -> float:
        """Expected microseconds of one layer, its input and output stored in `precision`.

        Raises TargetError where the target does not offer the precision for the op kind.
        """
        rate = self.costs.rate(work.kind, work.form, precision)
        if rate is None:
            offered = ", ".join(self.precisions(work.kind))
            raise TargetError(
                f"target {self.name} cannot run {work.kind} in {precision}; choose from {offered}"
            )
        compute = work.operations / (rate * 1e3)
        elements = work.input_elements + work.output_elements
        moved = elements * self.storage[precision].activation + self.size_bytes(work, precision)
        return self.costs.dispatch_us + max(compute, moved / self.costs.bytes_per_us)

    def size_bytes(self, work: Work, precision: str) -> int:
        """Bytes the layer's parameters take in the artifact at a precision."""
        return int(work.params * self.storage[precision].weight)

    def cast_us(self, elements: int, precision: str) -> float:
        """Expected microseconds to cast `elements` between f32 and the storage of `precision`.

        No dispatch of its own: IREE fuses a cast into its producer or its consumer.
        """
        width = self.storage["f32"].activation + self.storage[precision].activation
        return elements * width / self.costs.bytes_per_us
