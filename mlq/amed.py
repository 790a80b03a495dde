"""AMED as one call: a network's bits searched against a device, and the plan that is taken."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from mlq import hardware as devices
from mlq import targets
from mlq.analysis import Subject
from mlq.bitsearch import preserving
from mlq.bitsearch.compensating import compensated
from mlq.bitsearch.exploring import Effort, Explored, explore, objective_of, read_trace
from mlq.bitsearch.improving import arrays, improved
from mlq.bitsearch.judging import Front, Judge, candidates, choose, judged_front
from mlq.bitsearch.measuring import Measuring
from mlq.bitsearch.page import Told, page
from mlq.bitsearch.plots import figures
from mlq.bitsearch.preparing import Prepared, prepare
from mlq.bitsearch.rounding import multiplied
from mlq.errors import DiagnosticError, UsageError
from mlq.formats import MODULE, Files
from mlq.frontends.data import Dataset, Samples, load_data
from mlq.hardware import Hardware
from mlq.manifest import manifest
from mlq.network import load
from mlq.output import MANIFEST
from mlq.pages.markdown import markdown
from mlq.plan import LayerPlan, Plan
from mlq.planning import empty_plan
from mlq.progress import Stages
from mlq.recipe import Recipe, resolve
from mlq.rendering import archived, preprocessing
from mlq.rounding import METHOD
from mlq.values import Part
from mlq.variant import build

# Points of the front that are judged on the other samples.
_JUDGED = 16
# The file of what the taken point computes with, where it was improved.
_NUMBERS = {"compensated": "compensated.npz", "fine-tuned": "finetuned.npz"}


class Wish(Part):
    """What is asked of a search, by the names of the command line.

    Activations have the bits of the weights, unless they choose from `activation_bits`;
    `max_drop` is in accuracy (0.01 is one point), `max_size` in bytes of weights; an allocation is
    measured on `samples` of the calibration samples. `finetune` trains what is taken, on PyTorch;
    `target` compiles the plan, if it can.
    """

    bits: tuple[PositiveInt, ...] = (2, 3, 4, 8)
    activation_bits: tuple[PositiveInt, ...] | None = None
    iterations: PositiveInt = 2000
    chains: PositiveInt = 4
    temperature: PositiveFloat = 0.002
    max_drop: PositiveFloat = 0.01
    max_size: PositiveFloat | None = None
    samples: PositiveInt = 16
    seed: NonNegativeInt = 0
    finetune: bool = False
    target: str = "x86"
    threads: PositiveInt = 1
    sizes: str = ""
    outputs: str = ""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Wish:
        """What was given, None aside. UsageError names what makes no sense or is missing."""
        try:
            wish = cls(**{key: value for key, value in options.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            what = f"{first['msg'].lower()}, got {first.get('input')!r}"
            raise UsageError(f"{where}: {what}") from None
        if wish.finetune:
            import mlq.finetune  # noqa: F401 -- without PyTorch it says so now
        return wish

    @property
    def recipe(self) -> Recipe:
        """What this asks of calibration."""
        chosen = {
            key: getattr(self, key) for key in ("target", "seed", "threads", "sizes", "outputs")
        }
        return resolve({**chosen, "precisions": "f32,w8a8"})


@dataclass(frozen=True)
class Searched:
    """The front, what the report tells, and the files of the result; `folder` was worked in."""

    front: Front
    told: Told
    folder: Path
    files: Files = field(repr=False)

    def close(self) -> None:
        """Remove what the search worked in, once the result is written."""
        preserving.close(self.folder)


def search(
    model: str | Path,
    hardware: str | Path,
    calib: Samples,
    out: str | Path,
    *,
    eval: Samples | None = None,
    preprocess: Path | None = None,
    progress: bool = False,
    command: str = "mlq.amed.search(...)",
    **options: Any,
) -> Searched:
    """Search the bits of each layer of the ONNX file `model` on a device.

    The front is judged on `eval`, by default on all of `calib`. The search works in a folder beside
    `out` and goes on from there after a kill; `out` itself is only read. `options` are the fields
    of `Wish`.
    """
    wish, device, path = Wish.of(options), devices.load(hardware), Path(model)
    stages = Stages(visible=progress)
    with stages.stage("import"):
        specs = load(path, batch=None, **wish.recipe.import_options).sample_specs
        data = load_data(calib, specs, preprocess=preprocess, model_path=path).shuffled(wish.seed)
        held_out = data
        if eval is not None:
            held_out = load_data(eval, specs, preprocess=preprocess, model_path=path)
    subject = Subject.of(path, data, targets.by_name(wish.target), wish.recipe, stages)
    folder = preserving.opened(Path(out), _identity(subject, device, wish))
    weights = folder / preserving.WEIGHTS
    prepared = prepare(subject, wish.bits, weights, wish.activation_bits)
    found = _explored(prepared, device, wish, folder)
    front, tuned = _judged(prepared, found, held_out, device, wish)
    plan = _plan(prepared, front)
    module, said = _artifact(prepared, plan, path)
    told = _told(prepared, found, front, device, (said, command))
    files = {**_files(prepared, told, found, plan, folder), **module, **tuned}
    listed = manifest(
        prepared.network.model,
        wish.recipe,
        stages,
        files,
        command=command,
        calibration=data,
        evaluation=held_out,
    )
    return Searched(front, told, folder, {**files, MANIFEST: listed.to_json()})


def _identity(subject: Subject, device: Hardware, wish: Wish) -> dict[str, object]:
    """What must be the same for a search to go on."""
    described = device.model_dump_json()
    return {
        "network": subject.network.model.sha256,
        "hardware": hashlib.sha256(described.encode()).hexdigest(),
        "calibration data": subject.data.sha256,
        "bits": sorted(set(wish.bits)),
        "activation bits": sorted(set(wish.activation_bits or ())),
        "samples": wish.samples,
        "rounding": METHOD,
    }


def _explored(prepared: Prepared, device: Hardware, wish: Wish, folder: Path) -> Explored:
    space = prepared.space(device, wish.bits, wish.activation_bits)
    return explore(
        space,
        Measuring(prepared, space, wish.samples),
        objective_of(space, wish.max_drop, wish.max_size),
        Effort(max_drop=wish.max_drop, steps=wish.iterations, chains=wish.chains, seed=wish.seed),
        folder=folder,
        stages=prepared.subject.stages,
    )


def _judged(
    prepared: Prepared, found: Explored, data: Dataset, device: Hardware, wish: Wish
) -> tuple[Front, Files]:
    """The front on other samples, improved; and what the taken point then computes with."""
    visits = candidates(found.archive, found.state.objective, _JUDGED)
    judge = Judge(prepared, data)
    points = judged_front(judge, found.archive, visits, prepared.subject.stages)
    front = Front(
        hardware=device.name,
        bits=tuple(sorted(set(wish.bits))),
        samples=min(wish.samples, prepared.subject.data.samples),
        judged_samples=data.samples,
        labelled=data.labels is not None,
        float_accuracy=judge.float_accuracy,
        max_drop=wish.max_drop,
        chosen=choose(points, wish.max_drop),
        points=tuple(points),
    )
    return _improved(prepared, front, judge, wish)


def _improved(prepared: Prepared, front: Front, judge: Judge, wish: Wish) -> tuple[Front, Files]:
    """The front compensated, fine-tuned if asked; what the taken point then computes with."""
    stages, tuned = prepared.subject.stages, dict[int, Prepared]()

    def compensate(place: int) -> Prepared:
        with stages.stage("compensate", len(front.points[place].precisions)) as advance:
            return compensated(prepared, front.points[place].precisions, advance)

    with suppress(DiagnosticError):  # an op that numpy cannot compute; the report says so
        front, tuned = improved(front, judge, compensate, "compensated")
    if wish.finetune:
        from mlq.finetune.training import Schooling, finetune

        how = Schooling(seed=wish.seed)

        def train(place: int) -> Prepared:
            begun = tuned.get(place, prepared)
            with stages.stage("fine-tune", how.steps) as advance:
                return finetune(begun, front.points[place].precisions, how, advance).prepared

        front, trained = improved(front, judge, train, "fine-tuned")
        tuned |= trained
    if front.chosen not in tuned:
        return front, {}
    taken = front.points[front.chosen]
    found = arrays(tuned[front.chosen], taken.precisions)
    return front, {_NUMBERS[taken.improved or ""]: archived(found)}


def _plan(prepared: Prepared, front: Front) -> Plan:
    """The chosen point as a plan."""
    taken = {**prepared.base, **front.points[front.chosen].precisions}
    reason = f"searched on {front.hardware}"
    layers = {name: LayerPlan(precision=each, reason=reason) for name, each in taken.items()}
    return empty_plan(prepared.subject.recipe).model_copy(update={"layers": layers})


def _artifact(prepared: Prepared, plan: Plan, path: Path) -> tuple[Files, str]:
    """The plan compiled, where the target computes in all its precisions; what to say of it."""
    target = prepared.subject.target
    layers = prepared.network.layers
    refused = sorted({
        name
        for layer in layers
        if not target.supports(layer.kind, name := plan.precision(layer.name))
    })  # fmt: skip
    if refused:
        said = f"No `{MODULE}`: target {target.name} does not compute in {', '.join(refused)}."
        return {}, f"{said} The plan is for the device that was searched for."
    with prepared.subject.stages.stage("compile"):
        single = load(path, batch=1, **plan.import_options)
        made = build(single, plan, prepared.choice.ranges, target)
    return {MODULE: made.vmfb}, f"`{MODULE}` is the plan compiled for {target.name}."


def _told(
    prepared: Prepared, found: Explored, front: Front, device: Hardware, said: tuple[str, str]
) -> Told:
    return Told(
        model=prepared.network.model.path.name,
        summary=device.summary,
        front=front,
        space=found.archive.space,
        state=found.state,
        noise=found.noise,
        layers=multiplied(prepared.network),
        visits=len(found.archive),
        rounding=prepared.rounding,
        artifact=said[0],
        command=said[1],
    )


def _files(prepared: Prepared, told: Told, found: Explored, plan: Plan, folder: Path) -> Files:
    layers = [(layer.name, layer.form) for layer in told.layers]
    trace = read_trace(folder)
    drawn = figures(told.front, found.archive.visits, trace, layers)
    return {
        "report.md": markdown(page(told, drawn)),
        "front.json": told.front.to_json(),
        "plan.json": plan.to_json(),
        "ranges.json": prepared.choice.ranges.to_json(),
        **preserving.kept_files(folder),
        **drawn,
        **preprocessing(prepared.subject.data),
    }
