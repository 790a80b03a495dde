"""What each weight multiplies: samples of layers' windows, for rounding weights to fit them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.network import Layer, Network, evaluator
from mlq.numerics import Reals
from mlq.numerics.windows import windows

Array = NDArray[Any]

# Windows kept of a layer: for each input that an output sums over, and in all.
_PER_INPUT, _LEAST, _MOST = 8, 512, 8192


def gather(
    network: Network, batches: Iterable[Sequence[Array]], samples: int, *, seed: int = 0
) -> dict[str, Reals]:
    """Windows [G, K, N] that layers with a weight read in the float network, by layer.

    G are the groups, K the inputs that an output sums over; the N windows are drawn evenly over
    about `samples` samples, one after the other, and all positions, the same for a seed.
    DiagnosticError where an op that is not mlq's stands between layers.
    """
    random = np.random.default_rng(seed)
    found: dict[str, list[Reals]] = {}
    weighted = [layer for layer in network.layers if layer.product is not None]
    with evaluator(network) as tensors_of:
        for batch in first(batches, samples):
            values, share = tensors_of(batch), len(batch[0]) / samples
            for layer in weighted:
                assert layer.product is not None
                wanted = min(max(_PER_INPUT * layer.product.window, _LEAST), _MOST) * share
                taken = drawn(layer, values[layer.flows[0].tensor], wanted, random)
                found.setdefault(layer.name, []).append(taken)
    return {name: np.concatenate(parts, axis=-1) for name, parts in found.items()}


def first(batches: Iterable[Sequence[Array]], samples: int) -> Iterator[Sequence[Array]]:
    """The first batches, of so many samples or hardly more."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch[0])
        if done >= samples:
            break


def drawn(layer: Layer, x: Reals, wanted: float, random: np.random.Generator) -> Reals:
    """About so many windows [G, K, n] of a batch that the layer reads, at the same places of all.

    There are no more than the layer has, and at least one of each sample.
    """
    product = layer.product
    assert product is not None
    positions = min(max(int(wanted / len(x)), 1), product.pixels)
    if layer.kind != "conv2d":
        rows = x.reshape(len(x), -1, x.shape[-1])[:, :positions].reshape(-1, x.shape[-1])
        return np.ascontiguousarray(rows.T[None])
    view = windows(
        x, product.kernel, strides=product.strides, pads=layer.pads, dilations=product.dilations
    )
    places = random.choice(product.pixels, positions, replace=False)
    down, right = np.divmod(places, view.shape[3])
    patches = view[:, :, down, right].transpose(1, 3, 4, 0, 2)
    return np.ascontiguousarray(patches.reshape(product.groups, product.window, -1))
