"""How long calls take, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_LEAST_RUNS, _MOST_RUNS = 10, 200


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Times of one call in milliseconds; `cpu_*` counts the work of all threads of the process."""

    p50: float
    p90: float
    mean: float
    std: float
    runs: int
    cpu_p50: float
    cpu_mean: float

    @classmethod
    def of(cls, wall: Sequence[int], cpu: Sequence[int]) -> Latency:
        """Summary of wall and CPU times in nanoseconds, one of each per call."""
        wall_ms, cpu_ms = np.array(wall) * 1e-6, np.array(cpu) * 1e-6
        p50, p90 = np.percentile(wall_ms, [50, 90])
        return cls(
            p50=float(p50),
            p90=float(p90),
            mean=float(wall_ms.mean()),
            std=float(wall_ms.std()),
            runs=len(wall),
            cpu_p50=float(np.median(cpu_ms)),
            cpu_mean=float(cpu_ms.mean()),
        )


def time_calls(
    calls: Sequence[Callable[[], object]], *, runs: int, warmup: int = 3, settle: float = 0.0
) -> list[Latency]:
    """Time calls side by side: each round calls every one, and each goes first in its turn.

    Before it is timed each is called for `settle` seconds: for what others left behind, threads
    that still look for work and caches that hold other weights, not to count.
    """
    wall: list[list[int]] = [[] for _ in calls]
    cpu: list[list[int]] = [[] for _ in calls]
    for turn in range(warmup + runs):
        for offset in range(len(calls)):
            index = (turn + offset) % len(calls)
            until = time.perf_counter() + settle
            while time.perf_counter() < until:
                calls[index]()
            used, start = time.process_time_ns(), time.perf_counter_ns()
            calls[index]()
            stop, used_after = time.perf_counter_ns(), time.process_time_ns()
            if turn >= warmup:
                wall[index].append(stop - start)
                cpu[index].append(used_after - used)
    return [Latency.of(*times) for times in zip(wall, cpu, strict=True)]


def time_for(
    calls: Sequence[Callable[[], object]], *, seconds: float, settle: float = 0.0
) -> list[Latency]:
    """Time calls side by side, as often as fits into about `seconds`: 10 to 200 times each."""
    once = sum(each.mean / 1e3 + settle for each in time_calls(calls, runs=1, warmup=1))
    runs = int(min(max(seconds / once, _LEAST_RUNS), _MOST_RUNS))
    return time_calls(calls, runs=runs, settle=settle)
