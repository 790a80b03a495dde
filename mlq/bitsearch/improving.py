"""A front made better: the point that was taken, and faster ones beside it, with other numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from mlq.bitsearch.judging import Front, Judge, Way, choose
from mlq.bitsearch.preparing import Prepared
from mlq.network import Layer
from mlq.numerics import table_row
from mlq.precision import Precision

# Points that are improved at most.
_MOST = 4

Tune = Callable[[int], Prepared]
"""A network with weights, biases and ranges for the point at this place of the front."""


def improved(front: Front, judge: Judge, tune: Tune, way: Way) -> tuple[Front, dict[int, Prepared]]:
    """The front after `tune`, which `way` calls so, and the networks of points that it improved.

    From the point that was taken on to faster ones, until one loses more than was allowed; a point
    has the new numbers where its KL is less with them.
    """
    points, tuned = list(front.points), dict[int, Prepared]()
    for index in range(front.chosen, max(front.chosen - _MOST, -1), -1):
        point = points[index]
        made = tune(index)
        better = judge.again(point, made, way)
        if better.judged_kl_mnat < point.judged_kl_mnat:
            points[index], tuned[index] = better, made
        if points[index].drop > front.max_drop:
            break
    chosen = choose(points, front.max_drop)
    return front.model_copy(update={"points": tuple(points), "chosen": chosen}), tuned


def arrays(prepared: Prepared, precisions: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Weights and biases in float as they are stored, by their keys; and activations.

    These are rows (scale, zero point, least, greatest), called like the layer and the role in it.
    """
    found: dict[str, NDArray[Any]] = {}
    for layer in prepared.network.layers:
        name = {**prepared.base, **precisions}[layer.name]
        found |= _stored(prepared, layer, str(Precision.parse(name)))
    return found


def _stored(prepared: Prepared, layer: Layer, name: str) -> dict[str, NDArray[Any]]:
    simulation = prepared.simulation
    found = {}
    if layer.weight is not None:
        found[layer.weight] = simulation.stored_weight(layer, name)
    if layer.bias is not None:
        found[layer.bias] = simulation.stored_bias(layer, name)
    for flow in layer.flows:
        precision = Precision.parse(name)
        stored = simulation.stored_activation(flow, precision, prepared.choice.ranges)
        found[f"{layer.name}:{flow.role}"] = table_row(stored)
    return found
