"""Samples side by side: each lane runs every n-th of them, and results come in their order."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from mlq.simulation import Runner
from mlq.stored import Array

# Samples between two looks at what they make.
_TOGETHER = 10
_MOST = 8  # are given samples of a small network by Python as fast as they run them


def most(threads: int) -> int:
    """As many lanes as there are processors for, each taking so many threads of the machine's."""
    return max(min((os.cpu_count() or 1) // threads, _MOST), 1)


def run(
    inputs: Iterator[list[Array]],
    runners: Callable[[], Sequence[Runner]],
    lanes: int,
    *,
    ahead: int = 0,
) -> Generator[list[list[Array]]]:
    """Results of some samples after the other, by as many `runners` as there are lanes.

    While the caller looks at some of the first `ahead`, which it is to ask for, the next are run.
    Beyond, nothing is; the caller may let the simulation compute something else, and runners are
    asked for anew.
    """
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(lanes)]

        def begun() -> list[Future[list[list[Array]]]]:
            few = list(itertools.islice(inputs, _TOGETHER))
            if not few:
                return []
            shares = [few[lane::lanes] for lane in range(lanes)]
            given = zip(pools, runners(), shares, strict=True)
            return [pool.submit(_results, runner, share) for pool, runner, share in given]

        done, running = 0, begun()
        while running:
            done += _TOGETHER
            following = begun() if done + _TOGETHER <= ahead else []
            found = [each.result() for each in running]
            yield [found[i % lanes][i // lanes] for i in range(sum(map(len, found)))]
            running = following or begun()


def _results(runner: Runner, share: Sequence[list[Array]]) -> list[list[Array]]:
    return [runner(*each) for each in share]
