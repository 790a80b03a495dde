"""What a model says of its inputs and outputs; samples are checked against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mlq.errors import UsageError

ANY: Literal["any"] = "any"
Batch: TypeAlias = int | Literal["any"]
"""How many samples a call takes: a number that is fixed, or any that comes."""

WEIGHTED = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Ops whose constant operands are weights, be they ever so small."""


def parse_sizes(text: str) -> dict[str, int]:
    """Sizes by the names that a file gives them, or by input and axis: `T=98,audio.2=64`.

    UsageError for what is no list of those.
    """
    found = {}
    for each in filter(None, (each.strip() for each in text.split(","))):
        name, _, size = each.rpartition("=")
        if not name or "=" in name or not size.isdecimal() or int(size) < 1:
            raise UsageError(f"sizes {text!r}: {each!r} is no NAME=N, as T=98 or audio.2=98 are")
        found[name] = int(size)
    return found


def parse_outputs(text: str) -> list[str]:
    """Names of values with commas between them: `boxes,scores`; UsageError if one comes twice."""
    names = [each.strip() for each in text.split(",") if each.strip()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"outputs {text!r}: {twice!r} is there twice; leave one out")
    return names


def samples_a_call(batch: Batch) -> int:
    """How many samples to call a network with where nobody says: one if it takes any."""
    return 1 if batch == ANY else batch


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape (None where the size is known only at run time) and numpy dtype name."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{shape_text(self.shape)}"


def shape_text(shape: tuple[int | None, ...]) -> str:
    """Write a shape as people do: [?, 3, 224, 224]."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
