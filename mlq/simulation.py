"""The quantized network simulated in float: one compiled module serves every configuration.

The module of `mlq-simulate` is compiled once. A configuration is a table (how each activation that
a layer reads is stored) and the weights that layers compute with; neither needs a compiler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from mlq import runtime
from mlq.dialect.weights import Made, WeightStore
from mlq.network import Network
from mlq.precision import Granularity, Scheme
from mlq.ranges import Ranges
from mlq.stored import Array, Assignment, StoredNetwork
from mlq.targets.base import Target
from mlq.targets.iree import compile_module, input_flags
from mlq.transforms.pipelines import instrument_pipeline, lowering, simulate_pipeline

# Elements of an image, of each sample, that `lockstep` compares: rows of it, when it has more.
_COMPARED = 1 << 15


class _Module(NamedTuple):
    """A compiled module, the weights that it reads, and those that it takes as arguments."""

    vmfb: bytes
    weights: WeightStore
    given: tuple[str, ...]


class Simulation(StoredNetwork):
    """A network whose quantization is chosen at run time; `batch` is that of the network.

    Of `chains` many at once, `lockstep` compares each with float; with `own` it also compares what
    each layer alone makes of float operands. With `observed` the module serves calibration, too:
    most kernels are the same.
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
        # A module for each function: one that is loaded holds the packed weights of all it has.
        self._modules = {"simulated": self._compiled("simulated", target)}
        if chains:
            self._modules["lockstep"] = self._compiled("lockstep", target)
        self._loaded: dict[str, runtime.Executable] = {}
        self._twins: dict[int, list[runtime.Executable]] = {}
        self._bound: dict[str, tuple[Any, ...]] = {}
        self._made: Made = {}

    def _compiled(self, entry: str, target: Target) -> _Module:
        """The module with one function, and the weights that it reads."""
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
        text, flags = lowered.text, input_flags(lowered.text)
        vmfb = compile_module(text, target, embed=False, extra_flags=flags)
        keys = tuple(key for (key,) in lowered.notes["mlq.given"])
        return _Module(vmfb, lowered.weights, keys)

    def release(self) -> None:
        """Give back the memory of what can be made again; the next run makes it."""
        for each in (self._loaded, self._twins, self._stored, self._made):
            each.clear()

    @property
    def identity(self) -> bytes:
        """What its results depend on besides weights, ranges and assignments."""
        words = repr((self._scheme, self._granularity, self._narrow))
        return words.encode() + self._refinement + self._modules["simulated"].vmfb

    @property
    def compared(self) -> tuple[tuple[str, str], ...]:
        """Layer and role of what `lockstep` compares, in the order of its results."""
        every = self.network.compared
        return every if self._own else tuple(each for each in every if each[1] != "own")

    def run(self, inputs: Sequence[Array], ranges: Ranges, assignment: Assignment) -> list[Array]:
        """Outputs of the network with its layers in the given precisions, for one batch."""
        executable = self._prepared("simulated", {":simulated": assignment})
        if not self._observed:
            return executable.run(*inputs, self.table(ranges, assignment))
        return executable.run(*inputs, self.table(ranges, assignment), 0)[:-1]

    def outputs(
        self,
        batches: Sequence[Sequence[Array]],
        ranges: Ranges,
        assignment: Assignment,
        *,
        lanes: int,
    ) -> list[Array]:
        """The first output for each of some batches, so many computed at once."""
        first = self._prepared("simulated", {":simulated": assignment})
        twins = self._twins.setdefault(id(first), [])
        twins += [first.twin() for _ in range(lanes - 1 - len(twins))]
        table, wanted = self.table(ranges, assignment), (0,) * self._observed

        def run(executable: runtime.Executable, lane: int) -> list[Array]:
            return [executable.run(*each, table, *wanted)[0] for each in batches[lane::lanes]]

        with ThreadPoolExecutor(lanes) as pool:
            found = list(pool.map(run, (first, *twins), range(lanes)))
        return [found[i % lanes][i // lanes] for i in range(len(batches))]

    def observe(self, *inputs: Array) -> list[Array]:
        """What `calibration.instrument` makes of one batch: float outputs, and statistics."""
        executable = self._prepared("simulated", {":simulated": {}})
        return executable.run(*inputs, np.zeros((len(self._rows), 4), np.float32), 1)

    def lockstep(
        self, inputs: Sequence[Array], ranges: Ranges, assignments: Sequence[Assignment]
    ) -> list[Array]:
        """Results of `@lockstep` (see mlq-simulate) for one batch; an assignment for each chain."""
        chains = {f":simulated.{c}": each for c, each in enumerate(assignments)}
        executable = self._prepared("lockstep", chains)
        table = np.concatenate([self.table(ranges, each) for each in assignments])
        return executable.run(*inputs, table)

    def _prepared(self, entry: str, chains: Mapping[str, Assignment]) -> runtime.Executable:
        """The executable of an entry, with the weights of these chains bound."""
        configuration = {suffix: dict(each) for suffix, each in chains.items()}
        bound = (self._scheme, self._granularity, self._refinement, configuration)
        executable = self._loaded.get(entry)
        if executable is not None and self._bound[entry] == bound:
            return executable
        simulated: dict[str, Array] = {}
        for suffix, assignment in chains.items():
            simulated.update(self.simulated_weights(assignment, suffix))
        own, (vmfb, weights, keys) = self.network.weights, self._modules[entry]
        # Of the network's own, not of those that the module was compiled with.
        known = {key: (own if key in own else weights)[key] for key in weights}
        given = {**known, **weights.parameters(simulated, self._made)}
        if executable is None:
            # A network that is loaded packs its weights: of both entries that would be twice.
            self._loaded.clear()
            executable = runtime.load(vmfb, parameters=given, threads=self._threads, entry=entry)
            self._loaded[entry] = executable
        else:
            executable.swap_parameters(given)
        self._twins.clear()
        executable.keep([given[key] for key in keys])
        self._bound[entry] = bound
        return executable


def uniform(network: Network, precision: str, supported: Mapping[str, Sequence[str]]) -> Assignment:
    """Every layer in `precision` that can be; the others stay f32."""
    return {layer.name: precision for layer in network.layers if precision in supported[layer.name]}
