"""What a page is made of, whatever it is shown as: headings, paragraphs, tables, code.

Texts may hold `code` between backticks; nothing else in them is markup.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A cell that is a number and a bar as long as `share` of the cell, in [0, 1]."""

    share: float
    text: str


Cell = str | Bar


@dataclass(frozen=True)
class Heading:
    """The title of what follows."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """A few sentences; `alarm` if they must not be missed."""

    text: str
    alarm: bool = False


@dataclass(frozen=True)
class Code:
    """Lines to copy as they stand."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under a header; `left` are the columns that hold words, the others hold numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: frozenset[int] = frozenset({0})


Block = Heading | Paragraph | Code | Table


@dataclass(frozen=True)
class Page:
    """A title and what stands under it."""

    title: str
    blocks: tuple[Block, ...]
