"""What a model says of its inputs and outputs; samples are checked against it."""

from __future__ import annotations

from dataclasses import dataclass


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
