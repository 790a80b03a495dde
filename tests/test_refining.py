"""What refines the front: where it measures, what that gains, and that a kill changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mlq.bitsearch.exploring import objective_of, refining
from mlq.bitsearch.measuring import kept
from mlq.bitsearch.proxy import Noise, Proxy, alone, noise_alone
from mlq.bitsearch.refining import Refining, gained
from mlq.search import (
    Archive,
    Cost,
    Decision,
    Point,
    Settings,
    Space,
    State,
    Visit,
    begin,
    front,
    hypervolume,
    run,
    turn,
)
from mlq.search.baselines import integer_programs
from mlq.search.sharing import Arm, Shares

BITS = (8, 4, 3, 2)
LAYERS = 10
RANDOM = np.random.default_rng(0)
COSTS = RANDOM.uniform(0.2, 2.0, LAYERS)
LOSSES = RANDOM.lognormal(5.0, 1.2, LAYERS)
PAIRS = RANDOM.uniform(-0.2, 0.4, (LAYERS, LAYERS))
SPACE = Space([
    Decision((f"layer{i}",), {f"w{b}a{b}": Cost(cost * b, cost * b) for b in BITS})
    for i, cost in enumerate(COSTS.tolist())
])  # fmt: skip
OBJECTIVE = objective_of(SPACE, 0.02)


def evaluate(points: Sequence[Point]) -> list[float]:
    """Layers lose more or less together than alone, which no sum over layers can tell."""
    lost = [np.sqrt(LOSSES * 4.0 ** (2 - np.take(BITS, point))) for point in points]
    return [kept(float(each @ each + each @ PAIRS @ each)) for each in lost]


def tried() -> tuple[Archive, Noise]:
    """An archive that has every layer alone, and what it tells."""
    archive = Archive(SPACE, evaluate)
    return archive, noise_alone(SPACE, archive)


def volume(visits: Sequence[Visit]) -> float:
    return refining(SPACE, tried()[1], OBJECTIVE).volume(visits)


def test_gains_are_differences_of_hypervolume() -> None:
    random = np.random.default_rng(1)
    for count in (1, 2, 7):
        visits = [Visit((), *random.uniform(0.1, 1.0, 2).tolist(), 0.0) for _ in range(count)]
        best = [each for each in front(visits) if each.accuracy > 0.2]
        us, accuracy = random.uniform(0.0, 1.2, (2, 50))
        found = gained(us, accuracy, best, us=0.9, accuracy=0.2)
        before = hypervolume(best, us=0.9, accuracy=0.2)
        for i, gain in enumerate(found):
            more = [*best, Visit((), float(accuracy[i]), float(us[i]), 0.0)]
            assert gain == pytest.approx(
                hypervolume(more, us=0.9, accuracy=0.2) - before, abs=1e-12
            )


def test_neighbours_are_all_that_differ_in_one_or_two() -> None:
    archive, noise = tried()
    fit = Proxy(SPACE, noise).fit(archive.visits)
    origin = (1,) * LAYERS
    # A front so low that everything gains.
    low = [Visit(origin, -1.0, SPACE.us((3,) * LAYERS) / 2, 0.0)]
    limit = SPACE.bytes(origin)
    objective = OBJECTIVE.model_copy(update={"max_bytes": limit})
    found = Refining(SPACE, Proxy(SPACE, noise), objective, floor=-2.0)
    pool = found._neighbours(origin, low, fit, count=1000)
    wanted = {
        point
        for i, j in itertools.combinations(range(LAYERS), 2)
        for to in itertools.product(range(4), repeat=2)
        if (point := (*origin[:i], to[0], *origin[i + 1 : j], to[1], *origin[j + 1 :])) != origin
        and SPACE.bytes(point) <= limit
    }
    points = [tuple(row) for row in pool.options.tolist()]
    assert len(points) == len(set(points))
    assert set(points) == wanted
    np.testing.assert_allclose(pool.us, [SPACE.us(point) for point in points])
    np.testing.assert_allclose(pool.log_kl, fit(pool.options))


def test_proposals_are_new_fit_and_are_the_same_again() -> None:
    archive, noise = tried()
    limit = 0.6 * SPACE.bytes((0,) * LAYERS)
    objective = OBJECTIVE.model_copy(update={"max_bytes": limit})
    integer_programs(archive, objective, noise, 8)
    for _ in range(4):
        known = {each.point for each in archive.visits}
        points, again = (
            refining(SPACE, noise, objective).points(archive.visits, 4) for _ in range(2)
        )
        assert points == again
        assert 0 < len(set(points)) == len(points) <= 4
        assert not known & set(points)
        assert all(SPACE.bytes(point) <= limit for point in points)
        archive.measure(points)


def test_the_front_is_raised_above_what_programs_find() -> None:
    """At equal evaluations."""
    archive, noise = tried()
    refine = refining(SPACE, noise, OBJECTIVE)
    programs = Archive(SPACE, evaluate)
    programs.measure(alone(SPACE))
    integer_programs(programs, OBJECTIVE, noise, 60)
    while len(archive) < len(programs):
        archive.measure(refine.points(archive.visits, 4))
    assert volume(archive.visits[: len(programs)]) > volume(programs.visits)


def search(
    folder: Path, mortal: int = 10**9, steps: int = 40
) -> tuple[State, tuple[Visit, ...], list[State]]:
    """A search that also refines; it is killed before one evaluation too many."""
    trace: list[State] = []
    asked = 0

    def watched(points: Sequence[Point]) -> list[float]:
        nonlocal asked
        asked += len(points)
        if asked > mortal:
            raise KeyboardInterrupt
        return evaluate(points)

    _, noise = tried()
    state, archive = run(
        SPACE,
        watched,
        OBJECTIVE,
        Settings.ladder((0.01,), (0.9, 0.97), seed=3),
        steps,
        folder=folder,
        learn=Proxy(SPACE, noise),
        refine=refining(SPACE, noise, OBJECTIVE),
        watch=trace.append,
    )
    return state, archive.visits, trace


def test_a_kill_in_any_turn_changes_nothing(tmp_path: Path) -> None:
    state, visits, trace = search(tmp_path / "whole")
    assert state.step == 40
    assert state.shares.refining.given >= 4
    assert trace[-1] == state
    for mortal in range(1, len(visits), 5):
        folder = tmp_path / str(mortal)
        with pytest.raises(KeyboardInterrupt):
            search(folder, mortal)
        again, seen, _ = search(folder)
        assert (again, seen) == (state, visits)


def test_chains_go_the_same_way_whatever_is_measured_beside_them() -> None:
    """Without a prediction that learns of it, so that their target is their own."""
    _, noise = tried()
    settings = Settings.ladder((0.05,), (0.9, 0.97), seed=5)
    places = []
    for refine in (None, refining(SPACE, noise, OBJECTIVE)):
        archive, _ = tried()
        state = begin(archive, OBJECTIVE, settings)
        while state.step < 40:
            state = turn(state, archive, refine=refine)
        places.append([chain.place for chain in state.chains])
        assert (state.shares.refining.given > 0) == (refine is not None)
    assert places[0] == places[1]


def test_who_gained_more_measures_more_and_nobody_nothing() -> None:
    def share(better: str) -> float:
        shares = Shares(begun=1000)
        for _ in range(200):
            arm = "refining" if shares.refines(0) else "walking"
            after = getattr(shares, arm).after(4, 1.0 if arm == better else 0.0)
            shares = shares.model_copy(update={arm: after})
        return shares.refining.given / (shares.refining.given + shares.walking.given)

    assert share("refining") == pytest.approx(0.9, abs=0.01)
    assert share("walking") == pytest.approx(0.1, abs=0.01)
    assert share("neither") == pytest.approx(0.5, abs=0.01)


def test_refining_ends_by_the_steps() -> None:
    spent = Shares(begun=10, walking=Arm(given=500), refining=Arm(given=12))
    assert not spent.refines(16)
    assert not spent.refines(47)
    assert spent.refines(48)
