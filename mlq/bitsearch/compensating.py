"""An allocation made better: weights and biases that make up for its own errors, in context.

In the order of the network, each layer is given what the layers before it make in the bits that the
allocation gives them, and what they make in float (`mlq.compensation`). Nothing is trained: it is
one pass over samples that no allocation is measured on.
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
from mlq.recipe import Recipe
from mlq.rounding import fitted_samples, fitting_batches
from mlq.simulation import Simulation

Array = NDArray[Any]
Advance = Callable[[int], None]

# Windows of a layer that are looked at: so many, of so many elements in all.
_WINDOWS, _ELEMENTS = 16384, 1 << 26
_SUFFIX = ":simulated"
_WIDE = Precision.parse(f"w{BASE_BITS}a{BASE_BITS}")


def compensated(
    prepared: Prepared, precisions: Mapping[str, str], advance: Advance = lambda _layers: None
) -> Prepared:
    """The network with weights and biases for these precisions: it simulates them, and no others.

    DiagnosticError where the network has an op that numpy cannot compute.
    """
    subject, simulation, network = prepared.subject, prepared.simulation, prepared.network
    available = subject.data.samples
    seen = columns.first(fitting_batches(subject.batches(), available), fitted_samples(available))
    batches = [[np.array(each) for each in batch] for batch in seen]
    fit = _Fit(simulation, subject.recipe, {**prepared.base, **precisions})
    table = simulation.table(prepared.choice.ranges, fit.assignment)
    store = network.weights.copy()
    store.update(simulation.simulated_weights(fit.assignment, _SUFFIX))

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
    """What layers compute with in an assignment: found so far, by key and bits or precision."""

    simulation: Simulation
    recipe: Recipe
    assignment: Mapping[str, str]
    weights: dict[tuple[str, int], Array] = field(default_factory=dict)
    biases: dict[tuple[str, str], Array] = field(default_factory=dict)

    def layer(self, layer: Layer, exact: Pass, stored: Pass) -> None:
        """Fit a layer, and let the pass through the quantized network go on with what was found."""
        name, own = self.assignment[layer.name], self.simulation.network.weights
        operands = exact.before(layer.name).operation.operands
        constants = layers.constants_of(op := stored.before(layer.name))
        if layer.weight is None or self._is_shared(layer):
            return
        windows = _windows(layer, exact.read(operands[0]))
        read = _windows(layer, stored.read(op.operation.operands[0]))
        weight, wanted = self._fitted(layer, windows, read)
        self.weights[layer.weight, Precision.parse(name).weight_bits] = weight
        stored.replace(constants[layers.WEIGHT_OPERAND], weight)
        if layer.bias is not None:
            made = _rows(layer, weight) @ read
            shift = (wanted - made).mean(axis=-1, dtype=np.float64).reshape(-1)
            bias = own[layer.bias] + shift.astype(np.float32)
            self.biases[layer.bias, name] = bias
            stored.replace(constants[layers.BIAS_OPERAND], bias)

    def _fitted(self, layer: Layer, windows: Array, read: Array) -> tuple[Array, Array]:
        """The layer's weight as it is to be stored, and what its results are in float: [G, O, N].

        Weights of few bits stay on their grids, which get other scales.
        """
        name = self.assignment[layer.name]
        precision = Precision.parse(name)
        weight = self.simulation.stored_weight(layer, name)
        wanted = _rows(layer, self.simulation.network.weights[layer.weight or ""])
        results = wanted @ windows
        if precision == _WIDE or layer.bias is None:
            return weight, results
        rows = _rows(layer, weight)
        if precision.weight_bits == BASE_BITS:
            rows = compensation.moved(wanted, windows, read)
        scaled = rows * compensation.gains(results, rows @ read)[..., None]
        weight = _of_rows(layer, scaled, weight.shape)
        if precision.weight_bits == BASE_BITS:
            weight = self._rounded(layer, weight)
        return weight, results

    def _rounded(self, layer: Layer, weight: Array) -> Array:
        """A weight as 8 bits store it."""
        recipe = self.recipe
        params = numerics.weight_params(
            weight,
            bits=BASE_BITS,
            granularity=recipe.granularity,
            axis=layer.weight_axis,
            scheme=recipe.scheme,
        )
        return numerics.fake_quantize(weight, params)

    def _is_shared(self, layer: Layer) -> bool:
        """Whether another layer has the same weight or bias."""
        every = [key for each in self.simulation.network.layers for key in (each.weight, each.bias)]
        return any(every.count(key) > 1 for key in (layer.weight, layer.bias) if key)


def _windows(layer: Layer, batches: Sequence[Array]) -> Array:
    """Windows [G, K, N] that the layer reads, sample after sample; of equal inputs, equal ones."""
    product = layer.product
    assert product is not None
    most = min(_WINDOWS, _ELEMENTS // (product.groups * product.window))
    random = np.random.default_rng(0)
    parts = [columns.drawn(layer, batch, most / len(batches), random) for batch in batches]
    return np.concatenate(parts, axis=-1)


def _rows(layer: Layer, weight: Array) -> Array:
    """A weight as [G, O, K], by what a group's outputs sum over."""
    assert layer.product is not None
    rows = np.moveaxis(weight, layer.weight_axis, 0)
    return rows.reshape(layer.product.groups, -1, layer.product.window)


def _of_rows(layer: Layer, rows: Array, shape: Sequence[int]) -> Array:
    """The weight of this shape that `_rows` makes these of."""
    axis = layer.weight_axis
    others = [size for i, size in enumerate(shape) if i != axis % len(shape)]
    moved = np.moveaxis(rows.reshape(shape[axis], *others), 0, axis)
    return np.ascontiguousarray(moved, np.float32)
