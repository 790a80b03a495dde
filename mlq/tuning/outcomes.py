"""What a study has found: its finished trials, the best of them, and those that none beats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlq.errors import UsageError
from mlq.planning import MNAT_PER_UNIT_DROP
from mlq.tuning.space import Configuration, configuration

try:
    import optuna
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    raise UsageError("tuning needs optuna; install it with: pip install 'mlq[tune]'") from None

Loss = Literal["kl", "accuracy"]
"""What is made small: KL to float in milli-nats, or the points of accuracy that are lost.

KL tells configurations apart that a thousand samples' accuracy cannot, and needs no labels.
"""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
# Where time is weighed too, the fastest is the best of those that lose a tenth of a point at most
# more than the one that loses least.
_POINTS = 0.1
_TOLERANCE = {"kl": _POINTS / 100.0 * MNAT_PER_UNIT_DROP, "accuracy": _POINTS}

_FACTS = (
    "accuracy",
    "lost_points",
    "kl_mnat",
    "agreement",
    "samples",
    "seconds",
    "predicted_us",
)


@dataclass(frozen=True)
class Outcome:
    """A finished trial; figures are estimates if it is not `settled`, but stopped as worse.

    `accuracy` and `agreement` are shares in [0, 1], `lost_points` is against float on the same
    samples; `predicted_us` are microseconds of a call by the target's costs. `within_mnat` is how
    far the KL may be from that of more samples, 0 where all were evaluated.
    """

    number: int
    configuration: Configuration
    loss: float
    settled: bool
    accuracy: float
    lost_points: float
    kl_mnat: float
    agreement: float
    samples: int
    seconds: float
    predicted_us: float
    within_mnat: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether all samples were evaluated."""
        return self.settled and self.within_mnat == 0.0

    def is_beaten_by(self, other: Outcome) -> bool:
        """Whether another trial loses less in no more time."""
        return other.loss < self.loss and other.predicted_us <= self.predicted_us


def is_settled(facts: Mapping[str, Any]) -> bool:
    """Whether a trial was not stopped for being worse; formerly it then went over all samples."""
    return bool(facts["settled"] if "settled" in facts else facts["whole"])


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are over, however they ended."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def outcomes(study: optuna.Study) -> tuple[Outcome, ...]:
    """Every finished trial, in the order of their beginnings."""
    return tuple(map(outcome, finished(study)))


def outcome(trial: FrozenTrial) -> Outcome:
    """What is known of a finished trial."""
    return Outcome(
        number=trial.number,
        configuration=configuration(trial.params),
        loss=trial.values[0],
        settled=is_settled(trial.user_attrs),
        within_mnat=trial.user_attrs.get("within_mnat", 0.0),
        **{name: trial.user_attrs[name] for name in _FACTS},
    )


def best(found: Sequence[Outcome], loss: Loss = "kl", *, timed: bool = False) -> Outcome | None:
    """The least loss of those settled; None while there is none.

    If it is `timed`, the fastest that loses hardly more.
    """
    settled = [each for each in found if each.settled]
    if not settled:
        return None
    least = min(settled, key=_standing)
    if not timed:
        return least
    near = [each for each in settled if each.loss <= least.loss + _TOLERANCE[loss]]
    return min(near, key=lambda each: (each.predicted_us, *_standing(each)))


def front(found: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """The settled trials that no other one beats in loss and time; the fastest first.

    Of those that are equal in both, the first.
    """
    kept: list[Outcome] = []
    settled = (each for each in found if each.settled)
    for each in sorted(settled, key=lambda each: (each.predicted_us, *_standing(each))):
        if not kept or each.loss < kept[-1].loss:
            kept.append(each)
    return tuple(kept)


def _standing(outcome: Outcome) -> tuple[float, float, int]:
    return outcome.loss, outcome.kl_mnat, outcome.number
