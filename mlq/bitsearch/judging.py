"""The front again, on samples that the search did not see, and the plan that is taken of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlq import evaluation, metrics
from mlq.bitsearch.measuring import kl_of
from mlq.bitsearch.preparing import Prepared
from mlq.frontends.data import Dataset
from mlq.progress import Stages
from mlq.search import Archive, Objective, Visit, front
from mlq.values import Part, Value

Array = NDArray[Any]


Way = Literal["compensated", "fine-tuned"]


class Judged(Part):
    """An allocation of the front.

    `kl_mnat` is what the search expects, `judged_kl_mnat` is measured on the other samples;
    `accuracy` is top-1 there, without labels the share that float and it classify alike; `drop` is
    against float (or against all), `drop_95` its paired bootstrap interval. What was fine-tuned is
    judged as it then was.
    """

    us: float
    bytes: float
    kl_mnat: float
    judged_kl_mnat: float
    accuracy: float
    drop: float
    drop_95: tuple[float, float]
    precisions: dict[str, str]
    improved: Way | None = None


class Front(Value):
    """`front.json`: the Pareto front of a search, fastest first, and which point was taken."""

    hardware: str
    bits: tuple[int, ...]
    samples: int
    judged_samples: int
    labelled: bool
    float_accuracy: float
    max_drop: float
    chosen: int
    points: tuple[Judged, ...]

    @property
    def met(self) -> bool:
        """Whether the chosen point loses no more than was allowed."""
        return self.points[self.chosen].drop <= self.max_drop


class Judge:
    """Runs allocations over a data set by simulation."""

    def __init__(self, prepared: Prepared, data: Dataset) -> None:
        self._prepared, self.data = prepared, data
        self._float = self._outputs({}, prepared)
        known = data.labels
        self._labels = np.argmax(self._float, axis=-1) if known is None else known
        self._hits = metrics.correct(self._float, self._labels)

    @property
    def float_accuracy(self) -> float:
        """Top-1 of the float network."""
        return float(self._hits.mean())

    def judge(self, archive: Archive, visit: Visit) -> Judged:
        """Measure an allocation that the search visited."""
        precisions = archive.space.precisions(visit.point)
        return Judged(
            us=visit.us,
            bytes=visit.bytes,
            kl_mnat=max(kl_of(visit.accuracy), 0.0),
            precisions=precisions,
            **self._measured(precisions, self._prepared),
        )

    def again(self, point: Judged, tuned: Prepared, way: Way) -> Judged:
        """A point as it is after it was improved in this way."""
        measured = self._measured(point.precisions, tuned)
        return point.model_copy(update={**measured, "improved": way})

    def _measured(self, precisions: Mapping[str, str], prepared: Prepared) -> dict[str, Any]:
        """What `Judged` says of these precisions besides what the search knew."""
        found = self._outputs({**prepared.base, **precisions}, prepared)
        hits = metrics.correct(found, self._labels)
        return {
            "judged_kl_mnat": metrics.kl_mnat(self._float, found),
            "accuracy": float(hits.mean()),
            "drop": self.float_accuracy - float(hits.mean()),
            "drop_95": metrics.paired_interval(hits, self._hits),
        }

    def _outputs(self, assignment: Mapping[str, str], prepared: Prepared) -> Array:
        batches = self._batches(prepared.subject.batch)
        results = prepared.simulation.each(batches, prepared.choice.ranges, assignment)
        every = np.concatenate([evaluation.logits(first) for first, *_ in results])
        return every[: self.data.samples]

    def _batches(self, size: int) -> Iterator[list[Array]]:
        """Batches of the data, of which the last is filled up."""
        names = [spec.name for spec in self._prepared.network.model.inputs]
        for batch in self.data.batches(size):
            yield [evaluation.filled(batch[name], size) for name in names]


def candidates(archive: Archive, objective: Objective, count: int) -> list[Visit]:
    """At most `count` points of the front, evenly in latency, and the fastest that should do."""
    whole = front(visit for visit in archive.visits if objective.admits(visit.bytes))
    if len(whole) <= count:
        return list(whole)
    times = np.array([each.us for each in whole])
    wanted = np.linspace(times[0], times[-1], count - 1)
    taken = set(np.argmin(np.abs(times[:, None] - wanted), axis=0).tolist())
    should = [i for i, each in enumerate(whole) if each.accuracy >= objective.threshold]
    return [whole[i] for i in sorted(taken | set(should[:1]))]


def judged_front(
    judge: Judge, archive: Archive, visits: Sequence[Visit], stages: Stages
) -> list[Judged]:
    """Each of the visits, measured on the judge's samples."""
    with stages.stage("judge the front", len(visits)) as advance:
        found = []
        for visit in visits:
            found.append(judge.judge(archive, visit))
            advance(1)
    return found


def choose(points: Sequence[Judged], max_drop: float) -> int:
    """The fastest that loses no more than `max_drop`, else the one that loses least."""
    keeping = [i for i, each in enumerate(points) if each.drop <= max_drop]
    if keeping:
        return min(keeping, key=lambda i: points[i].us)
    return min(range(len(points)), key=lambda i: (points[i].drop, points[i].us))
