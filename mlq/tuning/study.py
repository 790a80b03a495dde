"""A study: trials in a data base, which outlive the process and which several processes share."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlq.errors import UsageError
from mlq.tuning.measurement import Measurement, Racing
from mlq.tuning.outcomes import Loss, finished, is_settled
from mlq.tuning.racing import Divergences, Hits, pack, pack_divergences
from mlq.tuning.rivalry import Rivalry
from mlq.tuning.sampler import distributions
from mlq.tuning.space import Configuration, Space, configuration

try:
    import optuna
    from optuna.trial import FrozenTrial
except ImportError:
    raise UsageError("tuning needs optuna; install it with: pip install 'mlq[tune]'") from None

Study = optuna.Study
_SUBJECT = "mlq.subject"
# Seconds between the signs of life of a trial, and after how many without one it is given up.
_HEARTBEAT, _GRACE = 5, 30
# How often a study is opened before that is given up, and the seconds that a pause grows by.
_ATTEMPTS, _PAUSE = 4, 0.3
# Seconds that a process waits for another one to finish writing.
_PATIENCE = 120


class Measuring(Protocol):
    """What a study asks for measurements: `Objective`, or what stands in for it."""

    def prepare(self) -> None:
        """Compile, so that no trial waits for it."""

    def predicted_us(self, configuration: Configuration) -> float:
        """Microseconds of a call in a configuration, by the target's costs."""

    def measure(self, configuration: Configuration, racing: Racing = ...) -> Measurement:
        """Evaluate a configuration, until `racing` says stop."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from saying what mlq says itself."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def address(path: Path) -> str:
    """A file of SQLite as the address of a data base, whatever characters its name has."""
    import sqlalchemy

    made = sqlalchemy.URL.create("sqlite", database=str(path.absolute()))
    return made.render_as_string()


def open_study(
    storage: str | None, name: str, sampler: optuna.samplers.BaseSampler, *, objectives: int = 1
) -> optuna.Study:
    """The study called `name` in a data base (an SQLAlchemy address), made if it is not there.

    The first of its `objectives` is the loss, the second the predicted time; both are made small.

    Without `storage` it lives in memory. What a killed process was at is given up when another one
    runs: its configuration is then free again. UsageError for what cannot be opened.
    """
    directions = [optuna.study.StudyDirection.MINIMIZE] * objectives
    if storage is None:
        return optuna.create_study(sampler=sampler, study_name=name, directions=directions)
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE)
        study, reason = _opened(storage, name, sampler, directions)
        if study is not None:
            return study
    raise UsageError(
        f"{storage}: cannot be opened as a study ({reason}); give an address such as "
        "sqlite:///study.db"
    )


def run(
    study: optuna.Study,
    measuring: Measuring,
    space: Space,
    *,
    trials: int,
    loss: Loss = "kl",
    seconds: float | None = None,
    subject: str = "",
    jobs: int = 1,
    advance: Callable[[FrozenTrial], None] = lambda _trial: None,
) -> None:
    """Add trials until the study has `trials` in all, whoever made them, or the space is used up.

    `subject` says what is tuned (a hash of network and samples); UsageError when the study is of
    another. `jobs` trials run at once, if `measuring` can. `advance` is told of each finished one.
    """
    known = study.user_attrs.get(_SUBJECT, (subject, loss))
    if tuple(known) != (subject, loss):
        raise UsageError(
            f"study '{study.study_name}' tunes another network, other samples or another loss; "
            "take a new name or a new file"
        )
    study.set_user_attr(_SUBJECT, (subject, loss))
    goal = min(trials, len(space.points()))

    def objective(trial: optuna.Trial) -> list[float]:
        choices = distributions(space).items()
        knobs = {knob: trial.suggest_categorical(knob, each.choices) for knob, each in choices}
        return _evaluate(trial, measuring, configuration(knobs), loss, interrupt)

    def told(study: optuna.Study, trial: FrozenTrial) -> None:
        advance(trial)
        interrupt.check()
        if len(finished(study)) >= goal:
            study.stop()

    if len(finished(study)) >= goal:
        return
    with _interrupts() as interrupt:
        study.optimize(objective, timeout=seconds, n_jobs=jobs, callbacks=[told])


@dataclass
class _Interrupt:
    """Whether Ctrl-C was pressed, which is asked for where a trial can end."""

    pressed: bool = False

    def check(self) -> None:
        """KeyboardInterrupt if it was."""
        if self.pressed:
            raise KeyboardInterrupt


@contextmanager
def _interrupts() -> Iterator[_Interrupt]:
    """What hears Ctrl-C; the second time it is raised at once.

    Raised anywhere, it can meet a finalizer, where Python drops it, or a lock.
    """
    interrupt, before = _Interrupt(), signal.getsignal(signal.SIGINT)
    on_main = threading.current_thread() is threading.main_thread()
    waits = on_main and before is signal.default_int_handler

    def press(_number: int, _frame: Any) -> None:
        interrupt.check()
        interrupt.pressed = True

    if waits:
        signal.signal(signal.SIGINT, press)
    try:
        yield interrupt
    except UnboundLocalError as error:
        # What Optuna 5.0 makes of an interrupt while it stores a trial.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if waits:
            signal.signal(signal.SIGINT, before)


def _evaluate(
    trial: optuna.Trial,
    measuring: Measuring,
    point: Configuration,
    loss: Loss,
    interrupt: _Interrupt,
) -> list[float]:
    """The objectives' values; what the study knows already is not measured again."""
    earlier = finished(trial.study)
    same = [each for each in earlier if configuration(each.params) == point]
    if same:
        return _tell(trial, same[0].user_attrs, same[0].values[0])
    us = measuring.predicted_us(point)
    race = Rivalry.of(earlier, loss, us if len(trial.study.directions) > 1 else None)

    def is_lost(hits: Hits, divergences: Divergences) -> bool:
        interrupt.check()
        return race.is_lost(hits, divergences)

    found = measuring.measure(point, is_lost)
    figures = found.accuracy, found.lost_points, found.kl_mnat
    accuracy, lost, kl = race.estimates(found) if found.lost else figures
    facts = {
        "accuracy": accuracy,
        "lost_points": lost,
        "kl_mnat": kl,
        "agreement": found.agreement,
        "samples": found.samples,
        "seconds": found.seconds,
        "predicted_us": us,
        "settled": not found.lost,
        "within_mnat": found.within_mnat,
        "hits": pack(found.hits),
        "divergences": pack_divergences(found.divergences),
    }
    return _tell(trial, facts, kl if loss == "kl" else lost)


