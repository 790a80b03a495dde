"""How a chain proposes its next allocation, and the learned table that guides it.

AMED draws each layer's bits from a table of scores that it learns from what it visited. Its code
accepts by that table alone; here the table only proposes, and the ratio of the probabilities of
going there and coming back (Hastings) makes up for it, so that the target stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from mlq.search.space import Point
from mlq.values import Part


class Guide(Part):
    """How proposals are made.

    Each changes one decision, and one more with probability `another` each time. A decision's new
    option is drawn in proportion to exp(score / `temperature`) with probability 1 - `explore`, and
    evenly otherwise.
    """

    temperature: PositiveFloat = 0.05
    explore: float = Field(default=0.2, gt=0.0, le=1.0)
    another: float = Field(default=0.3, ge=0.0, lt=1.0)


class Scores(Part):
    """For each decision and option, how much better than all it was to visit it, on average.

    Only what was visited is credited, against the mean of all visits; the average of each cell
    moves by less and less, as an adaptive chain must if it is to keep its target (diminishing
    adaptation; Roberts and Rosenthal 2007).
    """

    values: tuple[tuple[float, ...], ...]
    visits: tuple[tuple[int, ...], ...]
    mean: float = 0.0
    count: int = 0

    @classmethod
    def flat(cls, sizes: Sequence[int]) -> Scores:
        """A table that knows nothing."""
        zeros = tuple((0,) * size for size in sizes)
        return cls(values=tuple(tuple(map(float, row)) for row in zeros), visits=zeros)

    def learned(self, point: Point, reward: float) -> Scores:
        """The table after a visit of so much reward (higher is better)."""
        count = self.count + 1
        mean = self.mean + (reward - self.mean) / count
        values, visits = [list(row) for row in self.values], [list(row) for row in self.visits]
        for i, chosen in enumerate(point):
            visits[i][chosen] += 1
            values[i][chosen] += (reward - mean - values[i][chosen]) / visits[i][chosen]
        update = {
            "values": tuple(map(tuple, values)),
            "visits": tuple(map(tuple, visits)),
            "mean": mean,
            "count": count,
        }
        return self.model_copy(update=update)


def probabilities(guide: Guide, scores: Sequence[float]) -> NDArray[np.float64]:
    """How likely each option of a decision is drawn, were none of them taken."""
    values = np.asarray(scores)
    weights = np.exp((values - values.max()) / guide.temperature)
    drawn: NDArray[np.float64] = (1.0 - guide.explore) * weights / weights.sum()
    return drawn + guide.explore / len(values)


def propose(
    guide: Guide, scores: Scores, point: Point, random: np.random.Generator
) -> tuple[Point, float]:
    """Draw a neighbour; with it, the log of how much likelier the way back is than the way there.

    Decisions are chosen evenly among those that have a choice, and each of them changes.
    """
    free = [i for i, values in enumerate(scores.values) if len(values) > 1]
    count = min(int(random.geometric(1.0 - guide.another)), len(free))
    changed = random.choice(len(free), size=count, replace=False)
    proposed, log_ratio = list(point), 0.0
    for i in sorted(free[int(j)] for j in changed):
        likely = probabilities(guide, scores.values[i])
        old = point[i]
        others = likely.copy()
        others[old] = 0.0
        new = int(random.choice(len(likely), p=others / others.sum()))
        proposed[i] = new
        there = likely[new] / (1.0 - likely[old])
        back = likely[old] / (1.0 - likely[new])
        log_ratio += float(np.log(back) - np.log(there))
    return tuple(proposed), log_ratio
