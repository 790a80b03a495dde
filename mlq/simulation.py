"""The quantized network simulated in float: one compiled module serves every configuration.

The module of `mlq-simulate` is compiled once. A configuration is a table (how each activation that
a layer reads is stored) and the weights that layers compute with; neither needs a compiler.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from mlq import numerics, runtime
from mlq.dialect.weights import Made, WeightStore
from mlq.network import Flow, Layer, Network
from mlq.precision import Granularity, Precision, Scheme
from mlq.ranges import Ranges
from mlq.targets.base import Target
from mlq.targets.iree import compile_module, input_flags
from mlq.transforms.pipelines import instrument_pipeline, lowering, simulate_pipeline

Array = NDArray[Any]
Assignment = Mapping[str, str]
"""Precision by layer name; a layer that is absent is f32."""
Runner = Callable[..., list[Array]]

_RESIDUAL_BITS = 8
# Elements of an image, of each sample, that `lockstep` compares: rows of it, when it has more.
_COMPARED = 1 << 15
_TABLES = 4  # are kept: what chains in lockstep take turns with


class StoredNetwork:
    """A network as a configuration stores it: what becomes of activations and weights.

    Nothing is compiled, and nothing is run.
    """

    def __init__(
        self,
        network: Network,
        *,
        scheme: Scheme = "asymmetric",
        granularity: Granularity = "per_axis",
    ) -> None:
        self.network = network
        self._scheme, self._granularity = scheme, granularity
        self._rows = [(layer, flow) for layer in network.layers for flow in layer.flows]
        self._stored: dict[tuple[str, int], Array] = {}
        self._rounded: Mapping[tuple[str, int], Array] = {}
        self._narrow: Mapping[int, Ranges] = {}
        self._refinement = self._origin = b""
        self._biases: Mapping[tuple[str, str], Array] = {}
        self._tables: list[tuple[Ranges, Assignment, NDArray[np.float32]]] = []

    def configured(self, scheme: Scheme, granularity: Granularity) -> Self:
        """The same with another scheme and granularity; a simulation shares module and executables.

        What is shared is not for use by both at once; only the last one's weights stay bound.
        """
        other = copy.copy(self)
        vars(other).update(_scheme=scheme, _granularity=granularity, _stored={}, _tables=[])
        return other

    def reweighted(self, network: Network) -> Self:
        """The same for a network that differs in its weights alone; shared as in `configured`."""
        other, digest, weights = copy.copy(self), hashlib.sha256(), network.weights
        for key in [key for key in weights if weights[key] is not self.network.weights[key]]:
            digest.update(key.encode() + np.ascontiguousarray(weights[key]).tobytes())
        vars(other).update(network=network, _origin=digest.digest())
        return other.refined({}, {}, {})

    def refined(
        self,
        narrow: Mapping[int, Ranges],
        weights: Mapping[tuple[str, int], Array],
        biases: Mapping[tuple[str, str], Array],
    ) -> Self:
        """The same with more care for few bits; shared as in `configured`.

        `narrow` has ranges for activations of so many bits, in the place of those for all bits;
        `weights` (by key and bits) and `biases` (by key and precision) those of better rounding.
        """
        other, digest = self.clipped(narrow), hashlib.sha256(self._origin)
        for key, array in sorted([*weights.items(), *biases.items()], key=lambda of: str(of[0])):
            digest.update(repr(key).encode() + np.ascontiguousarray(array).tobytes())
        vars(other).update(_refinement=digest.digest(), _stored={})
        vars(other).update(_rounded=dict(weights), _biases=dict(biases))
        return other

    def clipped(self, narrow: Mapping[int, Ranges]) -> Self:
        """The same with these ranges for activations of few bits; weights stay bound."""
        other = copy.copy(self)
        vars(other).update(_narrow=dict(narrow), _tables=[])
        return other

    @property
    def narrow(self) -> Mapping[int, Ranges]:
        """Ranges of activations of few bits, where refined."""
        return self._narrow

    @property
    def operands(self) -> list[tuple[Layer, Flow]]:
        """Layer and activation of each row of the table."""
        return list(self._rows)

    def table(self, ranges: Ranges, assignment: Assignment) -> NDArray[np.float32]:
        """Rows (scale, zero_point, qmin, qmax) of every activation that a layer reads: [L, 4].

        A residual is stored as integers only if integer layers made it, as mlq-insert-casts does.
        """
        for known, assigned, table in self._tables:
            if known is ranges and assigned == assignment:
                return table
        table = np.zeros((len(self._rows), 4), np.float32)
        for row, (layer, flow) in zip(table, self._rows, strict=True):
            precision = Precision.parse(assignment.get(layer.name, "f32"))
            if precision.is_float or (
                flow.role == "residual" and not _are_integer(flow.sources, assignment)
            ):
                continue
            stored = self.stored_activation(flow, precision.activation_bits, ranges)
            row[:] = numerics.table_row(stored)
        self._tables = [(ranges, dict(assignment), table), *self._tables][:_TABLES]
        return table

    def stored_activation(self, flow: Flow, bits: int, ranges: Ranges) -> numerics.QuantParams:
        """How an activation is stored for a layer of so many bits.

        A residual takes no part in the multiplication, so it keeps at least 8.
        """
        bits = max(bits, _RESIDUAL_BITS) if flow.role == "residual" else bits
        kept, scheme = self._narrow.get(bits, ranges).tensors[flow.tensor].kept(bits), self._scheme
        return numerics.choose_params(*kept, bits=bits, scheme=scheme, centred=flow.centred)

    def simulated_weights(self, assignment: Assignment, suffix: str) -> dict[str, Array]:
        """Each layer's weight and bias at its precision, by the keys that a chain reads."""
        found: dict[str, Array] = {}
        for layer in self.network.layers:
            precision = assignment.get(layer.name, "f32")
            if layer.weight is not None:
                found[f"{layer.weight}{suffix}"] = self.stored_weight(layer, precision)
            if layer.bias is not None:
                found[f"{layer.bias}{suffix}"] = self.stored_bias(layer, precision)
        return found

    def stored_bias(self, layer: Layer, name: str) -> Array:
        """The layer's bias in the precision called `name`: its own, unless refined."""
        assert layer.bias is not None
        return self._biases.get((layer.bias, name), self.network.weights[layer.bias])

    def stored_weight(self, layer: Layer, name: str) -> Array:
        """The layer's weight as the precision called `name` stores it, in float."""
        assert layer.weight is not None
        weight, precision = self.network.weights[layer.weight], Precision.parse(name)
        if precision.is_float:
            return weight
        key = (layer.weight, precision.weight_bits)
        if key in self._rounded:
            return self._rounded[key]
        if key not in self._stored:
            self._stored[key] = numerics.fake_quantize(weight, self.weight_params(layer, precision))
        return self._stored[key]

    def weight_params(self, layer: Layer, precision: Precision) -> numerics.QuantParams:
        """How the layer's weight is stored in a precision of integers."""
        assert layer.weight is not None
        return numerics.weight_params(
            self.network.weights[layer.weight],
            bits=precision.weight_bits,
            granularity=self._granularity,
            axis=layer.weight_axis,
            scheme=self._scheme,
        )


