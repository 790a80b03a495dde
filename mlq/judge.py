"""The judge: runs the compiled networks on the same samples and says how they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import evaluation, metrics, runtime
from mlq.frontends.data import Dataset
from mlq.latency import time_for
from mlq.network import Network
from mlq.progress import Stages
from mlq.report import Accuracy, AgreementPart, LatencyPart, LatencyReport

Array = NDArray[Any]
# How long latency is measured for, in all.
_SECONDS = 10.0


class Judge:
    """Evaluates variants by name on one data set; each variant runs over it once."""

    def __init__(
        self, network: Network, data: Dataset, stages: Stages, *, batch: int, threads: int
    ) -> None:
        self._names = [spec.name for spec in network.model.inputs]
        self.data, self._stages = data, stages
        self._batch, self._threads = batch, threads
        self.results = len(network.model.outputs)
        self.executables: dict[str, runtime.Executable] = {}
        self.outputs: dict[str, Array] = {}
        self._known: dict[bytes, Array] = {}

    @property
    def labelled(self) -> bool:
        """Whether accuracy can be measured."""
        return self.data.labels is not None

    def batches(self) -> Iterator[list[Array]]:
        """The samples in batches of the artifact's size, inputs in the model's order."""
        for batch in self.data.batches(self._batch):
            yield [batch[name] for name in self._names]

    def add(self, name: str, vmfb: bytes) -> None:
        """Run a variant over the data; the same artifact is not run twice."""
        self.executables[name] = runtime.load(vmfb, threads=self._threads)
        if vmfb not in self._known:
            with self._stages.stage(f"evaluate {name}", self.data.samples) as advance:
                self._known[vmfb] = evaluation.outputs(
                    self.executables[name], self.batches(), batch=self._batch, advance=advance
                )[0]
        self.outputs[name] = self._known[vmfb]

    def drop(self, name: str) -> float:
        """Accuracy lost against float; agreement lost where there are no labels."""
        if not self.labelled:
            return 1.0 - evaluation.agreement(self.outputs["float"], self.outputs[name]).top1
        found = evaluation.accuracies(self.outputs, self.data.labels)
        return found["float"] - found[name]

    def accuracy(self) -> Accuracy | None:
        """Top-1 of the three networks, and the paired interval of what mixed loses."""
        if self.data.labels is None:
            return None
        found = evaluation.accuracies(self.outputs, self.data.labels)
        hits = {
            name: metrics.correct(evaluation.logits(each), self.data.labels)
            for name, each in self.outputs.items()
        }
        return Accuracy(
            metric="top1",
            n=self.data.samples,
            float=found["float"],
            int8=found["int8"],
            mixed=found["mixed"],
            int8_minus_float_95=metrics.paired_interval(hits["float"], hits["int8"]),
            mixed_minus_float_95=metrics.paired_interval(hits["float"], hits["mixed"]),
        )

    def agreement(self, name: str) -> AgreementPart:
        """A variant against float."""
        found = evaluation.agreement(self.outputs["float"], self.outputs[name])
        return AgreementPart(**vars(found))

    def latency(self, names: Sequence[str]) -> LatencyReport:
        """Milliseconds per call, the variants called in turn on one batch."""
        inputs = next(self.batches())
        inputs = [np.resize(array, (self._batch, *array.shape[1:])) for array in inputs]
        calls = [self.executables[name].prepare(*inputs) for name in names]
        found = time_for(calls, seconds=_SECONDS)
        pairs = zip(names, found, strict=True)
        return LatencyReport(**{name: LatencyPart.of(each) for name, each in pairs})
