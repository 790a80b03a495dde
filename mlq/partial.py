"""Parts of the route on their own: sensitivities without a plan, a module from a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlq import planning, targets
from mlq.analysis import Analysis, Subject, analyse, with_oracle
from mlq.formats import Files, ship
from mlq.frontends.data import Samples, load_data
from mlq.manifest import manifest
from mlq.network import load, transform
from mlq.output import MANIFEST
from mlq.plan import Plan
from mlq.progress import Stages
from mlq.ranges import Ranges
from mlq.recipe import Recipe, resolve
from mlq.rendering import preprocessing
from mlq.rounding import FILE, recalled
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
        network = load(path, batch=settings.batch, ir_level=settings.ir_level)
        data = load_data(
            calib,
            network.sample_specs,
            preprocess=preprocess,
            model_path=path,
            samples=settings.samples,
            seed=settings.seed,
        )
    found = analyse(Subject.of(path, data, device, settings, stages))
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
    batch: int = 1,
    form: str = "vmfb",
    progress: bool = False,
    command: str = "mlq.partial.compile_plan(...)",
) -> Files:
    """Compile a network as a plan says, with the ranges beside it; nothing is measured.

    Returns the files that `mlq compile` writes: what was compiled, in the form (of
    `mlq.formats.FORMATS`) that was asked for, and what it was made of.
    """
    chosen = Plan.from_json(plan)
    known = Ranges.from_json(Path(ranges or Path(plan).with_name("ranges.json")))
    device, stages = targets.by_name(target or chosen.target), Stages(visible=progress)
    with stages.stage("import"):
        network = load(Path(model), batch=batch, ir_level=chosen.ir_level)
        rounding = Path(plan).with_name(FILE)
        network = recalled(network, rounding)
        allowed = {
            layer.name: planning.supported_by(network, device, layer) for layer in network.layers
        }
        if device.float_only and any(each.precision != "f32" for each in chosen.layers.values()):
            targets.integer_target(device.name)
        chosen.check(allowed, source=str(plan))
    with stages.stage("compile"):
        quantized = quantize(network, chosen, known)
        lowered = transform(quantized.text, quantized.weights, lowering(device.features))
        shipped = ship(lowered, device, form)
    files: Files = {
        **shipped,
        "plan.json": chosen.to_json(),
        "ranges.json": known.to_json(),
        **({FILE: rounding.read_bytes()} if rounding.is_file() else {}),
    }
    settings = Recipe(target=device.name, ir_level=chosen.ir_level, batch=batch)
    files[MANIFEST] = manifest(network.model, settings, stages, files, command=command).to_json()
    return files
