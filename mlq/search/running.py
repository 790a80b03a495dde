"""A search that can be killed: its state is written after every step, and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mlq.errors import PlanError
from mlq.search.archive import Archive, Evaluate, Visit
from mlq.search.objective import Objective
from mlq.search.proposal import Scores
from mlq.search.sampler import Settings, State, advance, begin
from mlq.search.space import Point, Space

STATE, VISITS = "search.json", "visits.jsonl"


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
    learn: Callable[[Sequence[Visit]], Evaluate] | None = None,
    watch: Callable[[State], None] = lambda _: None,
) -> tuple[State, Archive]:
    """Take a search to so many steps, from where `folder` says it was; `watch` sees each state.

    A search that begins takes `starts` and `scores` as `begin` does; one that goes on has its own.
    `learn` makes of the visits before a step what guesses accuracies in it (see `advance`).

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
        # A step that was cut short begins from what was known when it first did.
        guess = None if learn is None else learn(archive.visits[: state.visited])
        state = advance(state, archive, guess)
        write(state, file)
        watch(state)
    return state, archive


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
