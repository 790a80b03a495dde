"""Pages: the same blocks as Markdown, as HTML and on a terminal."""

from __future__ import annotations

import io
from html.parser import HTMLParser

import pytest
from rich.console import Console

from mlq.pages import numbers
from mlq.pages.blocks import Bar, Code, Heading, Page, Paragraph, Table
from mlq.pages.html import html
from mlq.pages.markdown import markdown
from mlq.pages.terminal import rendered

PAGE = Page(
    "a|b <i> & c",
    (
        Heading("Layers"),
        Paragraph("Costs of `conv<2>`."),
        Paragraph("Missed.", alarm=True),
        Table(("layer", "noise", "dB"), (("x|y", Bar(0.5, "50 %"), "3.1"),), frozenset({0, 1})),
        Code("mlq quantize <model>"),
    ),
)


def test_markdown_lines_up_and_escapes_what_would_end_a_cell() -> None:
    assert markdown(PAGE) == (
        "# a|b <i> & c\n\n## Layers\n\nCosts of `conv<2>`.\n\n**Missed.**\n\n"
        "| layer | noise                   |  dB |\n"
        "| ----- | ----------------------- | --: |\n"
        "| x\\|y  | `████████        ` 50 % | 3.1 |\n\n"
        "```\nmlq quantize <model>\n```\n"
    )


def test_html_is_whole_and_asks_nothing_of_a_network() -> None:
    text = html(PAGE)
    tags: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert not {"src", "href"} & {name for name, _ in attrs}
            if tag != "meta":
                tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert tags.pop() == tag

    Balance().feed(text)
    assert not tags
    assert "a|b &lt;i&gt; &amp; c" in text
    assert "<code>conv&lt;2&gt;</code>" in text
    assert "width:50.0%" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_terminal_shows_the_text_of_every_block() -> None:
    stream = io.StringIO()
    Console(file=stream, width=60).print(rendered(*PAGE.blocks))
    shown = stream.getvalue()
    for text in ("Layers", "conv<2>", "Missed.", "x|y", "50 %", "3.1", "mlq quantize <model>"):
        assert text in shown


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.size(999), "999 B"),
        (numbers.size(1_234_567), "1.23 MB"),
        (numbers.count(0), "0"),
        (numbers.count(41_300_000), "41.3 M"),
        (numbers.milliseconds(0.04321), "0.0432"),
        (numbers.milliseconds(1234.5), "1234"),
        (numbers.points(-0.0), "+0.00"),
        (numbers.points(-1e-9), "+0.00"),
        (numbers.points(-0.0123), "-1.23"),
        (numbers.lost(0.0123), "1.23 points"),
        (numbers.decibels(-0.01), "0.0"),
        (numbers.decibels(None), ""),
        (numbers.things(1, "layer"), "1 layer"),
        (numbers.things(0, "layer"), "0 layers"),
    ],
)
def test_numbers_are_short_and_zero_has_no_sign(shown: str, expected: str) -> None:
    assert shown == expected
