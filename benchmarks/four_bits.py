"""Weights of 4 bits: what rounding them by least squares saves, alone and mixed with 8 bits.

    python benchmarks/four_bits.py [NETWORK ...] [--precisions w8a8,w4a8] [--methods none]

w8a8           all weights of 8 bits; so with each of the precisions
w4a8 nearest   all of 4 bits (per channel), each rounded to the nearest
w4a8           the same, rounded by least squares on the calibration samples (mlq.rounding)
60 %, 80 %     the plan of least noise within so much of the bytes of all weights of 8 bits, each
               layer in one of the precisions

KL to float (milli-nats) and top-1 on the evaluation samples, simulated; seconds are CPU time of
rounding and of the methods.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from networks import Network, find

from mlq import metrics, targets
from mlq.allocation import Budget, LayerChoice, Problem, solve
from mlq.analysis import Analysis, Subject, choose_ranges, fit_weights, measure, observe, simulate
from mlq.frontends.data import load_data
from mlq.network import load
from mlq.planning import Planner
from mlq.progress import Stages
from mlq.recipe import resolve
from mlq.simulation import Simulation, uniform

SHARES = (0.6, 0.8)
BASE, NARROW = "w8a8", "w4a8"


def analysed(network: Network, precisions: str, methods: str) -> tuple[Analysis, Simulation, float]:
    """The network's analysis with fitted weights, its plain simulation, CPU seconds of fitting."""
    device = targets.by_name("x86")
    recipe = resolve({"threads": 2, "precisions": f"f32,{precisions}", "methods": methods})
    specs = load(network.model, batch=1).sample_specs
    data = load_data(str(network.calib), specs, model_path=network.model)
    subject = Subject.of(network.model, data, device, recipe, Stages(visible=False))
    plain = simulate(subject)
    observations = observe(subject, plain)
    choice = choose_ranges(subject, observations, plain)
    start = time.process_time()
    corrects = subject.recipe.uses("bias-correction")
    rounding = fit_weights(subject, plain, choice, corrects=corrects)
    seconds = time.process_time() - start
    refined = plain.refined({}, rounding.weights, rounding.biases)
    return measure(subject, observations, refined, choice), plain, seconds


def plans(found: Analysis) -> dict[str, Mapping[str, str]]:
    """Precisions by layer: uniform ones, and the least noise within shares of the bytes of w8a8."""
    subject = found.subject
    named: dict[str, Mapping[str, str]] = {
        each: uniform(subject.network, each, subject.allowed)
        for each in subject.recipe.reduced_precisions()
    }
    planner = Planner.of(subject.network, subject.target, subject.recipe, found.sensitivities)
    integers = [
        LayerChoice(
            layer.name, {k: v for k, v in layer.options.items() if k != "f32"} or layer.options
        )
        for layer in planner.problem.layers
    ]
    problem = Problem(integers, planner.problem.borders)
    whole = sum(layer.options[BASE].bytes for layer in integers if BASE in layer.options)
    for share in SHARES:
        made = solve(problem, minimise="noise", budget=Budget(bytes=share * whole))
        named[f"{share:.0%}"] = made.precisions
    return named


class Judge:
    """The network on its evaluation samples."""

    def __init__(self, network: Network, found: Analysis) -> None:
        self._samples, self._found = network.samples(network.eval), found
        self._float = self._outputs(found.simulation, {})

    def __call__(self, simulation: Simulation, precisions: Mapping[str, str]) -> str:
        """KL to float (milli-nats), top-1 and its difference to float's, as columns of a row."""
        chosen = {name: each for name, each in precisions.items() if each != "f32"}
        made = self._outputs(simulation, chosen)
        labels = self._samples.labels[: len(made)]
        exact, top1 = (metrics.top1(each, labels) for each in (self._float, made))
        kl = metrics.kl_mnat(self._float, made)
        return f"{kl:>8.1f} {100 * top1:>8.2f} {100 * (top1 - exact):>+9.2f}"

    def _outputs(self, simulation: Simulation, assignment: Mapping[str, str]) -> Any:
        batch, ranges, inputs = self._found.subject.batch, self._found.choice.ranges, self._samples
        parts: list[Any] = [
            simulation.run([inputs.inputs[at : at + batch]], ranges, assignment)[0]
            for at in range(0, len(inputs.inputs) // batch * batch, batch)
        ]
        return np.concatenate(parts)


def main() -> None:
    """Print a row a network and form."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=["all"])
    parser.add_argument("--precisions", default=f"{BASE},{NARROW}", help="w8a8 is one of them")
    parser.add_argument("--methods", default="none", help="accuracy methods (none)")
    given = parser.parse_args()
    print(f"{'network':28} {'form':13} {'KL mn':>8} {'top-1 %':>8} {'to float':>9} {'seconds':>8}")
    for network in find(given.networks):
        found, plain, seconds = analysed(network, given.precisions, given.methods)
        named, judge = plans(found), Judge(network, found)
        forms = {f"{NARROW} nearest": (plain, named[NARROW])} if NARROW in named else {}
        forms |= {name: (found.simulation, each) for name, each in named.items()}
        for form, (simulation, precisions) in forms.items():
            row = judge(simulation, precisions)
            print(f"{network.name:28} {form:13} {row} {seconds:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
