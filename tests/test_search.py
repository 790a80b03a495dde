"""The search: chains keep their target, go on where they stopped, and find what is best."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_allocation import COSTS, ERROR4, ERROR8, OPTIMA, TRACE

from mlq.allocation import Budget
from mlq.errors import PlanError, UsageError
from mlq.hardware import Layer, load
from mlq.search import (
    Archive,
    Cost,
    Decision,
    Evaluate,
    Guide,
    Objective,
    Point,
    Scores,
    Settings,
    Space,
    State,
    Visit,
    advance,
    begin,
    front,
    hypervolume,
    run,
    space_of,
)
from mlq.search.baselines import genetic, integer_program, integer_programs, random_search, uniform
from mlq.search.proposal import probabilities, propose
from mlq.search.sampler import Place, Proposal, _moved

BITS = (8, 4, 3, 2)
# Three decisions of 3, 1 and 4 options, of which the second is none.
SMALL = Space([
    Decision((f"layer{i}",), {f"w{b}a{b}": Cost(w * b, w * b) for b in BITS[:n]})
    for i, (n, w) in enumerate([(3, 1.0), (1, 4.0), (4, 2.0)])
])  # fmt: skip
LOSS = ((0.0, 0.01, 0.05), (0.0,), (0.0, 0.02, 0.03, 0.3))
OBJECTIVE = Objective(reference_us=56.0, threshold=0.7, margin=0.1, max_bytes=52.0)
GUIDE = Guide(temperature=0.5, explore=0.3)
SCORES = Scores(
    values=((0.3, -0.2, 0.1), (0.0,), (0.0, 0.9, 0.2, -0.4)), visits=((1,) * 3, (1,), (1,) * 4)
)


def accuracy(points: Sequence[Point]) -> list[float]:
    return [0.75 - sum(row[i] for row, i in zip(LOSS, point, strict=True)) for point in points]


def everything(space: Space) -> list[Point]:
    return list(itertools.product(*(range(size) for size in space.sizes)))


def target(temperature: float, threshold: float | None = None) -> dict[Point, float]:
    """The target distribution, by enumeration."""
    points = [p for p in everything(SMALL) if OBJECTIVE.admits(SMALL.bytes(p))]
    assert len(points) < len(everything(SMALL))
    energies = [
        OBJECTIVE.energy(acc, SMALL.us(p), threshold=threshold)
        for p, acc in zip(points, accuracy(points), strict=True)
    ]
    weights = np.exp(-np.array(energies) / temperature)
    return dict(zip(points, weights / weights.sum(), strict=True))


def walk(settings: Settings, steps: int, scores: Scores | None = None) -> list[State]:
    archive = Archive(SMALL, accuracy)
    states = [begin(archive, OBJECTIVE, settings, scores=scores)]
    for _ in range(steps):
        states.append(advance(states[-1], archive))
    return states


def p_value(points: Sequence[Point], distribution: dict[Point, float]) -> float:
    """Chi-square of points against a distribution; cells expecting under 5 are put together."""
    counts = Counter(points)
    assert set(counts) <= set(distribution)
    cells = sorted((share * len(points), counts[point]) for point, share in distribution.items())
    rare = [cell for cell in cells if cell[0] < 5]
    merged = [cell for cell in cells if cell[0] >= 5]
    if rare:
        merged.append((sum(e for e, _ in rare), sum(n for _, n in rare)))
    expected, observed = zip(*merged, strict=True)
    return float(stats.chisquare(observed, expected).pvalue)


def chance(origin: Point, to: Point) -> float:
    """Probability of a proposal, from what Guide says, independently of `propose`."""
    changed = [i for i, (a, b) in enumerate(zip(origin, to, strict=True)) if a != b]
    again = GUIDE.another
    # Of the two decisions with a choice, one changes, or both (a third chance changes no more).
    share = {1: (1 - again) / 2, 2: again}[len(changed)]
    for i in changed:
        likely = probabilities(GUIDE, SCORES.values[i])
        share *= likely[to[i]] / sum(p for j, p in enumerate(likely) if j != origin[i])
    return float(share)


def test_proposals_have_the_probabilities_they_say() -> None:
    origin = (1, 0, 2)
    random = np.random.default_rng(3)
    drawn = [propose(GUIDE, SCORES, origin, random) for _ in range(6000)]
    assert p_value(
        [to for to, _ in drawn],
        {to: chance(origin, to) for to in everything(SMALL) if to != origin},
    ) > 1e-3  # fmt: skip
    for to, log_ratio in drawn[:200]:
        assert log_ratio == pytest.approx(math.log(chance(to, origin) / chance(origin, to)))


@pytest.mark.parametrize("learn", [False, True])
def test_a_chain_keeps_its_target(learn: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    """Chi-square against exact enumeration, with a table that is wrong on purpose, or learned."""
    settings = Settings.ladder((0.4,), learn=learn, guide=GUIDE, seed=5)
    states = walk(settings, 16000, SCORES)
    points = [state.chains[0].place.point for state in states[100::8]]
    assert p_value(points, target(0.4)) > 1e-3


def test_screening_keeps_the_target() -> None:
    """A wrong prediction costs acceptance, never the target; and it saves measurements."""
    settings = Settings.ladder((0.4,), guide=GUIDE, seed=4)
    random = np.random.default_rng(0)
    wrong = {point: 0.7 + 0.1 * random.random() for point in everything(SMALL)}
    archive = Archive(SMALL, accuracy)
    states = [begin(archive, OBJECTIVE, settings, scores=SCORES)]
    for _ in range(16000):
        states.append(advance(states[-1], archive, lambda points: [wrong[p] for p in points]))
    points = [state.chains[0].place.point for state in states[100::8]]
    assert p_value(points, target(0.4)) > 1e-3


def test_without_hastings_correction_the_target_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What AMED's code leaves out; so the test above can fail."""
    monkeypatch.setattr("mlq.search.sampler.propose", lambda *given: (propose(*given)[0], 0.0))
    settings = Settings.ladder((0.4,), learn=False, guide=GUIDE, seed=5)
    points = [s.chains[0].place.point for s in walk(settings, 8000, SCORES)[100::8]]
    assert p_value(points, target(0.4)) < 1e-6


