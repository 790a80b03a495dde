"""Where the next measurement should raise the front most: programs in its gaps, and neighbours.

An integer program is exact for losses that add up, and real ones nearly do. So what is proposed is,
first, programs whose budgets lie in the widest gaps of the front, solved on what a regression over
all visits says beside the gap; and then everything that differs from a point of the front in one
decision or two. Of these those are measured whose expected gain of hypervolume (Emmerich 2005) is
greatest, one after the other, each as if those before it had been found to be as predicted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlq.allocation import Budget
from mlq.bitsearch.measuring import kept, kept_by_log
from mlq.bitsearch.proxy import Fit, Proxy
from mlq.errors import PlanError
from mlq.search import Objective, Point, Space, Visit, front, hypervolume
from mlq.search.baselines import integer_program

Array = NDArray[Any]

# How many of those that should gain most are looked at again, for each that is taken.
_SHORTLISTED = 64
# Standard normal quantiles of equal weight, over which gains are averaged.
_QUANTILES = (-1.2816, -0.5244, 0.0, 0.5244, 1.2816)


class Pool(NamedTuple):
    """Allocations that may be measured: options by decision, microseconds, expected log KL."""

    options: Array
    us: Array
    log_kl: Array

    def take(self, chosen: Array) -> Pool:
        """Those of the indices or flags `chosen`."""
        return Pool(*(each[chosen] for each in self))


class Gap(NamedTuple):
    """Two neighbours on the front, and how much one that beats both could add."""

    area: float
    limit: float
    beside: Point


class Refining:
    """Proposes what to measure next, from what was visited alone: equal visits, equal proposals.

    Hypervolume is that below the latency of the widest allocation and above the accuracy `floor`.
    """

    def __init__(self, space: Space, proxy: Proxy, objective: Objective, floor: float) -> None:
        self._space, self._proxy = space, proxy
        self._objective, self._floor = objective, floor
        self._widest = space.us((0,) * len(space.sizes))
        costs = [cost for each in space.decisions for cost in each.options.values()]
        self._us, self._bytes = np.array(costs).T
        self._starts = np.cumsum([0, *space.sizes])[:-1]

    def volume(self, visits: Sequence[Visit]) -> float:
        """Hypervolume of the visits that fit, as a share of the whole rectangle."""
        area = hypervolume(self._admitted(visits), us=self._widest, accuracy=self._floor)
        return area / (self._widest * (1.0 - self._floor))

    def points(self, visits: Sequence[Visit], count: int) -> list[Point]:
        """At most `count` allocations that were not visited; none where nothing should gain."""
        best = [each for each in front(self._admitted(visits)) if each.accuracy > self._floor]
        if not best:
            return []
        fit, known = self._proxy.fit(visits), {each.point for each in visits}
        programs = self._programs(best, known, fit, count)
        pools = [self._neighbours(each.point, best, fit, count) for each in best]
        if programs:
            options = np.array([each.point for each in programs])
            pools.append(Pool(options, np.array([each.us for each in programs]), fit(options)))
        whole = Pool(*map(np.concatenate, zip(*pools, strict=True)))
        new = [tuple(row) not in known for row in whole.options.tolist()]
        whole = whole.take(np.array(new, bool))
        likeliest = np.argsort(-self._gains(whole, best, fit), kind="stable")
        return self._greedy(whole.take(likeliest[: _SHORTLISTED * count]), best, fit, count)

    def _admitted(self, visits: Sequence[Visit]) -> list[Visit]:
        return [each for each in visits if self._objective.admits(each.bytes)]

    def _programs(
        self, best: Sequence[Visit], known: set[Point], fit: Fit, count: int
    ) -> list[Visit]:
        """Programs with budgets amid the widest gaps, of which each makes two of one."""
        supposed, barren, found = list(best), set[float](), dict[Point, Visit]()
        for _ in range(2 * count):
            gaps = [gap for gap in self._gaps(supposed) if gap.limit not in barren]
            if not gaps or len(found) == count:
                break
            gap = max(gaps)
            made = self._program(gap, fit)
            barren.add(gap.limit)
            if made is not None and made.point not in known:
                found[made.point] = made
                supposed = list(front([*supposed, made]))
        return list(found.values())

    def _gaps(self, best: Sequence[Visit]) -> Iterator[Gap]:
        fastest = sum(float(each.min()) for each in np.split(self._us, self._starts[1:]))
        start = best[0]._replace(us=fastest, accuracy=self._floor)
        for one, other in itertools.pairwise([start, *best]):
            area = (other.us - one.us) * (other.accuracy - one.accuracy)
            yield Gap(area, (one.us + other.us) / 2, one.point)

    def _program(self, gap: Gap, fit: Fit) -> Visit | None:
        """What loses least within the gap's limit, as it should be found; None if nothing fits."""
        space, noise = self._space, fit.tangent(self._space, gap.beside)
        budget = Budget(us=gap.limit, bytes=self._objective.max_bytes)
        try:
            point = integer_program(space, noise, budget)[0]
        except PlanError:
            return None
        share = kept(math.exp(float(fit(np.array([point]))[0])))
        return Visit(point, share, space.us(point), space.bytes(point))

    def _neighbours(self, origin: Point, best: Sequence[Visit], fit: Fit, count: int) -> Pool:
        """Of all that differ in a decision or two and fit the size, those that should gain most."""
        chosen = self._starts + np.asarray(origin)
        at = np.repeat(np.arange(len(origin)), self._space.sizes)
        to = np.flatnonzero(np.arange(len(at)) != chosen[at])
        first, second = np.triu_indices(len(to))
        apart = (at[to][first] != at[to][second]) | (first == second)
        first, second = to[first[apart]], to[second[apart]]

        def total(costs: Array) -> Array:
            """Costs after both changes, or the one if they are the same."""
            changed = costs - costs[chosen][at]
            both = changed[first] + np.where(first == second, 0.0, changed[second])
            found: Array = costs[chosen].sum() + both
            return found

        us = total(self._us)
        limit = self._objective.max_bytes
        fitting = np.ones(len(us), bool) if limit is None else total(self._bytes) <= limit
        log_kl = fit.of_sums(total(fit.losses), total(fit.corrections))
        hoped = gained(
            us, kept_by_log(log_kl - fit.spread), best, us=self._widest, accuracy=self._floor
        )
        hoped = np.where(fitting, hoped, 0.0)
        most = np.argsort(-hoped, kind="stable")[: _SHORTLISTED * count]
        most = most[hoped[most] > 0.0]
        options = np.tile(np.asarray(origin), (len(most), 1))
        for each in (first[most], second[most]):
            options[np.arange(len(most)), at[each]] = each - self._starts[at[each]]
        return Pool(options, us[most], log_kl[most])

    def _gains(self, pool: Pool, best: Sequence[Visit], fit: Fit) -> Array:
        """Expected gains of hypervolume, each alone."""
        gains = np.zeros(len(pool.us))
        for quantile in _QUANTILES:
            share = kept_by_log(pool.log_kl + quantile * fit.spread)
            gains += gained(pool.us, share, best, us=self._widest, accuracy=self._floor)
        return gains / len(_QUANTILES)

    def _greedy(self, pool: Pool, best: Sequence[Visit], fit: Fit, count: int) -> list[Point]:
        supposed, points = list(best), list[Point]()
        while len(points) < count:
            gains = self._gains(pool, supposed, fit)
            if not gains.size or gains.max() <= 0.0:
                break
            i = int(np.argmax(gains))
            point = tuple(int(option) for option in pool.options[i])
            points.append(point)
            supposed.append(Visit(point, kept(math.exp(pool.log_kl[i])), pool.us[i], 0.0))
            supposed = list(front(supposed))
            pool = pool.take(np.any(pool.options != pool.options[i], axis=1))
        return points


def gained(
    us_of: Array, accuracy_of: Array, best: Sequence[Visit], *, us: float, accuracy: float
) -> Array:
    """What each of many (microseconds, accuracy) would add to the hypervolume of a front alone."""
    inside = [each for each in best if each.us < us and each.accuracy > accuracy]
    times = np.array([-math.inf, *(each.us for each in inside), us])
    heights = np.array([accuracy, *(each.accuracy for each in inside)])
    # Area under the front from each of its steps to the end, and to where it is as high.
    widths = np.diff(times)
    width = np.concatenate([[0.0], np.cumsum(widths[1:])])
    area = np.concatenate([[0.0], np.cumsum(widths[1:] * heights[1:])])
    here = np.searchsorted(times[1:-1], us_of, side="right")
    last = np.searchsorted(heights, accuracy_of, side="left") - 1
    rest = np.maximum(last, here)
    own = (times[here + 1] - us_of) * (accuracy_of - heights[here])
    more = (width[rest] - width[here]) * accuracy_of - (area[rest] - area[here])
    gain: Array = np.where((last >= here) & (us_of < us), own + more, 0.0)
    return gain
