"""A finished output folder at work: run it, evaluate it, time it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mlq import evaluation, runtime
from mlq.errors import UsageError
from mlq.frontends.data import Dataset, Samples, load_data
from mlq.frontends.onnx import import_model
from mlq.frontends.specs import TensorSpec
from mlq.latency import time_for
from mlq.manifest import Manifest
from mlq.output import MANIFEST
from mlq.peer import Peer
from mlq.progress import Stages
from mlq.rendering import MODULE, PREPROCESS
from mlq.report import AgreementPart, LatencyPart, Real
from mlq.targets.host import cpu_model
from mlq.values import Part

Array = NDArray[Any]
# Modules that --save-stages leaves beside the chosen one.
_BASELINES = ("float", "int8")
_SECONDS = 10.0

ONNXRUNTIME = "onnxruntime"


class Evaluation(Part):
    """What an artifact does on some data; accuracy needs labels, agreement the float module."""

    data: str
    samples: int
    top1: Real | None
    float_top1: Real | None
    agreement: AgreementPart | None


class Bench(Part):
    """Milliseconds a call, by what was called; all were called in turn."""

    device: str
    threads: int
    batch: int
    latency_ms: dict[str, LatencyPart]


@dataclass(frozen=True)
class Artifact:
    """An output folder that was read and found whole."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | Path) -> Artifact:
        """Read a folder that mlq wrote; UsageError says what is missing or not as it was."""
        path = Path(folder)
        if not (path / MANIFEST).is_file():
            raise UsageError(f"{path}: has no {MANIFEST}; give a folder that mlq quantize wrote")
        found = cls(path, Manifest.from_json(path / MANIFEST))
        known = found.manifest.files.get(MODULE)
        if known is None or not found.module.is_file():
            raise UsageError(f"{path}: has no {MODULE}; quantize the network again")
        if hashlib.sha256(found.module.read_bytes()).hexdigest() != known.sha256:
            raise UsageError(
                f"{found.module}: is not the file that {MANIFEST} lists; quantize again"
            )
        return found

    @property
    def module(self) -> Path:
        """The compiled network."""
        return self.folder / MODULE

    @property
    def specs(self) -> list[TensorSpec]:
        """The inputs, for any number of samples."""
        return [tensor.spec() for tensor in self.manifest.inputs]

    def load(self, *, threads: int | None = None) -> runtime.Executable:
        """The network on this machine, by default on as many threads as it was measured with."""
        return runtime.load(self.module, threads=threads or self.manifest.threads)

    def samples(self, data: Samples, *, preprocess: Path | None = None) -> Dataset:
        """Data for the network; images as they were made into inputs when it was quantized."""
        beside = self.folder / PREPROCESS
        card = preprocess or (beside if beside.exists() else None)
        return load_data(data, self.specs, preprocess=card, seed=self.manifest.seed)

    def outputs(self, executable: runtime.Executable, data: Dataset, stages: Stages) -> list[Array]:
        """Every output over all samples."""
        batch = self.manifest.batch
        names = [spec.name for spec in self.specs]
        batches = ([each[name] for name in names] for each in data.batches(batch))
        with stages.stage("run", data.samples) as advance:
            return evaluation.outputs(executable, batches, batch=batch, advance=advance)


def run(
    module: str | Path, inputs: Samples, *, threads: int | None = None, progress: bool = False
) -> dict[str, Array]:
    """Run OUT/model.vmfb over samples; its outputs by name, samples along the first axis."""
    found = _artifact_of(Path(module))
    data = found.samples(inputs)
    results = found.outputs(found.load(threads=threads), data, Stages(visible=progress))
    return {tensor.name: each for tensor, each in zip(found.manifest.outputs, results, strict=True)}


def evaluate(
    out: str | Path,
    data: Samples,
    *,
    preprocess: Path | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Accuracy of an artifact on labelled data, and its agreement with float if that was saved."""
    found, stages = Artifact.open(out), Stages(visible=progress)
    samples = found.samples(data, preprocess=preprocess)
    first = found.outputs(found.load(threads=threads), samples, stages)[0]
    reference = found.folder / "stages" / "float.vmfb"
    before, agreement = None, None
    if reference.is_file():
        executable = runtime.load(reference, threads=threads or found.manifest.threads)
        before = found.outputs(executable, samples, stages)[0]
        agreement = AgreementPart(**vars(evaluation.agreement(before, first)))
    named = {"mixed": first} if before is None else {"mixed": first, "float": before}
    accuracy = evaluation.accuracies(named, samples.labels)
    return Evaluation(
        data=samples.name,
        samples=samples.samples,
        top1=accuracy.get("mixed"),
        float_top1=accuracy.get("float"),
        agreement=agreement,
    )


def bench(
    out: str | Path,
    *,
    threads: int | None = None,
    against: str | None = None,
    seconds: float = _SECONDS,
) -> Bench:
    """Time an artifact beside its float and all-integer forms, if those were saved, and a peer.

    `against` is `onnxruntime` (on the ONNX file that the artifact was made of), another ONNX file
    for it, or another output folder of the same network. The inputs are `random:` samples.
    """
    found = Artifact.open(out)
    count, batch = threads or found.manifest.threads, found.manifest.batch
    inputs = next(found.samples(f"random:{batch}").batches(batch))
    saved = {name: found.folder / "stages" / f"{name}.vmfb" for name in _BASELINES}
    modules = {"mixed": found.module, **{n: path for n, path in saved.items() if path.is_file()}}
    calls: dict[str, Callable[[], object]] = {
        name: runtime.load(path, threads=count).prepare(*inputs.values())
        for name, path in modules.items()
    }
    if against is not None:
        calls[against] = _peer(found, against, inputs, count)
    times = time_for(list(calls.values()), seconds=seconds)
    return Bench(
        device=cpu_model(),
        threads=count,
        batch=found.manifest.batch,
        latency_ms={name: LatencyPart.of(each) for name, each in zip(calls, times, strict=True)},
    )


def _peer(
    found: Artifact, against: str, inputs: Mapping[str, Array], threads: int
) -> Callable[[], object]:
    """What the artifact is timed against, as a call."""
    path = Path(against)
    if path.is_dir():
        return Artifact.open(path).load(threads=threads).prepare(*inputs.values())
    if against == ONNXRUNTIME:
        path = Path(found.manifest.model.path)
        if import_model(path).sha256 != found.manifest.model.sha256:
            raise UsageError(f"{path}: has changed since {found.folder} was made of it")
    elif path.suffix != ".onnx":
        raise UsageError(
            f"cannot bench against {against!r}; give {ONNXRUNTIME}, an ONNX file or a folder"
            " that mlq quantize wrote"
        )
    return Peer(path, threads=threads, exact=False).call(inputs)


def _artifact_of(module: Path) -> Artifact:
    """The folder of a module, which says what its inputs and outputs are."""
    if module.is_dir():
        return Artifact.open(module)
    if not module.is_file():
        raise UsageError(f"{module}: there is no such file; give OUT/{MODULE}")
    if module.name != MODULE:
        raise UsageError(f"{module}: is no {MODULE} in a folder that mlq quantize wrote")
    return Artifact.open(module.parent)
