"""A page as Markdown, readable as it stands."""

from __future__ import annotations

import math

from mlq.pages.blocks import (
    Bar,
    Block,
    Cell,
    Code,
    Fold,
    Heading,
    Page,
    Paragraph,
    Spread,
    Spreads,
    Table,
    Tag,
)
from mlq.pages.drawing import logarithmic

# Characters that a full bar takes, and the eighths that its end may have.
_WIDTH = 16
_EIGHTHS = " ▏▎▍▌▋▊▉"
_HEIGHTS = " ▁▂▃▄▅▆▇█"


def markdown(page: Page) -> str:
    """Render `page`; every table is padded so that its source lines up too."""
    return _joined([f"# {page.title}", *map(_block, page.blocks)]) + "\n"


def table(shown: Table) -> str:
    """One table, its columns as wide as their widest cell."""
    rows = [shown.header, *([_cell(cell) for cell in row] for row in shown.rows)]
    escaped = [[text.replace("|", "\\|") for text in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*escaped, strict=True)]
    rule = [
        "-" * width if index in shown.left else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    ]
    lines = [
        [
            text.ljust(width) if index in shown.left else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in escaped
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [lines[0], rule, *lines[1:]])


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"## {block.text}"
    if isinstance(block, Code):
        return f"```\n{block.text}\n```"
    if isinstance(block, Table):
        return table(block)
    if isinstance(block, Paragraph):
        return f"**{block.text}**" if block.alarm else block.text
    if isinstance(block, Fold):
        return _joined([f"{block.said}:", *map(_block, block.blocks)])
    return table(_spreads(block)) if isinstance(block, Spreads) else ""


def _joined(parts: list[str]) -> str:
    """Blocks with an empty line between; pictures, of which nothing is left here, leave none."""
    return "\n\n".join(part for part in parts if part)


def _spreads(block: Spreads) -> Table:
    rows = tuple((each.title, f"`{_sparks(each)}`", each.note) for each in block.spreads)
    return Table(("tensor", "values", "range"), rows, left=frozenset({0, 1, 2}))


def _sparks(spread: Spread) -> str:
    """A histogram in one line, its heights logarithmic."""
    counts = spread.counts
    step = -(-len(counts) // _WIDTH)
    sums = tuple(sum(counts[i : i + step]) for i in range(0, len(counts), step))
    return "".join(
        _HEIGHTS[math.ceil(height * (len(_HEIGHTS) - 1))] for height in logarithmic(sums)
    )


def _cell(cell: Cell) -> str:
    if isinstance(cell, Tag):
        return cell.tone
    if not isinstance(cell, Bar):
        return cell
    whole, eighths = divmod(int(8 * _WIDTH * max(0.0, min(cell.share, 1.0))), 8)
    bar = "█" * whole + _EIGHTHS[eighths].strip()
    return f"`{bar.ljust(_WIDTH)}` {cell.text}"
