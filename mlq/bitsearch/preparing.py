"""Everything that a search over bits needs to know of a network, measured once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlq import calibration
from mlq.analysis import Subject, choose_ranges, observe
from mlq.bitsearch.clipping import fit_ranges
from mlq.bitsearch.rounding import multiplied, rounding_of
from mlq.errors import DiagnosticError
from mlq.hardware import Hardware
from mlq.network import Network
from mlq.precision import Calibrator
from mlq.search import Space, menu, space_of
from mlq.simulation import Simulation

BASE_BITS = 8
# The error of a step counts at few bits, and clipping little; local error is then a good guide.
_NARROW_CALIBRATOR: Calibrator = "mse"


@dataclass(frozen=True)
class Prepared:
    """A network that can be simulated at every width, and what it was prepared with.

    `rounding` says how weights of few bits were rounded.
    """

    subject: Subject
    observations: calibration.Observations
    simulation: Simulation
    choice: calibration.Choice
    rounding: str

    @property
    def network(self) -> Network:
        """The network, in batches of the subject."""
        return self.subject.network

    def space(
        self, hardware: Hardware, bits: Sequence[int], activation_bits: Sequence[int] | None = None
    ) -> Space:
        """The space of the network's layers on a device; the first and the last keep 8 bits."""
        layers = multiplied(self.network)
        products = {layer.name: layer.product for layer in layers if layer.product is not None}
        ends = {layers[0].name, layers[-1].name}
        return space_of(products, hardware, bits, activation_bits, fixed=ends)

    @property
    def base(self) -> dict[str, str]:
        """The precision of what is not searched: additions and pools keep 8 bits."""
        searched = {layer.name for layer in multiplied(self.network)}
        names = (layer.name for layer in self.network.layers if layer.name not in searched)
        return dict.fromkeys(names, f"w{BASE_BITS}a{BASE_BITS}")


def prepare(
    subject: Subject, bits: Sequence[int], kept: Path, activation_bits: Sequence[int] | None = None
) -> Prepared:
    """Calibrate, compile the simulation, and round every weight at every width below 8.

    `activation_bits` are those of `menu`. Rounded weights are kept in the file `kept`, from which a
    search that goes on takes them.
    """
    multiplied(subject.network)
    recipe, stages = subject.recipe, subject.stages
    with stages.stage("compile simulation"):
        plain = Simulation(
            subject.network,
            subject.target,
            chains=0,
            scheme=recipe.scheme,
            granularity=recipe.granularity,
        )
    observations = observe(subject, plain)
    choice = choose_ranges(subject, observations, plain)
    narrow = {
        width: calibration.ranges_by(
            _NARROW_CALIBRATOR, observations, scheme=recipe.scheme, precision=f"w{width}a{width}"
        )
        for width in activation_bits or bits
        if width < BASE_BITS
    }
    narrow = fit_ranges(subject, plain, choice.ranges, narrow)
    simulation = plain.refined(narrow, {}, {})
    names = [name for name in menu(bits, activation_bits) if name != f"w{BASE_BITS}a{BASE_BITS}"]
    try:
        rounding = rounding_of(subject, simulation, choice.ranges, names, kept)
    except DiagnosticError as error:
        said = f"to the nearest, because the float network cannot be computed in numpy: {error}"
        return Prepared(subject, observations, simulation, choice, said)
    simulation = plain.refined(narrow, rounding.weights, rounding.biases)
    said = "by least squares on the calibration samples (mlq.reconstruction)"
    return Prepared(subject, observations, simulation, choice, said)
