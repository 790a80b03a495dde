"""The verbs about devices: what there is, and what a network can be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlq.cli.group import Listing, main, show
from mlq.cli.options import FOLDER, JSON, PREPROCESS, READING
from mlq.pages import inventory as pages
from mlq.pages import tables


@main.group(cls=Listing)
def targets() -> None:
    """List the devices that mlq compiles for, or measure what layers cost on this one.

    `mlq targets` is `mlq targets list`, `mlq targets NAME` is `mlq targets list NAME`.
    """


@targets.command("list")
@click.argument("name", required=False)
@JSON
def list_targets(name: str | None, *, as_json: bool) -> None:
    """List the devices that mlq compiles for and what runs here, or say all of one of them."""
    from mlq.inventory import inventory

    found = inventory(name)
    shown = pages.overview(found) if name is None else pages.one(found[0])
    show(pages.as_json(found) if as_json else shown)


@targets.command()
@click.argument("target")
@click.argument("model", type=FOLDER)
@click.option("--precisions", metavar="LIST", help="what layers may have (default: its menu)")
@click.option("--batch", type=int, metavar="N", help="samples of one call (default: 1)")
@JSON
def measure(target: str, model: Path, *, as_json: bool, **options: Any) -> None:
    """Time each layer of MODEL.onnx at each precision, as `mlq quantize` does."""
    from mlq import timing
    from mlq.recipe import resolve

    found = timing.measure_model(model, resolve({"target": target, **options}), progress=True)
    show(found.model_dump_json(indent=2) if as_json else pages.times(found))


@main.command()
@click.argument("model", type=FOLDER)
@click.option("--target", default="x86", metavar="NAME", help="see mlq targets (default: x86)")
@click.option("--ir-level", default="fused", metavar="LEVEL", help="fused (default), folded, onnx")
@click.option("--numerics", is_flag=True, help="compare each float tensor with ONNX Runtime's")
@click.option("--data", default="random:1", metavar="DATA", help="for --numerics (random:1)")
@PREPROCESS
@READING
@JSON
def check(model: Path, *, as_json: bool, **options: Any) -> int:
    """Say which layers of MODEL.onnx can be integer on a target, and what stays float and why."""
    from mlq import checking

    found = checking.check(model, **options)
    show(found.model_dump_json(indent=2) if as_json else tables.check(found))
    return 0 if found.sound else 1
