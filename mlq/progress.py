"""Stages: what a long run is doing, how long each part took, and a bar for whoever watches."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mlq.report import Stage

Advance = Callable[[int], None]


class Stages:
    """Times named stages and shows them on a terminal; silent when there is none.

    `plain` says lines whatever stderr is, and draws nothing.
    """

    def __init__(self, *, visible: bool, plain: bool = False) -> None:
        console = Console(stderr=True)
        self._console = console if visible and console.is_terminal and not plain else None
        self._lines = Console(stderr=True, color_system=None) if plain else self._console
        self.finished: list[Stage] = []

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Time a stage; `total` are the steps that its `advance` counts."""
        start = time.perf_counter()
        if self._console is None:
            yield lambda _steps: None
        else:
            columns = (
                TextColumn("{task.description:<28}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self._console, transient=True) as bar:
                task = bar.add_task(name, total=total)
                yield lambda steps: bar.update(task, advance=steps)
        seconds = time.perf_counter() - start
        self.finished.append(Stage(name=name, seconds=seconds, peak_rss_mb=_peak_rss_mb()))
        if self._console is not None:
            self._console.print(f"{name:<28} [dim]{seconds:6.1f} s[/dim]", highlight=False)

    def say(self, line: str) -> None:
        """Show a line as it stands, above whatever bar there is."""
        if self._lines is not None:
            self._lines.print(line, highlight=False, markup=False, soft_wrap=True)


def _peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
