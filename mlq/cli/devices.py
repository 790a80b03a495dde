"""The verbs about devices: what there is, and what a network can be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlq.cli.group import main, show
from mlq.cli.options import FOLDER, JSON, PREPROCESS
from mlq.pages import tables


@main.command()
@JSON
def targets(*, as_json: bool) -> None:
    """List the devices that mlq compiles for, and what they compute in."""
    from mlq import targets as known

    found = known.all_targets()
    show(tables.targets_json(found) if as_json else tables.targets(found))


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
