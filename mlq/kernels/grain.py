"""How many workgroups share what a kernel does."""

from __future__ import annotations

_MOST = 8


def workgroups(worthwhile: int, *limits: int) -> int:
    """As many as are worthwhile, as there are parts for and as there may be, and at least one.

    An even number, where there may be, that two workers have as much to do.
    """
    most = min([_MOST, *limits])
    some = max(1, min(worthwhile, most))
    return some + some % 2 if 1 < some < most else some