def test_swapping_chains_keep_their_targets() -> None:
    temperatures = (0.15, 0.6)
    settings = Settings.ladder(temperatures, (0.7, 0.6), learn=False, guide=GUIDE, seed=1)
    states = walk(settings, 6000)
    for i, rung in enumerate(settings.rungs):
        points = [state.chains[i].place.point for state in states[100::10]]
        assert p_value(points, target(rung.temperature, rung.threshold)) > 1e-3
    assert 0 < states[-1].swaps_accepted < states[-1].swaps_proposed


class Drawn:
    """A generator that draws what it is told."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


def test_detailed_balance() -> None:
    """pi(x) q(x, y) A(x, y) is the same both ways: A is what the code accepts with, to 1e-9."""
    pi = target(0.4)
    archive = Archive(SMALL, accuracy)
    settings = Settings.ladder((0.4,), guide=GUIDE)
    for x, y in itertools.permutations(pi, 2):
        state = begin(archive, OBJECTIVE, settings, starts=[x])
        measured = {y: begin(archive, OBJECTIVE, settings, starts=[y]).chains[0].place}
        proposal = Proposal(y, math.log(chance(y, x) / chance(x, y)))
        flow = pi[y] * chance(y, x) / (pi[x] * chance(x, y))

        def accepts(
            number: float,
            given: tuple[State, int, Proposal, dict[Point, Place]] = (state, 0, proposal, measured),
        ) -> bool:
            return _moved(*given, Drawn(1.0 - number)).accepted == 1  # type: ignore[arg-type]  # draws

        assert accepts(min(flow, 1.0) * (1.0 - 1e-9))
        assert flow >= 1.0 or not accepts(flow * (1.0 + 1e-9))


def test_what_does_not_fit_is_never_evaluated() -> None:
    asked: list[Point] = []

    def evaluate(points: Sequence[Point]) -> list[float]:
        asked.extend(points)
        return accuracy(points)

    archive = Archive(SMALL, evaluate)
    state = begin(archive, OBJECTIVE, Settings.ladder((0.4, 4.0)))
    for _ in range(300):
        state = advance(state, archive)
    assert OBJECTIVE.max_bytes is not None
    assert max(map(SMALL.bytes, asked)) <= OBJECTIVE.max_bytes
    assert len(asked) == len(set(asked)) == len(archive) == len(target(1.0))


def test_no_allocation_fits() -> None:
    with pytest.raises(PlanError, match="no allocation fits 10 bytes: the least takes 39"):
        SMALL.start(10.0)
    with pytest.raises(PlanError, match="cannot begin at what takes over 52 bytes"):
        begin(Archive(SMALL, accuracy), OBJECTIVE, Settings(), starts=[(0, 0, 0)])


class Killed(Exception):  # noqa: N818 -- what happens to the process, not an error of it
    """Stands for a kill."""


def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    settings = Settings.ladder((0.1, 0.4), (0.7, 0.72), seed=7)

    def search(folder: str, steps: int, mortal: int = 10**9) -> tuple[State, Archive, list[State]]:
        trace: list[State] = []

        def evaluate(points: Sequence[Point]) -> list[float]:
            if len(trace) >= mortal:
                raise Killed
            return accuracy(points)

        state, archive = run(
            SMALL, evaluate, OBJECTIVE, settings, steps, folder=tmp_path / folder,
            watch=trace.append,
        )  # fmt: skip
        return state, archive, trace

    state, archive, trace = search("whole", 60)
    visits = tmp_path / "cut" / "visits.jsonl"
    with pytest.raises(Killed):
        search("cut", 60, mortal=3)
    visits.write_text(visits.read_text() + '{"accuracy": 0.')  # killed while it wrote
    middle, _, _ = search("cut", 20)
    assert middle == trace[19]
    assert State.from_json(tmp_path / "cut" / "search.json") == middle
    end, seen, rest = search("cut", 60)
    assert (end, rest) == (state, trace[20:])
    assert seen.visits == archive.visits
    assert visits.read_bytes() == (tmp_path / "whole" / "visits.jsonl").read_bytes()


def test_a_folder_of_another_search_is_refused(tmp_path: Path) -> None:
    run(SMALL, accuracy, OBJECTIVE, Settings(), 2, folder=tmp_path)
    with pytest.raises(PlanError, match=r"search\.json: a search with other settings"):
        run(SMALL, accuracy, OBJECTIVE, Settings(seed=1), 2, folder=tmp_path)
    other = Space(SMALL.decisions[:2])
    with pytest.raises(PlanError, match=r"visits\.jsonl: line 1: an allocation of another"):
        run(other, lambda points: [0.5] * len(points), OBJECTIVE, Settings(), 2, folder=tmp_path)
    (tmp_path / "visits.jsonl").write_text("{}\n")
    with pytest.raises(PlanError, match="line 1: not a visit"):
        run(SMALL, accuracy, OBJECTIVE, Settings(), 2, folder=tmp_path)


def test_scores_credit_what_was_visited() -> None:
    scores = Scores.flat((2, 2)).learned((0, 0), 1.0).learned((1, 0), -1.0)
    assert scores.mean == 0.0
    assert scores.values[0] == (0.0, -1.0)
    assert scores.visits == ((1, 1), (2, 0))
    assert scores.values[1][1] == 0.0
    drawn = probabilities(Guide(), scores.values[0])
    assert drawn.sum() == pytest.approx(1.0)
    assert drawn[1] >= Guide().explore / 2


NUMBER = st.integers(0, 12).map(float)
VISITS = st.lists(st.builds(Visit, st.just((0,)), NUMBER, NUMBER, NUMBER), max_size=12)


@given(VISITS, NUMBER, NUMBER)
def test_front_and_hypervolume(visits: list[Visit], us: float, floor: float) -> None:
    """Against counting the unit squares that some visit dominates."""
    found = front(visits)
    for visit in visits:
        assert any(best.us <= visit.us and best.accuracy >= visit.accuracy for best in found)
    for one, other in itertools.pairwise(found):
        assert one.us < other.us
        assert one.accuracy < other.accuracy
    squares = sum(
        any(v.us <= x and v.accuracy >= y + 1 for v in visits)
        for x in range(int(us))
        for y in range(int(floor), 12)
    )
    assert hypervolume(visits, us=us, accuracy=floor) == squares


def network(count: int = 12) -> tuple[Space, dict[str, dict[str, float]]]:
    """A synthetic network: decisions unlike in cost and in what they lose, noise additive."""
    random = np.random.default_rng(0)
    cost, loss = random.uniform(0.2, 2.0, count), random.lognormal(-1.0, 1.5, count)
    layers = [f"layer{i}" for i in range(count)]
    decisions = [
        Decision((name,), {f"w{b}a{b}": Cost(c * b, c * b) for b in BITS})
        for name, c in zip(layers, cost, strict=True)
    ]
    noise = {
        name: {f"w{b}a{b}": float(each * 4.0**-b) for b in BITS}
        for name, each in zip(layers, loss, strict=True)
    }
    return Space(decisions), noise


def measured_network(
    seed: int, mixing: float
) -> tuple[Space, Evaluate, dict[str, dict[str, float]]]:
    """The synthetic network, how it is measured, and what sensitivities predict it loses.

    With `mixing` layers lose more together than alone, which no sum over layers can tell.
    """
    space, noise = network()
    random = np.random.default_rng(seed)
    pairs = random.uniform(0.0, mixing, (len(space.sizes),) * 2)

    def evaluate(points: Sequence[Point]) -> list[float]:
        lost = [
            np.sqrt([noise[layer][name] for layer, name in space.precisions(point).items()])
            for point in points
        ]
        return [0.8 - float(each @ each + each @ pairs @ each) for each in lost]

    return space, evaluate, noise


def test_the_search_beats_what_knows_less() -> None:
    """From the widest allocation on, at equal evaluations; the program of 40 budgets is exact."""
    space, evaluate, noise = measured_network(0, mixing=0.0)
    whole = space.us(space.uniform("w8a8"))
    objective = Objective(reference_us=whole, threshold=0.78)
    budget = 400

    def volume(visits: Sequence[Visit]) -> float:
        return hypervolume(visits, us=whole, accuracy=0.6)

    def archive() -> Archive:
        return Archive(space, evaluate)

    searched = archive()
    settings = Settings.ladder((0.005,), (0.65, 0.7, 0.75, 0.79), seed=2)
    state = begin(searched, objective, settings)
    while len(searched) < budget:
        state = advance(state, searched)
    exact = volume(integer_programs(archive(), objective, noise, 40))
    bred = genetic(archive(), objective, budget, seed=2)
    drawn = random_search(archive(), objective, budget, seed=2)
    same = uniform(archive(), objective)
    assert len(bred) == len(drawn) == budget
    assert len(same) == len(BITS)
    assert volume(searched.visits) > 0.93 * exact
    assert volume(searched.visits) > max(map(volume, (bred, drawn, same)))


def test_chains_begin_at_the_best_that_is_known() -> None:
    """Each in the eyes of its own target; then they improve on it."""
    space, evaluate, noise = measured_network(1, mixing=0.3)
    whole = space.us(space.uniform("w8a8"))
    objective = Objective(reference_us=whole, threshold=0.78)
    archive = Archive(space, evaluate)
    known = integer_programs(archive, objective, noise, 10)
    settings = Settings.ladder((0.005,), (0.65, 0.75))
    state = begin(archive, objective, settings)
    for chain, rung in zip(state.chains, settings.rungs, strict=True):
        energies = [objective.energy(v.accuracy, v.us, threshold=rung.threshold) for v in known]
        assert chain.place.point == known[int(np.argmin(energies))].point
    for _ in range(60):
        state = advance(state, archive)
    ours, theirs = (hypervolume(v, us=whole, accuracy=0.6) for v in (archive.visits, known))
    assert ours > theirs


def test_baselines_keep_to_the_size() -> None:
    archive = Archive(SMALL, accuracy)
    noise = {f"layer{i}": {f"w{b}a{b}": 8.0 - b for b in BITS} for i in range(3)}
    uniform(archive, OBJECTIVE)
    random_search(archive, OBJECTIVE, 30)
    genetic(archive, OBJECTIVE, 40)
    integer_programs(archive, OBJECTIVE, noise, 5)
    assert OBJECTIVE.max_bytes is not None
    assert max(visit.bytes for visit in archive.visits) <= OBJECTIVE.max_bytes
    nothing = OBJECTIVE.model_copy(update={"max_bytes": 1.0})
    with pytest.raises(PlanError, match="hardly any allocation fits"):
        genetic(archive, nothing, 10)


@pytest.mark.parametrize(("constraint", "share", "bits", "objective", "cost"), OPTIMA)
def test_integer_program_of_hawq_v3(
    constraint: str, share: float, bits: str, objective: float, cost: float
) -> None:
    """The published instance: tied layers are one decision."""
    low, high = COSTS[constraint]
    tied = {4: (4, 6), 9: (9, 11), 14: (14, 16)}
    members = [tied.get(i, (i,)) for i in range(19) if i not in {6, 11, 16}]
    space = Space([
        Decision(
            tuple(f"layer{i:02}" for i in group),
            {
                "w8a8": Cost(sum(high[i] for i in group), 0.0),
                "w4a4": Cost(sum(low[i] for i in group), 0.0),
            },
        )
        for group in members
    ])  # fmt: skip
    noise = {
        f"layer{i:02}": {"w4a4": TRACE[i] * ERROR4[i], "w8a8": TRACE[i] * ERROR8[i]}
        for i in range(19)
    }
    limit = sum(low) + share * (sum(high) - sum(low))
    point, plan = integer_program(space, noise, Budget(us=limit))
    chosen = space.precisions(point)
    assert "".join(chosen[f"layer{i:02}"][1] for i in range(19)) == bits
    all_4 = math.fsum(t * e for t, e in zip(TRACE, ERROR4, strict=True))
    assert plan.noise - all_4 == pytest.approx(objective, abs=5e-6)
    assert space.us(point) == pytest.approx(cost, abs=5e-5)


def test_space_of_a_network_on_a_device() -> None:
    layers = {
        "first": Layer.conv((32, 32), (16, 3, 3, 3)),
        "main": Layer.conv((16, 16), (32, 16, 3, 3), strides=(2, 2)),
        "short": Layer.conv((16, 16), (32, 16, 1, 1), strides=(2, 2)),
        "last": Layer.gemm(1, 32, 10),
    }
    hardware = load("eyeriss-12x14-ws")
    space = space_of(
        layers, hardware, (2, 8, 4), fixed=("first", "last"), groups=[("main", "short")]
    )
    assert [decision.layers for decision in space.decisions] == [
        ("first",),
        ("main", "short"),
        ("last",),
    ]
    assert space.names == (("w8a8",), ("w8a8", "w4a4", "w2a2"), ("w8a8",))
    point = space.uniform("w2a2")
    assert space.precisions(point)["short"] == "w2a2"
    assert space.precisions(point)["last"] == "w8a8"
    assert space.bytes((0, 0, 0)) == sum(layer.weights for layer in layers.values())
    assert space.us((0, 0, 0)) == pytest.approx(
        sum(hardware.latency_us(layer, 8, 8) for layer in layers.values())
    )
    assert space.bytes(space.start(2500.0)) <= 2500.0
    pairs = space_of(layers, hardware, (2, 8), (4, 8), fixed=("first", "last"))
    assert pairs.names[1] == ("w8a8", "w8a4", "w2a8", "w2a4")
    at = (0, 2, 0, 0)
    assert pairs.us((0, 0, 0, 0)) - pairs.us(at) == pytest.approx(
        hardware.latency_us(layers["main"], 8, 8) - hardware.latency_us(layers["main"], 2, 8)
    )
    assert pairs.bytes((0, 0, 0, 0)) - pairs.bytes(at) == layers["main"].weights * 6 / 8
    with pytest.raises(UsageError, match="w1a1"):
        space_of(layers, hardware, (1, 8))
    with pytest.raises(UsageError, match="no bits"):
        space_of(layers, hardware, ())
