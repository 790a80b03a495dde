"""Whom a trial races against: the best so far that takes no more time, where time counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from mlq.tuning.objective import Measurement
from mlq.tuning.outcomes import Loss
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
    """The races against the best trial that went over all samples, if there is one."""

    loss: Loss
    accuracy: Race | None = None
    kl: DivergenceRace | None = None

    @classmethod
    def of(cls, earlier: Sequence[FrozenTrial], loss: Loss, us: float | None = None) -> Rivalry:
        """Against the best of the `earlier` trials; with `us`, of those that are as fast."""
        rivals = [
            each
            for each in earlier
            if each.user_attrs["whole"] and (us is None or each.user_attrs["predicted_us"] <= us)
        ]
        if not rivals:
            return cls(loss)
        rival = min(rivals, key=lambda each: float(each.values[0])).user_attrs
        hits = unpack(rival["hits"], rival["samples"])
        return cls(loss, Race(hits), DivergenceRace(unpack_divergences(rival["divergences"])))

    def is_lost(self, hits: Hits, divergences: Divergences) -> bool:
        """Whether the race by what is tuned is lost."""
        if self.loss == "kl":
            return self.kl is not None and self.kl.is_lost(divergences)
        return self.accuracy is not None and self.accuracy.is_lost(hits)

    def estimates(self, found: Measurement) -> tuple[float, float]:
        """Accuracy and KL over all samples of what was stopped early."""
        assert self.accuracy is not None
        assert self.kl is not None
        return self.accuracy.estimate(found.hits), self.kl.estimate(found.divergences)
