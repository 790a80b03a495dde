"""Every weight at every width of few bits, rounded for what its layer reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.analysis import Subject
from mlq.errors import ModelError
from mlq.network import Layer, Network
from mlq.output import write_arrays
from mlq.ranges import Ranges
from mlq.rounding import METHOD, Rounding, round_weights
from mlq.simulation import Simulation

Array = NDArray[Any]

_METHOD = "method"


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
    precisions = {layer.name: [f"w{width}a{width}" for width in widths] for layer in layers}
    with subject.stages.stage("round weights", len(layers)) as advance:
        made = round_weights(
            subject.batches(),
            subject.data.samples,
            simulation,
            ranges,
            precisions,
            seed=subject.recipe.seed,
            advance=advance,
        )
    _write(kept, made)
    return made


def _write(file: Path, made: Rounding) -> None:
    parts = {"weight": made.weights, "bias": made.biases}
    arrays = {
        f"{part}:{width}:{key}": array
        for part, each in parts.items()
        for (key, width), array in each.items()
    }
    write_arrays(file, {_METHOD: np.asarray(METHOD), **arrays})


def _read(file: Path, keys: Iterable[tuple[Layer, int]]) -> Rounding | None:
    """What was written, if it is all that is wanted and was made as it would be now."""
    if not file.exists():
        return None
    parts: dict[str, dict[tuple[str, int], Array]] = {"weight": {}, "bias": {}}
    with np.load(file) as arrays:
        if _METHOD not in arrays or arrays[_METHOD] != METHOD:
            return None
        for name in arrays.keys() - {_METHOD}:
            part, width, key = name.split(":", 2)
            parts[part][key, int(width)] = arrays[name]
    wanted = {(layer.weight, width) for layer, width in keys}
    return (
        Rounding(parts["weight"], biases=parts["bias"]) if wanted == set(parts["weight"]) else None
    )
