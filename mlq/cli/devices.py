"""The verbs about devices: what there is, and what a network can be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlq.cli.group import main, show
from mlq.cli.options import FOLDER, JSON, PREPROCESS
from mlq.pages import inventory as pages
from mlq.pages import tables


@main.command()
@click.argument("name", required=False)
@JSON
def targets(name: str | None, *, as_json: bool) -> None:
    """List the devices that mlq compiles for and what runs here, or say all of one of them."""
    from mlq.inventory import inventory

    found = inventory(name)
    shown = pages.overview(found) if name is None else pages.one(found[0])
    show(pages.as_json(found) if as_json else shown)


@main.command()
@click.argument("model", type=FOLDER)
@click.option("--target", default="x86", metavar="NAME", help="see mlq targets (default: x86)")
@click.option("--ir-level", default="fused", metavar="LEVEL", help="fused (default), folded, onnx")
@click.option("--numerics", is_flag=True, help="compare each float tensor with ONNX Runtime's")
@click.option("--data", default="random:1", metavar="DATA", help="for --numerics (random:1)")
@PREPROCESS
@JSON
def check(model: Path, *, as_json: bool, **options: Any) -> int:
    """Say which layers of MODEL.onnx can be integer on a target, and what stays float and why."""
    from mlq import checking

    found = checking.check(model, **options)
    show(found.model_dump_json(indent=2) if as_json else tables.check(found))
    return 0 if found.sound else 1
