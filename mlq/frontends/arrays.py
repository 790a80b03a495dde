"""Samples that are arrays already: fed to the model as they are, once they are known to fit."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.errors import DataError
from mlq.frontends.finite import is_finite
from mlq.frontends.specs import TensorSpec, shape_text

Array = NDArray[Any]
Batch = dict[str, Array]

LABELS = "labels"


@dataclass(frozen=True)
class Arrays:
    """Samples along the first axis of one array for each input."""

    arrays: Batch
    labels: Array | None
    specs: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, where: str, found: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> Arrays:
        """Check that `found` has an array for each of `inputs`, of its type and shape."""
        missing = [spec.name for spec in inputs if spec.name not in found]
        if missing:
            names = ", ".join(map(repr, found)) or "none"
            raise DataError(
                f"{where}: has no array for input {missing[0]!r}, only {names};"
                " name each array as the model's input"
            )
        arrays = {spec.name: np.asanyarray(found[spec.name]) for spec in inputs}
        for spec in inputs:
            expect_fit(where, arrays[spec.name], spec)
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
            raise DataError(f"{where}: has {said}; give each input as many samples")
        labels = found.get(LABELS) if LABELS not in counts else None
        return cls(arrays, None if labels is None else np.asarray(labels), tuple(inputs))

    def __len__(self) -> int:
        return len(self.arrays[self.specs[0].name])

    def read(self, picked: Sequence[int]) -> Batch:
        """The picked rows, in the types that the model takes."""
        rows = list(picked)
        return {
            spec.name: np.asarray(self.arrays[spec.name][rows]).astype(spec.dtype, copy=False)
            for spec in self.specs
        }

    def content(self, picked: Sequence[int]) -> Iterator[bytes]:
        """Names, shapes and bytes of the picked rows."""
        for name, array in self.arrays.items():
            yield f"{name} {array.dtype} {array.shape[1:]}".encode()
            yield from (array[row].tobytes() for row in picked)


@dataclass(frozen=True)
class Parts:
    """Samples as Python gives them: a dict for each, or for each batch."""

    parts: tuple[Arrays, ...]
    rows: tuple[tuple[int, int], ...]

    @classmethod
    def of(
        cls, where: str, found: Iterable[Mapping[str, Array]], inputs: Sequence[TensorSpec]
    ) -> Parts:
        """Take all of `found`; an array without the first axis is one sample."""
        if not isinstance(found, Iterable):
            raise DataError(
                f"{where}: cannot be {type(found).__name__};"
                " give a path, random:N, or dicts of arrays by input name"
            )
        parts = []
        for i, each in enumerate(found):
            if not isinstance(each, Mapping):
                raise DataError(
                    f"{where}: item {i} is {type(each).__name__};"
                    " give a dict of arrays by input name"
                )
            parts.append(Arrays.of(f"{where}: item {i}", _batched(each, inputs), inputs))
        labelled = {part.labels is not None for part in parts}
        if len(labelled) > 1:
            raise DataError(f"{where}: only some items have labels; give all of them or none")
        rows = tuple((i, row) for i, part in enumerate(parts) for row in range(len(part)))
        return cls(tuple(parts), rows)

    @property
    def labels(self) -> Array | None:
        """The labels of all parts, one after the other."""
        found = [part.labels for part in self.parts if part.labels is not None]
        return np.concatenate(found) if found else None

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, picked: Sequence[int]) -> Batch:
        """The picked samples, from whichever parts they are in."""
        samples = [self.parts[part].read([row]) for part, row in (self.rows[i] for i in picked)]
        return {name: np.concatenate([each[name] for each in samples]) for name in samples[0]}

    def content(self, picked: Sequence[int]) -> Iterator[bytes]:
        """The content of each sample's part."""
        for part, row in (self.rows[i] for i in picked):
            yield from self.parts[part].content([row])


