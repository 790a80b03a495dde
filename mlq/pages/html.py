"""A page as one HTML file: no network, no script, light and dark, for phones and for paper."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from html import escape
from pathlib import Path

from mlq.pages import drawing
from mlq.pages.blocks import (
    Bar,
    Block,
    Card,
    Cards,
    Cell,
    Code,
    Fold,
    Heading,
    Page,
    Paragraph,
    Plot,
    Plots,
    Spread,
    Spreads,
    Strip,
    Table,
    Tag,
)

# A table of more characters across is a list of its rows on a phone; so many a bar stands for.
_NARROW, _BAR = 48, 10
# A cell longer than this, with what its column is called, has a line of its own there.
_LONG = 21


def html(page: Page) -> str:
    """Render `page`; the title is the document's too, and headings are listed under it."""
    title = escape(page.title)
    headings = [block.text for block in page.blocks if isinstance(block, Heading)]
    links = "\n".join(f'<a href="#{_anchor(each)}">{escape(each)}</a>' for each in headings)
    body = "\n".join(map(_block, page.blocks))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_style()}</style>\n</head>\n"
        f"<body>\n<h1>{title}</h1>\n<nav>\n{links}\n</nav>\n{body}\n</body>\n</html>\n"
    )


@cache
def _style() -> str:
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f'<h2 id="{_anchor(block.text)}">{_inline(block.text)}</h2>'
    if isinstance(block, Paragraph):
        return f"<p{_class('alarm' if block.alarm else '')}>{_inline(block.text)}</p>"
    if isinstance(block, Code):
        return f"<pre>{escape(block.text)}</pre>"
    if isinstance(block, Table):
        return _table(block)
    return _drawn(block)


def _drawn(block: Cards | Strip | Plots | Spreads | Fold) -> str:
    if isinstance(block, Cards):
        return _grid("cards", map(_card, block.cards))
    if isinstance(block, Strip):
        return _strip(block)
    if isinstance(block, Plots):
        return _grid("plots", map(_plot, block.plots))
    if isinstance(block, Spreads):
        return _grid("spreads", map(_spread, block.spreads))
    inside = "\n".join(map(_block, block.blocks))
    return f"<details>\n<summary>{_inline(block.said)}</summary>\n{inside}\n</details>"


def _grid(class_: str, parts: Iterable[str]) -> str:
    return f'<div class="{class_}">\n' + "\n".join(parts) + "\n</div>"


def _card(card: Card) -> str:
    bars = "".join(f"<dt>{escape(name)}</dt><dd>{_content(bar)}</dd>" for name, bar in card.bars)
    return (
        f'<section class="card"><h3>{escape(card.title)}</h3>'
        f'<div class="figure">{escape(card.figure)}</div>'
        f"<p>{_inline(card.note)}</p><dl>{bars}</dl></section>"
    )


def _strip(strip: Strip) -> str:
    pieces = "".join(
        f'<i class="{_tone(piece.tone)}" style="--share:{piece.share:.4f}"'
        f' title="{escape(piece.label)}"></i>'
        for piece in strip.pieces
    )
    tones = dict.fromkeys(piece.tone for piece in strip.pieces)
    legend = "".join(f"<span>{_content(Tag(tone))}</span>" for tone in sorted(tones))
    return (
        f'<div class="strip" role="img" aria-label="{escape(strip.said)}">{pieces}</div>\n'
        f'<p class="legend">{legend}<span>{_inline(strip.said)}</span></p>'
    )


def _plot(plot: Plot) -> str:
    legend = "".join(
        f"<span>{drawing.legend_mark(series.kind)}{escape(series.name)}</span>"
        for series in plot.series
        if series.name
    )
    said = f"<figcaption>{_inline(plot.said)}</figcaption>" if plot.said else ""
    return (
        f"<figure><h3>{escape(plot.title)}</h3>{drawing.plot(plot)}"
        f'<p class="legend">{legend}</p>{said}</figure>'
    )


def _spread(spread: Spread) -> str:
    return (
        f"<figure><h3>{escape(spread.title)}</h3>{drawing.spread(spread)}"
        f"<figcaption>{_inline(spread.note)}</figcaption></figure>"
    )


def _table(shown: Table) -> str:
    head = "".join(
        f"<th{_class('left' if index in shown.left else '')}>{_inline(title)}</th>"
        for index, title in enumerate(shown.header)
    )
    rows = "\n".join(f"<tr>{_cells(row, shown)}</tr>" for row in shown.rows)
    columns = zip(shown.header, *shown.rows, strict=True)
    across = sum(2 + max(map(_length, column)) for column in columns)
    many = _class("many" if across > _NARROW else "")
    return (
        f'<div class="wide"><table{many}>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _cells(row: tuple[Cell, ...], shown: Table) -> str:
    written = []
    for index, cell in enumerate(row):
        alone = isinstance(cell, Bar) or len(shown.header[index]) + _length(cell) > _LONG
        classes = " ".join(["left"] * (index in shown.left) + ["whole"] * alone)
        of = escape(shown.header[index])
        written.append(f'<td{_class(classes)} data-of="{of}">{_content(cell)}</td>')
    return "".join(written)


def _length(cell: Cell) -> int:
    if isinstance(cell, Bar):
        return _BAR
    return len(cell.tone if isinstance(cell, Tag) else cell)


def _content(cell: Cell) -> str:
    if isinstance(cell, Tag):
        return f'<span class="tag {_tone(cell.tone)}">{escape(cell.tone)}</span>'
    if not isinstance(cell, Bar):
        return _inline(cell).replace("/", "/<wbr>") if " " not in cell else _inline(cell)
    width = 100 * max(0.0, min(cell.share, 1.0))
    return (
        f'<span class="bar {_tone(cell.tone)}" style="--share:{width:.1f}%">'
        f"<i></i><b>{_inline(cell.text)}</b></span>"
    )


def _tone(tone: str) -> str:
    return f"t-{tone}" if re.fullmatch(r"[a-z0-9]+", tone) else ""


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def _inline(text: str) -> str:
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    # A number and its unit stay on one line.
    return re.sub(r"(?<=\d) (?=(?:%|ms|us|mn|dB|[kMG]?B|points)(?:\W|$))", "&nbsp;", marked)
