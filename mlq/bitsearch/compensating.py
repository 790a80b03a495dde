"""An allocation made better: weights and biases that make up for its own errors, in context.

In the order of the network each layer reads what the layers before it make in the bits that the
allocation gives them, and is fitted to what it makes in float (`mlq.compensation`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import columns, compensation, numerics
from mlq.bitsearch.context import Pass
from mlq.bitsearch.preparing import BASE_BITS, Prepared
from mlq.bitsearch.rounding import multiplied
from mlq.dialect import functions, layers
from mlq.network import Layer, walked
from mlq.precision import Precision
from mlq.rounding import fitted_samples, fitting_batches

Array = NDArray[Any]

# Windows of a layer that are looked at: so many, of so many elements in all.
_WINDOWS, _ELEMENTS = 16384, 1 << 26


def compensated(
    prepared: Prepared,
    precisions: Mapping[str, str],
    advance: Callable[[int], None] = lambda _layers: None,
) -> Prepared:
    """The network with weights and biases for these precisions: it simulates them, and no others.

    The network as it is where no activation has fewer than 8 bits. DiagnosticError where it has an
    op that numpy cannot compute.
    """
    if all(Precision.parse(each).activation_bits >= BASE_BITS for each in precisions.values()):
        return prepared
    subject, simulation, network = prepared.subject, prepared.simulation, prepared.network
    available = subject.data.samples
    seen = columns.first(fitting_batches(subject.batches(), available), fitted_samples(available))
    batches = [[np.array(each) for each in batch] for batch in seen]
    fit = _Fit(prepared, {**prepared.base, **precisions})
    table = simulation.table(prepared.choice.ranges, fit.assignment)
    store = network.weights.copy()
    store.update(simulation.simulated_weights(fit.assignment, ":simulated"))

    def pass_over(main: Any) -> None:
        simulated = functions.main_of(main.operation.parent, "simulated")
        exact = Pass(main, batches, store)
        stored = Pass(simulated, [[*batch, table] for batch in batches], store)
        for layer in multiplied(network):
            fit.layer(layer, exact, stored)
            advance(1)

    walked(replace(network, text=network.transform("mlq-simulate{chains=0}").text), pass_over)
    refined = simulation.refined(simulation.narrow, fit.weights, fit.biases)
    return replace(prepared, simulation=refined)


@dataclass(frozen=True)
class _Fit:
    """What layers compute with in an assignment, by key and bits or precision, as far as found."""

    prepared: Prepared
    assignment: Mapping[str, str]
    weights: dict[tuple[str, int], Array] = field(default_factory=dict)
    biases: dict[tuple[str, str], Array] = field(default_factory=dict)

    def layer(self, layer: Layer, exact: Pass, stored: Pass) -> None:
        """Fit a layer, and let the pass through the quantized network go on with what was found.

        A layer without a bias, or whose weight or bias another has too, stays as it is.
        """
        network, name = self.prepared.network, self.assignment[layer.name]
        every = [key for each in network.layers for key in (each.weight, each.bias)]
        ops = [each.before(layer.name) for each in (exact, stored)]
        if layer.weight is None or layer.bias is None:
            return
        if every.count(layer.weight) > 1 or every.count(layer.bias) > 1:
            return
        windows, read = (
            _windows(layer, each.read(op.operation.operands[0]))
            for each, op in zip((exact, stored), ops, strict=True)
        )
        wanted = _rows(layer, network.weights[layer.weight]) @ windows
        weight = self._weight(layer, windows, read, wanted)
        shift = (wanted - _rows(layer, weight) @ read).mean(axis=-1, dtype=np.float64)
        bias = network.weights[layer.bias] + shift.reshape(-1).astype(np.float32)
        self.weights[layer.weight, Precision.parse(name).weight_bits] = weight
        self.biases[layer.bias, name] = bias
        constants = layers.constants_of(ops[1])
        stored.replace(constants[layers.WEIGHT_OPERAND], weight)
        stored.replace(constants[layers.BIAS_OPERAND], bias)

    def _weight(self, layer: Layer, windows: Array, read: Array, wanted: Array) -> Array:
        """The layer's weight as it is to be stored, for results near those `wanted` [G, O, N].

        Weights of few bits stay on their grids, which get other scales.
        """
        name, recipe = self.assignment[layer.name], self.prepared.subject.recipe
        precision = Precision.parse(name)
        weight = self.prepared.simulation.stored_weight(layer, name)
        if precision.activation_bits >= BASE_BITS:
            return weight
        rows = _rows(layer, weight)
        if precision.weight_bits == BASE_BITS:
            own = _rows(layer, self.prepared.network.weights[layer.weight or ""])
            rows = compensation.ridge_regressed(own, windows, read)
        rows = rows * compensation.gains(wanted, rows @ read)[..., None]
        first = np.moveaxis(weight, layer.weight_axis, 0)
        moved = np.moveaxis(rows.reshape(first.shape), 0, layer.weight_axis)
        if precision.weight_bits < BASE_BITS:
            return np.ascontiguousarray(moved)
        params = numerics.weight_params(
            moved,
            bits=BASE_BITS,
            granularity=recipe.granularity,
            axis=layer.weight_axis,
            scheme=recipe.scheme,
        )
        return np.ascontiguousarray(numerics.fake_quantize(moved, params))


def _rows(layer: Layer, weight: Array) -> Array:
    """A weight as [G, O, K], by what a group's outputs sum over."""
    assert layer.product is not None
    rows = np.moveaxis(weight, layer.weight_axis, 0)
    return rows.reshape(layer.product.groups, -1, layer.product.window)


def _windows(layer: Layer, batches: Sequence[Array]) -> Array:
    """Windows [G, K, N] that the layer reads, sample after sample; of equal inputs, equal ones."""
    assert layer.product is not None
    most = min(_WINDOWS, _ELEMENTS // (layer.product.groups * layer.product.window))
    random = np.random.default_rng(0)
    parts = [columns.drawn(layer, batch, most / len(batches), random) for batch in batches]
    return np.concatenate(parts, axis=-1)
