"""How much of what rounding to 4 bits gains on the samples it is fitted to holds on others.

    python benchmarks/rounding_fit.py NETWORK LAYER ...      (layers without groups)

Error of a layer's results over their energy, in percent, when its weight (64 of its output
channels) is rounded by windows of so many calibration samples: on these windows, and on those of
84 evaluation samples. `0.01` is the damping that all layers once had, the other mlq.damping's.
32 samples are what was fitted once, 84 what is left now of 100, 168 the same with their mirror
images, as mlq.rounding sees pictures.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from networks import Network, find

from mlq import columns, damping
from mlq.frontends.data import load_data
from mlq.network import Layer, load
from mlq.network import Network as Loaded
from mlq.numerics import Reals
from mlq.reconstruction import Moments, error, reconstruct
from mlq.rounding import mirrored

FEW, MOST, ROWS, BITS, ONCE = 32, 84, 64, 4, 0.01


def windows(
    loaded: Loaded, network: Network, source: Path, samples: int, *, twice: bool = False
) -> dict[str, Reals]:
    """Windows of the first samples, by layer; `twice` in a mirror, too."""
    data = load_data(str(source), loaded.sample_specs, model_path=network.model, samples=samples)
    names = [spec.name for spec in loaded.model.inputs]
    batches: Iterator[list[Any]] = ([batch[name] for name in names] for batch in data.batches(1))
    if twice:
        return columns.gather(loaded, mirrored(batches), 2 * samples)
    return columns.gather(loaded, batches, samples)


def share(weight: Reals, rounded: Reals, x: Reals) -> float:
    """Percent of a layer's energy that rounding its weight [O, K] changes, means aside."""
    moments = Moments.of(x)
    energy = error(weight, np.zeros_like(weight), moments) - error(weight, weight, moments)
    return 100.0 * (error(weight, rounded, moments) / energy + 1.0)


def row(weight: Reals, x: Reals, others: Reals, share_of_diagonal: float) -> str:
    """Error on the windows that are fitted, and on others."""
    made = reconstruct(weight, Moments.of(x, damping=share_of_diagonal), bits=BITS).simulated
    lost = [share(weight, made, each) for each in (x, others)]
    return f"{share_of_diagonal:>8g} {lost[0]:>8.3f} {lost[1]:>9.3f}"


def main(name: str, layers: Sequence[str]) -> None:
    """Print two rows for each layer and number of samples."""
    network = find([name])[0]
    loaded = load(network.model, batch=1)
    chosen = [layer for layer in loaded.layers if layer.name in layers and layer.weight]
    others = windows(loaded, network, network.eval, MOST)
    print(
        f"{'layer':12} {'inputs':>6} {'samples':>8} {'damping':>8} {'on these':>8} {'on others':>9}"
    )
    for samples, twice in ((FEW, False), (MOST, False), (MOST, True)):
        found = windows(loaded, network, network.calib, samples, twice=twice)
        for layer, is_chosen in itertools.product(chosen, (False, True)):
            weight, x = rows(loaded, layer), found[layer.name]
            damped = damping.least_error(x) if is_chosen else ONCE
            said = row(weight, x, others[layer.name], damped)
            print(f"{layer.name:12} {weight.shape[1]:>6} {samples << twice:>8} {said}", flush=True)


def rows(loaded: Loaded, layer: Layer) -> Reals:
    """Some output channels of a layer's weight: [O, K]."""
    whole = np.moveaxis(loaded.weights[layer.weight or ""], layer.weight_axis, 0)
    return np.ascontiguousarray(whole[:: max(len(whole) // ROWS, 1)]).reshape(-1, whole[0].size)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
