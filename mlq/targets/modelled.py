"""Costs of devices that nobody has measured for mlq: multiply-accumulates, bytes, a clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlq.targets.base import Costs, Storage

BYTES = {
    "f32": Storage(weight=4, activation=4),
    "f16": Storage(weight=2, activation=2),
    "w8a8": Storage(weight=1, activation=1),
    "w4a8": Storage(weight=1, activation=1),
}
"""What the portable lowering stores: weights of 4 bits take a byte each."""

PACKED = BYTES | {"w4a8": Storage(weight=0.5, activation=1)}
"""What generated kernels store: weights of 4 bits are two to a byte until they are loaded."""

CPU_FORMATS = ("vmfb", "vmfb+irpa", "static-library", "c-array")


@dataclass(frozen=True, kw_only=True)
class Peak:
    """What a device can do at best: its vendor's figures, not a measurement.

    `f32_macs`, `f16_macs` and `int8_macs` are multiply-accumulates a clock (none of f16 where there
    are no kernels), `gigahertz` the clock, `lanes` the float32 elements that an elementwise
    instruction takes; `bytes_per_us` is memory bandwidth.
    """

    gigahertz: float
    f32_macs: float
    int8_macs: float
    lanes: float
    bytes_per_us: float
    dispatch_us: float
    f16_macs: float = 0.0

    def costs(self, *, integers: bool = True) -> Costs:
        """A roofline with these peaks, the same for every shape of an op."""
        product = {"f32": self.f32_macs * self.gigahertz}
        sums = {"f32": self.lanes * self.gigahertz}
        int8 = f"{self.int8_macs:g} int8 and " if integers else ""
        if integers:
            product |= dict.fromkeys(("w8a8", "w4a8"), self.int8_macs * self.gigahertz)
            sums |= {"w8a8": self.lanes * self.gigahertz}
        by_weights = product
        if self.f16_macs:
            by_weights = product | {"f16": self.f16_macs * self.gigahertz}
            sums |= {"f16": self.lanes * self.gigahertz}
            int8 += f"{self.f16_macs:g} f16 and "
        rows: Mapping[str, Mapping[str, float]] = {
            "conv2d": by_weights,
            "matmul": by_weights,
            "batch_matmul": product,
            **dict.fromkeys(("add", "mul", "avg_pool2d", "nonlinearity"), sums),
        }
        return Costs(
            giga_ops=rows,
            bytes_per_us=self.bytes_per_us,
            dispatch_us=self.dispatch_us,
            source=(
                f"reckoned from multiply-accumulates and bytes: {int8}"
                f"{self.f32_macs:g} f32 MAC a clock at {self.gigahertz:g} GHz,"
                f" {self.bytes_per_us / 1e3:g} GB/s; a peak, not a measurement of this device"
            ),
        )
