"""Trials of a tuner: a line for each while they run, and what the report says of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlq.pages import numbers
from mlq.pages.blocks import Block, Cell, Heading, Paragraph, Table

if TYPE_CHECKING:
    from mlq.report import TrialReport, TuningReport
    from mlq.tuning.study import Outcome

_UNITS = {"kl": "KL", "accuracy": "lost"}
_MINUTE, _HOUR = 60.0, 3600.0
# With so many trials a line says only which it is.
_MANY = 100
# Trials in the report's table: the best ones; report.json has them all.
_SHOWN = 12


class Watch:
    """Says one line for every finished trial: within 80 columns."""

    def __init__(
        self, loss: str, goal: int, say: Callable[[str], None], *, seconds: float | None = None
    ) -> None:
        self._unit, self._goal, self._say, self._seconds = _UNITS[loss], goal, say, seconds
        self._start = time.monotonic()
        self._best = float("inf")
        self._known = self._added = 0

    def begin(self, known: Sequence[Outcome]) -> None:
        """Say what the columns are, and what an earlier run left."""
        self._known = len(known)
        self._best = min((each.loss for each in known if each.whole), default=self._best)
        if known:
            self._say(f"going on after {numbers.things(len(known), 'trial')}")
        columns = f"{'top-1':>6} {self._unit:>6} {'best':>6} {'left':>5}"
        self._say(f"{'trial':>6} {'configuration':<46} {columns}")

    def add(self, outcome: Outcome) -> None:
        """A trial was finished; an accuracy that is an estimate has a ~ before it."""
        self._added += 1
        if outcome.whole:
            self._best = min(self._best, outcome.loss)
        done = self._known + self._added
        accuracy = ("" if outcome.whole else "~") + numbers.percent(outcome.accuracy)
        best = f"{self._best:.2f}" if self._best < float("inf") else ""
        number = f"{done}/{self._goal}" if self._goal < _MANY else str(done)
        self._say(
            f"{number:>6} {outcome.configuration!s:<46} {accuracy:>6}"
            f" {outcome.loss:6.2f} {best:>6} {duration(self._left(done)):>5}"
        )

    def _left(self, done: int) -> float:
        """Seconds to go at the pace of this run, or what the time limit leaves."""
        elapsed = time.monotonic() - self._start
        left = max(self._goal - done, 0) * elapsed / self._added
        return left if self._seconds is None else min(left, max(self._seconds - elapsed, 0.0))


def duration(seconds: float) -> str:
    """A time to wait, in five characters at most: `12s`, `3m05`, `2h10`."""
    if seconds < _MINUTE:
        return f"{seconds:.0f}s"
    unit, size = ("m", _MINUTE) if seconds < _HOUR else ("h", _HOUR)
    whole, rest = divmod(seconds, size)
    return f"{whole:.0f}{unit}{int(rest * _MINUTE / size):02d}"


def section(found: TuningReport | None) -> list[Block]:
    """The report's part on tuning; nothing where the configuration was given."""
    if found is None:
        return []
    ordered = sorted(
        found.trials,
        key=lambda each: (not each.chosen, not each.on_front, _loss(each, found.loss)),
    )
    rows = tuple(map(_row, ordered[:_SHOWN]))
    header = ("trial", "configuration", "top-1 %", "lost", "KL mnat", "us", "samples", "")
    learned = ", ".join(f"`{name}`" for name in found.prior) or "no other network"
    said = (
        f"{sentence(found)} Sampler `{found.sampler}`, which had learned from {learned}. A trial"
        " that was stopped early saw fewer samples; its accuracy is an estimate. Accuracy here"
        " is on the samples that the choice was made on: measure it on others with `mlq eval`."
        " Microseconds are predicted; `front` are the configurations that no other one beats in"
        " both loss and time: tune again with `--only` to have another of them."
    )
    table = Table(header, rows, left=frozenset({1, 7}))
    return [Heading("Tuning"), Paragraph(said), table]


def sentence(found: TuningReport) -> str:
    """How many trials there were, and which was chosen."""
    most = max(each.evaluated for each in found.trials)
    early = sum(each.evaluated < most for each in found.trials)
    (chosen,) = [each for each in found.trials if each.chosen][:1]
    return (
        f"{numbers.things(len(found.trials), 'trial')} in a space of {found.points}"
        f" configurations, {early} stopped early; least {_WORDS[found.loss]}:"
        f" `{_configuration(chosen)}`."
    )


_WORDS = {"kl": "KL to float", "accuracy": "accuracy lost"}


def _loss(trial: TrialReport, loss: str) -> float:
    return trial.kl_mnat if loss == "kl" else trial.lost_points


def _configuration(trial: TrialReport) -> str:
    knobs = (trial.samples, trial.scheme, trial.calibrator, trial.granularity, trial.mixed)
    return " ".join(map(str, knobs))


def _row(trial: TrialReport) -> tuple[Cell, ...]:
    return (
        str(trial.number),
        _configuration(trial),
        numbers.percent(trial.accuracy),
        f"{trial.lost_points:.2f}",
        f"{trial.kl_mnat:.2f}",
        f"{trial.predicted_us:.1f}",
        str(trial.evaluated),
        "chosen" if trial.chosen else "front" if trial.on_front else "",
    )
