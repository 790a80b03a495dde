"""Samples in: arrays, images, Python's own or random ones, in batches that fit the model.

Samples are picked once, by seed, and read batch by batch, so that memory does not grow with images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlq.errors import DataError
from mlq.frontends import arrays, images
from mlq.frontends.specs import TensorSpec

Array = NDArray[Any]
Batch = dict[str, Array]
Samples = str | Path | Mapping[str, Array] | Iterable[Mapping[str, Array]]
"""A path, `random:N`, arrays by input name, or dicts of arrays (one sample or a batch each)."""

_RANDOM = "random:"


class Source(Protocol):
    """Where samples come from, by index."""

    @property
    def labels(self) -> Array | None:
        """A class per sample, as found; not checked."""

    def __len__(self) -> int: ...

    def read(self, picked: Sequence[int]) -> Batch:
        """The picked samples by input name, stacked along the first axis."""

    def content(self, picked: Sequence[int]) -> Iterable[bytes]:
        """What identifies the picked samples, to be hashed."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples that fit a model's inputs, in one order for good.

    `name` says where they are from; `labels` has a class per sample (int64), or is None; `sha256`
    is that of the samples and labels in their order.
    """

    name: str
    samples: int
    labels: NDArray[np.int64] | None = field(repr=False)
    sha256: str
    _batch: int | None = field(repr=False)
    _source: Source = field(repr=False)
    _picked: tuple[int, ...] = field(repr=False)

    @property
    def preprocess(self) -> images.Preprocess | None:
        """How images become inputs; None where the samples are arrays already."""
        image_sources = (images.Folder, images.ImageArray)
        return self._source.fit.preprocess if isinstance(self._source, image_sources) else None

    def shuffled(self, seed: int) -> Dataset:
        """The same samples in a random order, so that the first few stand for all."""
        order = np.random.default_rng(seed).permutation(self.samples)
        picked = tuple(self._picked[index] for index in order)
        labels = None if self.labels is None else self.labels[order]
        return replace(self, labels=labels, _picked=picked)

    def first(self, count: int) -> Dataset:
        """The first `count` samples, in their order."""
        labels = None if self.labels is None else self.labels[:count]
        picked = self._picked[:count]
        digest = _sha256(self._source, picked, labels)
        return replace(self, samples=len(picked), labels=labels, sha256=digest, _picked=picked)

    def batches(self, size: int, first: int = 0) -> Iterator[Batch]:
        """Samples by input name, from the `first`, `size` at a time; the last batch may be smaller.

        A model of static batch always gets that many. DataError for an image that does not decode.
        """
        step = self._batch or size
        for start in range(first, self.samples, step):
            yield self._source.read(self._picked[start : start + step])


def load_data(
    source: Samples,
    inputs: Sequence[TensorSpec],
    *,
    preprocess: str | Path | None = None,
    model_path: str | Path | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Open `source` as samples for `inputs`: at most `samples` of them, picked by `seed`.

    Images go through `preprocess`, by default the JSON file beside `model_path`. For a model of
    static batch, samples beyond the last full batch are left out. DataError, one line, for what is
    missing, does not fit, or holds NaN or infinity.
    """
    if samples is not None and samples < 1:
        raise DataError(f"cannot take {samples} samples; take at least 1")
    if not inputs:
        raise DataError(f"{model_path or 'the model'}: has no input for samples; give one that has")
    name, opened = _open(source, inputs, preprocess, model_path, seed)
    total = len(opened)
    labels = _labels(name, opened.labels, total)
    picked = list(range(total))
    if samples is not None and samples < total:
        picked = sorted(map(int, np.random.default_rng(seed).permutation(total)[:samples]))
    batch = _static_batch(inputs)
    if batch is not None:
        del picked[len(picked) // batch * batch :]
    if not picked:
        needs = "1 sample" if batch is None else f"{batch} samples, one batch of the model"
        raise DataError(f"{name}: holds {total} samples; give at least {needs}")
    if labels is not None:
        labels = labels[picked]
    digest = _sha256(opened, picked, labels)
    return Dataset(name, len(picked), labels, digest, batch, opened, tuple(picked))


def _sha256(source: Source, picked: Sequence[int], labels: Array | None) -> str:
    digest = hashlib.sha256()
    for content in source.content(picked):
        digest.update(content)
    digest.update(b"" if labels is None else labels.tobytes())
    return digest.hexdigest()


def _open(
    source: Samples,
    inputs: Sequence[TensorSpec],
    preprocess: str | Path | None,
    model_path: str | Path | None,
    seed: int,
) -> tuple[str, Source]:
    if isinstance(source, str) and source.startswith(_RANDOM):
        return source, arrays.Random.of(source, source.removeprefix(_RANDOM), inputs, seed)
    if isinstance(source, Mapping):
        return "samples", arrays.Arrays.of("samples", source, inputs)
    if not isinstance(source, str | Path):
        return "samples", arrays.Parts.of("samples", source, inputs)
    path = Path(source)
    if path.is_dir():
        return str(path), images.Folder.of(path, _images(path, inputs, preprocess, model_path))
    found = arrays.read_file(path, inputs)
    if images.is_images(found, inputs):
        fit = _images(path, inputs, preprocess, model_path)
        return str(path), images.ImageArray.of(path, found, fit)
    return str(path), arrays.Arrays.of(str(path), found, inputs)


def _images(
    data: Path,
    inputs: Sequence[TensorSpec],
    preprocess: str | Path | None,
    model_path: str | Path | None,
) -> images.Fit:
    """How images become the model's one input; no preprocessing found is an error, not a guess."""
    if len(inputs) != 1:
        names = ", ".join(spec.name for spec in inputs)
        raise DataError(
            f"{data}: images feed one input, the model has {names}; give arrays by input name"
        )
    beside = None if model_path is None else Path(model_path).with_suffix(".json")
    card = beside if preprocess is None else Path(preprocess)
    if card is None or (preprocess is None and not card.exists()):
        looked = f" ({beside} does not exist)" if beside is not None else ""
        raise DataError(
            f"{data}: no preprocessing is known for these images{looked};"
            " give a JSON file with --preprocess"
        )
    return images.Fit(images.Preprocess.read(card), inputs[0], card)


def _static_batch(inputs: Sequence[TensorSpec]) -> int | None:
    sizes = {spec.shape[0] for spec in inputs if spec.shape} - {None}
    return max(map(int, filter(None, sizes)), default=None)


def _labels(name: str, labels: Array | None, samples: int) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{name}: labels are {labels.dtype} of shape {list(labels.shape)};"
            " give one integer class per sample"
        )
    if len(labels) != samples:
        raise DataError(
            f"{name}: has {len(labels)} labels for {samples} samples; give one per sample"
        )
    return labels.astype(np.int64)
