"""What a search must beat: the same allocations sought in simpler ways, through one archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlq.allocation import Allocation, Budget, LayerChoice, Option, Problem, solve
from mlq.errors import PlanError
from mlq.search.archive import Archive, Visit
from mlq.search.objective import Objective
from mlq.search.space import Point, Space


def uniform(archive: Archive, objective: Objective) -> list[Visit]:
    """Every precision for all layers that may have it, where it fits."""
    names = dict.fromkeys(name for names in archive.space.names for name in names)
    points = [archive.space.uniform(name) for name in names]
    return archive.measure(_admitted(archive.space, objective, points))


def random_search(
    archive: Archive, objective: Objective, evaluations: int, *, seed: int = 0
) -> list[Visit]:
    """Allocations drawn evenly from those that fit; fewer if hardly any does."""
    random = np.random.default_rng(seed)
    drawn: dict[Point, None] = {}
    for _ in range(100 * evaluations):
        if len(drawn) == evaluations:
            break
        point = tuple(int(i) for i in random.integers(archive.space.sizes))
        drawn |= dict.fromkeys(_admitted(archive.space, objective, [point]))
    return archive.measure(list(drawn))


def genetic(
    archive: Archive,
    objective: Objective,
    evaluations: int,
    *,
    seed: int = 0,
    population: int = 16,
) -> list[Visit]:
    """Tournaments of two, even crossover, one mutation per child; the best of old and new stay.

    `evaluations` counts children, those visited before among them.
    """
    random = np.random.default_rng(seed)
    people = random_search(archive, objective, min(population, evaluations), seed=seed)
    if not people:
        raise PlanError(f"hardly any allocation fits {objective.max_bytes} bytes; allow more")
    seen = list(people)
    while len(seen) < evaluations:
        count = min(population, evaluations - len(seen))
        parents = [_fitter(people, objective, random) for _ in range(2 * count)]
        pairs = zip(parents[::2], parents[1::2], strict=True)
        children = [_child(archive.space, one.point, other.point, random) for one, other in pairs]
        # A child that does not fit counts as what it came from, so that this ends.
        fitting = [
            child if objective.admits(archive.space.bytes(child)) else parent.point
            for child, parent in zip(children, parents[::2], strict=True)
        ]
        born = archive.measure(fitting)
        seen += born
        unlike = {visit.point: visit for visit in [*people, *born]}
        people = sorted(unlike.values(), key=lambda visit: _energy(objective, visit))[:population]
    return seen


def integer_program(
    space: Space, noise: Mapping[str, Mapping[str, float]], budget: Budget
) -> tuple[Point, Allocation]:
    """The allocation of least predicted noise within a budget (HAWQ-V3's integer program).

    `noise` is by layer and precision, and adds up. PlanError if nothing keeps to the budget.
    """
    choices = [
        LayerChoice(
            decision.layers[0],
            {
                name: Option(sum(noise[layer][name] for layer in decision.layers), *cost)
                for name, cost in decision.options.items()
            },
        )
        for decision in space.decisions
    ]
    plan = solve(Problem(choices), minimise="noise", budget=budget)
    chosen = (plan.precisions[choice.name] for choice in choices)
    return tuple(names.index(name) for names, name in zip(space.names, chosen, strict=True)), plan


def integer_programs(
    archive: Archive,
    objective: Objective,
    noise: Mapping[str, Mapping[str, float]],
    evaluations: int,
) -> list[Visit]:
    """Integer programs whose latency budgets lie evenly between the fastest and the slowest."""
    space = archive.space
    spans = [[cost.us for cost in decision.options.values()] for decision in space.decisions]
    low, high = sum(map(min, spans)), sum(map(max, spans))
    points: dict[Point, None] = {}
    for share in np.linspace(0.0, 1.0, evaluations):
        # The sum of the fastest may come out a rounding above itself.
        budget = Budget(us=(low + share * (high - low)) * (1.0 + 1e-9), bytes=objective.max_bytes)
        try:
            points |= dict.fromkeys([integer_program(space, noise, budget)[0]])
        except PlanError:
            continue  # too fast for the size
    return archive.measure(list(points))


def _admitted(space: Space, objective: Objective, points: Sequence[Point]) -> list[Point]:
    return [point for point in points if objective.admits(space.bytes(point))]


def _energy(objective: Objective, visit: Visit) -> float:
    return objective.energy(visit.accuracy, visit.us)


def _fitter(people: Sequence[Visit], objective: Objective, random: np.random.Generator) -> Visit:
    one, other = (people[int(i)] for i in random.integers(len(people), size=2))
    return min(one, other, key=lambda visit: _energy(objective, visit))


def _child(space: Space, one: Point, other: Point, random: np.random.Generator) -> Point:
    heads = random.integers(2, size=len(one))
    child = [mine if head else yours for mine, yours, head in zip(one, other, heads, strict=True)]
    place = int(random.integers(len(child)))
    child[place] = int(random.integers(space.sizes[place]))
    return tuple(child)
