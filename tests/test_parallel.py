"""Batches side by side."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from mlq import parallel
from mlq.parallel import Array, Runner


def slower(seconds: float) -> Runner:
    """A runner that is slow for some batches."""

    def run(array: Array) -> list[Array]:
        time.sleep(seconds * int(array[0] % 3))
        return [array * 2]

    return run


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("batches", [0, 1, 2, 5, 20])
def test_results_come_in_the_order_of_their_batches(count: int, batches: int) -> None:
    runners = [slower(0.001 * number) for number in range(count)]
    found = list(parallel.run(([np.full(1, i)] for i in range(batches)), runners))
    assert [int(each[0]) for (each,) in found] == [2 * i for i in range(batches)]


def test_each_runner_has_a_thread_of_its_own() -> None:
    used: list[set[int]] = [set(), set(), set()]

    def noting(number: int) -> Runner:
        def run(array: Array) -> list[Array]:
            used[number].add(threading.get_ident())
            return [array]

        return run

    list(
        parallel.run(([np.full(1, i)] for i in range(12)), [noting(number) for number in range(3)])
    )
    assert [len(each) for each in used] == [1, 1, 1]
    assert len(set.union(*used)) == 3


def test_few_batches_are_read_ahead() -> None:
    read = list[int]()

    def batches() -> Iterator[list[Array]]:
        for i in range(100):
            read.append(i)
            yield [np.full(1, i)]

    results = parallel.run(batches(), [slower(0.0)] * 2)
    assert read == []
    for done in range(1, 11):
        next(results)
        assert len(read) <= done + 2 * 2
    results.close()
    assert len(read) <= 14


def test_what_a_runner_raises_is_raised_where_its_result_is_asked_for() -> None:
    ran = list[int]()

    def failing(array: Array) -> list[Array]:
        ran.append(int(array[0]))
        if array[0] == 3:
            raise ValueError("no")
        return [array]

    results = parallel.run(([np.full(1, i)] for i in range(1000)), [failing] * 2)
    assert [int(next(results)[0][0]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no"):
        next(results)
    assert max(ran) < 10  # those after it were given up


def test_processes_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "processors", lambda: 6)
    assert [parallel.most(each) for each in (1, 2, 4, 7)] == [6, 3, 1, 1]
    monkeypatch.setattr(parallel, "processors", lambda: 96)
    assert parallel.most() == 8
    monkeypatch.undo()
    assert 1 <= parallel.processors() <= (os.cpu_count() or 1)
