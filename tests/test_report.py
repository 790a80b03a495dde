"""The demo's report: what it must know, and what a real browser shows of it, and paper."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import DESKTOP, PHONE, Chromium, installed

from mlq.compiler import Result
from mlq.demo import demo as run_demo
from mlq.dialect.borders import RESULT
from mlq.pages import content, layers
from mlq.pages.blocks import Block, Fold, Heading, Paragraph, Spreads, Table
from mlq.pages.html import html
from mlq.pages.tensors import share_beyond
from mlq.ranges import Histogram, TensorRange
from mlq.report import Report

SECTIONS = [
    "Trade-off",
    "Precisions",
    "Layers",
    "Stayed float",
    "Borders",
    "Tensors",
    "Calibrator",
    "Checks",
    "Time",
    "Reproduce",
]
# WCAG 2's ratio for text of normal size, over every element that holds words of its own.
CONTRAST = """
(() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => {
    const [r, g, b] = channels(colour).slice(0, 3).map(c => c / 255)
      .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (channels(colour).length < 4 || channels(colour)[3] > 0) return luminance(colour);
    }
    return 1;
  };
  const low = [];
  for (const node of document.querySelectorAll('body *')) {
    if (![...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim())) continue;
    if (node.tagName === 'title') continue;
    const style = getComputedStyle(node);
    const ink = node.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [dark, light] = [luminance(ink), behind(node)].sort((a, b) => a - b);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) low.push(`${node.tagName} ${node.textContent} ${ratio.toFixed(2)}`);
  }
  return low;
})()
"""
# Elements that reach beyond the window, unless what they stand in scrolls by itself.
OVERFLOW = """
[...document.querySelectorAll('body *')]
  .filter(node => node.getBoundingClientRect().right > innerWidth + 0.5)
  .filter(node => !node.closest('.wide') && !node.closest('svg'))
  .map(node => node.outerHTML.slice(0, 100))
"""
# Tables that scroll sideways.
SIDEWAYS = """
[...document.querySelectorAll('.wide')].filter(each => each.scrollWidth > each.clientWidth)
  .map(each => each.textContent.slice(0, 60))
"""
# Groups of bars that do not all have the same room, so that their lengths do not compare.
UNEVEN = """
[...document.querySelectorAll('.card, table')].filter(group => {
  const rooms = [...group.querySelectorAll('.bar i')].map(bar => bar.getBoundingClientRect().width);
  return rooms.length && Math.max(...rooms) - Math.min(...rooms) > 0.5;
}).map(group => group.textContent.slice(0, 60))
"""
UNFOLD = "document.querySelectorAll('details').forEach(each => { each.open = true; })"


@pytest.fixture(scope="module")
def result() -> Result:
    return run_demo()


@pytest.fixture(scope="module")
def page(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(str(result.files["report.html"]))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    program = installed()
    if program is None:
        pytest.skip("no chromium here; .ci/packages installs it where it can")
    with Chromium(program) as opened:
        yield opened


def all_integer(report: Report) -> Report:
    """The report, were no layer float, as some CPUs' plans have it."""
    changed = tuple(
        layer.model_copy(update={"precision": layer.precision.replace("f32", "w8a8")})
        for layer in report.layers
    )
    return report.model_copy(update={"layers": changed, "float_ops": ()})


