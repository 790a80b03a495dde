"""How well an artifact does: accuracy on labels, and agreement with the float network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import metrics, parallel
from mlq.emulation import Runner

Array = NDArray[Any]
_MATRIX = 2


@dataclass(frozen=True)
class Agreement:
    """One network against another on the same samples."""

    top1: float
    sqnr_db: float
    cosine: float
    kl_mnat: float


def outputs(
    executable: Runner,
    batches: Iterable[Sequence[Array]],
    *,
    batch: int,
    advance: Callable[[int], None] = lambda _samples: None,
) -> list[Array]:
    """Every output over all samples, in order; a short last batch is filled up and cut again."""
    collected: list[list[Array]] = []
    sizes = deque[int]()

    def whole() -> Iterator[list[Array]]:
        for arrays in batches:
            sizes.append(len(arrays[0]))
            yield [filled(array, batch) for array in arrays]

    runners = [each.run for each in executable.twins(parallel.most())]
    for results in parallel.run(whole(), runners):
        size = sizes.popleft()
        if not collected:
            collected = [[] for _ in results]
        for kept, result in zip(collected, results, strict=True):
            kept.append(result[:size])
        advance(size)
    return [np.concatenate(each) for each in collected]


def agreement(reference: Array, value: Array) -> Agreement:
    """Compare first outputs, [N, ...]; what is no matrix of logits is flattened to one."""
    reference, value = logits(reference), logits(value)
    return Agreement(
        top1=metrics.agreement(reference, value),
        sqnr_db=metrics.bounded(metrics.sqnr_db(reference, value)),
        cosine=metrics.cosine(reference, value),
        kl_mnat=metrics.kl_mnat(reference, value),
    )


def accuracies(found: Mapping[str, Array], labels: Array | None) -> dict[str, float]:
    """Top-1 accuracy of each variant; nothing without labels."""
    if labels is None:
        return {}
    return {name: metrics.top1(logits(each), labels) for name, each in found.items()}


def logits(output: Array) -> Array:
    """An output as [N, classes]."""
    return output if output.ndim == _MATRIX else output.reshape(len(output), -1)


def filled(array: Array, batch: int) -> Array:
    """`array` with its last sample repeated until it holds `batch` samples."""
    missing = batch - len(array)
    return array if missing <= 0 else np.concatenate([array, np.repeat(array[-1:], missing, 0)])
