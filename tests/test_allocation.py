"""Allocation is exact: against published inputs, and against every plan of small networks."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlq.allocation import (
    OUTSIDE,
    Allocation,
    Border,
    Budget,
    LayerChoice,
    Option,
    Problem,
    frontier,
    solve,
)
from mlq.errors import PlanError

# HAWQ-V3's inputs for ResNet18 (Zhen-Dong/HAWQ, ILP.ipynb): 19 layers in 4 or 8 bits. Mean Hessian
# traces, ||W - Q8(W)||^2, ||W - Q4(W)||^2, parameters, bit operations, milliseconds on a T4.
TRACE = [
    *(0.06857826, 0.03162379, 0.03298575, 0.01205663, 0.02222431, 0.00596336, 0.06931772),
    *(0.00807129, 0.00372905, 0.00530698, 0.00209011, 0.00737569, 0.00210454, 0.00151197),
    *(0.00158041, 0.00078146, 0.00451841, 0.00098745, 0.00072944),
]
ERROR8 = [
    *(0.0235, 0.0125, 0.0102, 0.0082, 0.0145, 0.0344, 0.0023, 0.0287, 0.0148, 0.0333),
    *(0.0682, 0.0027, 0.0448, 0.0336, 0.0576, 0.1130, 0.0102, 0.0947, 0.0532),
]
ERROR4 = [
    *(6.7430, 3.9691, 3.3281, 2.6796, 4.7277, 10.5966, 0.6827, 9.0942, 4.8857, 10.7599),
    *(21.7546, 0.8603, 14.5324, 10.9651, 18.7706, 36.4044, 3.1572, 29.6994, 17.4016),
]
PARAMS = [
    *([36864] * 4 + [73728, 147456, 8192] + [147456] * 2 + [294912, 589824, 32768]),
    *([589824] * 2 + [1179648, 2359296, 131072] + [2359296] * 2),
]
BOPS, HALF, SMALL = 115605504, 57802752, 6422528
OPERATIONS = [BOPS] * 4 + ([HALF, BOPS, SMALL] + [BOPS] * 2) * 3
MS4 = [
    *(0.21094404, 0.21092674, 0.21104113, 0.21086851, 0.13642465, 0.19167506, 0.02532183),
    *(0.19148203, 0.19142914, 0.11395316, 0.20556011, 0.01917474, 0.20566918, 0.20566509),
    *(0.13185102, 0.22287786, 0.01790088, 0.22304611, 0.22286099),
]
MS8 = [
    *(0.36189111, 0.36211718, 0.31141909, 0.30454471, 0.19184896, 0.38948934, 0.0334169),
    *(0.38904905, 0.3892859, 0.19134735, 0.34307431, 0.02802354, 0.34313329, 0.34310756),
    *(0.21117103, 0.37376585, 0.02896843, 0.37398187, 0.37405185),
]
COSTS = {
    "size": ([p / 2**20 * 0.5 for p in PARAMS], [p / 2**20 for p in PARAMS]),
    "bops": ([b / 64e6 for b in OPERATIONS], [b / 16e6 for b in OPERATIONS]),
    "latency": (MS4, MS8),
}
# Constraint, share of the way from all-4 to all-8, bits of the optimum, objective, cost.
OPTIMA = [
    ("size", 0.25, "8888888888888844444", -1.18941, 6.6406),
    ("size", 0.5, "8888888888888884844", -1.23321, 7.2656),
    ("size", 0.75, "8888888888888488884", -1.27427, 9.2344),
    ("bops", 0.25, "8884848444444444444", -0.84729, 45.7605),
    ("latency", 0.25, "8884848444444444444", -0.84729, 3.6147),
    ("bops", 0.5, "8884888848884444444", -1.09202, 65.0281),
    ("latency", 0.5, "8888848848884484844", -1.10504, 4.2201),
    ("bops", 0.75, "8888888848888484884", -1.22775, 84.2957),
    ("latency", 0.75, "8888888848888484884", -1.22775, 4.7063),
]


@pytest.mark.parametrize(("constraint", "share", "bits", "objective", "cost"), OPTIMA)
def test_hawq_resnet18(
    constraint: str, share: float, bits: str, objective: float, cost: float
) -> None:
    low, high = COSTS[constraint]
    layers = [
        LayerChoice(
            f"layer{i:02}",
            {
                "w4a4": Option(TRACE[i] * ERROR4[i], low[i]),
                "w8a8": Option(TRACE[i] * ERROR8[i], high[i]),
            },
        )
        for i in range(19)
    ]
    groups = [(f"layer{a:02}", f"layer{b:02}") for a, b in ((4, 6), (9, 11), (14, 16))]
    limit = sum(low) + share * (sum(high) - sum(low))
    plan = solve(Problem(layers, groups=groups), minimise="noise", budget=Budget(us=limit))
    assert "".join(plan.precisions[layer.name][1] for layer in layers) == bits
    all_4 = math.fsum(t * e for t, e in zip(TRACE, ERROR4, strict=True))
    assert plan.noise - all_4 == pytest.approx(objective, abs=5e-6)
    assert plan.us == pytest.approx(cost, abs=5e-5)


COST = st.integers(0, 20).map(float)
NAMES = ("f32", "w8a8", "w4a8", "w8a16", "f16")
HALVES = -16  # as activations of f16 are known


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    count = draw(st.integers(1, 5))
    layers = []
    for i in range(count):
        offered = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
        offered = ["w8a8", *(name for name in offered if name != "w8a8")]
        options = {name: Option(draw(COST), draw(COST), draw(COST)) for name in offered}
        layers.append(LayerChoice(f"layer{i}", options))
    names = [layer.name for layer in layers]
    end = st.sampled_from([OUTSIDE, *names])
    casts = st.dictionaries(st.sampled_from([8, 16, HALVES]), COST)
    border = st.builds(Border, end, st.lists(end, max_size=3).map(tuple), COST, casts)
    borders = draw(st.lists(border, max_size=4))
    groups = draw(st.lists(st.lists(st.sampled_from(names), min_size=2, max_size=3), max_size=1))
    return Problem(tuple(layers), tuple(borders), tuple(tuple(group) for group in groups))


def every_plan(problem: Problem) -> list[Option]:
    """The totals of every plan in which groups share their precision."""
    names = [layer.name for layer in problem.layers]
    plans = (
        dict(zip(names, precisions, strict=True))
        for precisions in itertools.product(*(layer.options for layer in problem.layers))
    )
    return [
        problem.totals(plan)
        for plan in plans
        if all(len({plan[name] for name in group}) == 1 for group in problem.groups)
    ]


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(["noise", "us", "bytes"]), st.tuples(COST, COST, COST))
def test_equals_brute_force(problem: Problem, minimise: str, limits: tuple[float, ...]) -> None:
    budget = Budget(*(2.5 * limit for limit in limits))
    fitting = [
        totals
        for totals in every_plan(problem)
        if all(cost <= limit for cost, limit in zip(totals, limits_of(budget), strict=True))
    ]
    if not fitting:
        with pytest.raises(PlanError, match="the least achievable is"):
            solve(problem, minimise=minimise, budget=budget)  # type: ignore[arg-type]  # drawn
        return
    found = solve(problem, minimise=minimise, budget=budget)  # type: ignore[arg-type]  # drawn
    second = "us" if minimise == "noise" else "noise"
    best = min((getattr(totals, minimise), getattr(totals, second)) for totals in fitting)
    assert (getattr(found, minimise), getattr(found, second)) == best
    assert problem.totals(found.precisions) == (found.noise, found.us, found.bytes)
    assert all(found.reasons[layer.name] for layer in problem.layers)


def limits_of(budget: Budget) -> tuple[float, ...]:
    return tuple(limit for _, limit in budget.limits())


@settings(max_examples=30, deadline=None)
@given(problems())
def test_frontier_is_the_pareto_front(problem: Problem) -> None:
    points = {(totals.noise, totals.us) for totals in every_plan(problem)}
    front = {
        point
        for point in points
        if not any(o[0] <= point[0] and o[1] <= point[1] and o != point for o in points)
    }
    found = [(plan.noise, plan.us) for plan in frontier(problem, ratio=1.0)]
    assert found == sorted(front, reverse=True)


@given(problems(), st.data())
def test_a_change_costs_what_the_totals_differ_by(problem: Problem, data: st.DataObject) -> None:
    options = {layer.name: sorted(layer.options) for layer in problem.layers}
    before = {name: data.draw(st.sampled_from(each)) for name, each in options.items()}
    members = data.draw(st.sets(st.sampled_from(sorted(options)), min_size=1))
    shared = set.intersection(*(set(options[name]) for name in members))
    assume(shared)
    to = data.draw(st.sampled_from(sorted(shared)))
    after = problem.totals({**before, **dict.fromkeys(members, to)})
    more = [new - old for new, old in zip(after, problem.totals(before), strict=True)]
    assert problem.change(before, members, to) == pytest.approx(more, abs=1e-6)


def chain(count: int) -> Problem:
    layers = [
        LayerChoice(f"conv{i}", {"f32": Option(0.0, 100.0), "w8a8": Option(1.0 + i % 3, 40.0)})
        for i in range(count)
    ]
    borders = [
        Border(before.name, (after.name,), 5.0, {8: 10.0})
        for before, after in itertools.pairwise(layers)
    ]
    return Problem(layers, borders)


def test_frontier_thins_out_by_the_ratio() -> None:
    plans = frontier(chain(40), ratio=0.5)
    noises = [plan.noise for plan in plans]
    assert noises[0] == 79.0
    assert noises[-1] == 0.0
    assert all(after <= 0.5 * before for before, after in itertools.pairwise(noises))
    assert [plan.us for plan in plans] == sorted(plan.us for plan in plans)


def test_a_border_is_paid_once_for_all_consumers() -> None:
    layers = [
        LayerChoice("stem", {"w8a8": Option(0.0, 1.0)}),
        LayerChoice("left", {"f32": Option(0.0, 1.0)}),
        LayerChoice("right", {"f32": Option(0.0, 1.0)}),
    ]
    together = Problem(layers, [Border("stem", ("left", "right"), 5.0)])
    apart = Problem(layers, [Border("stem", ("left",), 5.0), Border("stem", ("right",), 5.0)])
    assert solve(together).us == 8.0
    assert solve(apart).us == 13.0


def test_borders_keep_an_island_float() -> None:
    """A layer that int8 would speed up by less than its casts cost stays float among floats."""
    layers = [
        LayerChoice("a", {"f32": Option(0.0, 10.0)}),
        LayerChoice("b", {"f32": Option(0.0, 10.0), "w8a8": Option(0.5, 6.0)}),
        LayerChoice("c", {"f32": Option(0.0, 10.0)}),
    ]
    borders = [Border("a", ("b",), 0.0, {8: 3.0}), Border("b", ("c",), 2.0)]
    assert solve(Problem(layers)).precisions["b"] == "w8a8"
    plan = solve(Problem(layers, borders))
    assert plan.precisions["b"] == "f32"
    assert plan.reasons["b"] == "f32: w8a8 would save nothing here, borders included"


def test_an_integer_layer_stores_what_all_its_readers_read_and_casts_where_they_differ() -> None:
    border = Border("stem", ("left", "right"), 0.0, {8: 3.0, 16: 5.0})
    names, kinds = ("stem", "left", "right"), {"f32": 0, "w8a8": 8, "w8a16": 16}

    def us(*precisions: str) -> float:
        return border.us(dict(zip(names, map(kinds.__getitem__, precisions), strict=True)))

    assert us("w8a8", "w8a16", "w8a16") == us("w8a16", "w8a8", "w8a8") == 0.0
    assert us("w8a8", "w8a8", "w8a16") == us("f32", "w8a16", "w8a8") == 8.0
    assert us("w8a16", "w8a16", "f32") == us("f32", "w8a16", "w8a16") == 5.0
    assert us("w8a8", "f32", "f32") == us("f32", "f32", "f32") == 0.0


def test_a_layer_of_f16_stores_f16_and_integers_are_cast_of_its_result() -> None:
    border, kinds = Border("stem", ("tail",), 0.0, {8: 3.0, HALVES: 5.0}), {"f32": 0, "w8a8": 8}
    kinds["f16"] = HALVES

    def us(stem: str, tail: str) -> float:
        return border.us({"stem": kinds[stem], "tail": kinds[tail]})

    assert us("f16", "f16") == us("w8a8", "f16") == us("f16", "f32") == 0.0
    assert us("f16", "w8a8") == 3.0
    assert us("f32", "f16") == 5.0


def tied(order: tuple[str, ...], wobble: float = 0.0) -> Allocation:
    """Three layers alike, of which the noise budget lets two be integer."""
    layers = [
        LayerChoice(
            name, {"f32": Option(0.0, 10.0 + wobble * i), "w8a8": Option(1.0, 5.0 - wobble * i)}
        )
        for i, name in enumerate(order)
    ]
    return solve(Problem(layers), budget=Budget(noise=2.0))


def test_ties_go_to_the_earlier_layers_whatever_the_solver_finds_first() -> None:
    assert tied(("a", "b", "c")).precisions == {"a": "f32", "b": "w8a8", "c": "w8a8"}
    assert tied(("c", "b", "a")).precisions == {"c": "f32", "b": "w8a8", "a": "w8a8"}


@pytest.mark.parametrize("listed", [("f32", "w8a8"), ("w8a8", "f32")])
@pytest.mark.parametrize("integers", range(9))
def test_ties_of_many_give_the_earliest_their_first_option(
    integers: int, listed: tuple[str, ...]
) -> None:
    costs = {"f32": Option(0.0, 10.0), "w8a8": Option(1.0, 5.0)}
    layers = [LayerChoice(f"{i}", {name: costs[name] for name in listed}) for i in range(8)]
    plan = solve(Problem(layers), budget=Budget(noise=float(integers)))
    taken = {"f32": 8 - integers, "w8a8": integers}
    assert list(plan.precisions.values()) == [name for name in listed for _ in range(taken[name])]


def test_a_tiny_difference_in_cost_decides_nothing() -> None:
    assert tied(("a", "b", "c"), wobble=1e-9).precisions == tied(("a", "b", "c")).precisions
    assert tied(("a", "b", "c"), wobble=-1e-9).precisions == tied(("a", "b", "c")).precisions


def test_of_equal_time_and_noise_fewer_layers_are_float() -> None:
    layers = [LayerChoice("a", {"f32": Option(0.0, 1.0), "w8a8": Option(0.0, 1.0)})]
    assert solve(Problem(layers)).precisions == {"a": "w8a8"}


def test_an_impossible_budget_says_what_is_possible() -> None:
    with pytest.raises(PlanError, match=r"keeps to 100 us: the least achievable is 160 us"):
        solve(chain(4), minimise="noise", budget=Budget(us=100.0))
    with pytest.raises(PlanError, match=r"keeps to 200 us within 1 mn: .* is 345 us; allow"):
        solve(chain(4), budget=Budget(noise=1.0, us=200.0))


def test_a_group_without_a_common_precision_is_refused() -> None:
    layers = [
        LayerChoice("a", {"f32": Option(0.0, 1.0)}),
        LayerChoice("b", {"w8a8": Option(0.0, 1.0)}),
    ]
    with pytest.raises(PlanError, match="a, b: no precision"):
        Problem(layers, groups=[("a", "b")])
    with pytest.raises(ValueError, match="no such layers"):
        Problem(layers, [Border("a", ("typo",))])
    with pytest.raises(ValueError, match="finite"):
        Problem([LayerChoice("a", {"f32": Option(math.nan, 1.0)})])


def test_reasons() -> None:
    layers = [
        LayerChoice("stem", {"f32": Option(0.0, 900.0), "w8a8": Option(4.1, 880.0)}),
        LayerChoice("body", {"f32": Option(0.0, 1600.0), "w8a8": Option(0.3, 400.0)}),
        LayerChoice("head", {"f32": Option(0.0, 10.0)}),
    ]
    reasons = solve(Problem(layers), budget=Budget(noise=4.2)).reasons
    assert reasons == {
        "stem": "f32: w8a8 would cost 4.1 mn of the 4.2 mn budget and save 20 us",
        "body": "w8a8: predicted 0.3 mn of the 4.2 mn budget, saves 1.2 ms over f32",
        "head": "f32: the only precision it can have",
    }


def test_a_large_network_is_solved_and_solved_the_same() -> None:
    problem = chain(150)
    budget = Budget(noise=60.0)
    first, second = (solve(problem, budget=budget) for _ in range(2))
    assert first == second
    assert first.noise <= 60.0
