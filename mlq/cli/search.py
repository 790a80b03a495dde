"""The verb that searches: bits against a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlq.cli.group import main, show
from mlq.cli.options import FOLDER, JSON, OUT, PREPROCESS, READING, options
from mlq.errors import UsageError

SEARCH = options(
    click.option("--hardware", required=True, metavar="NAME", help="preset, or a .toml or .json"),
    click.option("--bits", metavar="LIST", help="widths to choose from (default: 2,3,4,8)"),
    click.option("--activation-bits", metavar="LIST", help="of activations (default: as weights)"),
    click.option("--iterations", type=int, metavar="N", help="steps of the chains (default: 2000)"),
    click.option("--chains", type=int, metavar="N", help="side by side (default: 4)"),
    click.option("--temperature", type=float, metavar="T", help="of the chains (default: 0.002)"),
    click.option("--max-drop", type=float, metavar="SHARE", help="0.01 (default) is one point"),
    click.option("--max-size", type=float, metavar="BYTES", help="of weights"),
    click.option("--calib", required=True, metavar="DATA", help="samples to calibrate and measure"),
    click.option("--eval", metavar="DATA", help="labelled data to judge the front on"),
    click.option("--samples", type=int, metavar="N", help="measure on N of them (default: 16)"),
    click.option("--finetune", is_flag=True, help="train what is taken (extra: finetune)"),
    click.option("--target", metavar="NAME", help="compile the plan for it (default: x86)"),
    PREPROCESS,
    READING,
    click.option("--seed", type=int, metavar="N", help="of the chains (default: 0)"),
    click.option(
        "--threads", type=int, metavar="N", help="threads of a call, at most (default: 1)"
    ),
)


@main.command()
@click.argument("model", type=FOLDER)
@SEARCH
@JSON
@OUT
@click.pass_obj
def search(command: str, /, model: Path, out: Path, *, as_json: bool, **options: Any) -> int:
    """Search the bits of each layer of MODEL.onnx against a device; killed, it goes on."""
    from mlq import amed, output
    from mlq.bitsearch import page

    output.check_replaceable(out)
    options |= {name: _widths(options[name]) for name in ("bits", "activation_bits")}
    try:
        found = amed.search(model, out=out, command=command, progress=True, **options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command goes on from here") from None
    output.write(out, found.files)
    found.close()
    show(found.front.to_json() if as_json else page.summary(found.told, str(out)))
    return 0 if found.front.met else 1


def _widths(text: str | None) -> tuple[int, ...] | None:
    """`2,3,4,8` as numbers."""
    try:
        return None if text is None else tuple(int(each) for each in text.split(","))
    except ValueError:
        raise UsageError(f"bits are whole numbers such as 2,3,4,8, got '{text}'") from None
