"""A page as one HTML file: no network, light and dark as the reader's system is, fit to print."""

from __future__ import annotations

import re
from html import escape

from mlq.pages.blocks import Bar, Block, Cell, Code, Heading, Page, Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2328; --soft: #5c6870; --paper: #ffffff;
  --line: #dfe4e8; --band: #f5f7f8; --accent: #0b6e8f; --bar: #a8d3e0; --alarm: #a8321f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e2e7ea; --soft: #98a4ac; --paper: #14191c;
  --line: #2c353a; --band: #1b2226; --accent: #6cc3de; --bar: #24566a; --alarm: #ff9b85; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 84rem; background: var(--paper);
  color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0 0 1rem; font-size: 1.7rem; line-height: 1.2; letter-spacing: -0.01em; }
h2 { margin: 2.4rem 0 0.6rem; padding-top: 1.1rem; border-top: 1px solid var(--line);
  font-size: 1.1rem; }
p { margin: 0.5rem 0; max-width: 46rem; }
.alarm { color: var(--alarm); font-weight: 600; }
code, pre { font: 0.88em/1.5 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, monospace; }
code { padding: 0.05em 0.3em; border-radius: 3px; background: var(--band); }
pre { margin: 0.6rem 0; padding: 0.8rem 1rem; border: 1px solid var(--line); border-radius: 6px;
  background: var(--band); white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { margin: 0.6rem 0; overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
th, td { padding: 0.28rem 0.9rem 0.28rem 0; border-bottom: 1px solid var(--line);
  text-align: right; vertical-align: top; }
td { white-space: nowrap; }
th.left, td.left { text-align: left; white-space: normal; }
td.left:last-child { min-width: 16rem; }
tbody tr:hover { background: var(--band); }
.bar { position: relative; display: block; min-width: 7rem; text-align: left; }
.bar i { position: absolute; inset: 0.15em auto 0.15em 0; border-radius: 2px;
  background: var(--bar); }
.bar b { position: relative; padding-left: 0.35rem; font-weight: inherit; }
@page { size: landscape; margin: 12mm; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } .wide { overflow: visible; }
  .bar i { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def html(page: Page) -> str:
    """Render `page`; the title is the document's too."""
    title = escape(page.title)
    body = "\n".join(map(_block, page.blocks))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h2>{_inline(block.text)}</h2>"
    if isinstance(block, Code):
        return f"<pre>{escape(block.text)}</pre>"
    if isinstance(block, Table):
        return _table(block)
    return f'<p class="alarm">{_inline(block.text)}</p>' if block.alarm else _paragraph(block.text)


def _paragraph(text: str) -> str:
    return f"<p>{_inline(text)}</p>"


def _table(shown: Table) -> str:
    head = "".join(_cell("th", index, cell, shown) for index, cell in enumerate(shown.header))
    rows = "\n".join(
        f"<tr>{''.join(_cell('td', index, cell, shown) for index, cell in enumerate(row))}</tr>"
        for row in shown.rows
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _cell(tag: str, index: int, cell: Cell, shown: Table) -> str:
    left = ' class="left"' if index in shown.left else ""
    return f"<{tag}{left}>{_content(cell)}</{tag}>"


def _content(cell: Cell) -> str:
    if not isinstance(cell, Bar):
        return _inline(cell)
    width = 100 * max(0.0, min(cell.share, 1.0))
    return f'<span class="bar"><i style="width:{width:.1f}%"></i><b>{_inline(cell.text)}</b></span>'


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
