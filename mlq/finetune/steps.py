"""Learned step size quantization (LSQ: Esser et al., ICLR 2020): the scale is a parameter.

Rounding passes gradients straight through. What is learned is the scale's logarithm, and by Adam:
it then moves at the pace of the values it divides, for which LSQ scales its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

Tensor = Any


@dataclass(frozen=True)
class Step:
    """A quantizer: the logarithm of its scale, its zero point and its limits."""

    log_scale: Tensor
    zero_point: int
    low: int
    high: int

    @property
    def scale(self) -> Tensor:
        """The scale, positive whatever is learned."""
        return self.log_scale.exp()

    def __call__(self, x: Tensor) -> Tensor:
        """`x` as it is stored, in float; differentiable in `x` and in the scale."""
        scale = self.scale
        steps = (x / scale).clamp(self.low - self.zero_point, self.high - self.zero_point)
        return _straight(steps) * scale


def _straight(x: Tensor) -> Tensor:
    """Rounded half to even; the gradient is that of `x`."""
    return x + (torch.round(x) - x).detach()