def _tell(trial: optuna.Trial, facts: Mapping[str, Any], value: float) -> list[float]:
    """Write down what was found; the value of a trial that was stopped early is an estimate.

    Optuna has a state for such a trial where there is one objective only.
    """
    for key, fact in facts.items():
        trial.set_user_attr(key, fact)
    if len(trial.study.directions) > 1:
        return [value, float(facts["predicted_us"])]
    if is_settled(facts):
        return [value]
    trial.report(value, int(facts["samples"]))
    raise optuna.TrialPruned


def _opened(
    storage: str,
    name: str,
    sampler: optuna.samplers.BaseSampler,
    directions: list[optuna.study.StudyDirection],
) -> tuple[optuna.Study | None, str]:
    """The study, or why not: processes that start together may each want to make the tables."""
    import sqlalchemy.exc

    try:
        return optuna.create_study(
            storage=_data_base(storage),
            sampler=sampler,
            study_name=name,
            directions=directions,
            load_if_exists=True,
        ), ""
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, ImportError) as error:
        return None, str(error).partition("\n")[0]


def _data_base(storage: str) -> optuna.storages.RDBStorage:
    waits = {"connect_args": {"timeout": _PATIENCE}} if storage.startswith("sqlite") else {}
    with warnings.catch_warnings():
        # Signs of life are marked as experimental; the tests kill processes to see that they work.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.RDBStorage(
            storage, engine_kwargs=waits, heartbeat_interval=_HEARTBEAT, grace_period=_GRACE
        )
