"""Which accuracy methods a network is prepared with: those asked for, or those that help it.

No method makes every network better. By `auto` the network is prepared with each set of them, and
what all of it in the first integer precision then loses is compared as calibrators are, on samples
that no set was fitted to. The set that is taken is then fitted as if it had been asked for.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import analysis, calibration, equalization, rounding
from mlq.analysis import Chosen, Prepared, Subject
from mlq.errors import DiagnosticError, UsageError
from mlq.network import tensors
from mlq.precision import Method
from mlq.rounding import Rounding
from mlq.simulation import Simulation

Losses = NDArray[np.float64]
Methods = tuple[Method, ...]
"""A set of accuracy methods, in the order of `mlq.precision.METHODS`."""

# The chance at which methods that do no good are taken, all sets together (Bonferroni).
_LEVEL = 0.05
# Samples on which sets are judged, half of all at most.
_MOST_JUDGED = 64


@dataclass(frozen=True)
class _Weights:
    """The network with its own weights, or with equalized ones."""

    subject: Subject
    simulation: Simulation
    observations: calibration.Observations
    equalized: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @cached_property
    def choice(self) -> calibration.Choice:
        """The ranges, chosen once."""
        return analysis.choose_ranges(self.subject, self.observations, self.simulation)

    def alike(self, samples: int) -> _Weights:
        """The same with channels made alike; itself where there is nothing to equalize."""
        found = analysis.equalize(self.subject, samples)
        if not found:
            return self
        network = Rounding(equalized=found).of(self.subject.network)
        subject, simulation = replace(self.subject, network=network), self.simulation
        simulation = simulation.reweighted(network)
        seen = analysis.observe(subject, simulation)
        return _Weights(
            subject, simulation, replace(seen, given=self.observations.reference), found
        )

    def fitted(self, *, corrects: bool, samples: int | None = None) -> Rounding:
        """What is rounded otherwise than to the nearest, fitted to the first `samples`."""
        arguments = (self.subject, self.simulation, self.choice)
        fitted = analysis.fit_weights(*arguments, corrects=corrects, samples=samples)
        return replace(fitted, equalized=self.equalized)

    def refined(self, fitted: Rounding) -> Simulation:
        """The simulation with what was fitted."""
        plain = self.simulation
        return plain.refined({}, fitted.weights, fitted.biases) if fitted.refines else plain

    def uncorrected(self, fitted: Rounding) -> Rounding:
        """The same, in which biases are corrected only where weights are fitted, too."""
        kept = self.subject.recipe.fitted_precisions
        biases = {key: bias for key, bias in fitted.biases.items() if key[1] in kept}
        return replace(fitted, biases=biases)

    def losses(self, fitted: Rounding, pairs: Sequence[Any]) -> Losses:
        """What all layers in the first integer precision lose on batches with float outputs."""
        known, assignment = self.observations.predictions, self.subject.base
        simulation = self.refined(fitted)
        return calibration.losses(pairs, known, simulation, self.choice.ranges, assignment)


def prepare(subject: Subject) -> Prepared:
    """Calibrate: one float pass over the samples, and what the recipe's methods look at besides.

    UsageError where methods that were asked for need numpy, and it cannot compute the network.
    """
    sets, why = subject.recipe.method_sets, ""
    if len(sets) > 1 and (why := _why_none(subject)):
        subject.stages.say(f"methods: none, {why}")
        sets = sets[:1]
    swaps, samples = any("equalize" in each for each in sets), subject.data.samples
    simulation = analysis.simulate(subject)
    seen = analysis.observe(subject, simulation)
    given = _Weights(subject, simulation, seen)
    first = samples if len(sets) == 1 else seen.checked_samples - _judged(subject)
    with _in_numpy(subject):
        equal = given.alike(first) if swaps else given
        every = (given,) if equal is given else (given, equal)
        lost = _losses(every, sets, first) if len(sets) > 1 else {}
        taken = better(lost) if lost else sets[0]
        weights = equal if "equalize" in taken else given
        fitted = weights.fitted(corrects="bias-correction" in taken)
    walked = equalization.samples(first) if swaps else 0
    if lost and (subject.recipe.uses("bias-correction") or subject.recipe.fitted_precisions):
        walked += len(every) * rounding.fitted_samples(first)
    walked += rounding.fitted_samples(samples) if fitted.refines else 0
    chosen = Chosen(
        f"none ({why})" if why else ",".join(taken) or "none",
        {",".join(methods) or "none": float(np.mean(each[:, 0])) for methods, each in lost.items()},
        float_passes=float(len(every)),
        numpy_samples=walked,
        probed_samples=sum(map(len, lost.values())),
    )
    probed = sum(each.choice.probed_samples for each in (every if lost else (weights,)))
    choice, simulation = replace(weights.choice, probed_samples=probed), weights.refined(fitted)
    return Prepared(weights.subject, simulation, weights.observations, choice, fitted, chosen)


def _losses(
    every: Sequence[_Weights], sets: Sequence[Methods], first: int
) -> dict[Methods, Losses]:
    """What each set loses, fitted to the first samples, on the next."""
    given, lost = every[0], dict[Methods, Losses]()
    seen, subject = given.observations, given.subject
    pairs = zip(subject.batches(), seen.reference, strict=False)
    later = itertools.islice(pairs, first // subject.batch, None)
    few = [([np.array(each) for each in batch], reference) for batch, reference in later]
    for weights in every:
        here = [each for each in sets if ("equalize" in each) == (weights is not given)]
        corrects = any("bias-correction" in each for each in here)
        fitted = weights.fitted(corrects=corrects, samples=first)
        for methods in here:
            tried = fitted if "bias-correction" in methods else weights.uncorrected(fitted)
            lost[methods] = weights.losses(tried, few)
    return lost


def _judged(subject: Subject) -> int:
    """How many samples methods are judged on: whole batches, which none is fitted to."""
    available = min(subject.data.samples, calibration.CHECK_SAMPLES)
    return min(available // 2, _MOST_JUDGED) // subject.batch * subject.batch


def better(lost: Mapping[Methods, Losses]) -> Methods:
    """The set that loses least of those that lose less than none does, unless that may be chance.

    Losses are those of `calibration.losses`, of the same samples; Student's paired test is
    one-sided. Where it is not defined, for equal losses, nothing is gained.
    """
    from scipy.stats import ttest_rel

    column = 0 if lost[()][:, 0].any() else 1
    by_sample = {methods: each[:, column] for methods, each in lost.items()}
    plain, level = by_sample.pop(()), _LEVEL / max(len(lost) - 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        chance = {
            methods: float(ttest_rel(after, plain, alternative="less").pvalue)
            for methods, after in by_sample.items()
        }
    sure = [methods for methods in by_sample if chance[methods] < level]
    return min(sure, key=lambda each: (np.mean(by_sample[each]), len(each)), default=())


def _why_none(subject: Subject) -> str:
    """Why no method can be fitted, or judged; empty if they can."""
    if not _judged(subject):
        return "there are too few samples to judge methods by"
    try:
        tensors(subject.network, next(subject.batches()))
    except DiagnosticError as error:
        return f"numpy cannot compute the network: {error}"
    return ""


@contextmanager
def _in_numpy(subject: Subject) -> Iterator[None]:
    """What needs the float network in numpy; UsageError where it cannot be computed."""
    try:
        yield
    except DiagnosticError as error:
        path = subject.network.model.path
        remedy = "round weights with --rounding nearest, without --methods"
        raise UsageError(f"{path}: {error}: numpy cannot compute it; {remedy}") from None
