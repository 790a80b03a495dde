"""What has been measured tells which configuration is likely best: gradient-boosted trees.

Losses of different networks cannot be compared (a fragile one loses more whatever the choice), but
the order of the configurations can. So trees regress on normal scores: where a trial stands among
those of its network, as a quantile of the normal distribution.
Source: Quantune (arXiv 2202.05048), which regresses on accuracy itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlq.errors import UsageError
from mlq.tuning.features import COLUMNS, NOISE, Features, Matrix, encode, encode_noise
from mlq.tuning.space import Configuration
from mlq.tuning.trials import Forecast, Trial, Trials

if TYPE_CHECKING:
    import xgboost
elif find_spec("xgboost") is None:  # it is imported where trees grow, and takes as long as they do
    raise UsageError("tuning needs xgboost; install it with: pip install 'mlq[tune]'")

# Features of networks tell two networks apart when there are few; with more, what they share.
_MODELS_PER_FEATURE = 2


ForecastOf = Callable[[Configuration], Forecast]
"""What is known of each configuration of the tuned network before its trial."""


@dataclass(frozen=True)
class Prediction:
    """How good configurations are likely to be: the greater the better, in standard deviations."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


@dataclass(frozen=True)
class Surrogate:
    """An ensemble of regressors; `prior` holds trials of other networks, `features` is of this one.

    Without `forecasts` of this network, those of the others are of no use.

    Each of `members` sees a random `share` of the trials, and their trees differ in depth: no depth
    is best for all data, the mean of several hardly ever bad. What they disagree on is uncertain.
    A trial of the tuned network weighs as `own_weight` of another.
    """

    prior: Trials
    features: Features
    forecasts: ForecastOf | None = None
    members: int = 9
    share: float = 0.8
    rounds: int = 30
    rate: float = 0.3
    depths: tuple[int, ...] = (3, 4, 6)
    own_weight: float = 1.0
    seed: int = 0
    _last: list[Any] = field(default_factory=list, repr=False)

    def predict(
        self, own: Sequence[tuple[Configuration, float]], candidates: Sequence[Configuration]
    ) -> Prediction:
        """Scores of `candidates`, given (configuration, loss) of the network that is tuned."""
        import xgboost

        boosters = self.grow(own)
        if not boosters:
            flat = np.zeros(len(candidates))
            return Prediction(flat, flat)
        rows = [self._trial(point, 0.0) for point in candidates]
        asked = xgboost.DMatrix(self._matrix(rows), nthread=1)
        scores = np.stack([_standardised(booster.predict(asked)) for booster in boosters])
        return Prediction(scores.mean(axis=0), scores.std(axis=0))

    def importance(self, own: Sequence[tuple[Configuration, float]] = ()) -> dict[str, float]:
        """By how much each column made the trees better (gain): shares of 1, greatest first."""
        gains: dict[str, float] = {}
        for booster in self.grow(own):
            found = booster.get_score(importance_type="total_gain")
            for key, gain in found.items():
                gains[key] = gains.get(key, 0.0) + float(np.sum(gain))
        total, names = sum(gains.values()), (*COLUMNS, *NOISE, *self._shared())
        ordered = sorted(gains.items(), key=lambda each: -each[1])
        return {names[int(key[1:])]: gain / total for key, gain in ordered}

    def grow(self, own: Sequence[tuple[Configuration, float]] = ()) -> list[xgboost.Booster]:
        """The ensemble that knows these trials of the network; none where nothing is known.

        The last one is kept: a single trial has no rank, so that it tells trees nothing.
        """
        known = tuple(own) if len(own) > 1 else (), self._shared()
        if self._last[:1] != [known]:
            matrix = self._training(known[0])
            members = range(self.members if matrix is not None else 0)
            self._last[:] = [known, [self._boost(matrix, member) for member in members]]
        boosters: list[xgboost.Booster] = self._last[1]
        return boosters

    def _training(self, own: Sequence[tuple[Configuration, float]]) -> Any:
        """All trials with their normal scores; None where no network has two."""
        groups = [self.prior.of(model) for model in self.prior.models]
        mine = tuple(self._trial(each, loss) for each, loss in own)
        groups = [group for group in (*groups, mine) if len(group) > 1]
        if not groups:
            return None
        import xgboost

        rows = [trial for group in groups for trial in group]
        return xgboost.DMatrix(
            self._matrix(rows),
            label=np.concatenate([_normal_scores(group) for group in groups]),
            weight=[1.0 if each.model else self.own_weight for each in rows],
            nthread=1,
        )

    def _boost(self, matrix: Any, member: int) -> xgboost.Booster:
        """One member of the ensemble."""
        import xgboost

        parameters = {
            "objective": "reg:squarederror",
            "eta": self.rate,
            "max_depth": self.depths[member % len(self.depths)],
            "subsample": self.share,
            "seed": self.seed * self.members + member,
            "nthread": 1,
        }
        return xgboost.train(parameters, matrix, num_boost_round=self.rounds)

    def _trial(self, point: Configuration, loss: float) -> Trial:
        """A trial of the tuned network."""
        known = Forecast() if self.forecasts is None else self.forecasts(point)
        return Trial("", point, loss, forecast=known)

    def _matrix(self, rows: Sequence[Trial]) -> Matrix:
        """Knobs, noise, and the features of the networks where there are enough networks."""
        known, shared = {**self.prior.features, "": self.features}, self._shared()
        facts = [[known[row.model][name] for name in shared] for row in rows]
        # Without a forecast of this network, trees must not ask for one.
        noise = [{} if self.forecasts is None else row.forecast.noise for row in rows]
        knobs = encode([row.configuration for row in rows])
        return np.hstack([knobs, encode_noise(noise), np.array(facts).reshape(len(rows), -1)])

    def _shared(self) -> list[str]:
        """The features that all networks have; none where there are too few networks for them."""
        known = {**self.prior.features, "": self.features}
        tables = [known.get(model, {}) for model in {*self.prior.models, ""}]
        shared = sorted(set.intersection(*(set(table) for table in tables)))
        return shared if len(tables) >= _MODELS_PER_FEATURE * len(shared) else []


def _standardised(scores: Any) -> NDArray[np.float64]:
    """Scores with a mean of zero and a standard deviation of one."""
    found: NDArray[np.float64] = np.asarray(scores, np.float64)
    found = found - found.mean()
    return found / (float(found.std()) or 1.0)


def _normal_scores(group: Sequence[Trial]) -> NDArray[np.float64]:
    """Of each trial of a network: the less it loses the greater, equal ones the same.

    Source: van der Waerden (1952), but for the quantiles, which are at the middle of each step.
    """
    from scipy.special import ndtri

    losses = np.array([each.loss for each in group])
    worse = (losses[None, :] > losses[:, None]).sum(axis=1)
    equal = (losses[None, :] == losses[:, None]).sum(axis=1)
    return np.asarray(ndtri((worse + equal / 2.0) / len(group)), np.float64)
