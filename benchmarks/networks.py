"""The trained networks and the samples that the benchmarks run on, and where they are found.

They are not part of the project: `MLQ_DATA` names their folder, by default `../shared/data` beside
the repository. A benchmark that needs them says so and ends with success when they are absent.

    models/NAME.onnx, NAME.json      the network; its data set and how images become inputs
    DATASET-{calib,eval}.npz         `images` (uint8, NHWC) and `labels`, or
    DATASET-{calib,eval}/            images in files, and labels.csv (file, label)
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "out"

# In the order of the tables: from the fragile ones to the tiny ones.
NAMES = (
    "squeezenet1_1",
    "mobilenetv2_1.0",
    "resnet18_pqf",
    "resnet50_pqf",
    "resnet20_cifar10",
    "vgg_s_cifar10",
    "mlperf_tiny_ic_resnet8",
    "mlperf_tiny_vww_mobilenetv1",
)


@dataclass(frozen=True)
class Samples:
    """Network inputs (f32, NCHW, preprocessed) and the class of each."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Network:
    """One trained network, with the two disjoint sets of samples that belong to it."""

    name: str
    model: Path
    description: dict[str, Any]
    calib: Path
    eval: Path

    @property
    def input(self) -> str:
        """The name of the network's one input."""
        return str(self.description["input"])

    def samples(self, path: Path) -> Samples:
        """Decode the samples at `path` (`calib` or `eval`) and preprocess them."""
        images, labels = _read_folder(path) if path.is_dir() else _read_npz(path)
        recipe = self.description["preprocess"]
        mean, std = (np.asarray(recipe[key], np.float32) for key in ("mean", "std"))
        inputs = (images.astype(np.float32) * np.float32(recipe["scale"]) - mean) / std
        return Samples(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)), labels)

    def fingerprint(self, *more: str) -> str:
        """A SHA-256 of the network, its description, its samples and whatever else is given."""
        files = [self.model, self.model.with_suffix(".json"), *_files(self.calib, self.eval)]
        return fingerprint(files, *more)


def fingerprint(files: Iterable[Path], *more: str) -> str:
    """A SHA-256 of the contents of `files`, in their order, and of some text."""
    digest = hashlib.sha256()
    for part in (*(path.read_bytes() for path in files), *(text.encode() for text in more)):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def find(names: Iterable[str] = ()) -> list[Network]:
    """Find the networks called `names`, or all; without the data, say so and end with success.

    A name that ends in `.onnx` is that of a file, of which no samples are known.
    """
    files = [Path(name) for name in names if name.endswith(".onnx")]
    if files:
        named = [name for name in names if not name.endswith(".onnx")]
        unknown = [Network(each.stem, each, {}, each, each) for each in files]
        return [*unknown, *(find(named) if named else [])]
    data = Path(os.environ.get("MLQ_DATA") or ROOT.parent / "shared" / "data")
    if not (data / "models").is_dir():
        print(f"skipped: no networks in {data}; set MLQ_DATA to the folder that has models/")
        raise SystemExit(0)
    chosen = [name for name in names if name != "all"] or list(NAMES)
    known = {each.stem for each in (data / "models").glob("*.onnx")}
    if unknown := sorted(set(chosen) - known):
        raise SystemExit(f"unknown network {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return [_network(data, name) for name in chosen]


def _network(data: Path, name: str) -> Network:
    model = data / "models" / f"{name}.onnx"
    description = json.loads(model.with_suffix(".json").read_text())
    calib, evaluation = (_split(data, f"{description['dataset']}-{end}") for end in _ENDS)
    return Network(name, model, description, calib, evaluation)


_ENDS = ("calib", "eval")


def _split(data: Path, name: str) -> Path:
    folder = data / name
    return folder if folder.is_dir() else data / f"{name}.npz"


def _files(*paths: Path) -> list[Path]:
    """Every file that holds samples, in an order that is the same everywhere."""
    return [
        file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])
    ]


def _read_npz(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    with np.load(path) as arrays:
        return arrays["images"], arrays["labels"].astype(np.int64)


def _read_folder(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    with (path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = [np.asarray(Image.open(path / row["file"]).convert("RGB")) for row in rows]
    return np.stack(images), np.array([int(row["label"]) for row in rows])
