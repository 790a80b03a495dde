"""The quantized network simulated in float: one compiled module serves every configuration.

The module of `mlq-simulate` is compiled once. A configuration is a table (how each activation that
a layer reads is stored) and the weights that layers compute with; neither needs a compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mlq import parallel, runtime
from mlq.dialect.weights import Made, WeightStore
from mlq.network import Network, Transformed
from mlq.precision import Granularity, Scheme
from mlq.ranges import Ranges
from mlq.stored import Array, Assignment, StoredNetwork
from mlq.targets.base import Target
from mlq.targets.iree import compile_module
from mlq.transforms.pipelines import instrument_pipeline, lowering, simulate_pipeline

Batches = Iterable[Sequence[Array]]

# Elements of an image, of each sample, that `lockstep` compares: rows of it, when it has more.
_COMPARED = 1 << 15


class Simulation(StoredNetwork):
    """A network whose quantization is chosen at run time; `batch` is that of the network.

    Of `chains` many at once, `lockstep` compares each with float; with `own` it also compares what
    each layer alone makes of float operands. The module serves calibration, too.
    While the compiler, a process of its own, is at it, work `beside` it is done. Batches are run
    so many `at_once`, by default one on each processor.
    """

    def __init__(
        self,
        network: Network,
        target: Target,
        *,
        chains: int = 1,
        own: bool = False,
        scheme: Scheme = "asymmetric",
        granularity: Granularity = "per_axis",
        at_once: int = 0,
        beside: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(network, scheme=scheme, granularity=granularity)
        self._chains, self._own, self._at_once = chains, own, at_once or parallel.most()
        entries = ("simulated", "lockstep") if chains else ("simulated",)
        self._modules = self._compiled(entries, target, beside)
        self._loaded: dict[str, list[runtime.Executable]] = {}
        self._bound: dict[str, tuple[Any, ...]] = {}
        self._made: Made = {}

    def _compiled(
        self, entries: Sequence[str], target: Target, beside: Callable[[], object]
    ) -> dict[str, tuple[bytes, WeightStore, list[str]]]:
        """Modules with one function each, their weights, and the keys of those given as arguments.

        They are compiled side by side.
        """
        with ThreadPoolExecutor(len(entries)) as pool:
            found = []
            for entry in entries:
                made = self._lowered(entry, target)
                vmfb = pool.submit(compile_module, made.text, target, embed=False)
                found.append((entry, made, vmfb))
            beside()
            return {
                entry: (vmfb.result(), made.weights, [key for (key,) in made.notes["mlq.given"]])
                for entry, made, vmfb in found
            }

    def _lowered(self, entry: str, target: Target) -> Transformed:
        """The program of one function."""
        lower, batch = lowering(target.features), self.network.batch
        if entry == "simulated":
            lower = instrument_pipeline(batch=batch, lower=lower, function="simulated")
        pipeline = simulate_pipeline(
            entry,
            lower,
            max_elements=_COMPARED * batch,
            chains=self._chains if entry == "lockstep" else 0,
            own=self._own,
        )
        return self.network.transform(pipeline)

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
        return next(self.each([inputs], ranges, assignment))

    def each(
        self, batches: Batches, ranges: Ranges, assignment: Assignment
    ) -> Generator[list[Array]]:
        """The same for each of some batches, side by side: meanwhile, nothing else can be run."""
        table = self.table(ranges, assignment)
        for results in self._each(batches, "simulated", {":simulated": assignment}, table, 0):
            yield results[:-1]

    def observed(self, batches: Batches) -> Generator[list[Array]]:
        """What `calibration.instrument` makes of each batch, in the same way, side by side."""
        unused = np.zeros((len(self._rows), 4), np.float32)
        return self._each(batches, "simulated", {":simulated": {}}, unused, 1)

    def lockstep(
        self, batches: Batches, ranges: Ranges, assignments: Sequence[Assignment]
    ) -> Generator[list[Array]]:
        """Results of `@lockstep` (see mlq-simulate) for each batch; an assignment a chain."""
        chains = {f":simulated.{c}": each for c, each in enumerate(assignments)}
        table = np.concatenate([self.table(ranges, each) for each in assignments])
        return self._each(batches, "lockstep", chains, table)

    def _each(
        self, batches: Batches, entry: str, chains: Mapping[str, Assignment], *last: Array | int
    ) -> Generator[list[Array]]:
        """Results of an entry for each batch; the `last` arguments are those of every call."""
        executables = self._prepared(entry, chains)
        runners = [lambda *inputs, one=one: one.run(*inputs, *last) for one in executables]
        yield from parallel.run(batches, runners)

    def _prepared(self, entry: str, chains: Mapping[str, Assignment]) -> list[runtime.Executable]:
        """The executables of an entry, each for a thread, with these chains' weights bound."""
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
            executables = [runtime.load(vmfb, parameters=given, entry=entry)]
        else:
            del executables[1:]  # which share what was bound before
            executables[0].swap_parameters(given)
        executables[0].keep([given[key] for key in keys])
        self._loaded[entry] = executables[0].twins(self._at_once)
        self._bound[entry] = bound
        return self._loaded[entry]


def uniform(network: Network, precision: str, supported: Mapping[str, Sequence[str]]) -> Assignment:
    """Every layer in `precision` that can be; the others stay f32."""
    return {layer.name: precision for layer in network.layers if precision in supported[layer.name]}
