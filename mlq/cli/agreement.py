"""The verb that compares targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlq.cli.group import main, show
from mlq.cli.options import FOLDER, JSON
from mlq.pages import agreement as pages
from mlq.targets import TESTED


@main.command()
@click.argument("out", type=FOLDER)
@click.option("--targets", "names", metavar="LIST", help=f"default: {TESTED}")
@click.option("--data", default="random:1", metavar="DATA", help="default: random:1")
@JSON
def verify(out: Path, *, as_json: bool, **options: Any) -> int:
    """Run the plan of OUT on several targets and compare every layer.

    Integers must be equal bit for bit. The report in OUT then says so.
    """
    from mlq import agreement

    given = {name: value for name, value in options.items() if value is not None}
    found = agreement.verify(out, progress=True, **given)
    show(found.to_json() if as_json else pages.blocks(found))
    return 0 if found.sound else 1
