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
from mlq.precision import BYTE_BITS, Precision
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
    subject: Subject, simulation: Simulation, ranges: Ranges, names: Sequence[str], kept: Path
) -> Rounding:
    """What the file `kept` holds, or else is made and written there, for the precisions `names`.

    The network's ends stay wide; weights of 8 bits are the nearest, with corrected biases.
    DiagnosticError where the float network has an op that numpy cannot compute.
    """
    layers = multiplied(subject.network)[1:-1]
    widths = {name: Precision.parse(name).weight_bits for name in names}
    fitted, corrected = (
        {
            layer.name: [name for name in names if (widths[name] < BYTE_BITS) == narrow]
            for layer in layers
        }
        for narrow in (True, False)
    )
    found = _read(kept, layers, names)
    if found is not None:
        return found
    with subject.stages.stage("round weights", len(layers)) as advance:
        made = round_weights(
            subject.batches(),
            subject.data.samples,
            simulation,
            ranges,
            fitted,
            corrected=corrected,
            seed=subject.recipe.seed,
            advance=advance,
        )
    _write(kept, made)
    return made


def _write(file: Path, made: Rounding) -> None:
    arrays = {f"weight:{bits}:{key}": array for (key, bits), array in made.weights.items()}
    arrays |= {f"bias:{name}:{key}": array for (key, name), array in made.biases.items()}
    write_arrays(file, {_METHOD: np.asarray(METHOD), **arrays})


def _read(file: Path, layers: Iterable[Layer], names: Sequence[str]) -> Rounding | None:
    """What was written, if it is all that is wanted and was made as it would be now."""
    if not file.exists():
        return None
    found = Rounding()
    with np.load(file) as arrays:
        if _METHOD not in arrays or arrays[_METHOD] != METHOD:
            return None
        for name in arrays.keys() - {_METHOD}:
            part, stored, key = name.split(":", 2)
            if part == "weight":
                found.weights[key, int(stored)] = arrays[name]
            else:
                found.biases[key, stored] = arrays[name]
    widths = {Precision.parse(name).weight_bits for name in names}
    weights = {(each.weight, width) for each in layers for width in widths if width < BYTE_BITS}
    biases = {(each.bias, name) for each in layers if each.bias for name in names}
    return found if (weights, biases) == (set(found.weights), set(found.biases)) else None
