"""Every weight at every width of few bits, rounded for what its layer reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import columns
from mlq.analysis import Subject
from mlq.errors import ModelError
from mlq.network import Layer, Network
from mlq.output import write_arrays
from mlq.precision import Precision
from mlq.ranges import Ranges
from mlq.rounding import rounded
from mlq.simulation import Simulation

Array = NDArray[Any]
Arrays = Mapping[tuple[str, int], Array]

# Samples whose windows weights are rounded for.
_SAMPLES = 32


@dataclass(frozen=True)
class Rounding:
    """Weights in float as they are stored, and biases that make up for it, by key and bits."""

    weights: Arrays
    biases: Arrays


def multiplied(network: Network) -> list[Layer]:
    """The layers that an array of multipliers computes; ModelError where there is none."""
    found = [layer for layer in network.layers if layer.product is not None]
    if not found:
        raise ModelError(
            f"{network.model.path}: has no convolution or product with a constant of known shape; "
            "there are no bits to search"
        )
    return found


def rounding_of(
    subject: Subject, simulation: Simulation, ranges: Ranges, widths: Sequence[int], kept: Path
) -> Rounding:
    """What the file `kept` holds, or else is made and written there; the network's ends stay wide.

    DiagnosticError where the float network has an op that numpy cannot compute.
    """
    layers = multiplied(subject.network)[1:-1]
    keys = [(layer, width) for layer in layers for width in widths]
    found = _read(kept, keys)
    if found is not None:
        return found
    samples = min(_SAMPLES, subject.data.samples)
    with subject.stages.stage("gather windows"):
        windows = columns.gather(
            subject.network, subject.batches(), samples, seed=subject.recipe.seed
        )
    weights, biases = {}, {}
    with subject.stages.stage("round weights", len(keys)) as advance:
        for layer, width in keys:
            precision = Precision(width, width)
            made = rounded(layer, precision, windows[layer.name], simulation, ranges)
            weights[layer.weight or "", width] = made.simulated
            if layer.bias is not None:
                bias = simulation.network.weights[layer.bias]
                biases[layer.bias, width] = bias + made.shift
            advance(1)
    _write(kept, weights, biases)
    return Rounding(weights, biases)


def _write(file: Path, weights: Arrays, biases: Arrays) -> None:
    parts = {"weight": weights, "bias": biases}
    arrays = {
        f"{part}:{width}:{key}": array
        for part, each in parts.items()
        for (key, width), array in each.items()
    }
    write_arrays(file, arrays)


def _read(file: Path, keys: Iterable[tuple[Layer, int]]) -> Rounding | None:
    """What was written, if it is all that is wanted."""
    if not file.exists():
        return None
    parts: dict[str, dict[tuple[str, int], Array]] = {"weight": {}, "bias": {}}
    with np.load(file) as arrays:
        for name in arrays:
            part, width, key = name.split(":", 2)
            parts[part][key, int(width)] = arrays[name]
    wanted = {(layer.weight, width) for layer, width in keys}
    return Rounding(parts["weight"], parts["bias"]) if wanted == set(parts["weight"]) else None
