"""From predicted plans to one that holds: first in simulation, then as a compiled artifact."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mlq.allocation import Allocation
from mlq.analysis import Analysis
from mlq.judge import Judge
from mlq.plan import Plan
from mlq.planning import Planner, noise_budget
from mlq.report import PlanPoint
from mlq.rules import Listed, Rule, counts
from mlq.variant import Variant

# How often a plan is made stricter because its simulated noise is over the budget.
_REFINEMENTS = 8
# How many plans are compiled and evaluated before the best of them is taken.
_TRIES = 4
# A stricter plan is asked for a little more than what the last measurement says.
_MARGIN = 0.9
# A plan that uses this part of the budget is cheap enough.
_CLOSE = 0.75
_LEAST_KL = 1e-3  # milli-nats; what a KL is taken for that rounds to nothing


@dataclass(frozen=True)
class Candidate:
    """A plan to try; what was measured of it, None where nothing was."""

    allocation: Allocation
    simulated_kl_mnat: float | None = None
    drop: float | None = None
    variant: Variant | None = None


def candidates(planner: Planner, found: Analysis) -> list[Candidate]:
    """Plans in the order to try them: first the cheapest whose simulated KL is in the budget.

    Noise is additive, but a metric shares it out wrongly: simulating a plan, which needs no
    compiler, says by how much, and the next plan allows that much less, or more; between one that
    keeps to the budget and one that does not, what they allowed is halved. Of plans as fast as
    that, the one nearest to float is taken. Stricter plans follow.
    """
    budget = noise_budget(planner.recipe)
    rule = Rule.parse(planner.recipe.select)
    if rule.name != "program":
        return _by_rule(rule, planner, found, budget)
    allowed, kept, seen = budget, None, list[Candidate]()
    within, over = 0.0, math.inf  # allowances whose plans kept to the budget, and did not
    for _ in range(_REFINEMENTS):
        allocation = planner.solve(allowed)
        known = [each for each in seen if each.allocation.precisions == allocation.precisions]
        if known and (kept is None or math.isinf(over)):
            break  # other limits leave no choice
        tried = known[0] if known else _simulated(allocation, found)
        seen += [] if known else [tried]
        measured = tried.simulated_kl_mnat or 0.0
        if budget is None or allowed is None:
            kept = tried
            break
        if measured <= budget:
            kept, within = tried, allowed
        else:
            over = allowed
        if _CLOSE * budget < measured <= budget:
            break
        allowed = (within + over) / 2
        if kept is None or math.isinf(over):
            allowed = _MARGIN * allocation.noise * budget / max(measured, _LEAST_KL)
    if kept is None:
        seen.reverse()
        first = planner.solve(allowed)
        if first.precisions == seen[0].allocation.precisions:
            return seen
        return [*map(Candidate, (first, *planner.stricter(first.noise))), *seen]
    kept = _as_fast(kept, planner, found)
    others = [each for each in reversed(seen) if each is not kept]
    return [kept, *map(Candidate, planner.stricter(kept.allocation.noise)), *others]


def _as_fast(kept: Candidate, planner: Planner, found: Analysis) -> Candidate:
    """A plan that takes about as long and loses less, if there is one."""
    allocation = planner.as_fast(kept.allocation)
    if allocation.precisions == kept.allocation.precisions:
        return kept
    tried = _simulated(allocation, found)
    return min(kept, tried, key=lambda each: each.simulated_kl_mnat or 0.0)


def _simulated(allocation: Allocation, found: Analysis) -> Candidate:
    return Candidate(allocation, found.divergence(allocation.precisions))


def _by_rule(
    rule: Rule, planner: Planner, found: Analysis, budget: float | None
) -> list[Candidate]:
    """The plans of a rule that walks the list of layers; a plan is simulated but once."""
    listed, simulated = Listed.of(planner.problem), dict[int, float]()

    def divergence(count: int) -> float:
        if count not in simulated:
            simulated[count] = found.divergence(listed.allocation(count, rule).precisions)
        return simulated[count]

    first, *stricter = counts(rule, listed, budget, divergence)
    divergence(first)
    return [
        Candidate(listed.allocation(count, rule), simulated.get(count))
        for count in (first, *stricter)
    ]


def choose(
    tries: list[Candidate], planner: Planner, build: Callable[[Plan], Variant], judge: Judge
) -> tuple[Variant, list[Candidate]]:
    """Compile and evaluate plans until one keeps `max_drop`; else take the one that loses least.

    Returns it (as "mixed" in the judge) and all candidates, those tried with what was measured.
    """
    limit = planner.recipe.max_drop
    done: list[Candidate] = []
    for candidate in tries[:_TRIES]:
        variant = build(planner.plan(candidate.allocation))
        judge.add("mixed", variant.vmfb)
        drop = judge.drop("mixed")
        done.append(replace(candidate, variant=variant, drop=drop))
        if limit is None or not judge.labelled or drop <= limit:
            break
    best = min(done, key=lambda each: (_missed(each, limit), done.index(each)))
    assert best.variant is not None
    judge.add("mixed", best.variant.vmfb)
    return best.variant, [*done, *tries[len(done) :]]


def points(
    tried: list[Candidate], planner: Planner, variants: Mapping[str, Variant]
) -> tuple[PlanPoint, ...]:
    """Every plan that was considered, for the report: those to try in their order, then the others.

    Of the `variants`, "mixed" is the one that was chosen; the plans of the others are marked by
    their names. The rest is the whole front from the fastest plan to float, whatever the limits.
    """
    predicted = {n: planner.predict(each.plan) for n, each in variants.items() if n != "mixed"}
    forms = {_key(allocation): name for name, allocation in predicted.items()}
    others = [*predicted.values(), *planner.front]
    known: dict[tuple[str, ...], Candidate] = {}
    for each in (*tried, *map(Candidate, others)):
        first = known.setdefault(_key(each.allocation), each)
        if first.simulated_kl_mnat is None and each.simulated_kl_mnat is not None:
            known[_key(each.allocation)] = replace(first, simulated_kl_mnat=each.simulated_kl_mnat)
    return tuple(
        PlanPoint(
            float_layers=key.count("f32"),
            predicted_kl_mnat=each.allocation.noise,
            predicted_us=each.allocation.us,
            predicted_bytes=each.allocation.bytes,
            simulated_kl_mnat=each.simulated_kl_mnat,
            drop=each.drop,
            chosen=each.variant is variants["mixed"],
            form=forms.get(key, ""),
        )
        for key, each in known.items()
    )


def _key(allocation: Allocation) -> tuple[str, ...]:
    """What tells plans apart: the precision of each layer."""
    return tuple(precision for _, precision in sorted(allocation.precisions.items()))


def _missed(candidate: Candidate, limit: float | None) -> float:
    """By how much a candidate misses the limit; 0 when it keeps it."""
    if limit is None or candidate.drop is None:
        return 0.0
    return max(candidate.drop - limit, 0.0)
