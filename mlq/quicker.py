"""Two ways to do the same: the first calls find out which is the quicker."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

ResultT = TypeVar("ResultT")

_TRIALS = 5  # calls of each way, the first of which is not timed: nothing is in any cache
_LONG = 3e-4  # seconds of a call that is worth waking others for
_LESS = 0.85  # of the other's least time, that the usual way may take
_LATER = 8  # times as many calls as there were before are made until both are tried again


class Quicker:
    """Whichever of two ways is the quicker, by its least time; a long call stays the usual way.

    Others may have had the CPU while a way was tried: both are tried again, ever more seldom, and
    the least time that either ever took counts. That of the usual way must be less by some, for
    those whom it wakes are not always there as soon.
    """

    def __init__(self) -> None:
        self._least = [math.inf, math.inf]
        self._chosen = 0
        self._calls = self._next = 0  # that were made; at which trials begin
        self._trial = 0

    def call(
        self, usual: Callable[..., ResultT], other: Callable[..., ResultT], *given: object
    ) -> ResultT:
        """What both would return; they must be the same from call to call."""
        ways = usual, other
        self._calls += 1
        if self._calls < self._next:
            return ways[self._chosen](*given)
        which, trial = divmod(self._trial, _TRIALS)
        start = time.perf_counter()
        result = ways[which](*given)
        took = time.perf_counter() - start
        if trial:
            self._least[which] = min(took, self._least[which])
        self._trial += 1
        is_long = self._trial == _TRIALS and self._least[0] > _LONG
        if is_long or self._trial == 2 * _TRIALS:
            usual_least, other_least = self._least
            self._chosen = int(not is_long and usual_least > _LESS * other_least)
            self._trial, self._next = 0, self._calls * _LATER
        return result