def complaints(browser: Chromium, page: Path) -> list[Any]:
    """Everything that the tab asked for beside the page, and whatever went wrong in it."""
    allowed = page.resolve().as_uri()
    asked = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    wrong = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
    assert allowed in asked
    return [url for url in asked if url != allowed] + [
        event["params"] for event in browser.events if event["method"] in wrong
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_report_fits_the_window_and_can_be_read(
    browser: Chromium, page: Path, size: tuple[int, int], scheme: str
) -> None:
    browser.open(page, size, scheme=scheme)
    browser.evaluate(UNFOLD)
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert not browser.evaluate(OVERFLOW)
    assert not browser.evaluate(SIDEWAYS)
    assert not browser.evaluate(UNEVEN)
    assert not browser.evaluate(CONTRAST)
    assert not complaints(browser, page)
    headings = "[...document.querySelectorAll('h2')].map(each => each.textContent)"
    assert browser.evaluate(headings) == SECTIONS


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_plans_without_float_and_short_calls_fit_too(
    browser: Chromium, result: Result, tmp_path: Path, size: tuple[int, int]
) -> None:
    report, times = all_integer(result.report), result.report.latency_ms
    longer, short = (times.mixed.model_copy(update={"p50": p50}) for p50 in (0.0116, 0.00675))
    called = times.model_copy(update={"float": longer, "mixed": short})
    page = tmp_path / "integer.html"
    shown = content.page(report.model_copy(update={"latency_ms": called}), result.ranges)
    page.write_text(html(shown))
    browser.open(page, size)
    browser.evaluate(UNFOLD)
    assert not browser.evaluate(f"[{OVERFLOW}, {SIDEWAYS}, {UNEVEN}].flat()")


@pytest.mark.parametrize("name", ["/features/features.10" * 6, "x" * 120], ids=["path", "word"])
def test_long_names_do_not_widen_the_report(browser: Chromium, page: Path, name: str) -> None:
    named = page.with_name("named.html")
    named.write_text(page.read_text().replace("<wbr>", "").replace("block2/expand/conv", name))
    assert named.read_text().count(name) >= 4
    browser.open(named, PHONE)
    browser.evaluate(UNFOLD)
    assert browser.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    assert not browser.evaluate(OVERFLOW)
    assert not browser.evaluate(SIDEWAYS)


def test_report_shows_its_pictures_and_folds_what_is_long(
    browser: Chromium, page: Path, result: Result
) -> None:
    tensors = len(result.ranges.tensors)
    browser.open(page, DESKTOP)
    seen = "[...document.querySelectorAll('figure > svg')].filter(each => each.checkVisibility())"
    drawn = f"{seen}.filter(each => each.getBoundingClientRect().height > 0).length"
    assert browser.evaluate(drawn) == 10  # two plots, eight tensors
    browser.evaluate(UNFOLD)
    assert browser.evaluate(drawn) == 2 + tensors


def test_links_of_the_report_lead_somewhere(browser: Chromium, page: Path) -> None:
    browser.open(page, PHONE)
    links = "[...document.querySelectorAll('nav a')].map(each => each.getAttribute('href'))"
    found = browser.evaluate(links)
    assert len(found) == len(SECTIONS)
    assert browser.evaluate(f"{json.dumps(found)}.every(each => document.querySelector(each))")


def test_paper_shows_what_the_screen_folds(browser: Chromium, page: Path) -> None:
    browser.open(page, DESKTOP)
    browser.call("Emulation.setEmulatedMedia", media="print")
    folded = "[...document.querySelectorAll('details > *:not(summary)')]"
    assert browser.evaluate(f"{folded}.length") >= 2
    assert browser.evaluate(f"{folded}.every(each => each.checkVisibility())")
    printed = browser.pdf()
    assert printed.startswith(b"%PDF-")
    assert 4 <= printed.count(b"/Type /Page\n") <= 12


def flat(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks, and those that are folded."""
    for block in blocks:
        yield block
        if isinstance(block, Fold):
            yield from flat(block.blocks)


def under(heading: str, result: Result) -> list[Block]:
    """What stands under a heading of the report."""
    blocks = list(flat(content.page(result.report, result.ranges).blocks))
    start = blocks.index(Heading(heading)) + 1
    ends = [i for i, block in enumerate(blocks) if isinstance(block, Heading) and i > start]
    return blocks[start : ends[0] if ends else None]


def first_cells(blocks: Iterable[Block]) -> list[object]:
    return [row[0] for block in blocks if isinstance(block, Table) for row in block.rows]


def test_plans_are_those_between_all_integer_and_float(result: Result) -> None:
    report = result.report
    known = {plan.form: plan for plan in report.plans if plan.form}
    assert sum(plan.chosen for plan in report.plans) == 1
    assert set(known) == {"float", "int8"}
    assert (known["float"].float_layers, known["int8"].float_layers) == (len(report.layers), 0)
    noises = [layer.noise_mnat["w8a8"] for layer in report.layers]
    times = [layer.cost_us["f32"] for layer in report.layers]
    assert known["int8"].predicted_kl_mnat == pytest.approx(sum(noises))
    assert known["float"].predicted_kl_mnat == 0.0
    assert known["float"].predicted_us == pytest.approx(sum(times))
    fastest = min(report.plans, key=lambda plan: plan.predicted_us)
    between = [plan for plan in report.plans if 0 < plan.float_layers < len(report.layers)]
    assert fastest.predicted_us <= known["int8"].predicted_us
    assert len(between) > 5


def test_borders_are_where_the_plan_changes_its_mind(result: Result) -> None:
    casts, plan = result.report.casts, result.plan
    kinds = Counter(border.kind for border in casts.borders)
    assert kinds["quantize"] == casts.quantize > 0
    assert kinds["dequantize"] == casts.dequantize == 0
    assert kinds["requantize"] == casts.requantize == 0
    assert kinds["unrounded"] > 0
    names = {layer.name for layer in result.report.layers} | {RESULT}
    stored = {"w8a8": "u8", "w10a12": "u16"}
    for border in casts.borders:
        readers = set(border.consumers)
        assert readers <= names
        (read,) = {plan.precision(reader) for reader in readers}
        if border.kind == "quantize":
            assert (border.before, border.after) == ("f32", stored[read])
        else:
            assert (border.before, border.after, read) == ("i32", "f32", "f32")
            assert plan.precision(border.producer) in stored


def test_every_layer_and_tensor_is_shown_once(result: Result) -> None:
    names = {layer.name for layer in result.report.layers}
    main, measured = names & set(first_cells(under("Layers", result))), under("Layers", result)
    assert main == names
    assert first_cells(measured).count("stem/conv") == 2  # and once among what was measured
    grids = [block for block in under("Tensors", result) if isinstance(block, Spreads)]
    shown = [spread.title for grid in grids for spread in grid.spreads]
    assert sorted(shown) == sorted(result.ranges.tensors)
    worst, others = (
        [share_beyond(result.ranges.tensors[each.title]) for each in grid.spreads] for grid in grids
    )
    assert min(worst) >= max(others)


def test_what_stayed_float_says_why(result: Result) -> None:
    kept = [layer for layer in result.report.layers if layer.precision == "f32"]
    (table,) = [block for block in under("Stayed float", result) if isinstance(block, Table)]
    said = {row[0]: row[2] for row in table.rows}
    assert said == {layer.name: layer.reason.removeprefix("f32: ") for layer in kept}
    assert kept
    (_, nothing) = layers.stayed_float(all_integer(result.report))
    assert isinstance(nothing, Paragraph)
    assert nothing.text.startswith("Nothing")


@pytest.mark.parametrize(("precision", "told"), [("f32", False), ("w8a8", True)])
def test_only_another_network_is_slower(result: Result, precision: str, told: object) -> None:
    report = result.report
    every = tuple(layer.model_copy(update={"precision": precision}) for layer in report.layers)
    late = report.latency_ms.mixed.model_copy(update={"p50": 2.0 * report.latency_ms.float.p50})
    times = report.latency_ms.model_copy(update={"mixed": late})
    said = content.verdict(report.model_copy(update={"layers": every, "latency_ms": times}))
    assert any("is slower than the float one" in each.text for each in said) == told


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-2.0, 2.0, 0.0), (-1.0, 2.0, 0.1), (-1.0, 1.0, 0.4), (-1.5, 1.5, 0.2), (0.0, 0.5, 0.75)],
)
def test_share_beyond_is_that_of_the_histogram(low: float, high: float, expected: float) -> None:
    histogram = Histogram(low=-2.0, high=2.0, counts=(1, 1, 5, 3))
    tensor = TensorRange(
        minimum=-2.0, maximum=2.0, low=low, high=high, calibrator="mse", histogram=histogram
    )
    assert share_beyond(tensor) == pytest.approx(expected)
