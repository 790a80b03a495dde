"""What an output folder holds, of what it was made, and how to feed what is in it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Literal

from mlq.frontends.data import Dataset
from mlq.frontends.onnx import ImportedModel
from mlq.frontends.specs import TensorSpec, samples_a_call
from mlq.progress import Stages
from mlq.recipe import Recipe
from mlq.report import Stage
from mlq.values import Part, Value

_VERSIONS = ("mlq", "torch-mlir", "iree-base-compiler", "iree-base-runtime", "onnx", "numpy")


class FileFacts(Part):
    """A file of the folder."""

    bytes: int
    sha256: str


class ModelFile(Part):
    """The network that the folder was made of; `sha256` covers external data too."""

    path: str
    sha256: str


class ModuleFile(Part):
    """One of several modules of the network, and the target that it was compiled for."""

    target: str
    file: str


class SampleList(Part):
    """Samples that were used; `sha256` is that of the samples and labels in their order."""

    name: str
    samples: int
    sha256: str

    @classmethod
    def of(cls, data: Dataset) -> SampleList:
        """The facts of a data set."""
        return cls(name=data.name, samples=data.samples, sha256=data.sha256)


class Tensor(Part):
    """An input or output of the module; a size that is None is known only at run time."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    @classmethod
    def of(cls, spec: TensorSpec) -> Tensor:
        """The same, from the frontend's form."""
        return cls(name=spec.name, shape=spec.shape, dtype=spec.dtype)

    def spec(self) -> TensorSpec:
        """The frontend's form of it, for any number of samples."""
        return TensorSpec(self.name, (None, *self.shape[1:]), self.dtype)


class Manifest(Value):
    """`manifest.json`; `batch` is the number of samples that one call of the module takes, or any.

    `modules` are those of several targets, the best first; none where there is `target` alone.
    """

    command: str
    target: str
    batch: int | Literal["any"]
    threads: int
    seed: int
    model: ModelFile
    data: dict[str, SampleList]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    versions: dict[str, str]
    stages: tuple[Stage, ...]
    files: dict[str, FileFacts]
    modules: tuple[ModuleFile, ...] = ()

    @property
    def samples_a_call(self) -> int:
        """How many samples the module is called with, where nobody says."""
        return samples_a_call(self.batch)

    def listing(self, files: Mapping[str, bytes | str]) -> Manifest:
        """The same of a folder that holds these files."""
        return self.model_copy(update={"files": _facts(files)})


def manifest(
    model: ImportedModel,
    recipe: Recipe,
    stages: Stages,
    files: Mapping[str, bytes | str],
    *,
    command: str,
    modules: Sequence[ModuleFile] = (),
    **data: Dataset,
) -> Manifest:
    """The manifest of `files`; `data` are the samples used, by what for."""
    return Manifest(
        command=command,
        target=recipe.target,
        batch=recipe.batch,
        threads=recipe.threads,
        seed=recipe.seed,
        model=ModelFile(path=str(model.path.absolute()), sha256=model.sha256),
        data={use: SampleList.of(each) for use, each in data.items()},
        inputs=tuple(map(Tensor.of, model.inputs)),
        outputs=tuple(map(Tensor.of, model.outputs)),
        versions=versions(),
        stages=tuple(stages.finished),
        files=_facts(files),
        modules=tuple(modules),
    )


def versions() -> dict[str, str]:
    """Versions of Python and of what decides on a module."""
    return {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}}


def _facts(files: Mapping[str, bytes | str]) -> dict[str, FileFacts]:
    """Size and hash of each file's content."""
    found = {}
    for name, content in files.items():
        raw = content.encode() if isinstance(content, str) else content
        found[name] = FileFacts(bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    return found
