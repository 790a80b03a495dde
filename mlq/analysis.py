"""What two inferences find out about a network: ranges, then sensitivities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mlq import alone, calibration, columns, equalization, journal, planning, sensitivity, targets
from mlq.errors import ModelError
from mlq.frontends.data import Dataset
from mlq.network import Network, load
from mlq.precision import Precision
from mlq.progress import Stages
from mlq.propagation import OWN_METRICS
from mlq.recipe import Recipe
from mlq.rounding import Rounding, round_weights
from mlq.sensitivities import Sensitivities
from mlq.simulation import Simulation, uniform
from mlq.stored import Assignment
from mlq.targets.base import Target

# A batch of the measuring modules: what divides the samples, so that none is counted twice, and
# leaves in the cache what two networks in lockstep are compared by.
_BATCH, _BATCH_ELEMENTS = 8, 1 << 17


@dataclass(frozen=True)
class Subject:
    """A network compiled for measuring batches, the samples, and how to measure.

    What is measured is the same wherever it runs, so it runs on this machine's CPU; `target` says
    what layers may be and what they cost.
    """

    network: Network
    data: Dataset
    batch: int
    target: Target
    recipe: Recipe
    stages: Stages

    @classmethod
    def of(
        cls, path: Path, data: Dataset, target: Target, recipe: Recipe, stages: Stages
    ) -> Subject:
        """Import it once more, in batches that divide the samples unless the graph fixes a batch.

        TargetError where the recipe lists a precision that no layer can have on the target.
        """
        planning.expect_offered(target, recipe.reduced_precisions())
        network = load(path, batch=1, **recipe.import_options)
        widest = max(layer.output_elements for layer in network.layers)
        sizes = range(max(1, min(_BATCH, _BATCH_ELEMENTS // widest)), 0, -1)
        batch = next(size for size in sizes if data.samples % size == 0)
        with suppress(ModelError):
            if batch > 1:
                network = load(path, batch=batch, **recipe.import_options)
                return cls(network, data, batch, target, recipe, stages)
        return cls(network, data, 1, target, recipe, stages)

    @property
    def allowed(self) -> dict[str, list[str]]:
        """The integer precisions that each layer can have, of those the recipe lists."""
        return planning.supported(self.network, self.target, self.recipe.reduced_precisions())

    @property
    def base(self) -> Assignment:
        """Every layer that can be in the first integer precision of the recipe."""
        return uniform(self.network, self.recipe.reduced_precisions()[0], self.allowed)

    def batches(self) -> Iterator[list[NDArray[Any]]]:
        """All samples, inputs in the network's order."""
        names = [spec.name for spec in self.network.model.inputs]
        return ([batch[name] for name in names] for batch in self.data.batches(self.batch))


@dataclass(frozen=True)
class Chosen:
    """Accuracy methods that were taken, the expected KL (milli-nats) of each set that was tried.

    Also what that took: samples count once for each time that they were computed.
    """

    taken: str = ""
    tried: Mapping[str, float] = field(default_factory=dict)
    float_passes: float = 1.0
    numpy_samples: int = 0
    probed_samples: int = 0


@dataclass(frozen=True)
class Analysis:
    """What was measured of a network, and the simulation that measured it."""

    subject: Subject
    simulation: Simulation
    observations: calibration.Observations
    choice: calibration.Choice
    sensitivities: Sensitivities
    rounding: Rounding = field(default_factory=Rounding, repr=False)
    methods: Chosen = field(default_factory=Chosen)

    def divergence(self, precisions: Mapping[str, str]) -> float:
        """KL (milli-nats) to float of the network simulated in these precisions."""
        return calibration.divergence(
            self.observations,
            self.subject.batches(),
            self.simulation,
            self.choice.ranges,
            precisions,
        )


@dataclass(frozen=True)
class Prepared:
    """A network that is ready to be measured: calibrated, equalized and rounded as its recipe says.

    `subject.network` has equalized weights; the simulation those that were rounded, too.
    """

    subject: Subject
    simulation: Simulation
    observations: calibration.Observations
    choice: calibration.Choice
    rounding: Rounding = field(repr=False)
    methods: Chosen


def analyse(made: Prepared) -> Analysis:
    """Measure sensitivities: one quantized pass over the samples."""
    found = measure(made.subject, made.observations, made.simulation, made.choice)
    return replace(found, rounding=made.rounding, methods=made.methods)


def measure(
    subject: Subject,
    observations: calibration.Observations,
    simulation: Simulation,
    choice: calibration.Choice,
) -> Analysis:
    """The sensitivities of a network whose ranges are chosen."""
    with subject.stages.stage("measure sensitivity", subject.data.samples) as advance:
        sensitivities = sensitivity.measure(
            subject.batches(),
            simulation,
            choice.ranges,
            precisions=subject.recipe.reduced_precisions(),
            supported=subject.allowed,
            metric=subject.recipe.sensitivity_metric,
            advance=advance,
        )
    found = Analysis(subject, simulation, observations, choice, sensitivities)
    if subject.recipe.effort == "quick":
        return found
    if subject.recipe.effort == "extensive":
        return replace(found, sensitivities=_tried_on_all(found, alone.TRIED))
    few = alone.few(sensitivities, pairs(found))
    given = (simulation, choice.ranges, observations.predictions)
    with subject.stages.stage("try layers alone", alone.steps(sensitivities, 1, 1)) as advance:
        tried = alone.try_alone(sensitivities, few, *given, advance=advance)
    return replace(found, sensitivities=tried)


