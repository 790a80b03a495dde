"""The whole route: ONNX and samples in, a verified mixed-precision module and its report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mlq import (
    devices,
    emulation,
    output,
    planning,
    rendering,
    reporting,
    runtime,
    selection,
    targets,
    timing,
    variant,
)
from mlq.analysis import Analysis, Prepared, Subject, analyse
from mlq.frontends.data import Dataset, Samples, load_data
from mlq.frontends.specs import ANY
from mlq.judge import Judge
from mlq.methods import prepare
from mlq.network import Network, load
from mlq.plan import Plan
from mlq.progress import Stages
from mlq.ranges import Ranges
from mlq.recipe import Recipe, resolve
from mlq.report import DeviceCheck, LatencyReport, PlanPoint, Report, StandIn
from mlq.sensitivities import Sensitivities
from mlq.targets.base import Target
from mlq.variant import Lowered, Variant, build
from mlq.verification import DeviceChecks

# Parameters of networks that are simulated and compiled at the same time: memory may not do for
# both of larger ones.
_LARGE = 1 << 26


@dataclass(frozen=True)
class Forms:
    """The network that is compiled: as it was given, and as plans take it, its weights rounded.

    `known` has what was compiled of it already.
    """

    float: Network
    planned: Network
    known: Sequence[Variant] = ()


@dataclass(frozen=True)
class Result:
    """What `quantize` made: the artifact, and the values that led to it."""

    report: Report
    plan: Plan
    ranges: Ranges
    sensitivities: Sensitivities
    recipe: Recipe
    vmfb: bytes = field(repr=False)
    files: dict[str, bytes | str] = field(repr=False)

    @property
    def met(self) -> bool:
        """Whether every limit that was asked for is kept."""
        return all(constraint.met for constraint in self.report.constraints)

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Run the artifact on one batch."""
        return runtime.load(self.vmfb, threads=self.recipe.threads).run(*inputs)

    def save(self, folder: str | Path) -> None:
        """Write the output folder: complete, or not at all."""
        output.write(Path(folder), self.files)


def quantize(
    model: str | Path,
    calib: Samples,
    target: str | None = None,
    *,
    eval: Samples | None = None,
    preprocess: Path | None = None,
    recipe: Path | None = None,
    save_stages: bool = False,
    progress: bool = False,
    command: str = "mlq.quantize(...)",
    **options: Any,
) -> Result:
    """Quantize the ONNX file `model` for `target`, calibrated on the samples `calib`.

    `options` are the fields of `Recipe` (`max_drop`, `precisions`, `calibrator`, ...). With
    labelled `eval` data the accuracy limit is checked on the compiled artifact; in any case the KL
    of the simulated plan is, on `calib`. Raises an MlqError, one line, for what is wrong.
    """
    settings = resolve({"target": target, **options}, recipe)
    device, path = targets.integer_target(settings.target), Path(model)
    settings = settings.with_menu(device.menu)
    stages = Stages(visible=progress)
    with stages.stage("import"):
        network = load(path, batch=settings.samples_a_call, **settings.import_options)
        compiled = _as_compiled(network, settings, device)
        load_samples = _reader(network, settings, preprocess)
        data = load_samples(calib, samples=settings.samples)
        held_out = data if eval is None else load_samples(eval)
    prepared = prepare(Subject.of(path, data, device, settings, stages))
    network, planned = prepared.rounding.of(network), prepared.rounding.of(compiled)
    found, timed = _measured(network, prepared)
    costs = timed.costs(data)
    planner = planning.Planner.of(network, device, settings, found.sensitivities, costs)
    planner = _weighed(planner, found)
    with stages.stage("allocate"):
        tries = selection.candidates(planner, found)
    judge = Judge(
        network, held_out, stages, batch=settings.samples_a_call, threads=settings.threads
    )
    forms = Forms(compiled, planned, known=timed.variants if planned is network else ())
    findings = decide(planner, tries, found, judge, command, forms=forms)
    return result(findings, save_stages=save_stages)


def _measured(network: Network, prepared: Prepared) -> tuple[Analysis, timing.Timing]:
    """Sensitivities; what is to be timed is compiled meanwhile, or after where both are large."""
    subject, ranges = prepared.subject, prepared.choice.ranges
    begin = partial(timing.Timing, network, subject.target, subject.recipe, ranges, subject.stages)
    is_large = sum(layer.params for layer in network.layers) > _LARGE
    timed = None if is_large else begin()
    try:
        found = analyse(prepared)
    except BaseException:
        if timed is not None:
            timed.cancel()
        raise
    found.simulation.release()
    return found, timed or begin()


def _reader(network: Network, recipe: Recipe, preprocess: Path | None) -> Callable[..., Dataset]:
    """What reads samples for a network."""
    return partial(
        load_data,
        inputs=network.sample_specs,
        preprocess=preprocess,
        model_path=network.model.path,
        seed=recipe.seed,
    )


def _as_compiled(network: Network, recipe: Recipe, target: Target) -> Network:
    """The network that is compiled, with the batch that the recipe leaves open."""
    if recipe.batch != ANY:
        return network
    target.expect_open_batch()
    return load(network.model.path, batch=ANY, **recipe.import_options)


