"""A trial: what a configuration costs in accuracy, at the price of an inference over the samples.

Module, calibration statistics and float results are made once and serve every trial.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import calibration, equalization, evaluation, parallel, targets
from mlq.errors import DataError, DiagnosticError, UsageError
from mlq.frontends.data import Dataset
from mlq.network import Network
from mlq.precision import Calibrator, Precision, Scheme
from mlq.ranges import Ranges
from mlq.rounding import Rounding, round_weights
from mlq.simulation import Simulation
from mlq.stored import Assignment
from mlq.targets.base import Target
from mlq.tuning.forecasts import Forecasts
from mlq.tuning.inputs import Inputs
from mlq.tuning.measurement import Measurement, Racing, Reference, never
from mlq.tuning.mixing import PRECISION, Decision, Mixing
from mlq.tuning.space import SPACES, Configuration, Equalized

Array = NDArray[Any]
_Calibrated = tuple[int, Calibrator, Scheme, Equalized]
# Fewer samples than these do not say how far their mean may be off.
_FEWEST = 30
# So many multiplications are done in any case: they take a second. Of small networks that is all.
_CHEAP_MACS = 4 * 10**10
# Samples between two looks at what they make.
_TOGETHER = 10
# Sets of rounded weights that are kept, each as large as the network: the last ones.
_ROUNDINGS_KEPT = 4


class Objective:
    """Measures configurations of one network; not for use from two threads at once.

    `calib` and `evaluation_data` are taken in a random order (`seed`), so that the first samples
    stand for all of them. It runs on this machine; `target` says what layers may be and cost. A
    trial ends when its KL is known within `tolerance` milli-nats; with 0, after all samples.
    Samples run side by side, on processors that so many `processes` share.
    """

    def __init__(
        self,
        network: Network,
        calib: Dataset,
        evaluation_data: Dataset,
        target: Target,
        *,
        seed: int = 0,
        tolerance: float = 0.0,
        processes: int = 1,
    ) -> None:
        self.network = network
        self.calib, self.data = calib.shuffled(seed), evaluation_data.shuffled(seed)
        self._tolerance, self._at_once = tolerance, parallel.most(processes)
        self.mixing = Mixing(self, target, at_once=self._at_once)
        self._names = [spec.name for spec in network.model.inputs]
        self._observations: dict[tuple[int, Equalized], calibration.Observations] = {}
        self._equalized: dict[Equalized, dict[str, Array]] = {None: {}}
        self._ranges: dict[_Calibrated, Ranges] = {}
        self._rounding: dict[Configuration, Rounding] = {}
        # Measurements that were not lost, by what is computed.
        self._measured: dict[str, Measurement] = {}
        self._beside: Callable[[], object] = lambda: None

    @cached_property
    def simulation(self) -> Simulation:
        """The module that calibrates and serves every trial, compiled when it is needed."""
        make = partial(Simulation, chains=0, at_once=self._at_once)
        return make(self.network, targets.host_target(), beside=self._beside)

    @cached_property
    def fewest(self) -> int:
        """The samples that a trial goes over unless it is lost: more of smaller networks."""
        macs = sum(layer.macs for layer in self.network.layers)
        return min(max(_FEWEST, _CHEAP_MACS // max(macs, 1)), self.data.samples)

    def prepare(self) -> None:
        """Compile, and run the float network over the first samples, so that no trial waits."""
        self.reference.logits(self.fewest)

    def compile_beside(self, work: Callable[[], object]) -> None:
        """Compile, and do other work meanwhile: the compiler is a process of its own."""

        def beside() -> None:
            work()
            self.forecasts.store_weights()
            _ = self._evaluated.first

        self._beside = beside
        _ = self.simulation

    def foresee(self, points: Sequence[Configuration], work: Callable[[], object]) -> None:
        """Forecast these configurations, and do other work meanwhile, such as to `prepare`."""
        if points:
            self.observations(self.calib.samples)
        for samples in {each.samples for each in points}:
            self.observations(samples)
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            for each in points:
                self.forecasts.of(each)
            working.result()

    @cached_property
    def reference(self) -> Reference:
        """The float network, to which trials are compared."""
        # Nothing is quantized, so what the ranges are does not matter.
        unused = self.ranges(Configuration(1, "asymmetric", "minmax", "per_axis", "none"))
        outputs = self._outputs(self.simulation, unused, {})
        return Reference(outputs, self.data.labels, self.data.samples)

    def observations(self, samples: int, equalized: Equalized = None) -> calibration.Observations:
        """What the float network's tensors hold over the first `samples`; observed once.

        `equalized`: those of the network whose channels were made alike, for this granularity.
        """
        if samples > self.calib.samples:
            raise DataError(
                f"{self.calib.name}: has {self.calib.samples} samples, the configuration asks for "
                f"{samples}; list fewer calibration samples or give more data"
            )
        if (samples, equalized) not in self._observations:
            simulation = self.simulation.reweighted(self.network_of(equalized))
            results = simulation.observed(self.calibration(samples))
            # The first of them are what configurations of few samples know.
            few = SPACES["quantune96"].fitted(self.calib.samples).samples
            for found in calibration.observe_each(self.network, results, few):
                self._observations.setdefault((found.samples, equalized), found)
        return self._observations[samples, equalized]

    def network_of(self, equalized: Equalized) -> Network:
        """The network, its channels made alike if they are to be; made once.

        UsageError where the float network has an op that numpy cannot compute.
        """
        if equalized not in self._equalized:
            samples = equalization.samples(self.calib.samples)
            with self._in_numpy("methods=none,bias-correction"):
                self._equalized[equalized] = equalization.equalize(
                    self.network,
                    self.calibration(samples),
                    Precision.parse(PRECISION),
                    granularity=equalized or "per_axis",
                )
        return Rounding(equalized=self._equalized[equalized]).of(self.network)

    def ranges(self, configuration: Configuration) -> Ranges:
        """The ranges that a configuration computes with; calibrated once."""
        key = _calibrated(configuration)
        if key not in self._ranges:
            self._ranges[key] = calibration.ranges_by(
                configuration.calibrator,
                self.observations(configuration.samples, key[-1]),
                scheme=configuration.scheme,
                precision=PRECISION,
            )
        return self._ranges[key]

    def rounding(self, configuration: Configuration) -> Rounding:
        """What takes the place of weights and biases, where that is configured; fitted once.

        UsageError where the float network has an op that numpy cannot compute.
        """
        network = self.network_of(configuration.equalized)
        equalized = self._equalized[configuration.equalized]
        if configuration.rounding == "nearest" and not configuration.uses("bias-correction"):
            return Rounding(equalized=equalized)
        key = replace(configuration, mixed="none")
        if key not in self._rounding:
            fitted = self._fitted(configuration, network)
            self._rounding[key] = replace(fitted, equalized=equalized)
            for oldest in list(self._rounding)[:-_ROUNDINGS_KEPT]:
                del self._rounding[oldest]
        return self._rounding[key]

    def _fitted(self, configuration: Configuration, network: Network) -> Rounding:
        """Weights rounded for what layers read, or biases that make up for the nearest ones."""
        supported, fits = self.mixing.supported, configuration.rounding != "nearest"
        simulation = self.simulation.reweighted(network)
        with self._in_numpy("rounding=nearest --only methods=none"):
            return round_weights(
                self.calibration(configuration.samples),
                configuration.samples,
                simulation.configured(configuration.scheme, configuration.granularity),
                self.ranges(configuration),
                supported if fits else {},
                corrected={} if fits else supported,
                network=network,
            )

    @contextmanager
    def _in_numpy(self, instead: str) -> Iterator[None]:
        """UsageError, which says what to search instead, where numpy cannot compute an op."""
        try:
            yield
        except DiagnosticError as error:
            raise UsageError(
                f"{self.network.model.path}: {error}: numpy cannot compute it, as some"
                f" configurations ask; leave these out with --only {instead}"
            ) from None

    def simulated(self, configuration: Configuration, simulation: Simulation) -> Simulation:
        """A simulation of the network, with the configuration's scheme, granularity, weights."""
        network = self.network_of(configuration.equalized)
        plain = simulation.reweighted(network).configured(
            configuration.scheme, configuration.granularity
        )
        fitted = self.rounding(configuration)
        return plain.refined({}, fitted.weights, fitted.biases) if fitted.refines else plain

    def decision(self, configuration: Configuration) -> Decision:
        """The precision of every layer, with the reason, and the predicted time of a call."""
        return self.mixing.decision(configuration)

    @cached_property
    def forecasts(self) -> Forecasts:
        """What is known of configurations before their trials, from all calibration samples."""
        return Forecasts(self, self.mixing, self.calib.samples)

    def predicted_us(self, configuration: Configuration) -> float:
        """Microseconds of a call by the target's costs; may need a pass for sensitivities."""
        return self.decision(configuration).us

    def measure(self, configuration: Configuration, racing: Racing = never) -> Measurement:
        """Run the network in a configuration over the samples, or until `racing` says stop.

        Configurations can compute the very same network (unsigned activations have the same range
        in two schemes): it is run once.
        """
        self.prepare()
        start = time.perf_counter()
        simulation = self.simulated(configuration, self.simulation)
        ranges, assignment = self.ranges(configuration), self.decision(configuration).assignment
        computed = _digest(
            simulation.table(ranges, assignment), simulation.simulated_weights(assignment, "")
        )
        measured = self._measured.get(computed)
        if measured is None:
            with closing(self._outputs(simulation, ranges, assignment)) as outputs:
                measured = self.reference.measure(
                    outputs, racing, tolerance=self._tolerance, fewest=self.fewest
                )
        if not measured.lost:
            self._measured[computed] = measured
        return replace(measured, seconds=time.perf_counter() - start)

    def _outputs(
        self, simulation: Simulation, ranges: Ranges, assignment: Assignment
    ) -> Generator[Array]:
        """Logits of some samples after the other; of the `fewest` in any case, or until closed."""
        inputs = iter(self._evaluated)

        def logits(samples: int) -> Generator[Array]:
            some = itertools.islice(inputs, samples)
            yield from (evaluation.logits(x) for x, *_ in simulation.each(some, ranges, assignment))

        first = logits(-(-self.fewest // _TOGETHER) * _TOGETHER)
        # Beyond, none is run that nobody waits for, and the simulation may be used between.
        while some := list(itertools.islice(first, _TOGETHER)) or list(logits(_TOGETHER)):
            yield np.concatenate(some)

    def calibration(self, samples: int) -> Iterator[list[Array]]:
        """The first so many calibration samples, one by one."""
        return itertools.islice(Inputs(self.calib, self._names), samples)

    @cached_property
    def _evaluated(self) -> Inputs:
        """The samples of trials, the first of which all trials go over."""
        return Inputs(self.data, self._names, self.fewest)


def _calibrated(configuration: Configuration) -> _Calibrated:
    """What decides the ranges of a configuration."""
    known = configuration
    return known.samples, known.calibrator, known.scheme, known.equalized


def _digest(table: Array, weights: Mapping[str, Array]) -> str:
    """A hash of all that a simulated network depends on, besides its samples."""
    digest = hashlib.sha256(table.tobytes())
    for name in sorted(weights):
        digest.update(np.ascontiguousarray(weights[name]).data)
    return digest.hexdigest()
