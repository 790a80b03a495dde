"""Samplers for Optuna: Quantune's, and the baselines it is compared with."""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from mlq.errors import UsageError
from mlq.precision import one_of
from mlq.tuning.space import Configuration, Space, configuration
from mlq.tuning.surrogate import ForecastOf, Surrogate
from mlq.tuning.trials import Trials

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    raise UsageError("tuning needs optuna; install it with: pip install 'mlq[tune]'") from None

SamplerName = Literal["quantune", "quantune-cold", "random", "grid", "genetic", "tpe"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)

# A trial that was stopped early says how bad it is; one that runs is not to be taken twice.
_TOLD = (TrialState.COMPLETE, TrialState.PRUNED)
_TAKEN = (*_TOLD, TrialState.RUNNING)
_POPULATION = 8
# Knobs whose values no number orders, those first that matter most: a value is seen or it is not.
_TRIED_ONCE = ("mixed", "rounding", "methods", "calibrator", "granularity", "scheme")
# Trials that tell a cold sampler something.
_COLD = 2
# The loss and the time are weighed differently in every trial: multiples of the golden ratio are
# spread evenly however few there are. The sum of both counts a little beside the worse of them.
_GOLDEN = (5.0**0.5 - 1.0) / 2.0
_SUM = 0.05

KnownTime = Callable[[Configuration], float | None]
"""The predicted time of a configuration, or None where it takes an inference to say."""


class Told(NamedTuple):
    """A finished trial; microseconds where the study minimises them too."""

    configuration: Configuration
    loss: float
    us: float | None


Vector = NDArray[np.float64]


def distributions(space: Space) -> dict[str, CategoricalDistribution]:
    """The space as Optuna has it."""
    return {knob: CategoricalDistribution(values) for knob, values in space.choices.items()}


class _PointSampler(BaseSampler, abc.ABC):
    """Proposes whole configurations, none of them twice; subclasses say which comes next."""

    def __init__(self, space: Space, points: Sequence[Configuration] | None = None) -> None:
        self._distributions: dict[str, BaseDistribution] = {**distributions(space)}
        self._points = tuple(space.points() if points is None else points)
        # What this process proposed, by trial: the study learns of it a little later.
        self._proposed: dict[int, Configuration] = {}
        self._one_at_a_time = threading.Lock()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All knobs are chosen together."""
        del study, trial
        return self._distributions

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The next configuration; when none is left, any, for a study that does not stop."""
        del search_space
        with self._one_at_a_time:
            self._proposed[trial.number] = self._propose(study, trial.number)
        return self._proposed[trial.number].knobs

    def _propose(self, study: optuna.Study, number: int) -> Configuration:
        others = [each for each in study.get_trials(deepcopy=False) if each.number != number]
        taken = {self._point(each) for each in others if each.state in _TAKEN}
        free = self._left(taken) or list(self._points)
        told = [
            Told(point, each.values[0] * _sign(study), *(each.values[1:] or [None]))
            for each in others
            if each.state in _TOLD and each.values is not None
            if (point := _configuration(each)) is not None
        ]
        return self._next(free, told)

    def _left(self, taken: Container[Configuration | None]) -> list[Configuration]:
        """The points that may still be proposed."""
        return [point for point in self._points if point not in taken]

    def _point(self, trial: FrozenTrial) -> Configuration | None:
        return _configuration(trial) or self._proposed.get(trial.number)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A knob that is not among the configuration's."""
        sampler = optuna.samplers.RandomSampler(seed=trial.number)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    @abc.abstractmethod
    def _next(self, free: Sequence[Configuration], told: Sequence[Told]) -> Configuration:
        """The choice among the free points, given the finished ones."""


class OrderedSampler(_PointSampler):
    """Configurations in a given order: grid search, or random search without repetition."""

    def _next(self, free: Sequence[Configuration], told: Sequence[Told]) -> Configuration:
        del told
        return free[0]


