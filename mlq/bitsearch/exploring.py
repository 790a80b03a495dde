"""The search itself: what layers lose alone, integer programs to start from, then the chains."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from mlq.bitsearch.measuring import kept
from mlq.bitsearch.proxy import Noise, Proxy, alone, noise_alone
from mlq.bitsearch.refining import Refining
from mlq.planning import MNAT_PER_UNIT_DROP
from mlq.progress import Stages
from mlq.search import Archive, Evaluate, Objective, Settings, Space, State, run
from mlq.search.baselines import integer_programs, uniform
from mlq.search.running import VISITS
from mlq.values import Part

TRACE = "trace.jsonl"
# Latency budgets of the integer programs that chains may begin at.
_PROGRAMS = 16
# Points of one warm-up call: few, so that a kill loses little.
_AT_ONCE = 8
# Chains seek accuracies whose drops are up to so many times the user's, or as many times less.
_SPREAD = 8.0


class Effort(Part):
    """How much is searched: steps, and chains that each make one proposal a step.

    The chains seek accuracies around 1 - `max_drop`, so that together they find the front. Their
    `temperature` is a relative latency that they hardly care about: the higher, the more they move.
    """

    max_drop: PositiveFloat
    steps: PositiveInt = 2000
    chains: PositiveInt = 4
    seed: NonNegativeInt = 0
    temperature: PositiveFloat = 0.002

    @property
    def settings(self) -> Settings:
        """A chain for each of a row of accuracies, `max_drop` away from float and others."""
        exponents = [2.0 * i / self.chains - 1.0 for i in range(self.chains)]
        drops = [self.max_drop * _SPREAD**each for each in exponents]
        if self.chains % 2:
            drops = [self.max_drop * _SPREAD ** (each + 1.0 / self.chains) for each in exponents]
        thresholds = [kept(drop * MNAT_PER_UNIT_DROP) for drop in drops]
        return Settings.ladder((self.temperature,), thresholds, seed=self.seed)


@dataclass(frozen=True)
class Explored:
    """What a search found: its last state, all it visited, and what layers lose alone."""

    state: State
    archive: Archive
    noise: Noise


def objective_of(space: Space, max_drop: float, max_bytes: float | None = None) -> Objective:
    """Latency over that of the widest allocation, at no more than a drop of `max_drop`."""
    widest = (0,) * len(space.sizes)
    threshold = kept(max_drop * MNAT_PER_UNIT_DROP)
    return Objective(reference_us=space.us(widest), threshold=threshold, max_bytes=max_bytes)


def warm_up(
    space: Space,
    evaluate: Evaluate,
    objective: Objective,
    stages: Stages,
    file: Path | None = None,
) -> tuple[Archive, Noise]:
    """Visit what the chains begin with: layers alone, uniform widths, integer programs.

    It is gone through in the same order again when a search goes on, whatever `file` has by then.
    """
    lasting = Archive(space, evaluate, file)
    archive = Archive(space, lambda points: [each.accuracy for each in lasting.measure(points)])
    points = alone(space)
    with stages.stage("try layers alone", len(points)) as advance:
        for start in range(0, len(points), _AT_ONCE):
            part = points[start : start + _AT_ONCE]
            archive.measure(part)
            advance(len(part))
    noise = noise_alone(space, archive)
    with stages.stage("integer programs"):
        uniform(archive, objective)
        integer_programs(archive, objective, noise, _PROGRAMS)
    return archive, noise


def refining(space: Space, noise: Noise, objective: Objective) -> Refining:
    """What refines the front down to the greatest drop that a chain may seek."""
    return Refining(space, Proxy(space, noise), objective, floor=objective.threshold**_SPREAD)


def explore(
    space: Space,
    evaluate: Evaluate,
    objective: Objective,
    effort: Effort,
    *,
    folder: Path,
    stages: Stages,
) -> Explored:
    """Search from where `folder` says it was to `effort.steps`; everything is kept there."""
    space.start(objective.max_bytes)  # PlanError now, not after an hour, where nothing fits
    folder.mkdir(parents=True, exist_ok=True)
    _, noise = warm_up(space, evaluate, objective, stages, folder / VISITS)
    with stages.stage("search", effort.steps) as advance:
        state, archive = run(
            space,
            evaluate,
            objective,
            effort.settings,
            effort.steps,
            folder=folder,
            learn=Proxy(space, noise),
            refine=refining(space, noise, objective),
            watch=_watch(folder / TRACE, advance),
        )
    return Explored(state, archive, noise)


def _watch(file: Path, advance: Callable[[int], None]) -> Callable[[State], None]:
    """Note where each chain is after each step."""
    seen = 0

    def note(state: State) -> None:
        nonlocal seen
        if state.step == seen:
            return  # it was not the chains' turn
        places = [[chain.place.us, chain.place.accuracy] for chain in state.chains]
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps([state.step, places]) + "\n")
        advance(state.step - seen)
        seen = state.step

    return note


def read_trace(folder: Path) -> dict[int, Sequence[tuple[float, float]]]:
    """Microseconds and accuracy of each chain, by step; a line cut short is left out."""
    found: dict[int, Sequence[tuple[float, float]]] = {}
    file = folder / TRACE
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    for line in text.rpartition("\n")[0].splitlines():
        try:
            step, places = json.loads(line)
        except ValueError:
            continue
        found[step] = [(us, accuracy) for us, accuracy in places]
    return found
