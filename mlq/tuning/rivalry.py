"""Whom a trial races against: the best so far that takes no more time, where time counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from mlq.tuning.measurement import Measurement
from mlq.tuning.outcomes import Loss, is_settled
from mlq.tuning.racing import (
    DivergenceRace,
    Divergences,
    Hits,
    Race,
    unpack,
    unpack_divergences,
)


@dataclass(frozen=True)
class Rivalry:
    """The races against the best trial so far, if there is one; the points that one lost."""

    loss: Loss
    lost_points: float = 0.0
    accuracy: Race | None = None
    kl: DivergenceRace | None = None

    @classmethod
    def of(cls, earlier: Sequence[FrozenTrial], loss: Loss, us: float | None = None) -> Rivalry:
        """Against the best of the `earlier` trials; with `us`, of those that are as fast."""
        rivals = [
            each
            for each in earlier
            if is_settled(each.user_attrs) and (us is None or each.user_attrs["predicted_us"] <= us)
        ]
        if not rivals:
            return cls(loss)
        rival = min(rivals, key=lambda each: float(each.values[0])).user_attrs
        hits = unpack(rival["hits"], rival["samples"])
        kl = DivergenceRace(unpack_divergences(rival["divergences"]))
        return cls(loss, rival["lost_points"], Race(hits), kl)

    def is_lost(self, hits: Hits, divergences: Divergences) -> bool:
        """Whether the race by what is tuned is lost."""
        if self.loss == "kl":
            return self.kl is not None and self.kl.is_lost(divergences)
        return self.accuracy is not None and self.accuracy.is_lost(hits)

    def estimates(self, found: Measurement) -> tuple[float, float, float]:
        """Accuracy, points lost and KL over the rival's samples, of what has lost against it."""
        assert self.accuracy is not None
        assert self.kl is not None
        accuracy = self.accuracy.estimate(found.hits)
        lost = self.lost_points + 100.0 * (float(self.accuracy.rival.mean()) - accuracy)
        return accuracy, lost, self.kl.estimate(found.divergences)
