"""How measurements are shared between the chains and what refines the front: by what each gained.

A bandit of two arms. Rewards fall as the front rises, so only recent ones count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pydantic import NonNegativeFloat, NonNegativeInt

from mlq.search.archive import Visit
from mlq.search.space import Point
from mlq.values import Part

# What is left of an arm's record after each measurement of its own.
_KEPT = 0.95
# The least share of measurements that either gets.
_LEAST = 0.1
# The front is refined by as many measurements as were made before, and one for so many proposals.
_PROPOSALS = 16


class Refine(Protocol):
    """What proposes measurements by the front alone; equal visits must give equal proposals."""

    def volume(self, visits: Sequence[Visit]) -> float:
        """The hypervolume that is to be raised."""

    def points(self, visits: Sequence[Visit], count: int) -> Sequence[Point]:
        """At most `count` allocations that were not visited."""


class Arm(Part):
    """One way of choosing measurements: how many it was given; recent ones, and their gain."""

    given: NonNegativeInt = 0
    recent: NonNegativeFloat = 0.0
    gained: NonNegativeFloat = 0.0

    def after(self, count: int, gain: float) -> Arm:
        """The arm after `count` more measurements that raised the hypervolume by `gain`."""
        kept = _KEPT**count
        return Arm(
            given=self.given + count,
            recent=kept * self.recent + count,
            gained=kept * self.gained + max(gain, 0.0),
        )

    @property
    def rate(self) -> float:
        """Gain of a measurement, of late."""
        return self.gained / self.recent if self.recent else 0.0


class Shares(Part):
    """The two arms; `begun` is how many allocations had been visited before either."""

    begun: NonNegativeInt = 0
    walking: Arm = Arm()
    refining: Arm = Arm()

    def refines(self, proposals: int) -> bool:
        """Whether it is refining's turn, after so many proposals of the chains."""
        if self.refining.given >= self.begun + proposals // _PROPOSALS:
            return False
        rates = self.refining.rate, self.walking.rate
        share = rates[0] / sum(rates) if min(self.refining.recent, sum(rates)) > 0.0 else 0.5
        share = min(max(share, _LEAST), 1.0 - _LEAST)
        return self.refining.given * (1.0 - share) <= self.walking.given * share
