"""Blocks on a terminal, within 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from mlq.pages.blocks import Bar, Block, Cell, Code, Fold, Heading, Paragraph, Table, Tag


def rendered(*blocks: Block) -> RenderableType:
    """What `rich.console.Console.print` shows of the blocks."""
    return Group(*map(_block, blocks))


def _block(block: Block) -> RenderableType:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Heading):
        return Text(f"\n{block.text}", style="bold")
    if isinstance(block, Code):
        return Text(block.text, no_wrap=True, overflow="ignore")
    if isinstance(block, Paragraph):
        return _inline(block.text, "bold red" if block.alarm else "")
    return _inline(f"{block.said}: in report.html", "dim") if isinstance(block, Fold) else Text()


def _table(shown: Table) -> RichTable:
    made = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for index, title in enumerate(shown.header):
        left = index in shown.left
        made.add_column(Text(title), justify="left" if left else "right", overflow="fold")
    for row in shown.rows:
        made.add_row(*(_cell(cell) for cell in row))
    return made


def _cell(cell: Cell) -> Text:
    if isinstance(cell, Tag):
        return Text(cell.tone)
    return Text(cell.text if isinstance(cell, Bar) else cell.replace("`", ""))


def _inline(text: str, style: str) -> Text:
    shown = Text(style=style)
    for index, piece in enumerate(text.split("`")):
        shown.append(piece, style="bold" if index % 2 else "")
    return shown
