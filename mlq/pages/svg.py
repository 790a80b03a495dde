"""SVG as text: shapes, and axes with round numbers; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

# Ticks stand at these times a power of ten.
_ROUND = (1.0, 2.0, 5.0, 10.0)
# An axis of fewer decades than this has ticks between the powers of ten.
_FEW_DECADES = 1.7


def shape(tag: str, content: str = "", **attributes: float | str) -> str:
    """One element; `stroke_width` is the attribute `stroke-width`, `class_` is `class`."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
    )
    return f"<{tag}{written}>{content}</{tag}>" if content else f"<{tag}{written}/>"


def text(x: float, y: float, said: str, **attributes: float | str) -> str:
    """Words at a point."""
    return shape("text", escape(said), x=x, y=y, **attributes)


def titled(said: str, drawn: str) -> str:
    """Shapes that say something when they are pointed at."""
    return f"<g><title>{escape(said)}</title>{drawn}</g>"


def picture(width: float, height: float, said: str, drawn: str, class_: str) -> str:
    """A whole SVG that scales to the width it is given; `said` is what it shows, in words."""
    return shape(
        "svg",
        drawn,
        class_=class_,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=escape(said, quote=True),
    )


@dataclass(frozen=True)
class Linear:
    """An axis from `low` at `start` to `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: list[float], start: float, end: float) -> Linear:
        """An axis that holds all values, with a little room at both ends."""
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(max(low - room, min(low, 0.0)), high + room, start, end)

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """At most so many round numbers, and as what they are written."""
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * each for each in _ROUND if power * each >= rough)
        first = math.ceil(self.low / step)
        numbers = (step * (first + i) for i in range(most + 1))
        return [(each, f"{each:.6g}") for each in numbers if each <= self.high]


@dataclass(frozen=True)
class Logarithmic:
    """An axis of positive numbers from `low` at `start` to `high` at `end`; zero is at `zero`."""

    low: float
    high: float
    start: float
    end: float
    zero: float

    @classmethod
    def around(cls, values: list[float], start: float, end: float, zero: float) -> Logarithmic:
        """An axis that holds all values, with a little room at both ends."""
        positive = [value for value in values if value > 0.0] or [1.0]
        return cls(min(positive) / 1.3, max(positive) * 1.5, start, end, zero)

    def __call__(self, value: float) -> float:
        """Where a value lies; what is not positive counts as zero."""
        if value <= 0.0:
            return self.zero
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Powers of ten, and numbers between them where those are few; zero."""
        decades = math.log10(self.high / self.low)
        between = _ROUND[:3] if decades < _FEW_DECADES else _ROUND[:1]
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            for each in between:
                value = each * 10.0**power
                if self.low <= value <= self.high:
                    yield value, f"{value:g}"
        yield 0.0, "0"


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