@dataclass(frozen=True)
class Random:
    """Standard normal reals, integers 0 and 1: for smoke tests and timing only."""

    count: int
    seed: int
    specs: tuple[TensorSpec, ...]
    labels: None = None

    @classmethod
    def of(cls, where: str, count: str, inputs: Sequence[TensorSpec], seed: int) -> Random:
        """Read `count`; every axis but the first must have a size."""
        if not count.isdecimal():
            raise DataError(f"{where}: {count!r} is not a number of samples; write random:64")
        for spec in inputs:
            if None in spec.shape[1:] or not spec.shape:
                raise DataError(
                    f"{where}: input {spec.name!r} is {shape_text(spec.shape)}, whose sizes are"
                    " not all known; give --sizes, or real samples"
                )
        return cls(int(count), seed, tuple(inputs))

    def __len__(self) -> int:
        return self.count

    def read(self, picked: Sequence[int]) -> Batch:
        """Sample i depends on the seed and on i, not on the batch it is in."""
        return {
            spec.name: np.stack([self._sample(spec, i, k) for k in picked])
            for i, spec in enumerate(self.specs)
        }

    def content(self, picked: Sequence[int]) -> Iterator[bytes]:
        """The recipe, as the samples follow from it."""
        yield f"random {self.seed} {list(picked)} {list(map(str, self.specs))}".encode()

    def _sample(self, spec: TensorSpec, *key: int) -> Array:
        generator = np.random.default_rng((self.seed, *key))
        shape = tuple(size or 0 for size in spec.shape[1:])
        if np.dtype(spec.dtype).kind in "fc":
            return generator.standard_normal(shape).astype(spec.dtype)
        return generator.integers(0, 2, shape).astype(spec.dtype)


def read_file(path: Path, inputs: Sequence[TensorSpec]) -> Mapping[str, Array]:
    """The arrays of an .npz, or the one of an .npy (mapped, not read) for the model's one input."""
    if path.suffix not in {".npz", ".npy"}:
        hint = "give .npz, .npy, a folder of images, or random:N"
        raise DataError(f"{path}: {'is no data set' if path.exists() else 'not found'}; {hint}")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: not found; give a file that exists") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: not an array file, or truncated ({reason}); write it with numpy.savez"
        ) from None
    if len(inputs) != 1:
        names = ", ".join(spec.name for spec in inputs)
        raise DataError(f"{path}: one array for inputs {names}; give an .npz keyed by input name")
    return {inputs[0].name: array}


def expect_fit(where: str, array: Array, spec: TensorSpec) -> None:
    """Raise DataError unless `array` can be fed to `spec`, its first axis being samples."""
    what = f"{where}: array {spec.name!r}"
    wanted = shape_text((None, *spec.shape[1:]))
    if array.ndim != len(spec.shape) or not array.ndim:
        raise DataError(
            f"{what} has rank {array.ndim} (shape {list(array.shape)}), the model takes {wanted};"
            " the first axis counts samples"
        )
    sizes = zip(array.shape[1:], spec.shape[1:], strict=True)
    if any(size not in (got, None) for got, size in sizes):
        raise DataError(
            f"{what} has shape {list(array.shape)}, the model takes {wanted};"
            " resize or transpose the samples"
        )
    if not _castable(array.dtype, np.dtype(spec.dtype)):
        hint = "; or name the array 'images'" if array.dtype == np.uint8 else ""
        raise DataError(
            f"{what} is {array.dtype}, the model takes {spec.dtype};"
            f" convert it as the model was trained{hint}"
        )
    if not is_finite(array):
        raise DataError(f"{what} holds NaN or infinity; leave such samples out")


def _castable(have: np.dtype[Any], want: np.dtype[Any]) -> bool:
    """Reals to reals of any width; integers only where none can be lost."""
    if have.kind == want.kind == "f":
        return True
    return bool(np.can_cast(have, want, "safe")) and (have.kind == "f") == (want.kind == "f")


def _batched(found: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> Batch:
    """Give every array of a single sample its first axis."""
    ranks = {spec.name: len(spec.shape) for spec in inputs}
    arrays = {name: np.asarray(array) for name, array in found.items()}
    single = all(arrays[name].ndim == rank - 1 for name, rank in ranks.items() if name in arrays)
    return {
        name: array[np.newaxis] if single and (name in ranks or array.ndim == 0) else array
        for name, array in arrays.items()
    }
