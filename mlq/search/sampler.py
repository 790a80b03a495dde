"""Metropolis-Hastings over allocations: several chains, each with a target of its own, that swap.

A chain of temperature T visits allocations in proportion to exp(-energy / T), whatever its
proposals. Chains may differ in temperature (parallel tempering) and in the accuracy they ask for
(so that together they cover the front); a swap of two neighbours keeps the product of their
targets. Each step's random numbers come from the seed and the number of the step: a state read
back goes on as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat

from mlq.errors import PlanError
from mlq.search.archive import Archive, Evaluate
from mlq.search.objective import Objective
from mlq.search.proposal import Guide, Scores, propose
from mlq.search.sharing import Shares
from mlq.search.space import Point, Space
from mlq.values import Part, Value


class Rung(Part):
    """What makes a chain's target its own; without a `threshold` it is the objective's."""

    temperature: PositiveFloat = 0.01
    threshold: float | None = None


class Settings(Part):
    """How a search runs: one chain for each rung; those that may swap stand side by side."""

    seed: NonNegativeInt = 0
    rungs: tuple[Rung, ...] = Field(default=(Rung(),), min_length=1)
    learn: bool = True
    guide: Guide = Guide()

    @classmethod
    def ladder(
        cls,
        temperatures: Sequence[float],
        thresholds: Sequence[float | None] = (None,),
        **more: Any,
    ) -> Settings:
        """For each threshold a chain of each temperature; thresholds are walked to and fro."""
        rungs: list[Rung] = []
        for i, threshold in enumerate(thresholds):
            climb = list(temperatures)[:: -1 if i % 2 else 1]
            rungs += [Rung(temperature=each, threshold=threshold) for each in climb]
        return cls(rungs=tuple(rungs), **more)


class Proposal(NamedTuple):
    """Where a chain may go, and what its acceptance adds to the gain in log density."""

    point: Point
    log_ratio: float


class Place(Part):
    """Where a chain is, and what was measured there."""

    point: Point
    accuracy: float
    us: float


class Chain(Part):
    """A chain: its place, its table, and how often it moved."""

    place: Place
    scores: Scores
    proposed: NonNegativeInt = 0
    accepted: NonNegativeInt = 0


class State(Value):
    """All that a search needs to go on, apart from what it visited (see Archive).

    `visited` is how many visits the archive had; a step that a kill cut short may have added more.
    """

    settings: Settings
    objective: Objective
    step: NonNegativeInt = 0
    visited: NonNegativeInt = 0
    chains: tuple[Chain, ...]
    swaps_proposed: NonNegativeInt = 0
    swaps_accepted: NonNegativeInt = 0
    shares: Shares = Shares()

    def check(self, archive: Archive) -> None:
        """PlanError unless the state belongs to the archive's space."""
        tables = {tuple(map(len, chain.scores.values)) for chain in self.chains}
        if tables != {archive.space.sizes} or len(self.chains) != len(self.settings.rungs):
            raise PlanError(
                "the search's state is of another network or other bits; continue with the same "
                "ones, or begin in another folder"
            )

    def energy(self, rung: int, place: Place) -> float:
        """Energy of a place in the eyes of a chain, over the chain's temperature."""
        own = self.settings.rungs[rung]
        energy = self.objective.energy(place.accuracy, place.us, threshold=own.threshold)
        return energy / own.temperature


def begin(
    archive: Archive,
    objective: Objective,
    settings: Settings,
    *,
    starts: Sequence[Point] = (),
    scores: Scores | None = None,
) -> State:
    """The state before the first step; chains begin at `starts` in turn.

    By default each begins at the best that the archive has in its eyes, or where that is empty at
    the widest allocation that fits. `scores` may hold what is known beforehand. PlanError where no
    allocation fits the size.
    """
    space = archive.space
    known = [visit.point for visit in archive.visits if objective.admits(visit.bytes)]
    if not starts and not known:
        starts = [space.start(objective.max_bytes)]
    fitting = [point for point in starts if objective.admits(space.bytes(point))]
    if len(fitting) < len(starts):
        raise PlanError(f"the search cannot begin at what takes over {objective.max_bytes:g} bytes")
    places = _places(archive, fitting or known)
    chain = Chain(place=places[0], scores=scores or Scores.flat(space.sizes))
    count = len(settings.rungs)
    state = State(
        settings=settings,
        objective=objective,
        visited=len(archive),
        chains=(chain,) * count,
        shares=Shares(begun=len(archive)),
    )
    chosen = [
        places[i % len(places)] if starts else min(places, key=partial(state.energy, i))
        for i in range(count)
    ]
    chains = tuple(chain.model_copy(update={"place": place}) for place in chosen)
    return state.model_copy(update={"chains": chains})


