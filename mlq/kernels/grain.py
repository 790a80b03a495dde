"""How many workgroups share what a kernel does."""

from __future__ import annotations

_MOST = 8


def workgroups(worthwhile: int, *limits: int) -> int:
    """As many as are worthwhile, as there are parts for and as there may be, and at least one."""
    return max(1, min(_MOST, worthwhile, *limits))
