"""What the report says of a search: its trials, and which of them are worth having."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlq.trials import TrialReport, TuningReport
from mlq.tuning.outcomes import Outcome, front
from mlq.tuning.settings import Settings

# Artifacts are compiled and checked one by one, so there are so many at most.
_ARTIFACTS = 4


def worthwhile(found: Sequence[Outcome], chosen: Outcome) -> dict[Outcome, str]:
    """The trials to compile, each with its folder: what is chosen first, then others of the front.

    These are spread evenly over the front, from the fastest on to the one that loses least.
    """
    others = [each for each in front(found) if each.configuration != chosen.configuration]
    count = min(len(others), _ARTIFACTS - 1)
    last = len(others) - 1
    kept = [others[round(i * last / max(count - 1, 1))] for i in range(count)]
    return {chosen: ".", **{each: f"front/{number}" for number, each in enumerate(kept, start=1)}}


def report(
    found: Sequence[Outcome],
    artifacts: Mapping[Outcome, str],
    settings: Settings,
    *,
    points: int,
    prior: tuple[str, ...],
    shown: Outcome,
) -> TuningReport:
    """The part on tuning for the report on the artifact of `shown`."""
    settled = [each for each in found if each.settled]
    rows = [
        TrialReport(
            **each.configuration.knobs,
            number=each.number + 1,
            accuracy=each.accuracy,
            lost_points=each.lost_points,
            kl_mnat=each.kl_mnat,
            evaluated=each.samples,
            kl_within_mnat=each.within_mnat if each.settled else None,
            seconds=each.seconds,
            predicted_us=each.predicted_us,
            on_front=each.settled and not any(map(each.is_beaten_by, settled)),
            chosen=each.settled and each.configuration == shown.configuration,
            artifact=artifacts.get(each, ""),
        )
        for each in found
    ]
    return TuningReport(
        sampler=settings.sampler,
        space=settings.space,
        points=points,
        loss=settings.loss,
        objectives=settings.objectives,
        prior=prior,
        trials=tuple(rows),
    )
