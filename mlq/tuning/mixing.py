"""Which layers a configuration leaves in float, why, and the time of a call that this predicts.

The allocator's choice needs sensitivities: a pass over some calibration samples, then each layer
alone on a few of them, as `mlq quantize` does it; once for each way of quantizing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import NamedTuple, Protocol

from mlq import alone, planning, sensitivity, targets
from mlq.calibration import Batch, Observations
from mlq.costs import TableCosts
from mlq.network import Network
from mlq.ranges import Ranges
from mlq.recipe import Recipe
from mlq.sensitivities import Sensitivities
from mlq.simulation import Simulation, uniform
from mlq.stored import Assignment
from mlq.targets.base import Target
from mlq.tuning.space import Configuration, Methods

PRECISION = "w8a8"
# The allocator's plan is the fastest with at most this part of the all-integer network's noise:
# 6 dB less, which is what one more bit everywhere would bring.
_NOISE_KEPT = 0.25
# More samples than these change little of what sensitivities say.
_ENOUGH_SAMPLES = 32


def recipe(configuration: Configuration, target: Target) -> Recipe:
    """What layers are given precisions by; the allocator chooses from all that suit the target."""
    return Recipe(
        target=target.name,
        max_drop=None,
        precisions=target.menu if configuration.mixed == "quantunev2" else f"f32,{PRECISION}",
        scheme=configuration.scheme,
        granularity=configuration.granularity,
    )


class Decision(NamedTuple):
    """The precision of every layer, the sentence that says why, and microseconds of a call."""

    precisions: Mapping[str, str]
    reasons: Mapping[str, str]
    us: float

    @property
    def assignment(self) -> Assignment:
        """The layers that are not float, with their precisions."""
        return {name: each for name, each in self.precisions.items() if each != "f32"}


class Calibrated(Protocol):
    """A network for single samples, and what is known of it from calibration samples."""

    network: Network

    def calibration(self, samples: int) -> Iterator[Batch]:
        """The first so many samples, one by one."""

    def observations(self, samples: int) -> Observations:
        """What the float network does with them."""

    def ranges(self, configuration: Configuration) -> Ranges:
        """The ranges of a configuration."""

    def simulated(self, configuration: Configuration, simulation: Simulation) -> Simulation:
        """A simulation with all else that is configured."""


class Mixing:
    """Decides for configurations of one network."""

    def __init__(self, calibrated: Calibrated, target: Target, *, at_once: int) -> None:
        self._calibrated, self._network = calibrated, calibrated.network
        self._target, self._at_once = target, at_once
        self.supported = planning.supported(self._network, target, [PRECISION])
        self._decided: dict[Configuration, Decision] = {}
        self._by_rule = cache(self._ruled)

    def decision(self, configuration: Configuration) -> Decision:
        """What is decided for a configuration; decided once."""
        if configuration.mixed != "quantunev2":
            return self._by_rule(configuration.mixed)
        if configuration not in self._decided:
            self._decided[configuration] = self._allocated(configuration)
        return self._decided[configuration]

    def known_us(self, configuration: Configuration) -> float | None:
        """The predicted time of a call, where saying it needs no inference."""
        if configuration.mixed == "quantunev2" and configuration not in self._decided:
            return None
        return self.decision(configuration).us

    def _ruled(self, mixed: str) -> Decision:
        """All that can be is integer, but for the ends where these are to be float."""
        integer = uniform(self._network, PRECISION, self.supported)
        weighted = [layer.name for layer in self._network.layers if layer.weight is not None]
        ends = weighted[:1] + weighted[-1:] if mixed == "ends" else []
        names = [layer.name for layer in self._network.layers]
        precisions = {**dict.fromkeys(names, "f32"), **integer, **dict.fromkeys(ends, "f32")}
        why = dict.fromkeys(names, "f32: the target has no integer precision for it")
        why |= dict.fromkeys(integer, f"{PRECISION}: as every layer that can be")
        why |= dict.fromkeys(ends, "f32: the first and the last layer stay float")
        us = planning.predicted_us(self._network, TableCosts(self._target), precisions)
        return Decision(precisions, why, us)

    def _allocated(self, configuration: Configuration) -> Decision:
        """The fastest plan that keeps no more than a part of the noise, or one as fast with less.

        Source: QuantuneV2 (arXiv 2501.07161), which leaves the layers of the worst local metrics
        in float; here each is weighed against its time in every precision that suits the target.
        """
        given = recipe(configuration, self._target)
        # The float half of the module that compares keeps the network's own weights.
        kept: Methods = "bias-correction" if configuration.uses("bias-correction") else "none"
        unscaled = replace(configuration, methods=kept)
        found = self._sensitivities(unscaled, given)
        planner = planning.Planner.of(self._network, self._target, given, found)
        plan = planner.as_fast(planner.solve(_NOISE_KEPT * found.kl_mnat))
        return Decision(plan.precisions, plan.reasons, plan.us)

    def _sensitivities(self, configuration: Configuration, given: Recipe) -> Sensitivities:
        """What each layer loses under a configuration."""
        known, samples = self._calibrated, min(configuration.samples, _ENOUGH_SAMPLES)
        integer = given.reduced_precisions()
        simulation = known.simulated(configuration, self._simulation)
        ranges = known.ranges(configuration)
        together = sensitivity.measure(
            known.calibration(samples),
            simulation,
            ranges,
            precisions=integer,
            supported=planning.supported(self._network, self._target, integer),
            metric=given.sensitivity_metric,
        )
        seen = known.observations(configuration.samples)
        few = alone.few(together, zip(known.calibration(samples), seen.outputs, strict=False))
        return alone.try_alone(together, few, simulation, ranges, seen.predictions)

    @cached_property
    def _simulation(self) -> Simulation:
        """The network beside its float self; runs on this machine, whatever the target."""
        host, menu = targets.host_target(), Recipe(precisions=self._target.menu)
        chains = len(menu.reduced_precisions())
        return Simulation(self._network, host, chains=chains, at_once=self._at_once)
