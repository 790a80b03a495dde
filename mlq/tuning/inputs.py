"""Samples one by one, as a network takes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from mlq.frontends.data import Dataset
from mlq.stored import Array

_KEPT_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class Inputs:
    """The samples of `data`, arrays in the order of `names`; the first `kept` are read once.

    Fewer, if they are so large that they had better be read again.
    """

    data: Dataset
    names: Sequence[str]
    kept: int = 0

    def __iter__(self) -> Iterator[list[Array]]:
        """All of them."""
        return itertools.chain(self.first, self._read(len(self.first)))

    @cached_property
    def first(self) -> list[list[Array]]:
        """Those that are kept."""
        if not self.kept:
            return []
        size = sum(array.nbytes for array in next(self._read()))
        return list(itertools.islice(self._read(), min(self.kept, _KEPT_BYTES // max(size, 1))))

    def _read(self, first: int = 0) -> Iterator[list[Array]]:
        return ([batch[name] for name in self.names] for batch in self.data.batches(1, first))
