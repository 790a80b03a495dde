"""Where the numbers live: constants by name, in numpy, never in the text of the IR."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlq.errors import ContractError


class Arranged(NamedTuple):
    """What a parameter holds: the weight of key `source`, not known yet, in another order.

    `kind` says which: two of one source and kind are the same.
    """

    source: str
    make: Callable[[NDArray[Any]], NDArray[Any]]
    kind: Any


Made = dict[tuple[int, Any], tuple[NDArray[Any], NDArray[Any]]]
"""By identity of a weight and kind: the weight, which keeps that identity, and the parameter."""


class WeightStore(MutableMapping[str, NDArray[Any]]):
    """Arrays by key; an array may be a memory map, so that large models stay on disk.

    `arranged` are parameters by key that are to be made of weights once these are known.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]] | None = None) -> None:
        self._arrays = dict(arrays or {})
        self.arranged: dict[str, Arranged] = {}

    def __getitem__(self, key: str) -> NDArray[Any]:
        try:
            return self._arrays[key]
        except KeyError:
            raise ContractError(
                f"the weight store has no {key!r}; bind the store that belongs to this module"
            ) from None

    def __setitem__(self, key: str, array: NDArray[Any]) -> None:
        self._arrays[key] = array

    def __delitem__(self, key: str) -> None:
        del self._arrays[key]

    def __contains__(self, key: object) -> bool:
        return key in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def keep(self, key: str, array: NDArray[Any]) -> str:
        """Store `array` under `key`, or beside another array that has this key; returns the key."""
        candidate, count = key, 1
        while candidate in self and not np.array_equal(self[candidate], array):
            count += 1
            candidate = f"{key}.{count}"
        self[candidate] = array
        return candidate

    def copy(self) -> WeightStore:
        """A store that can grow without the other seeing it; the arrays are shared."""
        made = WeightStore(self._arrays)
        made.arranged.update(self.arranged)
        return made

    def parameters(self, given: Mapping[str, NDArray[Any]], made: Made) -> dict[str, NDArray[Any]]:
        """Weights that were not known before, and the parameters that are made of them.

        `made` has what was made before, and is left with what is in use now.
        """
        found, before = dict(given), dict(made)
        made.clear()
        for key, each in self.arranged.items():
            array = given[each.source]
            which = id(array), each.kind
            pair = made.get(which) or before.get(which) or (array, each.make(array))
            made[which], found[key] = pair, pair[1]
        return found

    def save(self, path: Path) -> None:
        """Write every array to one `.npz`, which `load` and `mlq-opt --weights` read."""
        np.savez(path, **self._arrays)  # type: ignore[arg-type]  # keys are array names

    @classmethod
    def load(cls, path: Path) -> WeightStore:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            return cls({key: archive[key] for key in archive.files})


def rounded(key: str, bits: int) -> str:
    """The key of a weight that was rounded to so many bits, in float."""
    return f"{key}:rounded.{bits}"


def corrected(key: str, precision: str) -> str:
    """The key of a bias that makes up for what its layer's precision shifts, in float."""
    return f"{key}:corrected.{precision}"


def scales(key: str, bits: int) -> str:
    """The key of the scales [O] of a weight that was rounded to so many bits."""
    return f"{key}:scales.{bits}"


_CURRENT: ContextVar[WeightStore | None] = ContextVar("weights", default=None)


@contextmanager
def bound(store: WeightStore) -> Iterator[WeightStore]:
    """Make `store` the one that passes read and write."""
    token = _CURRENT.set(store)
    try:
        yield store
    finally:
        _CURRENT.reset(token)


def current() -> WeightStore:
    """The bound store; an error says how to bind one."""
    store = _CURRENT.get()
    if store is None:
        raise ContractError("no weight store is bound; give mlq-opt --weights FILE.npz")
    return store
