"""What a search does before its first trial, as far as it can side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlq.tuning.objective import Objective
from mlq.tuning.space import Configuration
from mlq.tuning.study import Measuring
from mlq.tuning.surrogate import Surrogate
from mlq.tuning.trials import Forecast, Trials


def compile_module(objective: Objective, prior: Trials, grown: dict[Any, Any], seed: int) -> None:
    """Compile what serves all trials; the compiler is a process, so trees grow meanwhile.

    `grown` gets those that the first trials are chosen by: of this network they know nothing.
    """
    nothing = Forecast()
    surrogate = Surrogate(prior, {}, lambda _configuration: nothing, seed=seed, grown=grown)
    with ThreadPoolExecutor(1) as beside:
        growing = beside.submit(surrogate.grow)
        _ = objective.simulation
        growing.result()


def foresee(objective: Objective, points: Sequence[Configuration], measuring: Measuring) -> None:
    """Forecast these configurations while the float network runs over the first samples."""
    forecasts = objective.forecasts
    for samples in forecasts.samples(points):
        objective.observations(samples)
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(measuring.prepare)
        for each in points:
            forecasts.of(each)
        running.result()
