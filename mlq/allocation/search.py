"""The cheapest plan within a budget, and the plans around it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from mlq.allocation.explanation import amount, explain
from mlq.allocation.problem import Allocation, Budget, Measure, Problem
from mlq.allocation.program import Program, Vector
from mlq.errors import PlanError

# Plans whose totals differ by less than this part tie; the solver's own tolerance is of that size.
TIE = 1e-6
# The frontier ends where the predicted noise is this part of what it was at the start.
_NEGLIGIBLE = 1e-3


def solve(
    problem: Problem,
    *,
    minimise: Measure = "us",
    budget: Budget = Budget(),  # noqa: B008 - frozen
    any_of_ties: bool = False,
) -> Allocation:
    """The plan with the least `minimise` within `budget`; PlanError says what is achievable.

    Plans that tie are told apart by their noise (their time, if noise is minimised), then the
    number of float layers, then by who takes the first of its options first: the last two take
    longer than the others, and `any_of_ties` spares them.
    """
    program = Program(problem)
    limits = [(program.costs[measure], limit) for measure, limit in budget.limits()]
    other: Measure = "us" if minimise == "noise" else "noise"
    chosen = None
    objectives = (program.costs[minimise], program.costs[other], program.floats, program.late)
    for weights in objectives[: 2 if any_of_ties else None]:
        found = program.minimise(weights, limits)
        if found is None:
            break
        chosen = found
        value = float(weights @ found)
        limits.append((weights, value + TIE * abs(value)))
    if chosen is None:
        raise PlanError(_impossible(program, budget))
    precisions = program.precisions(chosen)
    saved = _scarce(budget) if minimise == "noise" else minimise
    reasons = explain(problem, precisions, measure=saved, noise_budget=budget.noise)
    return Allocation(precisions, reasons, **problem.totals(precisions)._asdict())


def frontier(
    problem: Problem,
    *,
    minimise: Literal["us", "bytes"] = "us",
    budget: Budget = Budget(),  # noqa: B008 - frozen
    ratio: float = 0.8,
) -> tuple[Allocation, ...]:
    """Plans no other plan beats in both noise and `minimise`, from the cheapest to the least noisy.

    Each is solved exactly for at most `ratio` of the noise of the one before; with ratio 1 every
    such plan down to a negligible noise is found. `budget` holds for all of them. Plans that tie in
    both are not told apart.
    """
    best = partial(solve, problem, any_of_ties=True)
    plans = [best(minimise=minimise, budget=budget)]
    quietest = best(minimise="noise", budget=budget)
    least = max(quietest.noise, _NEGLIGIBLE * plans[0].noise)
    step = min(ratio, 1.0 - 10.0 * TIE)
    while (allowed := plans[-1].noise * step) > least:
        quieter = best(minimise=minimise, budget=replace(budget, noise=allowed))
        if quieter.noise >= plans[-1].noise:
            break
        plans.append(quieter)
    if quietest.noise < plans[-1].noise:
        plans.append(quietest)
    return tuple(plans)


def _scarce(budget: Budget) -> Literal["us", "bytes"]:
    """What a plan of least noise is short of."""
    return "bytes" if budget.us is None and budget.bytes is not None else "us"


def _impossible(program: Program, budget: Budget) -> str:
    """Say which limit cannot be kept together with those before it, and what could be."""
    limits: list[tuple[Vector, float]] = []
    kept: list[str] = []
    for measure, limit in budget.limits():
        weights = program.costs[measure]
        least = program.minimise(weights, limits)
        limits.append((weights, limit))
        if least is not None and program.minimise(weights, limits) is None:
            within = f" within {' and '.join(kept)}" if kept else ""
            return (
                f"no plan keeps to {amount(limit, measure)}{within}: the least achievable"
                f" is {amount(float(weights @ least), measure)}; allow at least that"
            )
        kept.append(amount(limit, measure))
    return "no plan keeps to the budget; allow more of it"
