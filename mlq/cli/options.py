"""Options that several verbs have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

Handler = TypeVar("Handler", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path)


def options(*options: Callable[[Handler], Handler]) -> Callable[[Handler], Handler]:
    """Several options as one decorator, in the order in which help shows them."""

    def decorate(handler: Handler) -> Handler:
        for option in reversed(options):
            handler = option(handler)
        return handler

    return decorate


TARGET = click.option("--target", metavar="NAME", help="device family; see mlq targets")
COMPILED = click.option(
    "--target", metavar="NAME", help="run the same plan compiled for this (default: as made)"
)
PREPROCESS = click.option(
    "--preprocess",
    type=FOLDER,
    metavar="FILE",
    help="how images become inputs (default: MODEL.json beside MODEL.onnx)",
)
READING = options(
    click.option("--sizes", metavar="LIST", help="of axes that inputs leave open: T=98,x.2=64"),
    click.option("--outputs", metavar="LIST", help="values to end with: cut what comes after them"),
)
JSON = click.option("--json", "as_json", is_flag=True, help="print JSON, not a table")
THREADS = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="threads of a call, at most (default: as made)",
)
OUT = click.option("-o", "--out", type=FOLDER, required=True, metavar="OUT", help="folder to write")


def _batch(text: str) -> int | str:
    """A number, or the word."""
    if text == "any":
        return text
    if text.isdecimal() and int(text):
        return int(text)
    raise click.BadParameter(f"{text!r} is neither a number of samples nor any")


BATCH = partial(
    click.option,
    "--batch",
    type=_batch,
    metavar="N|any",
    help="samples of one call (default: 1)",
)

RECIPE = options(
    click.option(
        "--calib", required=True, metavar="DATA", help=".npz, .npy, folder of images or random:N"
    ),
    TARGET,
    click.option("--precisions", metavar="LIST", help="what layers may have (default: by target)"),
    click.option("--ir-level", metavar="LEVEL", help="fused (default), folded or onnx"),
    click.option("--effort", metavar="NAME", help="quick: two inferences; default; extensive"),
    click.option("--metric", metavar="NAME", help="auto (default), combined, sqnr-delta, ..."),
    click.option("--calibrator", metavar="NAME", help="auto (default), minmax, entropy, ..."),
    click.option("--scheme", metavar="NAME", help="asymmetric (default), symmetric, ..."),
    click.option("--granularity", metavar="NAME", help="per_axis (default) or per_tensor"),
    click.option("--rounding", metavar="NAME", help="auto (default), nearest or least-squares"),
    click.option(
        "--methods", metavar="LIST", help="none (default), auto, equalize, bias-correction"
    ),
    click.option("--costs", metavar="NAME", help="of layers: measured (default) or table"),
    PREPROCESS,
    click.option("--samples", type=int, metavar="N", help="calibrate on N of them (default: all)"),
    BATCH(),
    READING,
    click.option("--seed", type=int, metavar="N", help="picks samples (default: 0)"),
    click.option(
        "--threads", type=int, metavar="N", help="threads of a call, at most (default: 1)"
    ),
    click.option("--recipe", type=FOLDER, metavar="FILE", help="options from a recipe.toml"),
)
LIMITS = options(
    click.option("--select", metavar="RULE", help="program (default), threshold, top-k or knee"),
    click.option("--eval", metavar="DATA", help="labelled data to check the accuracy on"),
    click.option("--max-drop", type=float, metavar="SHARE", help="0.01 (default) is one point"),
    click.option("--max-size", type=int, metavar="BYTES", help="of model.vmfb"),
    click.option("--max-latency", type=float, metavar="MS", help="of one call"),
)
