"""One plan on many targets: compiled for each, run on each, compared tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import devices, emulation, evaluation, output, rendering, targets
from mlq.artifact import Artifact
from mlq.errors import CompileError, TargetError, UsageError
from mlq.formats import Files
from mlq.frontends.data import Samples
from mlq.output import MANIFEST
from mlq.progress import Stages
from mlq.ranges import Ranges
from mlq.report import AgreementCheck, Report, TargetCheck, TensorDifference
from mlq.targets.base import Target
from mlq.verification import DTYPES, Exposed, difference

Array = NDArray[Any]
# Float layers sum up in another order and contract differently; as `mlq check --numerics`.
TOLERANCE = 1e-4
# Then a result is now and then rounded to the neighbouring f16, and an integer after it, too.
F16_TOLERANCE, _STEPS = 4e-3, 2


@dataclass(frozen=True)
class _Trial:
    """The plan, exposed and lowered, with the samples to run it on."""

    artifact: Artifact
    exposed: Exposed
    inputs: Sequence[Array]
    stages: Stages

    @property
    def tolerance(self) -> float:
        """How far floats may be apart, as a share of a tensor's greatest."""
        halves = any(storage == "f16" for _, storage in self.exposed.tensors)
        return F16_TOLERANCE if halves else TOLERANCE

    def on(self, target: Target) -> dict[str, Array]:
        """Every named tensor, and the network's own results, as a target computes them."""
        names = [tensor.name for tensor in self.artifact.manifest.outputs]
        with self.stages.stage(f"compile for {target.name}"):
            runner = self.exposed.on(target, outputs=len(names))
        with self.stages.stage(f"run on {target.name}"):
            results = runner.run(*self.inputs)
        return self.exposed.named(results) | dict(zip(names, results, strict=False))


def verify(
    out: str | Path,
    names: str = targets.TESTED,
    *,
    data: Samples = "random:1",
    save: bool = True,
    progress: bool = False,
) -> AgreementCheck:
    """Compile the plan of OUT for targets (a list with commas), run each, and compare tensors.

    Integers must be equal bit for bit, floats within TOLERANCE of the tensor's greatest; in a plan
    with f16 floats within F16_TOLERANCE, and integers may be two steps apart. What they are
    compared with is the first target of the list that runs here; one that cannot run is still
    compiled, and the result says why it was not run. With `save` the report in OUT says it too.
    """
    chosen = list(map(_target, dict.fromkeys(_listed(names))))
    artifact = Artifact.open(out)
    count = artifact.manifest.samples_a_call
    stages = Stages(visible=progress)
    with stages.stage("import"):
        recalled = artifact.recall(batch=count)
        samples = artifact.samples(data)
        first = next(samples.batches(count))
        inputs = [evaluation.filled(first[spec.name], count) for spec in artifact.specs]
        trial = _Trial(artifact, Exposed.of(recalled.quantized), inputs, stages)
    found = AgreementCheck(
        data=samples.name,
        samples=len(inputs[0]),
        tolerance=trial.tolerance,
        targets=tuple(_compared(trial, chosen)),
    )
    if save:
        _save(artifact, found)
    return found


def _listed(names: str) -> list[str]:
    listed = [name.strip() for name in names.split(",") if name.strip()]
    if not listed:
        raise UsageError(f"no target in {names!r}; give some, such as {targets.TESTED}")
    return listed


def _target(name: str) -> Target:
    """The target of that name; for one that has no integers, its preset for the device here."""
    target = targets.by_name(name)
    usable = [each for each in targets.presets_of(target) if not each.float_only]
    if not target.float_only or not usable or ":" in name:
        return targets.integer_target(name)
    return next((each for each in usable if not devices.why_not_here(each)), usable[0])


def _compared(trial: _Trial, chosen: Sequence[Target]) -> Iterator[TargetCheck]:
    """Each target against the first that runs."""
    base: dict[str, Array] = {}
    for target in chosen:
        reason = emulation.why_not_at_all(target)
        if reason:
            yield _not_run(trial, target, reason)
            continue
        try:
            found = trial.on(target)
        except (CompileError, TargetError) as error:
            yield TargetCheck(target=target.name, not_run=str(error), sound=False)
            continue
        base = base or found
        yield _check(trial, target, found, base)


def _not_run(trial: _Trial, target: Target, reason: str) -> TargetCheck:
    """A target that is compiled for, to see that it can be, but not run."""
    try:
        with trial.stages.stage(f"compile for {target.name}"):
            size = trial.exposed.compiled_bytes(target)
    except (CompileError, TargetError) as error:
        return TargetCheck(target=target.name, not_run=str(error), sound=False)
    said = f"cannot run here because {reason}"
    return TargetCheck(target=target.name, not_run=said, compiled_bytes=size)


def _check(
    trial: _Trial, target: Target, found: Mapping[str, Array], base: Mapping[str, Array]
) -> TargetCheck:
    kinds = {tensor[0]: tensor[1] for tensor in trial.exposed.tensors}
    rows = [
        _differs(name, kinds.get(name, "f32"), (found[name], base[name]), trial.tolerance)
        for name in base
    ]
    integers = [row for row in rows if row.storage in DTYPES]
    floats = [row for row in rows if row.storage not in DTYPES]
    return TargetCheck(
        target=target.name,
        device=emulation.where(target),
        integer_tensors=len(integers),
        integer_equal=sum(row.difference == 0 for row in integers),
        float_tensors=len(floats),
        float_difference=max((row.difference for row in floats), default=0.0),
        sound=all(row.sound for row in rows),
        tensors=tuple(rows),
    )


def _differs(
    name: str, storage: str, pair: tuple[Array, Array], tolerance: float
) -> TensorDifference:
    """Steps of the storage for integers, a share of the greatest element for floats."""
    found, base = pair
    if found.shape != base.shape or found.dtype != base.dtype:
        raise TargetError(
            f"{name} is {found.dtype}{list(found.shape)} on one target and"
            f" {base.dtype}{list(base.shape)} on another"
        )
    if storage in DTYPES:
        steps, most = float(difference(found, base)), _STEPS if tolerance > TOLERANCE else 0
        return TensorDifference(name=name, storage=storage, difference=steps, sound=steps <= most)
    exact, other = base.astype(np.float64), found.astype(np.float64)
    scale = float(np.abs(exact).max(initial=0.0)) or 1.0
    share = float(np.abs(exact - other).max(initial=0.0)) / scale
    sound = bool(np.isfinite(share) and share <= tolerance)
    share = share if np.isfinite(share) else 1e30
    return TensorDifference(name=name, storage=storage, difference=share, sound=sound)


def _save(artifact: Artifact, found: AgreementCheck) -> None:
    """Put what was found into the report of OUT, if it has one; other files stay as they are."""
    if not (artifact.folder / "report.json").is_file():
        return
    report = Report.from_json(artifact.folder / "report.json")
    ranges = Ranges.from_json(artifact.folder / "ranges.json")
    pages = rendering.report_files(report.model_copy(update={"targets": found}), ranges)
    kept: Files = {name: (artifact.folder / name).read_bytes() for name in artifact.manifest.files}
    files = {**kept, **pages}
    files[MANIFEST] = artifact.manifest.listing(files).to_json()
    output.write(artifact.folder, files)
