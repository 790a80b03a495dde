"""A finished output folder at work: run it, evaluate it, time it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mlq import devices, emulation, evaluation, runtime, targets, variant
from mlq.errors import UsageError
from mlq.formats import MODULE, PARAMETERS
from mlq.frontends.data import Dataset, Samples, load_data
from mlq.frontends.onnx import import_model
from mlq.frontends.specs import Batch, TensorSpec
from mlq.latency import time_for
from mlq.manifest import Manifest
from mlq.network import Network, Transformed, transform
from mlq.network import load as load_network
from mlq.output import MANIFEST
from mlq.peer import Peer
from mlq.plan import Plan
from mlq.progress import Stages
from mlq.ranges import Ranges
from mlq.rendering import PREPROCESS
from mlq.report import AgreementPart, LatencyPart, Real, Report
from mlq.rounding import FILE, recalled
from mlq.targets.host import cpu_model
from mlq.transforms.pipelines import lowering
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
class Recalled:
    """What an output folder was made of, read again."""

    network: Network
    plan: Plan
    ranges: Ranges

    @property
    def complete(self) -> bool:
        """Whether the network still has every layer of the plan."""
        return self.plan.layers.keys() <= {layer.name for layer in self.network.layers}

    @property
    def quantized(self) -> Transformed:
        """The network under its plan, at contract QUANTIZED."""
        return variant.quantize(self.network, self.plan, self.ranges)


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
        known = found.manifest.files.get(found.module.name)
        if known is None or not found.module.is_file():
            raise UsageError(f"{path}: has no {MODULE}; quantize the network again")
        if hashlib.sha256(found.module.read_bytes()).hexdigest() != known.sha256:
            raise UsageError(
                f"{found.module}: is not the file that {MANIFEST} lists; quantize again"
            )
        return found

    @property
    def module(self) -> Path:
        """The compiled network; of several, the first that runs on this machine."""
        several = self.manifest.modules
        here = (m.file for m in several if not devices.why_not_here(targets.by_name(m.target)))
        return self.folder / next(here, MODULE)

    @property
    def specs(self) -> list[TensorSpec]:
        """The inputs, for any number of samples."""
        return [tensor.spec() for tensor in self.manifest.inputs]

    def load(self, *, threads: int | None = None, target: str | None = None) -> emulation.Runner:
        """The network on this machine, by default on as many threads as it was measured with.

        With a `target` the plan is compiled for that, and emulated if it cannot run otherwise;
        TargetError where it cannot run here at all.
        """
        count = threads or self.manifest.threads
        if target is not None:
            made = self.recall(batch=self.manifest.samples_a_call).quantized
            outputs, device = len(self.manifest.outputs), targets.by_name(target)
            lowered = transform(made.text, made.weights, lowering(device.features))
            return emulation.load(
                lowered.text, device, lowered.weights, outputs=outputs, threads=count
            )
        return self.executable(self.module, count)

    def executable(self, module: Path, threads: int) -> runtime.Executable:
        """A module of the folder, with the weights that lie beside the network."""
        shared = self.folder / PARAMETERS
        outside = module == self.module and shared.is_file()
        return runtime.load(module, parameters=shared if outside else None, threads=threads)

    def recall(self, *, batch: Batch | None) -> Recalled:
        """The network, plan and ranges that the folder was made of; `batch` as for `load`.

        UsageError when the network's file is not where it was, or not what it was.
        """
        plan = Plan.from_json(self.folder / "plan.json")
        ranges = Ranges.from_json(self.folder / "ranges.json")
        path = Path(self.manifest.model.path)
        if not path.is_file():
            raise UsageError(
                f"{path}: the network that {self.folder} was made of is not there; put it back, or"
                " start from the folder in which mlq quantize was called"
            )
        network = load_network(path, batch=batch, **plan.import_options)
        if network.model.sha256 != self.manifest.model.sha256:
            raise UsageError(
                f"{path}: has changed since {self.folder} was made of it; quantize it again"
            )
        return Recalled(recalled(network, self.folder / FILE), plan, ranges)

    def samples(self, data: Samples, *, preprocess: Path | None = None) -> Dataset:
        """Data for the network; images as they were made into inputs when it was quantized."""
        beside = self.folder / PREPROCESS
        card = preprocess or (beside if beside.exists() else None)
        return load_data(data, self.specs, preprocess=card, seed=self.manifest.seed)

    def outputs(self, executable: emulation.Runner, data: Dataset, stages: Stages) -> list[Array]:
        """Every output over all samples."""
        batch = self.manifest.samples_a_call
        names = [spec.name for spec in self.specs]
        batches = ([each[name] for name in names] for each in data.batches(batch))
        with stages.stage("run", data.samples) as advance:
            return evaluation.outputs(executable, batches, batch=batch, advance=advance)


def run(
    module: str | Path,
    inputs: Samples,
    *,
    target: str | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> dict[str, Array]:
    """Run OUT/model.vmfb over samples; its outputs by name, samples along the first axis.

    With a `target`, what is run is the same plan compiled for that.
    """
    found = _artifact_of(Path(module))
    data = found.samples(inputs)
    executable = found.load(threads=threads, target=target)
    results = found.outputs(executable, data, Stages(visible=progress))
    return {tensor.name: each for tensor, each in zip(found.manifest.outputs, results, strict=True)}


def evaluate(
    out: str | Path,
    data: Samples,
    *,
    preprocess: Path | None = None,
    target: str | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Accuracy of an artifact on labelled data, and its agreement with float if that was saved.

    With a `target`, what is evaluated is the same plan compiled for that.
    """
    found, stages = Artifact.open(out), Stages(visible=progress)
    samples = found.samples(data, preprocess=preprocess)
    first = found.outputs(found.load(threads=threads, target=target), samples, stages)[0]
    reference = found.folder / "stages" / "float.vmfb"
    before, agreement = None, None
    if reference.is_file() and not devices.why_not_here(targets.by_name(found.manifest.target)):
        executable = found.executable(reference, threads or found.manifest.threads)
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
    count, batch = threads or found.manifest.threads, found.manifest.samples_a_call
    inputs = next(found.samples(f"random:{batch}").batches(batch))
    saved = {name: found.folder / "stages" / f"{name}.vmfb" for name in _BASELINES}
    modules = {"mixed": found.module, **{n: path for n, path in saved.items() if path.is_file()}}
    calls: dict[str, Callable[[], object]] = {
        name: found.executable(path, count).prepare(*inputs.values())
        for name, path in modules.items()
    }
    if against is not None:
        calls[against] = _peer(found, against, inputs, count)
    times = time_for(list(calls.values()), seconds=seconds)
    return Bench(
        device=cpu_model(),
        threads=count,
        batch=found.manifest.samples_a_call,
        latency_ms={name: LatencyPart.of(each) for name, each in zip(calls, times, strict=True)},
    )


def reported(out: str | Path) -> Report:
    """What the run that made OUT found; UsageError where nothing was measured."""
    path = Artifact.open(out).folder / "report.json"
    if not path.is_file():
        raise UsageError(f"{path}: is not there; only mlq quantize, demo and tune make a report")
    return Report.from_json(path)


def _peer(
    found: Artifact, against: str, inputs: Mapping[str, Array], threads: int
) -> Callable[[], object]:
    """What the artifact is timed against, as a call."""
    path = Path(against)
    if path.is_dir():
        other = Artifact.open(path)
        return other.executable(other.module, threads).prepare(*inputs.values())
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
