"""Samples that are images: decoded batch by batch, preprocessed as the model was trained."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from mlq.errors import DataError
from mlq.frontends.specs import TensorSpec, shape_text

Array = NDArray[Any]
Batch = dict[str, Array]

IMAGES, LABELS = "images", "labels"
LABEL_FILE = "labels.csv"
_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_MODES = {1: "L", 3: "RGB"}

Positive = Annotated[float, Field(gt=0)]


class Preprocess(BaseModel):
    """`(image * scale - mean) / std` per channel, then the axes in the order of `layout`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    layout: Literal["NCHW", "NHWC"] = "NCHW"
    formula: Literal["(image * scale - mean) / std, per channel"] | None = None
    scale: float
    mean: tuple[float, ...]
    std: tuple[Positive, ...]

    @model_validator(mode="after")
    def _channels(self) -> Self:
        if len(self.mean) != len(self.std) or len(self.mean) not in _MODES:
            raise ValueError("mean and std need one value for each of 1 or 3 channels")
        return self

    @classmethod
    def read(cls, path: Path) -> Preprocess:
        """Read the `preprocess` part of a model's JSON file."""
        try:
            return _Card.model_validate_json(path.read_bytes()).preprocess
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); give a JSON file"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "file"
            raise DataError(
                f"{path}: {field}: {first['msg']}; give 'preprocess' with scale, mean and std"
            ) from None

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images [N, H, W, C] as the model takes them."""
        mean, std = (np.array(each, np.float32)[:, None, None] for each in (self.mean, self.std))
        # Channel by channel: one number for all of an image, which is several times as fast.
        reals = images.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        reals *= np.float32(self.scale)
        reals -= mean
        reals /= std
        return reals if self.layout == "NCHW" else np.ascontiguousarray(reals.transpose(0, 2, 3, 1))


class _Card(BaseModel):
    """What stands beside a model; of interest here is only how its images are made."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    preprocess: Preprocess


@dataclass(frozen=True)
class Fit:
    """Images, through a preprocessing, to one input of a model; `card` is where it stands."""

    preprocess: Preprocess
    spec: TensorSpec
    card: Path

    @property
    def channels(self) -> int:
        """1 for grey, 3 for red, green, blue."""
        return len(self.preprocess.mean)

    def expect(self, where: str, height: int, width: int, channels: int) -> None:
        """Raise DataError unless such images fit the input."""
        nchw = self.preprocess.layout == "NCHW"
        made = (channels, height, width) if nchw else (height, width, channels)
        wanted = self.spec.shape[1:]
        if channels != self.channels:
            raise DataError(
                f"{where}: has {channels} channels, the preprocessing {self.channels};"
                f" correct mean and std in {self.card}, or convert the images"
            )
        if len(wanted) != len(made) or any(
            size not in (got, None) for got, size in zip(made, wanted, strict=True)
        ):
            raise DataError(
                f"{where}: gives {self.preprocess.layout} {list(made)}, input {self.spec.name!r}"
                f" takes {shape_text(wanted)}; resize and crop the images beforehand"
            )

    def batch(self, images: NDArray[np.uint8]) -> Batch:
        """The input made of images [N, H, W, C]."""
        return {self.spec.name: self.preprocess(images).astype(self.spec.dtype, copy=False)}


@dataclass(frozen=True)
class ImageArray:
    """Images [N, H, W, C] in one array of bytes."""

    images: NDArray[np.uint8]
    labels: Array | None
    fit: Fit

    @classmethod
    def of(cls, path: Path, found: Mapping[str, Array], fit: Fit) -> ImageArray:
        """Check type and size of the array called `images`."""
        images = found[IMAGES]
        if images.dtype != np.uint8 or images.ndim != len("NHWC"):
            raise DataError(
                f"{path}: array 'images' is {images.dtype} of shape {list(images.shape)};"
                " give uint8 [N, H, W, C]"
            )
        fit.expect(f"{path}: array 'images'", *images.shape[1:])
        return cls(images, found.get(LABELS), fit)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, picked: Sequence[int]) -> Batch:
        """The picked images, preprocessed."""
        return self.fit.batch(self.images[list(picked)])

    def content(self, picked: Sequence[int]) -> Iterator[bytes]:
        """The preprocessing and the picked images."""
        yield self.fit.preprocess.model_dump_json().encode()
        yield from (self.images[row].tobytes() for row in picked)


@dataclass(frozen=True)
class Folder:
    """Image files, decoded when read; `labels.csv` beside them says which, and their classes."""

    files: tuple[Path, ...]
    labels: Array | None
    fit: Fit

    @classmethod
    def of(cls, path: Path, fit: Fit) -> Folder:
        """List the files and check the size that each says it has."""
        table = path / LABEL_FILE
        if table.exists():
            rows = _rows(table)
            files = [path / name for name, _ in rows]
            labels = np.array([label for _, label in rows], np.int64)
        else:
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
            labels = None
        for file in files:
            with _opened(file) as image:
                fit.expect(str(file), image.height, image.width, fit.channels)
        return cls(tuple(files), labels, fit)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, picked: Sequence[int]) -> Batch:
        """The picked images, decoded and preprocessed."""
        return self.fit.batch(np.stack([self._pixels(self.files[i]) for i in picked]))

    def content(self, picked: Sequence[int]) -> Iterator[bytes]:
        """The preprocessing and the picked files."""
        yield self.fit.preprocess.model_dump_json().encode()
        yield from (self.files[i].read_bytes() for i in picked)

    def _pixels(self, file: Path) -> NDArray[np.uint8]:
        with _opened(file) as image:
            try:
                pixels = np.asarray(image.convert(_MODES[self.fit.channels]), np.uint8)
            except (OSError, SyntaxError, ValueError) as error:
                raise DataError(f"{file}: does not decode ({error}); replace the file") from None
        return pixels.reshape(*pixels.shape[:2], self.fit.channels)


def is_images(found: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> bool:
    """Whether the arrays are images to preprocess, not samples to feed as they are."""
    if IMAGES not in found:
        return False
    named = [spec for spec in inputs if spec.name == IMAGES]
    return not named or (found[IMAGES].dtype == np.uint8 and named[0].dtype != "uint8")


def _opened(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except FileNotFoundError:
        raise DataError(
            f"{file}: not found, but {LABEL_FILE} lists it; add the image or drop its line"
        ) from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: not an image ({error}); replace or remove the file") from None


def _rows(table: Path) -> list[tuple[str, int]]:
    rows = []
    with table.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if not {"file", "label"} <= set(reader.fieldnames or ()):
            raise DataError(f"{table}: its first line must name the columns file,label")
        for row in reader:
            name, label = row["file"], row["label"]
            if not name or not (label or "").strip().isdecimal():
                raise DataError(
                    f"{table}: line {reader.line_num}: label {label!r} is no class number;"
                    " write file,label with a label from 0 on"
                )
            rows.append((name, int(label)))
    return rows
