"""What a search looks for: AMED's accuracy-penalised latency under a hard limit on size."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat

from mlq.values import Part


class Objective(Part):
    """Latency relative to a reference, plus a penalty that grows as accuracy falls too low.

    An accuracy `margin` below `threshold` costs as much as `penalty` times the reference latency.
    Allocations of more than `max_bytes` are not in the target's support at all.
    """

    reference_us: PositiveFloat
    threshold: float
    margin: PositiveFloat = 0.01
    penalty: NonNegativeFloat = 1.0
    max_bytes: PositiveFloat | None = None

    def energy(self, accuracy: float, us: float, *, threshold: float | None = None) -> float:
        """What is minimised; a chain of temperature T visits in proportion to exp(-energy/T).

        `threshold` asks for another accuracy than the objective's own.
        """
        asked = self.threshold if threshold is None else threshold
        short = max(asked - accuracy, 0.0) / self.margin
        return us / self.reference_us + self.penalty * short

    def admits(self, size: float) -> bool:
        """Whether an allocation of so many bytes may be visited."""
        return self.max_bytes is None or size <= self.max_bytes