def with_oracle(found: Analysis) -> Analysis:
    """Add what each layer alone does to the output over all samples (O1): the oracle."""
    return replace(found, sensitivities=_tried_on_all(found, alone.ORACLE))


def _tried_on_all(found: Analysis, names: tuple[str, str, str, str]) -> Sensitivities:
    """Try layers alone on all samples; killed, the next run goes on from what was measured."""
    subject, simulation, ranges = found.subject, found.simulation, found.choice.ranges
    known = found.sensitivities
    identity = (subject.network.model.sha256, subject.data.sha256, ranges.to_json())
    measured = journal.cached(simulation.identity, repr(alone.TRIED), *identity)
    steps = alone.steps(known, subject.data.samples, subject.batch)
    try:
        with subject.stages.stage("layers alone, all samples", steps) as advance:
            return alone.try_alone(
                known,
                pairs(found),
                simulation,
                ranges,
                found.observations.predictions,
                names=names,
                journal=measured,
                advance=advance,
            )
    except KeyboardInterrupt:
        said = "stopped; the same command goes on from here"
        raise KeyboardInterrupt(said if measured.is_kept else "") from None


def pairs(found: Analysis) -> Iterator[alone.Pair]:
    """Every batch with the float network's output; beyond what was kept it is computed again."""
    outputs = iter(found.observations.outputs)
    for batch in found.subject.batches():
        reference = next(outputs, None)
        if reference is None:
            reference = found.simulation.run(batch, found.choice.ranges, {})[0]
        yield batch, reference


def observe(subject: Subject, simulation: Simulation) -> calibration.Observations:
    """Inference 1, in float."""
    with subject.stages.stage("calibrate", subject.data.samples) as advance:
        results = simulation.observed(subject.batches())
        return calibration.observe(subject.network, results, advance=advance)


def simulate(subject: Subject, *, at_once: int = 0) -> Simulation:
    """Compile the module that serves calibration and every configuration.

    Batches are run on as many processors as there are, or so many `at_once`.
    """
    with subject.stages.stage("compile simulation"):
        return Simulation(
            subject.network,
            targets.host_target(),
            chains=len(subject.recipe.reduced_precisions()),
            own=subject.recipe.sensitivity_metric in OWN_METRICS,
            scheme=subject.recipe.scheme,
            granularity=subject.recipe.granularity,
            at_once=at_once,
        )


def equalize(subject: Subject, samples: int) -> dict[str, NDArray[Any]]:
    """Weights and biases that make channels alike, by key, by the first `samples`.

    DiagnosticError where the float network has an op that numpy cannot compute.
    """
    with subject.stages.stage("equalize", equalization.samples(samples)) as advance:
        return equalization.equalize(
            subject.network,
            columns.first(subject.batches(), samples),
            Precision.parse(subject.recipe.reduced_precisions()[0]),
            granularity=subject.recipe.granularity,
            advance=advance,
        )


def fit_weights(
    subject: Subject,
    simulation: Simulation,
    choice: calibration.Choice,
    *,
    corrects: bool,
    samples: int | None = None,
) -> Rounding:
    """Weights by least squares for the precisions that the recipe rounds so.

    If it `corrects`, also biases for the others. Of all samples, or the first `samples`.
    DiagnosticError where the float network has an op that numpy cannot compute.
    """
    wanted, allowed = subject.recipe.fitted_precisions, subject.allowed
    fitted, others = (
        {
            name: [each for each in every if (each in wanted) == fits]
            for name, every in allowed.items()
        }
        for fits in (True, False)
    )
    corrected = others if corrects else {}
    if not any((*fitted.values(), *corrected.values())):
        return Rounding()
    with subject.stages.stage("round weights", len(allowed)) as advance:
        return round_weights(
            subject.batches(),
            subject.data.samples if samples is None else samples,
            simulation,
            choice.ranges,
            fitted,
            corrected=corrected,
            seed=subject.recipe.seed,
            advance=advance,
        )


def choose_ranges(
    subject: Subject, observations: calibration.Observations, simulation: Simulation
) -> calibration.Choice:
    """The ranges of the recipe's calibrator, or of the best one when it says auto."""
    with subject.stages.stage("choose calibrator") as advance:
        return calibration.choose(
            observations,
            subject.batches,
            simulation,
            subject.base,
            calibrator=subject.recipe.calibrator,
            scheme=subject.recipe.scheme,
            advance=advance,
        )
