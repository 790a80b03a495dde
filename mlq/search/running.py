"""A search that can be killed: its state is written after every turn, and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from mlq.errors import PlanError
from mlq.search.archive import Archive, Evaluate, Visit
from mlq.search.objective import Objective
from mlq.search.proposal import Scores
from mlq.search.sampler import Settings, State, advance, begin
from mlq.search.sharing import Refine
from mlq.search.space import Point, Space

STATE, VISITS = "search.json", "visits.jsonl"
# Measurements of one turn of refining the front: few, for each teaches where the next should be.
_TURN = 4

Learn: TypeAlias = Callable[[Sequence[Visit]], Evaluate]


def run(
    space: Space,
    evaluate: Evaluate,
    objective: Objective,
    settings: Settings,
    steps: int,
    *,
    folder: Path,
    starts: Sequence[Point] = (),
    scores: Scores | None = None,
    learn: Learn | None = None,
    refine: Refine | None = None,
    watch: Callable[[State], None] = lambda _: None,
) -> tuple[State, Archive]:
    """Take a search to so many steps, from where `folder` says it was; `watch` sees each state.

    A search that begins takes `starts` and `scores` as `begin` does; one that goes on has its own.
    `learn` and `refine` are those of `turn`.

    PlanError if the folder holds a search of other settings, another network or other bits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = Archive(space, evaluate, folder / VISITS)
    state = begin(archive, objective, settings, starts=starts, scores=scores)
    file = folder / STATE
    if file.exists():
        state = _resumed(file, state, archive)
    write(state, file)
    while state.step < steps:
        state = turn(state, archive, learn, refine)
        write(state, file)
        watch(state)
    return state, archive


def turn(
    state: State, archive: Archive, learn: Learn | None = None, refine: Refine | None = None
) -> State:
    """The state after a step of the chains, or after measurements that refine the front.

    `learn` makes of the visits before a step what guesses accuracies in it (see `advance`);
    `refine` proposes measurements of its own. Whose turn it is depends on what both have gained.
    """
    # A turn that was cut short begins from what was known when it first did.
    known = archive.visits[: state.visited]
    refines = refine is not None and state.shares.refines(state.step * len(state.chains))
    if refine is not None and refines:
        archive.measure(refine.points(known, _TURN))
        after = state.model_copy(update={"visited": len(archive)})
    else:
        after = advance(state, archive, None if learn is None else learn(known))
    if refine is None:
        return after
    new = len(archive) - len(known)
    gain = refine.volume(archive.visits) - refine.volume(known) if new else 0.0
    # Where nothing new is found each must still have its turn.
    arm, count = ("refining", _TURN) if refines else ("walking", max(new, 1))
    arms = {arm: getattr(state.shares, arm).after(count, gain)}
    return after.model_copy(update={"shares": state.shares.model_copy(update=arms)})


def write(state: State, file: Path) -> None:
    """Write a state so that the file is whole whenever the process ends."""
    draft = file.with_suffix(".part")
    draft.write_text(state.to_json(), encoding="utf-8")
    draft.replace(file)


def _resumed(file: Path, fresh: State, archive: Archive) -> State:
    state = State.from_json(file)
    state.check(archive)
    if (state.settings, state.objective) != (fresh.settings, fresh.objective):
        raise PlanError(
            f"{file}: a search with other settings; continue with the same ones, or give another "
            "folder"
        )
    return state