def _weighed(planner: planning.Planner, found: Analysis) -> planning.Planner:
    """The planner with the bytes that modules take besides parameters, where size is limited."""
    if planner.recipe.max_size is None:
        return planner
    device, most = found.subject.target, 0.0
    for precision in planner.recipe.reduced_precisions():
        allowed = planning.supported(planner.network, device, [precision])
        plan = planning.uniform_plan(planner.network, planner.recipe, precision, allowed)
        with found.subject.stages.stage(f"weigh {precision}"):
            vmfb = build(planner.network, plan, found.choice.ranges, device).vmfb
        most = max(most, len(vmfb) - planner.predict(plan).bytes)
    return replace(planner, overhead=most)


def result(findings: reporting.Findings, *, save_stages: bool = False) -> Result:
    """What a run returns: its report, and the files of the output folder."""
    report, found = reporting.assemble(findings), findings.analysis
    return Result(
        report=report,
        plan=findings.variants["mixed"].plan,
        ranges=found.choice.ranges,
        sensitivities=found.sensitivities,
        recipe=findings.recipe,
        vmfb=findings.shipped["mixed"].vmfb,
        files=rendering.files(findings, report, save_stages=save_stages),
    )


def decide(
    planner: planning.Planner,
    tries: list[selection.Candidate],
    found: Analysis,
    judge: Judge,
    command: str,
    *,
    forms: Forms,
) -> reporting.Findings:
    """Choose among the plans to try by their artifacts; check and time what was chosen.

    The host stands in for targets not here.
    """
    subject, stages = found.subject, found.subject.stages
    found.simulation.release()
    stand_in = _stand_in(subject.target)
    ground = subject.target if stand_in is None else targets.by_name(stand_in.target)
    build_plan = partial(_build, forms, found, device=ground)
    variants = {name: build_plan(name, plan) for name, plan in _baselines(planner, found).items()}
    for name, made in variants.items():
        judge.add(name, made.vmfb)
    checks = _checks(subject.target, ground, judge)
    build_mixed = partial(build_plan, "mixed", checks=checks)
    mixed, tried = selection.choose(tries, planner, build_mixed, judge)
    variants["mixed"] = mixed
    shipped = dict(variants)
    for name in () if stand_in is None else variants:
        shipped[name] = build_plan(f"{name} to ship", variants[name].plan, device=subject.target)
    return reporting.Findings(
        network=forms.planned,
        planner=planner,
        recipe=subject.recipe,
        analysis=found,
        variants=variants,
        judge=judge,
        plans=_considered(tried, planner, variants, stages),
        device_check=_checked(mixed, checks, judge, stages),
        latency=_latency(judge, stages),
        stages=stages,
        command=command,
        shipped=shipped,
        stand_in=stand_in,
    )


def _build(
    forms: Forms,
    found: Analysis,
    name: str,
    plan: Plan,
    *,
    device: Target,
    checks: DeviceChecks | None = None,
) -> Variant:
    known = (each for each in forms.known if (each.plan, each.target) == (plan, device))
    if (made := next(known, None)) and checks is None:
        return made
    network = forms.float if name.startswith("float") else forms.planned
    with found.subject.stages.stage(f"compile {name}"):
        quantized = variant.quantize(network, plan, found.choice.ranges)
        if checks is not None:
            checks.begin(quantized)
        return Lowered.of(plan, quantized, device).variant()


def _considered(
    tried: list[selection.Candidate],
    planner: planning.Planner,
    variants: dict[str, Variant],
    stages: Stages,
) -> tuple[PlanPoint, ...]:
    with stages.stage("find the front"):
        return selection.points(tried, planner, variants)


def _latency(judge: Judge, stages: Stages) -> LatencyReport:
    with stages.stage("measure latency"):
        return judge.latency(("float", "int8", "mixed"))


def _stand_in(target: Target) -> StandIn | None:
    """Who is evaluated instead of a target that cannot run here, and why."""
    reason = devices.why_not_here(target)
    return StandIn(target=targets.host_target().name, reason=reason) if reason else None


def _checks(target: Target, ground: Target, judge: Judge) -> DeviceChecks:
    """Layers are checked on the target, emulated if need be; where that cannot be, on `ground`."""
    on = ground if emulation.why_not_at_all(target) else target
    return DeviceChecks(on, outputs=judge.results)


def _checked(mixed: Variant, checks: DeviceChecks, judge: Judge, stages: Stages) -> DeviceCheck:
    with stages.stage("check artifact"):
        return checks.run(mixed, next(judge.batches()))


def _baselines(planner: planning.Planner, found: Analysis) -> dict[str, Plan]:
    """The float network and the all-integer one, which the mixed one is compared with."""
    recipe = planner.recipe
    base = recipe.reduced_precisions()[0]
    allowed = planning.supported(planner.network, found.subject.target, [base])
    return {
        "float": planning.empty_plan(recipe),
        "int8": planning.uniform_plan(planner.network, recipe, base, allowed),
    }
