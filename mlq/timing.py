"""The costs of a network's layers, timed on this machine in the networks they are layers of."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import calibration, devices, planning, targets
from mlq.costs import Costs, MeasuredCosts, TableCosts
from mlq.errors import TargetError
from mlq.frontends.data import Dataset, load_data
from mlq.kernels import library
from mlq.network import Network, load
from mlq.profiling import Profile, Times
from mlq.progress import Stages
from mlq.ranges import Ranges
from mlq.recipe import Recipe
from mlq.targets.base import Target
from mlq.targets.host import cpu_model
from mlq.values import Part
from mlq.variant import Lowered, Variant, compiled, quantize

# Part of the names that IREE gives to what it makes of code that is no kernel of ours.
_OF_IREE = "_dispatch_"
_SOURCE = "each layer of this network timed at each precision on this CPU ({cpu}), one thread"


class Timing:
    """The network in float and in each precision of the recipe, compiled to be timed.

    That begins at once, and the compiler is a process of its own: other work may go on meanwhile.
    The table of the target serves where kernels cannot be timed here, or the recipe asks for it.
    """

    def __init__(
        self, network: Network, target: Target, recipe: Recipe, ranges: Ranges, stages: Stages
    ) -> None:
        self._network, self._table, self._stages = network, TableCosts(target), stages
        self._lowered: dict[str, Lowered] = {}
        self._profile = Profile()
        self.variants: list[Variant] = []
        if recipe.costs == "table" or _why_not_timed(target):
            return
        allowed = planning.supported(network, target, recipe.reduced_precisions())
        plans = {"f32": planning.empty_plan(recipe)}
        for each in recipe.reduced_precisions():
            plans[each] = planning.uniform_plan(network, recipe, each, allowed)
        with stages.stage("lower what is timed", len(plans)) as advance:
            for precision, plan in plans.items():
                quantized = quantize(network, plan, ranges)
                self._lowered[precision] = lowered = Lowered.of(plan, quantized, target)
                self._profile.add(lowered.made.text, partial(self._compiled, lowered))
                advance(1)

    def costs(self, data: Dataset) -> Costs:
        """What each layer costs at f32 and at each precision, on the first samples."""
        if not self._lowered:
            return self._table
        network, layers = self._network, defaultdict[str, dict[str, float]](dict)
        macs = sum(layer.macs for layer in network.layers)
        with self._stages.stage("time layers", len(self._lowered)) as advance:
            times = self._profile.times(_batch(network, data), macs=macs, advance=advance)
        nodes = min(map(_by_iree, times))
        for (precision, each), took in zip(self._lowered.items(), times, strict=True):
            found = _by_layer(network, each, took, self._table, nodes=nodes)
            for name, us in found.items():
                if each.plan.precision(name) == precision:
                    layers[name][precision] = us
        self._lowered.clear()
        return MeasuredCosts(self._table, layers, _SOURCE.format(cpu=cpu_model()))

    def cancel(self) -> None:
        """Compile no more: nobody is to wait for it."""
        self._profile.cancel()

    def _compiled(self, lowered: Lowered) -> bytes:
        """To be timed, kernel by kernel; and to be used."""
        variant = lowered.variant()
        self.variants.append(variant)
        is_apart = lowered.joined is lowered.made
        return variant.vmfb if is_apart else compiled(lowered.made, lowered.target)


class LayerTimes(Part):
    """A layer, and microseconds at each precision that it can have."""

    name: str
    op: str
    us: dict[str, float]


class NetworkTimes(Part):
    """What `mlq targets measure` found."""

    model: str
    target: str
    source: str
    layers: tuple[LayerTimes, ...]


def measure_model(
    model: str | Path, recipe: Recipe, *, preprocess: Path | None = None, progress: bool = False
) -> NetworkTimes:
    """Time every layer of an ONNX file on this machine, as `mlq quantize` does.

    A random sample serves: times hardly depend on ranges. TargetError where the target's kernels
    do not run here.
    """
    target, path, stages = targets.by_name(recipe.target), Path(model), Stages(visible=progress)
    recipe = recipe.with_menu(target.menu)
    if reason := _why_not_timed(target):
        raise TargetError(f"target {target.name} cannot be timed: {reason}")
    with stages.stage("import"):
        network = load(path, batch=recipe.samples_a_call, **recipe.import_options)
        data = load_data("random:1", network.sample_specs, preprocess=preprocess, model_path=path)
    with stages.stage("calibrate"):
        results = [calibration.instrument(network, target).run(*_batch(network, data))]
        observations = calibration.observe(network, results)
    ranges = calibration.ranges_by("minmax", observations, scheme=recipe.scheme)
    costs = Timing(network, target, recipe, ranges, stages).costs(data)
    allowed = planning.supported(network, target, recipe.reduced_precisions())
    return NetworkTimes(
        model=str(path),
        target=target.name,
        source=costs.source,
        layers=tuple(
            LayerTimes(
                name=layer.name,
                op=layer.kind,
                us={each: costs.layer_us(layer, each) for each in ("f32", *allowed[layer.name])},
            )
            for layer in network.layers
        ),
    )


def _batch(network: Network, data: Dataset) -> list[NDArray[Any]]:
    """So many samples, the first ones again where there are fewer."""
    size = network.batch
    first = next(data.batches(size))
    arrays = [first[spec.name] for spec in network.model.inputs]
    return [np.resize(array, (size, *array.shape[1:])) for array in arrays]


def _why_not_timed(target: Target) -> str:
    """Why its kernels cannot be timed here, or nothing."""
    if reason := devices.why_not_here(target):
        return reason
    return "" if library.best(target.cpu_features) else "there are no kernels for its CPU"


def _by_layer(
    network: Network,
    lowered: Lowered,
    times: Times,
    table: TableCosts,
    *,
    nodes: float,
) -> dict[str, float]:
    """Microseconds of each layer: of its kernels, or its part of what no layer's kernels took.

    A kernel that layers share takes each of them the same; one that moves what a layer reads is
    the layer's. What IREE's own code took, less what `nodes` that are no layers take, is shared
    among the layers that have no kernel as the table would have it.
    """
    calls = lowered.made.notes.get("mlq.kernels", [])
    often: dict[str, int] = defaultdict(int)
    for _, kernel in calls:
        often[kernel] += 1
    spent: dict[str, float] = defaultdict(float)
    for layer, kernel in calls:
        spent[layer] += times.get(kernel, 0.0) / often[kernel]
    others = {
        layer.name: table.layer_us(layer, lowered.plan.precision(layer.name))
        for layer in network.layers
        if layer.name not in spent
    }
    scale = (_by_iree(times) - nodes) / (sum(others.values()) or 1.0)
    return {**spent, **{name: us * scale for name, us in others.items()}}


def _by_iree(times: Times) -> float:
    """Microseconds of what IREE made of code that is no kernel of ours.

    Of a network that is nearly all kernels that is its nodes that are no layers, such as layer
    norms, and what moves between them: the least of some forms of a network is taken for those.
    """
    return sum(us for kernel, us in times.items() if _OF_IREE in kernel)
