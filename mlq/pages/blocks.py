"""What a page is made of, whatever it is shown as: headings, paragraphs, tables, pictures, code.

Texts may hold `code` between backticks; nothing else in them is markup. A picture is data here:
HTML draws it, Markdown and the terminal say the same in characters or leave it to the tables. A
`tone` is a precision (`w8a8`, `f32`, ...), which has one colour wherever it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A cell that is a number and a bar as long as `share` of the cell, in [0, 1]."""

    share: float
    text: str
    tone: str = ""


@dataclass(frozen=True)
class Tag:
    """A cell that is a precision, in its colour."""

    tone: str


Cell = str | Bar | Tag


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


@dataclass(frozen=True)
class Card:
    """One figure in large type, what it means, and the same of others as bars beside each other."""

    title: str
    figure: str
    note: str
    bars: tuple[tuple[str, Bar], ...]


@dataclass(frozen=True)
class Cards:
    """What a reader wants to know first; the tables that follow have the same numbers."""

    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Piece:
    """A part of a strip, in the colour of its precision; `share` of the strip's length."""

    label: str
    tone: str
    share: float


@dataclass(frozen=True)
class Strip:
    """Pieces in a row, as long as their shares of the whole."""

    said: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Dot:
    """A point of a plot, and what is said of it; `named` if the plot itself is to say its name.

    `reach` is where a whisker from it ends along x.
    """

    x: float
    y: float
    label: str
    named: str = ""
    reach: float | None = None


@dataclass(frozen=True)
class Series:
    """Dots of one kind: a `line` joins them, or they are `dots`, `crosses` or `marks` (large)."""

    name: str
    kind: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Limit:
    """A line that dots should be below (`y`) or left of (`x`), and what it is called."""

    name: str
    x: float | None = None
    y: float | None = None


@dataclass(frozen=True)
class Plot:
    """Loss, on a logarithmic axis that has a zero, against a cost on a linear one."""

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    limits: tuple[Limit, ...] = ()
    said: str = ""


@dataclass(frozen=True)
class Plots:
    """Plots that are to be looked at together."""

    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class Spread:
    """How a tensor's values are spread: counts of equal bins over [low, high), and the range kept.

    `extremes` are the least and the greatest value, `kept` the range that its storage covers.
    """

    title: str
    note: str
    low: float
    high: float
    counts: tuple[int, ...]
    extremes: tuple[float, float]
    kept: tuple[float, float]


@dataclass(frozen=True)
class Spreads:
    """Tensors beside each other, each with its histogram."""

    spreads: tuple[Spread, ...]


@dataclass(frozen=True)
class Fold:
    """What most readers skip: a line that says what is inside, and that, shown on demand."""

    said: str
    blocks: tuple[Block, ...]


Block = Heading | Paragraph | Code | Table | Cards | Strip | Plots | Spreads | Fold


@dataclass(frozen=True)
class Page:
    """A title and what stands under it."""

    title: str
    blocks: tuple[Block, ...]