class Simulation(StoredNetwork):
    """A network whose quantization is chosen at run time; `batch` is that of the network.

    Of `chains` many at once, `lockstep` compares each with float; with `own` it also compares what
    each layer alone makes of float operands. With `observed` the module serves calibration, too.
    """

    def __init__(
        self,
        network: Network,
        target: Target,
        *,
        chains: int = 1,
        own: bool = False,
        observed: bool = False,
        scheme: Scheme = "asymmetric",
        granularity: Granularity = "per_axis",
        threads: int = 1,
    ) -> None:
        super().__init__(network, scheme=scheme, granularity=granularity)
        self._threads, self._chains, self._own, self._observed = threads, chains, own, observed
        self._modules = {"simulated": self._compiled("simulated", target)}
        if chains:
            self._modules["lockstep"] = self._compiled("lockstep", target)
        self._loaded: dict[str, list[runtime.Executable]] = {}
        self._bound: dict[str, tuple[Any, ...]] = {}
        self._made: Made = {}

    def _compiled(self, entry: str, target: Target) -> tuple[bytes, WeightStore, list[str]]:
        """The module with one function, its weights, and the keys of those that are arguments."""
        lower, batch = lowering(target.features), self.network.batch
        if self._observed and entry == "simulated":
            lower = instrument_pipeline(batch=batch, lower=lower, function="simulated")
        pipeline = simulate_pipeline(
            entry,
            lower,
            max_elements=_COMPARED * batch,
            chains=self._chains if entry == "lockstep" else 0,
            own=self._own,
        )
        lowered = self.network.transform(pipeline)
        text, given = lowered.text, [key for (key,) in lowered.notes["mlq.given"]]
        vmfb = compile_module(text, target, embed=False, extra_flags=input_flags(text))
        return vmfb, lowered.weights, given

    def release(self) -> None:
        """Give back the memory of what can be made again; the next run makes it."""
        for each in (self._loaded, self._stored, self._made):
            each.clear()

    @property
    def identity(self) -> bytes:
        """What its results depend on besides weights, ranges and assignments."""
        words = repr((self._scheme, self._granularity, self._narrow)).encode()
        return words + self._refinement + self._modules["simulated"][0]

    @property
    def compared(self) -> tuple[tuple[str, str], ...]:
        """Layer and role of what `lockstep` compares, in the order of its results."""
        every = self.network.compared
        return every if self._own else tuple(each for each in every if each[1] != "own")

    def run(self, inputs: Sequence[Array], ranges: Ranges, assignment: Assignment) -> list[Array]:
        """Outputs of the network with its layers in the given precisions, for one batch."""
        return self.runners(ranges, assignment)[0](*inputs)[: -1 if self._observed else None]

    def runners(self, ranges: Ranges, assignment: Assignment, count: int = 1) -> list[Runner]:
        """What computes that, for each of some threads, until something else is run."""
        executables = self._prepared("simulated", {":simulated": assignment})
        executables += [executables[0].twin() for _ in range(len(executables), count)]
        last = self.table(ranges, assignment), *((0,) if self._observed else ())
        return [lambda *inputs, one=one: one.run(*inputs, *last) for one in executables[:count]]

    def observe(self, *inputs: Array) -> list[Array]:
        """What `calibration.instrument` makes of one batch: float outputs, and statistics."""
        table = np.zeros((len(self._rows), 4), np.float32)
        return self._prepared("simulated", {":simulated": {}})[0].run(*inputs, table, 1)

    def lockstep(
        self, inputs: Sequence[Array], ranges: Ranges, assignments: Sequence[Assignment]
    ) -> list[Array]:
        """Results of `@lockstep` (see mlq-simulate) for one batch; an assignment for each chain."""
        chains = {f":simulated.{c}": each for c, each in enumerate(assignments)}
        table = np.concatenate([self.table(ranges, each) for each in assignments])
        return self._prepared("lockstep", chains)[0].run(*inputs, table)

    def _prepared(self, entry: str, chains: Mapping[str, Assignment]) -> list[runtime.Executable]:
        """The executable of an entry, with the weights of these chains bound, and its twins."""
        configuration = {suffix: dict(each) for suffix, each in chains.items()}
        bound = (self._scheme, self._granularity, self._refinement, configuration)
        executables = self._loaded.get(entry)
        if executables and self._bound[entry] == bound:
            return executables
        simulated: dict[str, Array] = {}
        for suffix, assignment in chains.items():
            simulated.update(self.simulated_weights(assignment, suffix))
        own, (vmfb, weights, keys) = self.network.weights, self._modules[entry]
        # Of the network's own, not of those that the module was compiled with.
        known = {key: (own if key in own else weights)[key] for key in weights}
        given = {**known, **weights.parameters(simulated, self._made)}
        if executables is None:
            self._loaded.clear()  # what is loaded holds packed weights: of both that would be twice
            executables = [runtime.load(vmfb, parameters=given, threads=self._threads, entry=entry)]
        else:
            executables[0].swap_parameters(given)
        executables[0].keep([given[key] for key in keys])
        self._loaded[entry], self._bound[entry] = executables[:1], bound
        return self._loaded[entry]


def uniform(network: Network, precision: str, supported: Mapping[str, Sequence[str]]) -> Assignment:
    """Every layer in `precision` that can be; the others stay f32."""
    return {layer.name: precision for layer in network.layers if precision in supported[layer.name]}


def _are_integer(sources: Sequence[str], assignment: Assignment) -> bool:
    return bool(sources) and all(
        not Precision.parse(assignment.get(name, "f32")).is_float for name in sources
    )
