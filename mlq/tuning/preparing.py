"""What a search does before its first trial, as far as it can side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mlq.tuning.objective import Objective
from mlq.tuning.sampler import QuantuneSampler
from mlq.tuning.space import SPACES, Configuration
from mlq.tuning.study import Measuring


def compile_module(objective: Objective, sampler: QuantuneSampler) -> None:
    """Compile what serves all trials; trees grow meanwhile, for the compiler is a process."""
    with ThreadPoolExecutor(1) as beside:
        growing = beside.submit(sampler.surrogate.grow)
        _ = objective.simulation
        growing.result()


def foresee(objective: Objective, points: Sequence[Configuration], measuring: Measuring) -> None:
    """Forecast these configurations while the float network runs over the first samples."""
    paper = SPACES["quantune96"].fitted(objective.calib.samples).points()
    for samples in {each.samples for each in (*points, *paper) if points}:
        objective.observations(samples)
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(measuring.prepare)
        for each in points:
            objective.forecasts.of(each)
        running.result()
