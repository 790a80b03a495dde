"""Samplers for Optuna: Quantune's, and the baselines it is compared with."""

from __future__ import annotations

import abc
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from mlq.errors import UsageError
from mlq.precision import one_of
from mlq.tuning.space import Configuration, Space, configuration
from mlq.tuning.surrogate import Surrogate
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
# Trials that tell a cold sampler something.
_COLD = 2


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
        free = [point for point in self._points if point not in taken] or list(self._points)
        told = [
            (point, float(each.value) * _sign(study))
            for each in others
            if each.state in _TOLD and each.value is not None
            if (point := _configuration(each)) is not None
        ]
        return self._next(free, told)

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
    def _next(
        self, free: Sequence[Configuration], told: Sequence[tuple[Configuration, float]]
    ) -> Configuration:
        """The choice among the free points, given (configuration, loss) of the finished ones."""


class OrderedSampler(_PointSampler):
    """Configurations in a given order: grid search, or random search without repetition."""

    def _next(
        self, free: Sequence[Configuration], told: Sequence[tuple[Configuration, float]]
    ) -> Configuration:
        del told
        return free[0]


class QuantuneSampler(_PointSampler):
    """The configuration that trees, grown on other networks' trials and on this one's, rank first.

    Without trials of other networks (cold) the first two are random. With `caution` above zero the
    choice is by mean plus so many deviations, which explores what the ensemble is unsure of.
    """

    def __init__(
        self,
        space: Space,
        prior: Trials | None = None,
        features: Mapping[str, float] | None = None,
        *,
        caution: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(space)
        self._surrogate = Surrogate(prior or Trials(), features or {}, seed=seed)
        self._caution = caution
        self._random = np.random.default_rng(seed)

    def _next(
        self, free: Sequence[Configuration], told: Sequence[tuple[Configuration, float]]
    ) -> Configuration:
        if len(told) < _COLD and not self._surrogate.prior.trials:
            return free[int(self._random.integers(len(free)))]
        predicted = self._surrogate.predict(told, free)
        # Of equally good ones the first: the space lists the cheaper ones before the others.
        return free[int(np.argmax(predicted.mean + self._caution * predicted.deviation))]


def sampler(
    name: str,
    space: Space,
    *,
    prior: Trials | None = None,
    features: Mapping[str, float] | None = None,
    seed: int = 0,
) -> BaseSampler:
    """The sampler of that name; UsageError lists all of them. `prior` is for quantune alone."""
    one_of(SAMPLERS, name, "sampler")
    if name == "quantune":
        return QuantuneSampler(space, prior, features, seed=seed)
    if name == "quantune-cold":
        return QuantuneSampler(space, seed=seed)
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
    return 1.0 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1.0
