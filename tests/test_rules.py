"""Selection rules: how many layers of the list stay float, and which."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlq.allocation import LayerChoice, Option, Problem
from mlq.analysis import Analysis
from mlq.errors import UsageError
from mlq.planning import Planner, noise_budget
from mlq.recipe import resolve
from mlq.rules import Listed, Rule, counts, fewest, knee
from mlq.selection import Candidate, candidates

NOISES = {"a": 0.1, "b": 3.0, "c": 0.2, "d": 5.0, "e": 0.1}


@pytest.fixture
def listed() -> Listed:
    """Five layers that can be integer, and one that cannot."""
    choices = [
        LayerChoice(name, {"w8a8": Option(noise, 1.0), "f32": Option(0.0, 3.0)})
        for name, noise in NOISES.items()
    ]
    return Listed.of(Problem([*choices, LayerChoice("soft", {"f32": Option(0.0, 2.0)})]))


def test_list_is_in_the_order_of_noise_and_of_the_network(listed: Listed) -> None:
    assert listed.names == ("d", "b", "c", "a", "e")


def test_plan_leaves_the_first_of_the_list_in_float(listed: Listed) -> None:
    plan = listed.allocation(2, Rule("top-k", 2.0))
    assert [name for name, each in plan.precisions.items() if each == "f32"] == ["b", "d", "soft"]
    assert plan.noise == pytest.approx(0.4)
    assert plan.us == 3 * 1.0 + 2 * 3.0 + 2.0
    assert plan.reasons["c"] == (
        "w8a8: number 3 of 5 by predicted noise, 0.2 mn; top-k leaves 2 in float"
    )
    assert plan.reasons["soft"] == "f32: has no integer precision here"


def test_knee_is_where_the_running_sum_leaves_the_diagonal_behind() -> None:
    assert knee([5.0, 3.0, 0.2, 0.1, 0.1]) == 2
    assert knee([10.0, *[1.0] * 9]) == 1
    assert knee([1.0, 1.0, 1.0]) == 0
    assert knee([0.0, 0.0]) == 0
    assert knee([]) == 0


@pytest.mark.parametrize("true", range(6))
def test_bisection_finds_the_fewest(true: int) -> None:
    asked: list[int] = []

    def divergence(count: int) -> float:
        asked.append(count)
        return 1.0 if count >= true else 9.0

    assert fewest(5, 2.0, divergence) == true
    assert len(asked) <= 3


def test_rules_and_the_plans_that_follow(listed: Listed) -> None:
    left = {0: 8.4, 1: 3.4, 2: 0.4, 3: 0.2, 4: 0.1, 5: 0.0}.__getitem__

    def chosen(text: str, budget: float | None) -> list[int]:
        return counts(Rule.parse(text), listed, budget, left)

    assert chosen("top-k", 0.5) == [2, 4, 5]
    assert chosen("top-k", None) == [0, 1, 2, 4]
    assert chosen("top-k:3", 0.5) == [3]
    assert chosen("top-k:9", 0.5) == [5]
    assert chosen("threshold:0.15", 0.5) == [3]
    assert chosen("threshold", 5.0)[0] == 2  # above a fifth of 5 mn
    assert chosen("threshold", None)[0] == 2  # above the mean of 8.4 mn
    assert chosen("knee", None) == [2, 4, 5]


@pytest.mark.parametrize("text", ["top-k:", "top-k:-1", "knee:3", "threshold:much", "program:1"])
def test_what_is_no_rule_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"write threshold:0\.2, top-k:5 or knee"):
        resolve({"select": text})


def test_unknown_rule_is_named_with_the_known() -> None:
    with pytest.raises(
        UsageError, match=r"unknown selection rule 'topk' \(did you mean 'top-k'\?\)"
    ):
        resolve({"select": "topk"})


def test_rules_know_no_size_or_time() -> None:
    with pytest.raises(UsageError, match="knows accuracy only"):
        resolve({"select": "knee", "max_size": 1000})


def test_program_comes_close_to_the_budget(analysed: Analysis) -> None:
    """Half of what all-int8 loses may be lost: no plan that is much quieter will do."""
    everything = dict.fromkeys(analysed.subject.allowed, "w8a8")
    budget = analysed.divergence(everything) / 2
    recipe = resolve({"effort": "quick", "max_drop": budget / noise_budget(resolve({})) * 0.01})
    subject = analysed.subject
    planner = Planner.of(subject.network, subject.target, recipe, analysed.sensitivities)
    first = candidates(planner, analysed)[0]
    assert first.simulated_kl_mnat is not None
    assert 0.3 * budget < first.simulated_kl_mnat <= budget


@pytest.mark.parametrize(("us", "quieter"), [(101.0, 4), (103.0, 2), (109.0, 0)])
def test_of_plans_as_fast_the_quietest_is_taken(
    analysed: Analysis, us: float, quieter: int
) -> None:
    """A fiftieth of the time may go into it; where bytes are saved, nothing."""
    subject, recipe = analysed.subject, resolve({"max_drop": 0.01})
    options = {"w8a8": Option(1.0, 100.0), "w10a12": Option(0.1, us), "f32": Option(0.0, 200.0)}
    planner = replace(
        Planner.of(subject.network, subject.target, recipe, analysed.sensitivities),
        problem=Problem([LayerChoice(name, options) for name in "abcd"]),
    )
    fastest = planner.solve(None)
    assert set(fastest.precisions.values()) == {"w8a8"}
    found = planner.as_fast(fastest)
    assert list(found.precisions.values()).count("w10a12") == quieter
    assert found.noise == pytest.approx(4.0 - 0.9 * quieter)
    small = replace(planner, target=replace(subject.target, minimise="bytes"))
    assert small.as_fast(fastest) is fastest


def test_plans_of_a_rule_are_simulated_and_tried_in_order(analysed: Analysis) -> None:
    """On the bundled network, of which every layer can be integer."""
    network, target = analysed.subject.network, analysed.subject.target

    def plans(select: str, **limits: float) -> list[Candidate]:
        recipe = resolve({"select": select, "effort": "quick", "metric": "combined", **limits})
        planner = Planner.of(network, target, recipe, analysed.sensitivities)
        return candidates(planner, analysed)

    def in_float(candidate: Candidate) -> int:
        return list(candidate.allocation.precisions.values()).count("f32")

    (two,) = plans("top-k:2")
    assert in_float(two) == 2
    assert two.simulated_kl_mnat == analysed.divergence(two.allocation.precisions)
    first, *stricter = plans("top-k", max_drop=1e-5)
    assert first.simulated_kl_mnat is not None
    assert first.simulated_kl_mnat <= noise_budget(resolve({"max_drop": 1e-5}))
    assert [in_float(each) for each in stricter] == sorted(in_float(each) for each in stricter)
    fewer = Listed.of(Planner.of(network, target, resolve({}), analysed.sensitivities).problem)
    looser = fewer.allocation(in_float(first) - 1, Rule("top-k"))
    assert analysed.divergence(looser.precisions) > noise_budget(resolve({"max_drop": 1e-5}))
