"""Pages: the same blocks as Markdown, as HTML and on a terminal."""

from __future__ import annotations

import io
import itertools
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from mlq import targets
from mlq.pages import numbers
from mlq.pages.blocks import (
    Bar,
    Card,
    Cards,
    Code,
    Dot,
    Fold,
    Heading,
    Limit,
    Page,
    Paragraph,
    Piece,
    Plot,
    Plots,
    Series,
    Spread,
    Spreads,
    Strip,
    Table,
    Tag,
)
from mlq.pages.drawing import plot, spread
from mlq.pages.html import html
from mlq.pages.markdown import markdown
from mlq.pages.svg import Linear, Logarithmic
from mlq.pages.terminal import rendered
from mlq.targets.base import Target

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
SPREAD = Spread("x<1>", "keeps -1 to 2", -2.0, 2.0, (1, 0, 9, 1), (-1.5, 2.0), (-1.0, 2.0))
DOTS = (Dot(1.0, 0.0, "a<b", "float"), Dot(2.0, 10.0, "c", reach=3.0))
PLOT = Plot("Front", "ms", "KL", (Series("all", "line", DOTS),), (Limit("most", x=4.0),))
PICTURES = Page(
    "pictures",
    (
        Cards((Card("Size", "3 B", "small", (("a", Bar(1.0, "3 B", "w8a8")),)),)),
        Strip("Layers", (Piece("a&b", "w8a8", 0.25), Piece("c", "f32", 0.75))),
        Plots((PLOT,)),
        Fold("The others", (Spreads((SPREAD,)), Table(("p",), ((Tag("f32"),),)))),
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


@pytest.mark.parametrize("page", [PAGE, PICTURES], ids=["words", "pictures"])
def test_html_is_whole_and_asks_nothing_of_a_network(page: Page) -> None:
    text = html(page)
    tags: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert "src" not in dict(attrs)
            assert (dict(attrs).get("href") or "#").startswith("#")
            assert tag not in {"link", "script"}
            if tag not in {"meta", "wbr"}:
                tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert tags.pop() == tag

    Balance().feed(text)
    assert not tags
    assert "url(" not in text


@pytest.mark.parametrize("target", targets.all_targets(), ids=lambda target: target.name)
def test_what_a_plan_mixes_is_told_apart_by_colour(target: Target) -> None:
    style = html(PAGE)
    tones = [
        next(iter(re.findall(rf"\.t-{name}\b[^{{}}]*{{ --tone: var\((--\w+)\)", style)), None)
        for name in target.menu.split(",")
    ]
    assert None not in tones
    assert len(set(tones)) == len(tones)


def test_html_escapes_and_suits_its_reader() -> None:
    text = html(PAGE)
    assert "a|b &lt;i&gt; &amp; c" in text
    assert "<code>conv&lt;2&gt;</code>" in text
    assert "--share:50.0%" in text
    assert "50&nbsp;%" in text
    assert '<a href="#layers">' in text
    assert '<h2 id="layers">' in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_terminal_shows_the_text_of_every_block() -> None:
    stream = io.StringIO()
    Console(file=stream, width=60).print(rendered(*PAGE.blocks))
    shown = stream.getvalue()
    for text in ("Layers", "conv<2>", "Missed.", "x|y", "50 %", "3.1", "mlq quantize <model>"):
        assert text in shown


def test_markdown_says_in_characters_what_pictures_show() -> None:
    assert markdown(PICTURES) == (
        "# pictures\n\nThe others:\n\n"
        "| tensor | values | range         |\n"
        "| ------ | ------ | ------------- |\n"
        "| x<1>   | `▃ █▃` | keeps -1 to 2 |\n\n"
        "| p   |\n| --- |\n| f32 |\n"
    )


def test_plots_put_zero_below_every_power_of_ten() -> None:
    loss = Logarithmic.around([0.0, 0.1, 10.0], 200.0, 0.0, zero=240.0)
    assert [said for _, said in loss.ticks()] == ["0.1", "1", "10", "0"]
    assert loss(0.0) == 240.0
    assert 0.0 < loss(10.0) < loss(1.0) < loss(0.1) < 200.0
    assert abs(loss(1.0) - (loss(0.1) + loss(10.0)) / 2) < 1e-9


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0], ["1", "1.2", "1.4", "1.6", "1.8", "2"]),
        ([7777.0, 12289.0], ["8000", "9000", "10000", "11000", "12000"]),
        ([0.0229], ["0.021", "0.022", "0.023", "0.024", "0.025"]),
        ([0.0, 0.0], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
    ],
)
def test_axes_have_round_numbers(values: list[float], expected: list[str]) -> None:
    axis = Linear.around(values, 0.0, 100.0)
    assert [said for _, said in axis.ticks(6)] == expected
    assert all(0.0 <= axis(value) <= 100.0 for value in values)


def test_limits_are_inside_the_plot_whatever_the_dots() -> None:
    drawn = plot(PLOT)
    ((start, end),) = re.findall(r'<line x1="([\d.]+)" x2="([\d.]+)"[^>]*class="limit"', drawn)
    dots = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn)]
    assert start == end
    assert max(dots) < float(end) < 420.0


def test_names_of_dots_that_are_close_do_not_lie_over_each_other() -> None:
    dots = tuple(Dot(x, y, "", "chosen") for x, y in ((1.0, 1.0), (1.02, 1.1), (2.0, 0.1)))
    drawn = plot(Plot("Front", "ms", "KL", (Series("", "marks", dots),)))
    words = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="name"', drawn)
    places = [(float(x), float(y)) for x, y in words]
    assert len(places) == 3
    for (x, y), (other_x, other_y) in itertools.combinations(places, 2):
        assert abs(x - other_x) > 40 or abs(y - other_y) > 11


def test_histogram_tells_what_is_cut_off() -> None:
    drawn = spread(SPREAD)
    (beyond,) = re.findall(r'<path d="([^"]*)" class="beyond"/>', drawn)
    (inside,) = re.findall(r'<path d="([^"]*)" class="inside"/>', drawn)
    assert (beyond.count("M"), inside.count("M")) == (1, 2)  # the empty bin is not drawn
    assert "kept -1 to 2" in drawn


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
