"""Trials of a tuner: a line for each while they run, and what the report says of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlq.pages import numbers
from mlq.pages.blocks import Block, Cell, Heading, Paragraph, Table

if TYPE_CHECKING:
    from mlq.trials import TrialReport, TuningReport
    from mlq.tuning.outcomes import Outcome
    from mlq.tuning.space import Configuration

_UNITS = {"kl": "KL", "accuracy": "lost"}
_MINUTE, _HOUR = 60.0, 3600.0
# With so many trials a line says only which it is.
_MANY = 100
# Trials in the report's table: the best ones; report.json has them all.
_SHOWN = 12


class Watch:
    """Says one line for every finished trial: within 80 columns.

    Where trials are `timed` too, the time of a call stands in the place of the best loss, and a
    star beside what no trial before it beats.
    """

    def __init__(
        self,
        loss: str,
        goal: int,
        say: Callable[[str], None],
        *,
        seconds: float | None = None,
        timed: bool = False,
    ) -> None:
        self._unit, self._goal, self._say, self._seconds = _UNITS[loss], goal, say, seconds
        self._start = time.monotonic()
        self._timed = timed
        self._settled: list[Outcome] = []
        self._known = self._added = 0

    def begin(self, known: Sequence[Outcome]) -> None:
        """Say what the columns are, and what an earlier run left."""
        self._known = len(known)
        self._settled = [each for each in known if each.settled]
        if known:
            self._say(f"going on after {numbers.things(len(known), 'trial')}")
        columns = f"{'top-1':>6} {self._unit:>6}  {'us' if self._timed else 'best':>7} {'left':>5}"
        self._say(f"{'trial':>5} {'configuration':<45} {columns}")

    def add(self, outcome: Outcome) -> None:
        """A trial was finished; an accuracy that is not of all samples has a ~ before it."""
        self._added += 1
        beaten = not outcome.settled or any(map(outcome.is_beaten_by, self._settled))
        if outcome.settled:
            self._settled.append(outcome)
        done = self._known + self._added
        accuracy = ("" if outcome.is_exact else "~") + numbers.percent(outcome.accuracy)
        star = "*" if self._timed and not beaten else " "
        number = f"{done}/{self._goal}" if self._goal < _MANY else str(done)
        self._say(
            f"{number:>5} {_short(outcome.configuration):<45} {accuracy:>6}"
            f" {outcome.loss:6.2f}{star} {self._beside(outcome):>7} {duration(self._left(done)):>5}"
        )

    def _beside(self, outcome: Outcome) -> str:
        """What stands beside the loss: the best one so far, or the time."""
        if self._timed:
            return f"{outcome.predicted_us:.0f}"
        return f"{min(each.loss for each in self._settled):.2f}" if self._settled else ""

    def _left(self, done: int) -> float:
        """Seconds to go at the pace of this run, or what the time limit leaves."""
        elapsed = time.monotonic() - self._start
        left = max(self._goal - done, 0) * elapsed / self._added
        return left if self._seconds is None else min(left, max(self._seconds - elapsed, 0.0))


_SHORT = {
    "per_": "",
    "symmetric": "sym",
    "power_of_two": "pow2",
    "percentile": "pctile",
    "least-squares": "ls",
    "equalize": "eq",
    "bias-correction": "bc",
}


def _short(configuration: Configuration) -> str:
    """A configuration in 45 characters at most."""
    said = str(configuration)
    for word, short in _SHORT.items():
        said = said.replace(word, short)
    return said


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
        " ends when its KL is known well enough: with a probability of 95 %, that of more samples"
        " is within what stands behind `±`, to either side. One that is worse than another before"
        " that is stopped, and its figures, with a `~`, are estimates. Accuracy here is on the"
        " samples that the choice was made on: measure it on others with `mlq eval`."
        " Microseconds are predicted; `front` are the configurations that no other one beats in"
        f" both loss and time: {_others(found)}."
    )
    table = Table(header, rows, left=frozenset({1, 7}))
    return [Heading("Tuning"), Paragraph(said), table]


def _others(found: TuningReport) -> str:
    """Where what was not chosen is to be had."""
    if found.objectives == "loss":
        return "tune again with `--only` to have another of them"
    return "those with the name of a folder were compiled too"


def sentence(found: TuningReport) -> str:
    """How many trials there were, and which was chosen."""
    worse = sum(each.kl_within_mnat is None for each in found.trials)
    (chosen,) = [each for each in found.trials if each.chosen][:1]
    return (
        f"{numbers.things(len(found.trials), 'trial')} in a space of {found.points}"
        f" configurations, {worse} stopped as worse; {_virtue(chosen, found)}:"
        f" `{_configuration(chosen)}`.{_beside(found)}"
    )


def _beside(found: TuningReport) -> str:
    """How many other artifacts there are, and where."""
    count = sum(each.artifact not in {"", "."} for each in found.trials)
    return f" {numbers.things(count, 'artifact')} more of the front: front/." if count else ""


def _virtue(chosen: TrialReport, found: TuningReport) -> str:
    """Why a configuration was compiled."""
    least = f"least {_WORDS[found.loss]}"
    if found.objectives == "loss":
        return least
    if chosen.artifact == ".":
        return f"the fastest of those near the {least}"
    return "one that no other beats in both loss and time"


_WORDS = {"kl": "KL to float", "accuracy": "accuracy lost"}


def _loss(trial: TrialReport, loss: str) -> float:
    return trial.kl_mnat if loss == "kl" else trial.lost_points


def _configuration(trial: TrialReport) -> str:
    knobs = (trial.samples, trial.scheme, trial.calibrator, trial.granularity, trial.mixed)
    added = {trial.rounding, trial.methods} - {"nearest", "none"}
    return " ".join(map(str, (*knobs, *sorted(added, reverse=True))))


def _row(trial: TrialReport) -> tuple[Cell, ...]:
    return (
        str(trial.number),
        _configuration(trial),
        numbers.percent(trial.accuracy),
        f"{trial.lost_points:.2f}",
        _known(trial),
        f"{trial.predicted_us:.1f}",
        str(trial.evaluated),
        _mark(trial),
    )


def _known(trial: TrialReport) -> str:
    """The KL, with how well it is known."""
    within = trial.kl_within_mnat
    said = f"{trial.kl_mnat:.2f}"
    return f"~{said}" if within is None else f"{said} ±{within:.1f}" if within else said


def _mark(trial: TrialReport) -> str:
    """Whether a trial is worth having, or the folder where it is to be had."""
    if trial.chosen:
        return "chosen"
    return trial.artifact or ("front" if trial.on_front else "")
