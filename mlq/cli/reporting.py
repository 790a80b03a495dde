"""The verb that shows a report again."""

from __future__ import annotations

from pathlib import Path

import click

from mlq.cli.group import main, show
from mlq.cli.options import FOLDER
from mlq.pages import tables


@main.command()
@click.argument("out", type=FOLDER)
def report(out: Path) -> None:
    """Show what was found when OUT was made: the worst layers first, and why.

    OUT/report.html has the pictures too.
    """
    from mlq import artifact

    show(tables.report(artifact.reported(out), str(out)))
