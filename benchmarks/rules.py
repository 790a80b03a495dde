"""Selection rules beside the integer program, at one accuracy.

    python benchmarks/rules.py [NETWORK ...] [--effort quick] [--part 0.5]

Each may lose at most so much KL, as a part of what all-int8 loses in simulation. Prints of its
first plan the float layers, the simulated KL (milli-nats, over the calibration samples), and the
time that the target's table predicts, as a ratio to all-int8's. A rule that ends above says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

import networks
import oracle

from mlq import analysis
from mlq.methods import prepare
from mlq.network import load
from mlq.planning import MNAT_PER_UNIT_DROP, Planner, noise_budget
from mlq.recipe import resolve
from mlq.rules import RULES
from mlq.selection import candidates
from mlq.simulation import uniform


class Row(NamedTuple):
    """What one rule chose: float layers, KL, predicted time over all-int8's, and the budget."""

    rule: str
    float_layers: int
    kl_mnat: float
    time: float
    budget: float


def rows(network: networks.Network, effort: str, part: float) -> Iterator[Row]:
    """A row for each rule."""
    subject = oracle.subject_of(network, effort=effort)
    found = analysis.analyse(prepare(subject))
    # What is measured is a batch, what is planned a call of one sample.
    single = load(network.model, batch=1)
    base = uniform(subject.network, oracle.BASE, subject.allowed)
    allowed = part * found.divergence(base)
    # The recipe speaks of accuracy; this is the one whose budget is `allowed`.
    per_unit = noise_budget(resolve({"max_drop": 1.0})) or MNAT_PER_UNIT_DROP
    for rule in RULES:
        recipe = resolve({"effort": effort, "select": rule, "max_drop": allowed / per_unit})
        planner = Planner.of(single, subject.target, recipe, found.sensitivities)
        whole = {layer.name: base.get(layer.name, "f32") for layer in subject.network.layers}
        everything = planner.problem.totals(whole)
        first = candidates(planner, found)[0]
        precisions = first.allocation.precisions
        kl = first.simulated_kl_mnat
        yield Row(
            rule,
            list(precisions.values()).count("f32"),
            found.divergence(precisions) if kl is None else kl,
            first.allocation.us / everything.us,
            allowed,
        )


def main() -> None:
    """Print a row for each network and rule."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks (default: all)")
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--part", type=float, default=0.5, help="of all-int8's KL that may be lost")
    arguments: Any = parser.parse_args()
    for network in networks.find(arguments.names):
        for row in rows(network, arguments.effort, arguments.part):
            missed = " missed" if row.kl_mnat > row.budget else ""
            print(
                f"{network.name:28} {row.rule:10} {row.float_layers:3} float"
                f" {row.kl_mnat:7.3f} of {row.budget:.3f} mnat  {row.time:.3f} x int8{missed}",
                flush=True,
            )


if __name__ == "__main__":
    main()