class QuantuneSampler(_PointSampler):
    """The configuration that trees, grown on other networks' trials and on this one's, rank first.

    Without trials of other networks (cold) the first two are random. With them, a value that none
    of them had, nor any trial of this one, is tried once beside the best so far: trees cannot rank
    what they were not grown on. With `caution` above zero the
    choice is by mean plus so many deviations, which explores what the ensemble is unsure of.

    With `known_us` the trees rank by loss only, for the time needs no trial; each proposal weighs
    the two differently, by an augmented Chebyshev norm. With `forecasts` nothing is proposed that
    computes what a trial has computed, as long as there is anything else.
    Source: Knowles, ParEGO (IEEE Trans. Evol. Comput. 10(1), 2006).
    """

    def __init__(
        self,
        space: Space,
        prior: Trials | None = None,
        features: Mapping[str, float] | None = None,
        *,
        caution: float = 0.0,
        known_us: KnownTime | None = None,
        forecasts: ForecastOf | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space)
        self._known_us, self._forecasts = known_us, forecasts
        self.surrogate = Surrogate(
            prior or Trials(), features if features is not None else {}, forecasts, seed=seed
        )
        self._caution = caution
        self._random = np.random.default_rng(seed)

    def _next(self, free: Sequence[Configuration], told: Sequence[Told]) -> Configuration:
        if len(told) < _COLD and not self.surrogate.prior.trials:
            return free[int(self._random.integers(len(free)))]
        if (unseen := self._unseen(free, told)) is not None:
            return unseen
        predicted = self.surrogate.predict([each[:2] for each in told], free)
        scores = predicted.mean + self._caution * predicted.deviation
        if self._known_us is not None:
            weight = 1.0 - len(told) * _GOLDEN % 1.0
            scores = _weighed(scores, self._times(free, told), weight)
        # Of equally good ones the first: the space lists the cheaper ones before the others.
        return free[int(np.argmax(scores))]

    def _unseen(self, free: Sequence[Configuration], told: Sequence[Told]) -> Configuration | None:
        """The best configuration so far but for one knob, whose value no trial had."""
        prior = [each.configuration for each in self.surrogate.prior.trials]
        if not told or not prior:
            return None
        best = min(told, key=lambda each: each.loss).configuration
        tried = [*prior, *(each.configuration for each in told)]
        for knob in _TRIED_ONCE:
            known = {getattr(each, knob) for each in tried}
            for point in free:
                same = replace(point, **{knob: getattr(best, knob)}) == best
                if same and getattr(point, knob) not in known:
                    return point
        return None

    def _left(self, taken: Container[Configuration | None]) -> list[Configuration]:
        left, forecasts = super()._left(taken), self._forecasts
        if forecasts is None:
            return left
        known = {forecasts(point).identity for point in self._points if point in taken} - {""}
        return [point for point in left if forecasts(point).identity not in known] or left

    def _times(self, free: Sequence[Configuration], told: Sequence[Told]) -> Vector:
        """Predicted times; where one is not known, the mean of those alike, or the least of all."""
        assert self._known_us is not None
        alike: dict[str, list[float]] = {}
        for each in told:
            if each.us is not None:
                alike.setdefault(each.configuration.mixed, []).append(each.us)
        times = [self._known_us(point) for point in free]
        least = min((us for us in times if us is not None), default=0.0)
        guesses = (np.mean(alike.get(point.mixed, [least])) for point in free)
        pairs = zip(times, guesses, strict=True)
        return np.array([guess if us is None else us for us, guess in pairs], np.float64)


def _weighed(scores: Vector, times: Vector, weight: float) -> Vector:
    """Scores that count as much as `weight` in [0, 1] says, and short times for the rest."""
    worse, slower = _scaled(-scores), _scaled(times)
    parts = np.stack([weight * worse, (1.0 - weight) * slower])
    return -np.asarray(parts.max(axis=0) + _SUM * parts.sum(axis=0), np.float64)


def _scaled(values: Vector) -> Vector:
    """From 0 for the least to 1 for the greatest."""
    spread = float(np.ptp(values))
    return np.asarray((values - values.min()) / (spread or 1.0), np.float64)


def sampler(
    name: str,
    space: Space,
    *,
    prior: Trials | None = None,
    features: Mapping[str, float] | None = None,
    known_us: KnownTime | None = None,
    forecasts: ForecastOf | None = None,
    seed: int = 0,
) -> BaseSampler:
    """The sampler of that name; UsageError lists all of them.

    `prior`, `features` and `forecasts` are for quantune alone; `known_us` says that time is the
    second objective.
    """
    one_of(SAMPLERS, name, "sampler")
    if name == "quantune":
        return QuantuneSampler(
            space, prior, features, known_us=known_us, forecasts=forecasts, seed=seed
        )
    if name == "quantune-cold":
        return QuantuneSampler(space, known_us=known_us, seed=seed)
    if name == "genetic":
        return optuna.samplers.NSGAIISampler(population_size=_POPULATION, seed=seed)
    if name == "tpe":
        return optuna.samplers.TPESampler(multivariate=True, seed=seed)
    points = space.points()
    if name == "random":
        points = tuple(points[i] for i in np.random.default_rng(seed).permutation(len(points)))
    return OrderedSampler(space, points)


def _configuration(trial: FrozenTrial) -> Configuration | None:
    """What a trial tried; None while that is not decided."""
    try:
        return configuration(trial.params)
    except KeyError:
        return None


def _sign(study: optuna.Study) -> float:
    """What makes the study's value one that is to be small."""
    return 1.0 if study.directions[0] == optuna.study.StudyDirection.MINIMIZE else -1.0
