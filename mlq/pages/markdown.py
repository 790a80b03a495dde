"""A page as Markdown, readable as it stands."""

from __future__ import annotations

from mlq.pages.blocks import Bar, Block, Cell, Code, Heading, Page, Table

# Characters that a full bar takes, and the eighths that its end may have.
_WIDTH = 16
_EIGHTHS = " ▏▎▍▌▋▊▉"


def markdown(page: Page) -> str:
    """Render `page`; every table is padded so that its source lines up too."""
    return "\n\n".join([f"# {page.title}", *map(_block, page.blocks)]) + "\n"


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
    return f"**{block.text}**" if block.alarm else block.text


def _cell(cell: Cell) -> str:
    if not isinstance(cell, Bar):
        return cell
    whole, eighths = divmod(int(8 * _WIDTH * max(0.0, min(cell.share, 1.0))), 8)
    bar = "█" * whole + _EIGHTHS[eighths].strip()
    return f"`{bar.ljust(_WIDTH)}` {cell.text}"
