"""Numbers as people read them."""

from __future__ import annotations

_KILO = 1000.0


def size(count: float) -> str:
    """Bytes, in the largest decimal unit that leaves at least 1: `1.2 MB`."""
    return _scaled(count, ("B", "kB", "MB", "GB", "TB"))


def count(number: float) -> str:
    """A number of things, shortened: `41.3 M`."""
    return _scaled(number, ("", "k", "M", "G", "T")).strip()


def milliseconds(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def ms(value: float) -> str:
    """Milliseconds with their unit."""
    return f"{milliseconds(value)} ms"


def percent(share: float) -> str:
    """A share in per cent, to a hundredth."""
    return f"{100 * share:.2f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{_nonzero(difference, 4) * 100:+.2f}"


def lost(share: float) -> str:
    """A drop of accuracy, in points."""
    return f"{points(share).removeprefix('+')} points"


def decibels(value: float | None) -> str:
    """A ratio in dB, to a tenth; nothing if there is none."""
    return "" if value is None else f"{_nonzero(value, 1):.1f}"


def ratio(value: float) -> str:
    """How many times."""
    return f"{value:.2f}x"


def things(number: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _nonzero(value: float, digits: int) -> float:
    """The value without the sign that a rounded zero would keep."""
    return round(value, digits) + 0.0


def _scaled(number: float, units: tuple[str, ...]) -> str:
    power = 0
    while abs(number) >= _KILO and power + 1 < len(units):
        number /= _KILO
        power += 1
    shown = f"{number:.0f}" if power == 0 else f"{number:.3g}"
    return f"{shown} {units[power]}"
