"""A study: trials in a data base, which outlive the process and which several processes share."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from mlq.errors import UsageError
from mlq.tuning.objective import Measurement, Racing
from mlq.tuning.racing import (
    DivergenceRace,
    Divergences,
    Hits,
    Race,
    pack,
    pack_divergences,
    unpack,
    unpack_divergences,
)
from mlq.tuning.sampler import distributions
from mlq.tuning.space import Configuration, Space, configuration

try:
    import optuna
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    raise UsageError("tuning needs optuna; install it with: pip install 'mlq[tune]'") from None

Study = optuna.Study
Loss = Literal["kl", "accuracy"]
"""What is made small: KL to float in milli-nats, or the points of accuracy that are lost.

KL tells configurations apart that a thousand samples' accuracy cannot, and needs no labels.
"""

_SUBJECT = "mlq.subject"
# Seconds between the signs of life of a trial, and after how many without one it is given up.
_HEARTBEAT, _GRACE = 5, 30
# How often a study is opened before that is given up, and the seconds that a pause grows by.
_ATTEMPTS, _PAUSE = 4, 0.3
# Seconds that a process waits for another one to finish writing.
_PATIENCE = 120
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Measuring(Protocol):
    """What a study asks for measurements: `Objective`, or what stands in for it."""

    @property
    def float_hits(self) -> Hits:
        """Which samples float classifies right."""

    def measure(self, configuration: Configuration, racing: Racing = ...) -> Measurement:
        """Evaluate a configuration, until `racing` says stop."""


@dataclass(frozen=True)
class Outcome:
    """A finished trial; not `whole` if it was stopped early: its accuracy is then an estimate.

    `accuracy` and `agreement` are shares in [0, 1], `lost_points` is against float.
    """

    number: int
    configuration: Configuration
    loss: float
    whole: bool
    accuracy: float
    lost_points: float
    kl_mnat: float
    agreement: float
    samples: int
    seconds: float


_FACTS = ("accuracy", "lost_points", "kl_mnat", "agreement", "samples", "seconds")


@dataclass(frozen=True)
class Best:
    """The best finished trial of a study."""

    configuration: Configuration
    loss: float
    trials: int


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
    storage: str | None, name: str, sampler: optuna.samplers.BaseSampler
) -> optuna.Study:
    """The study called `name` in a data base (an SQLAlchemy address), made if it is not there.

    Without `storage` it lives in memory. What a killed process was at is given up when another one
    runs: its configuration is then free again. UsageError for what cannot be opened.
    """
    if storage is None:
        return optuna.create_study(sampler=sampler, study_name=name)
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE)
        study, reason = _opened(storage, name, sampler)
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

    def objective(trial: optuna.Trial) -> float:
        choices = distributions(space).items()
        knobs = {knob: trial.suggest_categorical(knob, each.choices) for knob, each in choices}
        return _evaluate(trial, measuring, configuration(knobs), loss)

    def finished(study: optuna.Study, trial: FrozenTrial) -> None:
        advance(trial)
        if _count(study) >= goal:
            study.stop()

    if _count(study) < goal:
        study.optimize(objective, timeout=seconds, n_jobs=jobs, callbacks=[finished])


def best(study: optuna.Study) -> Best | None:
    """The least loss over all samples; None while no trial went over all of them."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not done:
        return None
    chosen = min(done, key=lambda each: (_value(each), each.user_attrs["kl_mnat"], each.number))
    return Best(configuration(chosen.params), _value(chosen), _count(study))


def outcomes(study: optuna.Study) -> tuple[Outcome, ...]:
    """Every finished trial, in the order of their beginnings."""
    return tuple(map(outcome, study.get_trials(deepcopy=False, states=_FINISHED)))


def outcome(trial: FrozenTrial) -> Outcome:
    """What is known of a finished trial."""
    return Outcome(
        number=trial.number,
        configuration=configuration(trial.params),
        loss=_value(trial),
        whole=trial.state == TrialState.COMPLETE,
        **{name: trial.user_attrs[name] for name in _FACTS},
    )


def _evaluate(trial: optuna.Trial, measuring: Measuring, point: Configuration, loss: Loss) -> float:
    """The loss of a configuration; what the study knows already is not measured again."""
    earlier = trial.study.get_trials(deepcopy=False, states=_FINISHED)
    same = [each for each in earlier if configuration(each.params) == point]
    if same:
        whole = same[0].state == TrialState.COMPLETE
        return _tell(trial, same[0].user_attrs, _value(same[0]), whole=whole)
    race = _Rivalry.of(earlier, loss)
    found = measuring.measure(point, race.is_lost)
    stopped = found.samples < len(measuring.float_hits)
    accuracy, kl = race.estimates(found) if stopped else (found.accuracy, found.kl_mnat)
    lost = 100.0 * (float(measuring.float_hits.mean()) - accuracy)
    facts = {
        "accuracy": accuracy,
        "lost_points": lost,
        "kl_mnat": kl,
        "agreement": found.agreement,
        "samples": found.samples,
        "seconds": found.seconds,
        "hits": pack(found.hits),
        "divergences": pack_divergences(found.divergences),
    }
    return _tell(trial, facts, kl if loss == "kl" else lost, whole=not stopped)


def _tell(trial: optuna.Trial, facts: Mapping[str, Any], value: float, *, whole: bool) -> float:
    """Write down what was found; the value of a trial that was stopped early is an estimate."""
    for key, fact in facts.items():
        trial.set_user_attr(key, fact)
    if whole:
        return value
    trial.report(value, int(facts["samples"]))
    raise optuna.TrialPruned


@dataclass(frozen=True)
class _Rivalry:
    """The races against the best trial that went over all samples, if there is one."""

    loss: Loss
    accuracy: Race | None = None
    kl: DivergenceRace | None = None

    @classmethod
    def of(cls, earlier: Sequence[FrozenTrial], loss: Loss) -> _Rivalry:
        whole = [each for each in earlier if each.state == TrialState.COMPLETE]
        if not whole:
            return cls(loss)
        rival = min(whole, key=_value).user_attrs
        hits = unpack(rival["hits"], rival["samples"])
        return cls(loss, Race(hits), DivergenceRace(unpack_divergences(rival["divergences"])))

    def is_lost(self, hits: Hits, divergences: Divergences) -> bool:
        """Whether the race by what is tuned is lost."""
        if self.loss == "kl":
            return self.kl is not None and self.kl.is_lost(divergences)
        return self.accuracy is not None and self.accuracy.is_lost(hits)

    def estimates(self, found: Measurement) -> tuple[float, float]:
        """Accuracy and KL over all samples of what was stopped early."""
        assert self.accuracy is not None
        assert self.kl is not None
        return self.accuracy.estimate(found.hits), self.kl.estimate(found.divergences)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _count(study: optuna.Study) -> int:
    """How many trials are finished."""
    return len(study.get_trials(deepcopy=False, states=_FINISHED))


def _opened(
    storage: str, name: str, sampler: optuna.samplers.BaseSampler
) -> tuple[optuna.Study | None, str]:
    """The study, or why not: processes that start together may each want to make the tables."""
    import sqlalchemy.exc

    try:
        return optuna.create_study(
            storage=_data_base(storage), sampler=sampler, study_name=name, load_if_exists=True
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
