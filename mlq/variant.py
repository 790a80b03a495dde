"""One compiled form of a network: float, all-int8, or what a plan says."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from mlq.casts import Casts
from mlq.network import Network, Transformed, borders, transform
from mlq.plan import Plan
from mlq.ranges import Ranges
from mlq.targets.base import Target
from mlq.targets.iree import compile_module
from mlq.transforms.base import Skip
from mlq.transforms.pipelines import joining, lowering, quantize_pipeline


@dataclass(frozen=True)
class Variant:
    """A network under a plan: its QUANTIZED module and the artifact made of it."""

    plan: Plan
    quantized: Transformed
    vmfb: bytes = field(repr=False)
    skips: tuple[Skip, ...]
    """What the passes left alone on the way, and why."""
    target: Target

    @property
    def lowered(self) -> Transformed:
        """The LOWERED module, made again: its packed weights are not worth their memory."""
        return lowered(self.quantized, self.target)

    def casts(self) -> Casts:
        """Casts that remain, by kind, and where."""
        counts = self.quantized.counts
        kinds = ("quantize", "dequantize", "requantize")
        return Casts(
            **{kind: counts[f"mlq.{kind}"] for kind in kinds}, borders=borders(self.quantized)
        )


def quantize(network: Network, plan: Plan, ranges: Ranges) -> Transformed:
    """GRAPH to QUANTIZED under a plan."""
    with tempfile.TemporaryDirectory(prefix="mlq-") as folder:
        plan_file, ranges_file = Path(folder, "plan.json"), Path(folder, "ranges.json")
        plan_file.write_text(plan.to_json(), encoding="utf-8")
        ranges_file.write_text(ranges.to_json(), encoding="utf-8")
        pipeline = quantize_pipeline(
            ranges=str(ranges_file),
            plan=str(plan_file),
            scheme=plan.scheme,
            granularity=plan.granularity,
        )
        return network.transform(pipeline, generic=False)


def lowered(quantized: Transformed, target: Target) -> Transformed:
    """QUANTIZED to LOWERED."""
    return transform(quantized.text, quantized.weights, lowering(target.features))


def joined(made: Transformed, target: Target) -> Transformed:
    """LOWERED as it is compiled to be used: kernels that follow one another in one dispatch."""
    pipeline = joining(target.features)
    return transform(made.text, made.weights, pipeline) if pipeline else made


def compiled(made: Transformed, target: Target) -> bytes:
    """LOWERED to a .vmfb that holds its weights, each kernel in a dispatch of its own."""
    return compile_module(made.text, target, weights=made.weights, embed=True)


@dataclass(frozen=True)
class Lowered:
    """A network under a plan, all but compiled: `made` to be timed, `joined` to be used.

    MLIR's passes run in one thread, and what is left to do in any.
    """

    plan: Plan
    quantized: Transformed
    made: Transformed
    joined: Transformed
    target: Target

    @classmethod
    def of(cls, plan: Plan, quantized: Transformed, target: Target) -> Lowered:
        """From what `quantize` makes under the plan."""
        made = lowered(quantized, target)
        return cls(plan, quantized, made, joined(made, target), target)

    def variant(self) -> Variant:
        """Compiled."""
        skips = (*self.quantized.skips, *self.made.skips)
        vmfb = compiled(self.joined, self.target)
        return Variant(self.plan, self.quantized, vmfb, skips, self.target)


def build(network: Network, plan: Plan, ranges: Ranges, target: Target) -> Variant:
    """GRAPH to artifact under a plan."""
    return Lowered.of(plan, quantize(network, plan, ranges), target).variant()
