"""The report's part on borders: where precisions meet, and what is cast there."""

from __future__ import annotations

from mlq.casts import Border, Casts
from mlq.pages import layers, numbers
from mlq.pages.blocks import Block, Cell, Heading, Paragraph


def section(casts: Casts) -> list[Block]:
    """The number of casts, and every border with who stands on its two sides."""
    number = casts.quantize + casts.dequantize + casts.requantize
    said = (
        f"{numbers.things(number, 'cast')} remain{'s' if number == 1 else ''}:"
        f" {casts.quantize} quantize, {casts.dequantize} dequantize, {casts.requantize} requantize."
    )
    free = sum(border.kind == "unrounded" for border in casts.borders)
    if free:
        said += (
            f" At {numbers.things(free, 'other border')} an integer layer hands on its result as"
            " f32 before it is ever rounded, which takes no cast and loses nothing."
        )
    moved = any(border.producer != border.tensor for border in casts.borders)
    header = ("tensor", *["made by"] * moved, "stored", "read by", "cast")
    rows = [_row(border, moved=moved) for border in casts.borders]
    table = layers.shortened(
        header, rows, left=frozenset(range(len(header))), others="The other {} borders"
    )
    return [Heading("Borders"), Paragraph(said), *(table if rows else [])]


def _row(border: Border, *, moved: bool) -> tuple[Cell, ...]:
    """`moved`: some tensors were reshaped or pooled since they were made; who made them is told."""
    kind = "none" if border.kind == "unrounded" else border.kind
    stored = f"{border.before}\N{NO-BREAK SPACE}>\N{NO-BREAK SPACE}{border.after}"
    made = [border.producer] if moved else []
    return (border.tensor, *made, stored, ", ".join(border.consumers), kind)
