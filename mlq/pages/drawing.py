"""Plots and histograms as SVG, for a page that has no network and no script."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from mlq.pages.blocks import Dot, Limit, Plot, Series, Spread
from mlq.pages.svg import Linear, Logarithmic, picture, shape, text, titled

# A plot in units that are a pixel or a little more: wide enough for a phone, no wider.
_WIDTH, _HEIGHT = 420.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 410.0, 26.0, 240.0
_ABOVE_ZERO = 30.0  # of the axis, before it begins to be logarithmic
_TICKS = 6
_RADIUS = {"dots": 3.0, "line": 2.5, "marks": 6.0, "crosses": 7.0}
# Names of dots: how far they stand beside, above and below; how wide a letter is, how high a line.
_BESIDE, _ABOVE, _BELOW, _LETTER, _LINE = 9.0, 6.0, 18.0, 7.0, 12.0

_SPREAD_WIDTH, _SPREAD_HEIGHT, _BASE = 260.0, 78.0, 62.0
_HANDLE = 3.0
_LEAST = 0.5  # of a bar, so that it is seen
_LABEL_ROOM = 34.0


def plot(drawn: Plot) -> str:
    """A plot with its axes; dots say their labels when they are pointed at."""
    dots = [dot for series in drawn.series for dot in series.dots]
    reaches = [dot.reach for dot in dots if dot.reach is not None]
    least = [limit.x for limit in drawn.limits if limit.x is not None]
    most = [limit.y for limit in drawn.limits if limit.y is not None]
    x = Linear.around([*(dot.x for dot in dots), *reaches, *least], _LEFT, _RIGHT)
    y = Logarithmic.around([*(dot.y for dot in dots), *most], _BOTTOM - _ABOVE_ZERO, _TOP, _BOTTOM)
    shapes = [*_axes(drawn, x, y), *(_limit(each, x, y) for each in drawn.limits)]
    for series in drawn.series:
        shapes += _series(series, x, y)
    shapes += _names([(x(dot.x), y(dot.y), dot.named) for dot in dots if dot.named])
    return picture(_WIDTH, _HEIGHT, f"{drawn.title}: {drawn.y} against {drawn.x}",
                   "".join(shapes), "plot")  # fmt: skip


def _axes(drawn: Plot, x: Linear, y: Logarithmic) -> Iterator[str]:
    for value, said in y.ticks():
        height = y(value)
        yield shape("line", x1=_LEFT, x2=_RIGHT, y1=height, y2=height, class_="grid")
        yield text(_LEFT - 6, height + 4, said, text_anchor="end")
    for value, said in x.ticks(_TICKS):
        place = x(value)
        yield shape("line", x1=place, x2=place, y1=_BOTTOM, y2=_BOTTOM + 4, class_="tick")
        yield text(place, _BOTTOM + 17, said, text_anchor="middle")
    yield text(_RIGHT, _HEIGHT - 6, drawn.x, text_anchor="end", class_="unit")
    yield text(0.0, 10.0, drawn.y, class_="unit")


def _limit(limit: Limit, x: Linear, y: Logarithmic) -> str:
    """A dashed line from end to end; its name is where dots seldom are, right or below."""
    if limit.y is not None:
        height = y(limit.y)
        line = shape("line", x1=_LEFT, x2=_RIGHT, y1=height, y2=height, class_="limit")
        return line + text(_RIGHT, height - 5, limit.name, text_anchor="end")
    place = x(limit.x or 0.0)
    line = shape("line", x1=place, x2=place, y1=_TOP, y2=_BOTTOM, class_="limit")
    return line + text(place - 5, _BOTTOM - 6, limit.name, text_anchor="end")


def _series(series: Series, x: Linear, y: Logarithmic) -> Iterator[str]:
    class_ = f"s-{series.kind}"
    if series.kind == "line":
        points = " ".join(f"{x(dot.x):.1f},{y(dot.y):.1f}" for dot in series.dots)
        yield shape("polyline", points=points, class_=class_)
    for dot in series.dots:
        yield titled(dot.label, _dot(dot, x(dot.x), y(dot.y), series.kind, class_)
                     + (_whisker(dot, x, y(dot.y), class_)))  # fmt: skip


def _dot(dot: Dot, x: float, y: float, kind: str, class_: str) -> str:
    radius = _RADIUS[kind]
    if kind == "crosses":
        left, top, size = f"{x - radius:.1f}", f"{y - radius:.1f}", f"{2 * radius:g}"
        arms = f"M{left} {top}l{size} {size}m0-{size}l-{size} {size}"
        return shape("path", d=arms, class_=class_)
    named = f"{class_} n-{dot.named}" if dot.named else class_
    return shape("circle", cx=x, cy=y, r=radius, class_=named)


def _whisker(dot: Dot, x: Linear, y: float, class_: str) -> str:
    if dot.reach is None:
        return ""
    start, end = x(dot.x), x(dot.reach)
    return shape("path", d=f"M{start:.1f} {y:.1f}H{end:.1f}m0-4v8", class_=f"{class_} whisker")


class _Box(NamedTuple):
    """Where something lies in a plot."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        """Whether they lie over each other."""
        beside = self.right < other.left or other.right < self.left
        return not beside and self.top < other.bottom and other.top < self.bottom


def _names(dots: list[tuple[float, float, str]]) -> Iterator[str]:
    """Names beside their dots, right and above if nothing is there, else in another corner."""
    size = _RADIUS["marks"]
    taken = [_Box(x - size, y - size, x + size, y + size) for x, y, _ in dots]
    for x, y, named in dots:
        width = _LETTER * len(named)
        boxes = [
            _Box(left, y + rise - _LINE, left + width, y + rise)
            for rise in (-_ABOVE, _BELOW)
            for left in (x + _BESIDE, x - _BESIDE - width)
        ]
        free = (
            box
            for box in boxes
            if box.left > 0.0 and box.right < _RIGHT and not any(map(box.meets, taken))
        )
        box = next(free, boxes[0])
        taken.append(box)
        yield text(box.left, box.bottom - 1, named, class_="name")


def legend_mark(kind: str) -> str:
    """What stands before the name of a series in a legend."""
    drawn = _dot(Dot(8.0, 6.0, ""), 8.0, 6.0, kind, f"s-{kind}")
    line = shape("polyline", points="0,6 16,6", class_="s-line") if kind == "line" else ""
    return shape("svg", line + drawn, viewBox="0 -2 16 16", class_="mark", aria_hidden="true")


def spread(drawn: Spread) -> str:
    """A histogram whose heights are logarithmic, so that one value in a million is seen."""
    (minimum, maximum), (low, high) = drawn.extremes, drawn.kept
    x = Linear(min(drawn.low, low), max(drawn.high, high), 4.0, _SPREAD_WIDTH - 4.0)
    start, end = x(low), x(high)
    shapes = [
        shape("rect", x=start, y=6.0, width=end - start, height=_BASE - 6.0, class_="kept"),
        *_bars(drawn, x),
        shape("line", x1=4.0, x2=_SPREAD_WIDTH - 4.0, y1=_BASE, y2=_BASE, class_="tick"),
        *(_handle(place, inward) for place, inward in ((start, 1.0), (end, -1.0))),
        text(4.0, _SPREAD_HEIGHT - 3, f"{minimum:.3g}"),
        text(_SPREAD_WIDTH - 4.0, _SPREAD_HEIGHT - 3, f"{maximum:.3g}", text_anchor="end"),
    ]
    zero = x(0.0)
    if _LABEL_ROOM < zero < _SPREAD_WIDTH - _LABEL_ROOM:
        shapes.append(shape("line", x1=zero, x2=zero, y1=_BASE, y2=_BASE + 4, class_="tick"))
        shapes.append(text(zero, _SPREAD_HEIGHT - 3, "0", text_anchor="middle"))
    said = (
        f"{drawn.title}: values from {minimum:.3g} to {maximum:.3g}, kept {low:.3g} to {high:.3g}"
    )
    return picture(_SPREAD_WIDTH, _SPREAD_HEIGHT, said, "".join(shapes), "spread")


def _bars(drawn: Spread, x: Linear) -> Iterator[str]:
    """The bins inside the range that is kept, and those beyond it; no bin goes on beyond values."""
    heights = logarithmic(drawn.counts)
    width = (drawn.high - drawn.low) / len(heights)
    paths = {"inside": "", "beyond": ""}
    for index, height in enumerate(heights):
        if height == 0.0:
            continue
        start = max(drawn.low + index * width, drawn.extremes[0])
        end = min(drawn.low + (index + 1) * width, drawn.extremes[1])
        inside = drawn.kept[0] <= (start + end) / 2 <= drawn.kept[1]
        rise, across = height * (_BASE - 10.0), max(x(end) - x(start), _LEAST)
        bar = f"M{x(start):.1f} {_BASE:g}v-{rise:.1f}h{across:.2f}v{rise:.1f}z"
        paths["inside" if inside else "beyond"] += bar
    yield from (shape("path", d=path, class_=name) for name, path in paths.items() if path)


def logarithmic(counts: tuple[int, ...]) -> list[float]:
    """Counts as heights in [0, 1]."""
    most = math.log1p(max(counts)) or 1.0
    return [math.log1p(count) / most for count in counts]


def _handle(x: float, inward: float) -> str:
    """The end of a range: a line with a foot that points into it."""
    return shape("path", d=f"M{x + inward * _HANDLE:.1f} 4H{x:.1f}V{_BASE:g}", class_="bound")
