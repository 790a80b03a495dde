"""What the float inference saw: for each tensor its extremes, its histogram and its clip range."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, model_validator
from typing_extensions import Self

from mlq.precision import BYTE_BITS
from mlq.values import Part, Value


class Histogram(Part):
    """How often a tensor's values fell into equal bins over [low, high)."""

    low: float
    high: float
    counts: tuple[NonNegativeInt, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low!r} must be below high {self.high!r}")
        return self


class TensorRange(Part):
    """One tensor: the exact extremes, and the range [low, high] that its calibrator keeps."""

    minimum: float
    maximum: float
    low: float
    high: float
    calibrator: str
    histogram: Histogram

    def kept(self, bits: int) -> tuple[float, float]:
        """The reals that storage of so many bits keeps: [low, high], or all that was seen.

        A calibrator gives up the rare ones to make steps smaller. Beyond a byte steps are so small
        that it would only lose by that: MobileNetV2 loses a third less if nothing is clipped.
        """
        wide = bits > BYTE_BITS
        return (self.minimum, self.maximum) if wide else (self.low, self.high)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum!r} is above maximum {self.maximum!r}")
        if self.low > self.high:
            raise ValueError(f"low {self.low!r} is above high {self.high!r}")
        return self


class Ranges(Value):
    """The ranges of a network's tensors, by `mlq.name` or the graph input's name."""

    calibrator: str
    samples: NonNegativeInt
    tensors: dict[str, TensorRange]

    def scaled(self, tensor: str, factor: float) -> Ranges:
        """The same, of which what storage keeps of one tensor is so many times as wide."""
        of = self.tensors[tensor]
        wider = of.model_copy(update={"low": of.low * factor, "high": of.high * factor})
        return self.model_copy(update={"tensors": {**self.tensors, tensor: wider}})
