"""The targets as people ask for them: what each computes in, and what of it runs here."""

from __future__ import annotations

from mlq import emulation, targets
from mlq.devices import why_not_here
from mlq.targets.base import Target
from mlq.values import Part


class TargetFacts(Part):
    """A target: `here` is what runs its code on this machine, `why_not` says why nothing does."""

    name: str
    summary: str
    precisions: dict[str, tuple[str, ...]]
    float_only: str
    formats: tuple[str, ...]
    cost_source: str
    here: str
    emulated: bool
    why_not: str
    presets: tuple[TargetFacts, ...] = ()

    @classmethod
    def of(cls, target: Target, presets: tuple[TargetFacts, ...] = ()) -> TargetFacts:
        """The facts of one target."""
        reason = emulation.why_not_at_all(target)
        return cls(
            name=target.name,
            summary=target.summary,
            precisions={kind: target.precisions(kind) for kind in target.kinds},
            float_only=target.float_only,
            formats=target.formats,
            cost_source=target.cost_source,
            here="" if reason else emulation.where(target),
            emulated=not reason and bool(why_not_here(target)),
            why_not=reason,
            presets=presets,
        )


def inventory(name: str | None = None) -> tuple[TargetFacts, ...]:
    """All families with their presets, or one target; TargetError for a name that is none."""
    if name is not None and ":" in name:
        return (TargetFacts.of(targets.by_name(name)),)
    chosen = targets.all_targets() if name is None else (targets.by_name(name),)
    return tuple(
        TargetFacts.of(each, tuple(map(TargetFacts.of, targets.presets_of(each))))
        for each in chosen
    )
