"""A network as a straight list of commands on buffers: what is left of it without a runtime."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Span:
    """Bytes of a buffer: its index in the program, an offset, a length."""

    buffer: int
    offset: int
    length: int


@dataclass(frozen=True)
class Dispatch:
    """All workgroups of a kernel, called with constants and buffers."""

    kernel: str
    workgroups: tuple[int, int, int]
    constants: tuple[int, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Fill:
    """A span filled with a pattern of 1, 2 or 4 bytes."""

    target: Span
    pattern: bytes


@dataclass(frozen=True)
class Copy:
    """Bytes moved from span to span."""

    source: Span
    target: Span


Command = Dispatch | Fill | Copy


@dataclass(frozen=True)
class Tensor:
    """An input or result: where it lies, and its shape and numpy element type."""

    span: Span
    shape: tuple[int, ...]
    dtype: str


@dataclass
class Program:
    """A network as commands on numbered buffers; `constants` are those that begin with content."""

    kernels: bytes = field(repr=False, default=b"")
    sizes: list[int] = field(default_factory=list)
    constants: dict[int, bytes] = field(default_factory=dict, repr=False)
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)

    def buffer(self, size: int) -> Span:
        """A new buffer, whole."""
        self.sizes.append(size)
        return Span(len(self.sizes) - 1, 0, size)
