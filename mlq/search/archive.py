"""Every visited allocation, kept as it is measured; and the front of the best of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from mlq.errors import PlanError
from mlq.search.space import Point, Space

# Measures the accuracy of allocations, in their order; the same ones must measure the same again.
Evaluate: TypeAlias = Callable[[Sequence[Point]], Sequence[float]]


class Visit(NamedTuple):
    """An allocation and what was measured and computed of it."""

    point: Point
    accuracy: float
    us: float
    bytes: float


class Archive:
    """Visited allocations, each evaluated once; with a file, nothing is lost when killed.

    The file has one JSON line for each visit, in their order. PlanError if it is of another space.
    """

    def __init__(self, space: Space, evaluate: Evaluate, file: Path | None = None) -> None:
        self.space = space
        self._evaluate = evaluate
        self._file = file
        self._visits: dict[Point, Visit] = {}
        if file is not None and file.exists():
            self._read(file)

    def __len__(self) -> int:
        return len(self._visits)

    @property
    def visits(self) -> tuple[Visit, ...]:
        """All of them, in the order of their first visit."""
        return tuple(self._visits.values())

    def measure(self, points: Sequence[Point]) -> list[Visit]:
        """What is known of the allocations; those not yet visited are evaluated together."""
        new = list(dict.fromkeys(point for point in points if point not in self._visits))
        if new:
            accuracies = self._evaluate(new)
            for point, accuracy in zip(new, accuracies, strict=True):
                self._add(point, float(accuracy))
        return [self._visits[point] for point in points]

    def front(self) -> tuple[Visit, ...]:
        """The visits that no other beats in both accuracy and latency, fastest first."""
        return front(self.visits)

    def _add(self, point: Point, accuracy: float) -> None:
        visit = Visit(point, accuracy, self.space.us(point), self.space.bytes(point))
        self._visits[point] = visit
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"accuracy": accuracy, "point": point}) + "\n")

    def _read(self, file: Path) -> None:
        """Read what an earlier run left; a last line cut short by a kill is dropped."""
        whole = file.read_text(encoding="utf-8").rpartition("\n")[0]
        file.write_text(whole + "\n" if whole else "", encoding="utf-8")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                fields = json.loads(line)
                point, accuracy = tuple(map(int, fields["point"])), float(fields["accuracy"])
            except (ValueError, TypeError, KeyError):
                raise PlanError(f"{file}: line {number}: not a visit; delete the file") from None
            if not self.space.has(point):
                raise PlanError(
                    f"{file}: line {number}: an allocation of another network or other bits; "
                    "continue with the same ones, or give another folder"
                )
            visit = Visit(point, accuracy, self.space.us(point), self.space.bytes(point))
            self._visits[point] = visit


def front(visits: Iterable[Visit]) -> tuple[Visit, ...]:
    """The visits that no other beats in both accuracy and latency, fastest first."""
    best: list[Visit] = []
    for visit in sorted(visits, key=lambda visit: (visit.us, -visit.accuracy, visit.bytes)):
        if not best or visit.accuracy > best[-1].accuracy:
            best.append(visit)
    return tuple(best)


def hypervolume(visits: Iterable[Visit], *, us: float, accuracy: float) -> float:
    """Area that the front dominates within `us` microseconds and above `accuracy`, exactly."""
    area = 0.0
    floor = accuracy
    for visit in front(visits):
        if visit.us < us and visit.accuracy > floor:
            area += (us - visit.us) * (visit.accuracy - floor)
            floor = visit.accuracy
    return area
