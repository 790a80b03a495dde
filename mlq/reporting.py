"""Puts the report together from what the stages found, and the files of the output folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil
from numpy.typing import NDArray

from mlq.analysis import Analysis
from mlq.judge import Judge
from mlq.manifest import versions
from mlq.network import Network
from mlq.planning import Planner, noise_budget
from mlq.progress import Stages
from mlq.recipe import Recipe
from mlq.report import (
    AgreementReport,
    Constraint,
    DeviceCheck,
    FloatOp,
    Hardware,
    Inferences,
    LatencyReport,
    LayerReport,
    ModelFacts,
    PlanPoint,
    Report,
    Sizes,
    StandIn,
)
from mlq.targets.host import cpu_model
from mlq.trials import TuningReport
from mlq.variant import Variant


@dataclass(frozen=True)
class Findings:
    """All that a run of `mlq quantize` or `mlq tune` found, for the report.

    `variants` were evaluated on this machine, `shipped` are for the target: the same, unless the
    target cannot run here.
    """

    network: Network
    planner: Planner
    recipe: Recipe
    analysis: Analysis
    variants: dict[str, Variant]
    judge: Judge
    plans: tuple[PlanPoint, ...]
    latency: LatencyReport
    device_check: DeviceCheck
    stages: Stages
    command: str
    shipped: dict[str, Variant]
    stand_in: StandIn | None
    tuning: TuningReport | None = None


def assemble(found: Findings) -> Report:
    """The report of a finished run."""
    judge, variants = found.judge, found.shipped
    report = Report(
        model=_model(found.network, next(judge.batches())),
        target=found.recipe.target,
        ir_level=found.recipe.ir_level,
        cost_source=found.planner.costs.source,
        hardware=_hardware(found.recipe.threads),
        versions=versions(),
        seed=found.recipe.seed,
        command=found.command,
        **_chosen(found),
        inferences=_inferences(found),
        stages=tuple(found.stages.finished),
        layers=tuple(_layers(found)),
        float_ops=tuple(float_ops(found.network)),
        accuracy=judge.accuracy(),
        agreement=AgreementReport(
            data=judge.data.name,
            n=judge.data.samples,
            int8=judge.agreement("int8"),
            mixed=judge.agreement("mixed"),
        ),
        latency_ms=found.latency,
        size_bytes=Sizes(
            onnx=found.network.model.path.stat().st_size,
            **{name: len(variant.vmfb) for name, variant in variants.items()},
        ),
        casts=variants["mixed"].casts(),
        device_check=found.device_check,
        plans=found.plans,
        noise_budget_mnat=noise_budget(found.recipe),
        minimised=found.planner.target.minimise,
        constraints=(),
        stand_in=found.stand_in,
        tuning=found.tuning,
    )
    return report.model_copy(update={"constraints": tuple(_constraints(found, report))})


def _chosen(found: Findings) -> dict[str, Any]:
    """The calibrator and the accuracy methods, and what was tried of them."""
    choice, methods = found.analysis.choice, found.analysis.methods
    return {
        "calibrator": choice.ranges.calibrator,
        "calibrators_kl_mnat": choice.tried,
        "methods": methods.taken or found.recipe.methods,
        "methods_kl_mnat": methods.tried,
    }


def _model(network: Network, batch: Sequence[NDArray[Any]]) -> ModelFacts:
    model = network.model
    open_ = (
        f"{spec.name}.{axis}={array.shape[axis]}"
        for spec, array in zip(model.inputs, batch, strict=True)
        for axis, size in enumerate(spec.shape)
        if size is None and axis > 0
    )
    return ModelFacts(
        path=str(model.path),
        sha256=model.sha256,
        opset=model.opset,
        nodes=model.nodes,
        params=model.parameters,
        macs=sum(layer.macs for layer in network.layers),
        quantized_nodes=model.quantized_nodes,
        open_sizes=",".join(open_),
    )


def _hardware(threads: int) -> Hardware:
    return Hardware(
        cpu=cpu_model(),
        threads=threads,
        cores=os.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
    )


def _layers(found: Findings) -> list[LayerReport]:
    """Every layer in the network's order, with the metrics at its first integer precision."""
    plan = found.variants["mixed"].plan
    base = found.recipe.reduced_precisions()[0]
    costs = found.planner.costs
    options = {choice.name: choice.options for choice in found.planner.problem.layers}
    rows = []
    for layer in found.network.layers:
        candidates = found.analysis.sensitivities.layers[layer.name].candidates
        precision = plan.precision(layer.name)
        chosen = plan.layers.get(layer.name)
        rows.append(
            LayerReport(
                name=layer.name,
                op=layer.kind,
                precision=precision,
                macs=layer.macs,
                params=layer.params,
                metrics=candidates.get(precision, candidates.get(base, {})),
                cost_us={name: costs.layer_us(layer, name) for name in (*candidates, "f32")},
                reason=chosen.reason if chosen else "f32: the plan does not name it",
                noise_mnat={name: each.noise for name, each in options[layer.name].items()},
            )
        )
    return rows


def float_ops(network: Network) -> list[FloatOp]:
    """The ONNX nodes that no plan can make integer: mlq has no op for them, or not for this use."""
    return [
        FloatOp(name=skip.location, op=skip.op.removeprefix("onnx."), reason=skip.reason)
        for skip in network.float_ops
        if skip.op.startswith("onnx.")
    ]


def _constraints(found: Findings, report: Report) -> list[Constraint]:
    """The limits that the recipe sets, each with what was measured on the artifact."""
    recipe, limits = found.recipe, []
    if recipe.max_drop is not None and report.accuracy is not None:
        limits.append(("max-drop", recipe.max_drop, found.judge.drop("mixed")))
    if recipe.max_size is not None:
        limits.append(("max-size", float(recipe.max_size), float(report.size_bytes.mixed)))
    if recipe.max_latency is not None:
        limits.append(("max-latency", recipe.max_latency, report.latency_ms.mixed.p50))
    return [
        Constraint(name=name, limit=limit, value=value, met=value <= limit + 1e-12)
        for name, limit, value in limits
    ]


def _inferences(found: Findings) -> Inferences:
    """Passes over the samples, in float one for each set of weights; what comparisons took."""
    simulated = [point for point in found.plans if point.simulated_kl_mnat is not None]
    methods = found.analysis.methods
    return Inferences(
        float=methods.float_passes,
        quantized=1.0,
        calibrator_probe_samples=found.analysis.choice.probed_samples,
        layers_alone_samples=found.analysis.sensitivities.samples_alone,
        plan_check_samples=len(simulated) * found.analysis.observations.checked_samples,
        methods_probe_samples=methods.probed_samples,
        numpy_samples=methods.numpy_samples,
    )
