"""Batches side by side: each of some threads runs every n-th, and results come in their order.

What a batch makes does not depend on its thread, so nothing that is measured depends on the number
of processors.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Runner = Callable[..., list[Array]]

_MOST = 8  # are given samples of a small network by Python as fast as they run them
# Batches of each thread that are read before the caller asks for the first of them.
_AHEAD = 2


def most(processes: int = 1) -> int:
    """As many threads as there are processors for, where so many processes run at once."""
    return max(min(processors() // processes, _MOST), 1)


def processors() -> int:
    """How many this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(batches: Iterable[Sequence[Array]], runners: Sequence[Runner]) -> Generator[list[Array]]:
    """Results of each batch, in order; each of the `runners` is called in a thread of its own.

    While the caller looks at some, the next are run: until the end, or until this is closed, the
    runners are for nothing else.
    """
    with ExitStack() as stack:
        pools = [ThreadPoolExecutor(1) for _ in runners]
        for pool in pools:
            stack.callback(partial(pool.shutdown, cancel_futures=True))
        waiting = deque[Future[list[Array]]]()
        for index, batch in enumerate(batches):
            number = index % len(runners)
            waiting.append(pools[number].submit(runners[number], *batch))
            if len(waiting) >= _AHEAD * len(runners):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
