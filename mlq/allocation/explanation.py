"""Why a layer got its precision: one sentence for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mlq.allocation.problem import Measure, Option, Problem

_KILO = 1000.0


def explain(
    problem: Problem,
    precisions: Mapping[str, str],
    *,
    measure: Literal["us", "bytes"] = "us",
    noise_budget: float | None = None,
) -> dict[str, str]:
    """Say of each layer why it is better off in its precision than in another.

    The alternative is the same plan with this layer (and those tied to it) changed, so borders
    count; `measure` is what the plan saves.
    """
    options = {layer.name: layer.options for layer in problem.layers}
    reasons: dict[str, str] = {}
    for name, members in _tied(problem).items():
        chosen = precisions[name]
        shared = set.intersection(*(set(options[member]) for member in members)) - {chosen}
        others = {
            other: problem.change(precisions, members, other)
            for other in options[name]
            if other in shared
        }
        reason = _reason(options[name][chosen].noise, others, measure, noise_budget)
        partners = ", ".join(sorted(members - {name}))
        together = f"; together with {partners}" if partners else ""
        reasons[name] = f"{chosen}: {reason}{together}"
    return reasons


def amount(value: float, measure: Measure) -> str:
    """Write an amount in a unit that suits its size."""
    if measure == "noise":
        return f"{value:.2g} mn"
    units = ("us", "ms", "s") if measure == "us" else ("B", "kB", "MB")
    scaled = value
    for unit in units[:-1]:
        if abs(scaled) < _KILO:
            return f"{scaled:.3g} {unit}"
        scaled /= _KILO
    return f"{scaled:.3g} {units[-1]}"


def _tied(problem: Problem) -> dict[str, frozenset[str]]:
    """For each layer, all layers that must have its precision, itself included."""
    tied = {layer.name: frozenset({layer.name}) for layer in problem.layers}
    for group in problem.groups:
        merged = frozenset().union(*(tied[name] for name in group))
        tied.update(dict.fromkeys(merged, merged))
    return tied


def _reason(
    noise: float,
    others: Mapping[str, Option],
    measure: Literal["us", "bytes"],
    noise_budget: float | None,
) -> str:
    """Compare with the quietest alternative if there is a quieter one, else with the cheapest."""
    if not others:
        return "the only precision it can have"
    budget = "" if noise_budget is None else f" of the {amount(noise_budget, 'noise')} budget"
    quietest = min(others, key=lambda other: others[other].noise)
    if others[quietest].noise < 0.0:
        saved: float = getattr(others[quietest], measure)
        verb = "saves" if saved >= 0.0 else "costs"
        gain = f"{verb} {amount(abs(saved), measure)} over {quietest}"
        return f"predicted {amount(noise, 'noise')}{budget}, {gain}"
    cheapest = min(others, key=lambda other: float(getattr(others[other], measure)))
    saved = -getattr(others[cheapest], measure)
    if saved <= 0.0:
        return f"{cheapest} would save nothing here, borders included"
    cost = f"{amount(others[cheapest].noise, 'noise')}{budget}"
    return f"{cheapest} would cost {cost} and save {amount(saved, measure)}"
