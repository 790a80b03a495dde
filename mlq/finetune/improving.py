"""A front made better by fine-tuning: the point that was taken, and faster ones beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from mlq.bitsearch.judging import Front, Judge, choose
from mlq.bitsearch.preparing import Prepared
from mlq.finetune.training import Schooling, finetune
from mlq.network import Layer
from mlq.numerics import table_row
from mlq.precision import Precision

# Points that are fine-tuned at most.
_MOST = 4


def improved(
    front: Front, judge: Judge, prepared: Prepared, how: Schooling
) -> tuple[Front, dict[str, NDArray[Any]]]:
    """The front after fine-tuning, and what the taken point computes with, by name.

    From the point that was taken on to faster ones, until one loses more than was allowed. Nothing
    is returned beside the front where the taken point was not fine-tuned.
    """
    points, tuned = list(front.points), {}
    for index in range(front.chosen, max(front.chosen - _MOST, -1), -1):
        point = points[index]
        with prepared.subject.stages.stage("fine-tune", how.steps) as advance:
            made = finetune(prepared, point.precisions, how, advance)
        better = judge.again(point, made.prepared)
        if better.drop < point.drop:
            points[index], tuned[index] = better, made.prepared
        if points[index].drop > front.max_drop:
            break
    chosen = choose(points, front.max_drop)
    whole = front.model_copy(update={"points": tuple(points), "chosen": chosen})
    if chosen not in tuned:
        return whole, {}
    return whole, _arrays(tuned[chosen], points[chosen].precisions)


def _arrays(prepared: Prepared, precisions: Mapping[str, str]) -> dict[str, NDArray[Any]]:
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
        bits = Precision.parse(name).activation_bits
        stored = simulation.stored_activation(flow, bits, prepared.choice.ranges)
        found[f"{layer.name}:{flow.role}"] = table_row(stored)
    return found
