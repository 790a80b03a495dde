"""Parts of the route on their own: sensitivities without a plan, a module from a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlq import planning, targets
from mlq.analysis import Analysis, Subject, analyse, with_oracle
from mlq.errors import UsageError
from mlq.formats import MODULE, Files, ship
from mlq.frontends.data import Samples, load_data
from mlq.frontends.specs import ANY, Batch
from mlq.manifest import ModuleFile, manifest
from mlq.methods import prepare
from mlq.network import Network, Transformed, load, transform
from mlq.output import MANIFEST
from mlq.plan import Plan
from mlq.progress import Stages
from mlq.ranges import Ranges
from mlq.recipe import Recipe, resolve
from mlq.rendering import preprocessing
from mlq.rounding import FILE, recalled
from mlq.targets.base import Target
from mlq.targets.static import STATIC_LIBRARY
from mlq.transforms.pipelines import lowering
from mlq.variant import quantize


def sensitivity(
    model: str | Path,
    calib: Samples,
    target: str | None = None,
    *,
    preprocess: Path | None = None,
    recipe: Path | None = None,
    oracle: bool = False,
    progress: bool = False,
    command: str = "mlq.partial.sensitivity(...)",
    **options: Any,
) -> tuple[Analysis, Files]:
    """Calibrate a network and measure its layers, without deciding anything.

    Returns what was found and the files that `mlq sensitivity` writes. `oracle` adds what each
    layer alone does to the output over all samples. `options` are those of `mlq.quantize`.
    """
    settings = resolve({"target": target, **options}, recipe)
    device = targets.integer_target(settings.target)
    settings = settings.with_menu(device.menu)
    path, stages = Path(model), Stages(visible=progress)
    with stages.stage("import"):
        network = load(path, batch=settings.samples_a_call, **settings.import_options)
        data = load_data(
            calib,
            network.sample_specs,
            preprocess=preprocess,
            model_path=path,
            samples=settings.samples,
            seed=settings.seed,
        )
    found = analyse(prepare(Subject.of(path, data, device, settings, stages)))
    found = with_oracle(found) if oracle else found
    files: Files = {
        "ranges.json": found.choice.ranges.to_json(),
        "sensitivities.json": found.sensitivities.to_json(),
        "recipe.toml": settings.to_toml(),
        **found.rounding.files(),
        **preprocessing(data),
    }
    listed = manifest(network.model, settings, stages, files, command=command, calibration=data)
    files[MANIFEST] = listed.to_json()
    return found, files


def compile_plan(
    model: str | Path,
    plan: str | Path,
    target: str | None = None,
    *,
    ranges: str | Path | None = None,
    batch: Batch = 1,
    form: str = "vmfb",
    progress: bool = False,
    command: str = "mlq.partial.compile_plan(...)",
) -> Files:
    """Compile a network as a plan says, with the ranges beside it; nothing is measured.

    Returns the files that `mlq compile` writes: what was compiled, in the form (of
    `mlq.formats.FORMATS`) that was asked for, and what it was made of. Of several targets (their
    names with commas between them, the best first) each has a module of its own.
    """
    chosen = Plan.from_json(plan)
    known = Ranges.from_json(Path(ranges or Path(plan).with_name("ranges.json")))
    devices, stages = _devices(target or chosen.target, form, batch), Stages(visible=progress)
    with stages.stage("import"):
        network = load(Path(model), batch=batch, **chosen.import_options)
        rounding = Path(plan).with_name(FILE)
        network = recalled(network, rounding)
        for device in devices:
            _check(chosen, network, device, source=str(plan))
    quantized = quantize(network, chosen, known)
    shipped: Files = {}
    for device in devices:
        with stages.stage("compile" if len(devices) == 1 else f"compile {device.name}"):
            shipped |= _made(quantized, device, form, first=device is devices[0])
    files: Files = {
        **shipped,
        "plan.json": chosen.to_json(),
        "ranges.json": known.to_json(),
        **({FILE: rounding.read_bytes()} if rounding.is_file() else {}),
    }
    settings = Recipe(target=devices[0].name, batch=batch, **chosen.import_options)
    listed = manifest(
        network.model, settings, stages, files, command=command, modules=_listed(devices, shipped)
    )
    files[MANIFEST] = listed.to_json()
    return files


def _devices(names: str, form: str, batch: Batch) -> list[Target]:
    """The targets of these names; an error where they, or the form, cannot be had."""
    found = [targets.by_name(name.strip()) for name in names.split(",")]
    if len({device.name for device in found}) < len(found):
        raise UsageError(f"--target {names}: names a target twice")
    if len(found) > 1 and form != "vmfb":
        raise UsageError(f"--target {names}: several targets have a module each; use --format vmfb")
    if batch == ANY and form == STATIC_LIBRARY:
        raise UsageError(f"--format {form} has buffers of known sizes; give --batch a number")
    for device in found if batch == ANY else ():
        device.expect_open_batch()
    return found


def _made(quantized: Transformed, device: Target, form: str, *, first: bool) -> Files:
    """What is shipped for one target; the first one's module is where a lone one's would be."""
    lowered = transform(quantized.text, quantized.weights, lowering(device.features))
    files = ship(lowered, device, form)
    if not first:
        files[_module(device)] = files.pop(MODULE)
    return files


def _listed(devices: Sequence[Target], shipped: Files) -> list[ModuleFile]:
    """The modules of several targets, in their order."""
    if len(devices) == 1:
        return []
    return [
        ModuleFile(target=device.name, file=file)
        for device, file in zip(devices, shipped, strict=True)
    ]


def _module(device: Target) -> str:
    """The file of a module that is not the first of several."""
    first = Path(MODULE)
    return f"{first.stem}.{device.name.replace(':', '-')}{first.suffix}"


def _check(plan: Plan, network: Network, device: Target, *, source: str) -> None:
    """PlanError or TargetError where a layer cannot be on the target what the plan says."""
    allowed = {
        layer.name: planning.supported_by(network, device, layer) for layer in network.layers
    }
    if device.float_only and any(each.precision != "f32" for each in plan.layers.values()):
        targets.integer_target(device.name)
    plan.check(allowed, source=source)