def advance(state: State, archive: Archive, predict: Evaluate | None = None) -> State:
    """The state one step later: each chain proposes once, then two of them may swap.

    `predict` guesses accuracies cheaply; proposals that it thinks bad are dropped unmeasured, and
    acceptance makes up for its errors (delayed acceptance; Christen and Fox 2005).
    """
    settings = state.settings
    random = np.random.default_rng([settings.seed, state.step])
    drawn = [
        Proposal(*propose(settings.guide, chain.scores, chain.place.point, random))
        for chain in state.chains
    ]
    proposals = [
        each if state.objective.admits(archive.space.bytes(each.point)) else None for each in drawn
    ]
    if predict is not None:
        proposals = _screened(state, archive.space, proposals, predict, random)
    known = _places(archive, [each.point for each in proposals if each is not None])
    measured = {place.point: place for place in known}
    chains = [_moved(state, i, each, measured, random) for i, each in enumerate(proposals)]
    swapped = _swap(state, chains, random)
    if settings.learn:
        chains = [_taught(state, i, chain) for i, chain in enumerate(chains)]
    update = {
        "step": state.step + 1,
        "visited": len(archive),
        "chains": tuple(chains),
        "swaps_proposed": state.swaps_proposed + (len(chains) > 1),
        "swaps_accepted": state.swaps_accepted + swapped,
    }
    return state.model_copy(update=update)


def _screened(
    state: State,
    space: Space,
    proposals: Sequence[Proposal | None],
    predict: Evaluate,
    random: np.random.Generator,
) -> list[Proposal | None]:
    """The proposals that a chain whose target is the predicted one would accept."""
    kept: list[Proposal | None] = []
    for i, (chain, proposal) in enumerate(zip(state.chains, proposals, strict=True)):
        chance = math.log(1.0 - random.random())
        if proposal is None:
            kept.append(None)
            continue
        points = (chain.place.point, proposal.point)
        here, there = (
            Place(point=point, accuracy=accuracy, us=space.us(point))
            for point, accuracy in zip(points, predict(points), strict=True)
        )
        gain = state.energy(i, here) - state.energy(i, there)
        likely = chance < gain + proposal.log_ratio
        kept.append(Proposal(proposal.point, -gain) if likely else None)
    return kept


def _places(archive: Archive, points: Sequence[Point]) -> list[Place]:
    return [
        Place(point=visit.point, accuracy=visit.accuracy, us=visit.us)
        for visit in archive.measure(points)
    ]


def _moved(
    state: State,
    rung: int,
    proposal: Proposal | None,
    measured: Mapping[Point, Place],
    random: np.random.Generator,
) -> Chain:
    """The chain after it accepted or refused a proposal; None is refused already."""
    chain = state.chains[rung]
    chance = math.log(1.0 - random.random())
    counts = {"proposed": chain.proposed + 1}
    if proposal is None:
        return chain.model_copy(update=counts)
    place = measured[proposal.point]
    gain = state.energy(rung, chain.place) - state.energy(rung, place)
    if chance >= gain + proposal.log_ratio:
        return chain.model_copy(update=counts)
    return chain.model_copy(update={**counts, "place": place, "accepted": chain.accepted + 1})


def _swap(state: State, chains: list[Chain], random: np.random.Generator) -> bool:
    """Let two neighbours change places, or not; whether they did."""
    if len(chains) == 1:
        return False
    i = int(random.integers(len(chains) - 1))
    here, there = chains[i].place, chains[i + 1].place
    now = state.energy(i, here) + state.energy(i + 1, there)
    then = state.energy(i, there) + state.energy(i + 1, here)
    if math.log(1.0 - random.random()) >= now - then:
        return False
    chains[i] = chains[i].model_copy(update={"place": there})
    chains[i + 1] = chains[i + 1].model_copy(update={"place": here})
    return True


def _taught(state: State, rung: int, chain: Chain) -> Chain:
    """The chain with its table after where it is now; rewards are relative latencies."""
    reward = -state.energy(rung, chain.place) * state.settings.rungs[rung].temperature
    return chain.model_copy(update={"scores": chain.scores.learned(chain.place.point, reward)})
