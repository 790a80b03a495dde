"""The verbs of the route: from a network to an artifact, or part of the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlq.cli.group import main, show
from mlq.cli.options import BATCH, FOLDER, JSON, LIMITS, OUT, RECIPE
from mlq.pages import tables

_FORM = "vmfb (default), vmfb+irpa, static-library or c-array"


@main.command()
@click.argument("model", type=FOLDER)
@LIMITS
@RECIPE
@click.option("--save-stages", is_flag=True, help="write the IR of each stage to OUT/stages")
@JSON
@OUT
@click.pass_obj
def quantize(command: str, /, model: Path, out: Path, *, as_json: bool, **options: Any) -> int:
    """Quantize MODEL.onnx, check it against its float form, and write it to OUT."""
    from mlq import compiler, output

    output.check_replaceable(out)
    result = compiler.quantize(model, command=command, progress=True, **options)
    result.save(out)
    show(result.report.to_json() if as_json else tables.summary(result.report, str(out)))
    return 0 if result.met else 1


@main.command()
@click.option(
    "-o", "--out", type=FOLDER, default=Path("out/demo"), metavar="OUT", show_default=True
)
@JSON
@click.pass_obj
def demo(command: str, /, out: Path, *, as_json: bool) -> int:
    """Quantize a bundled network on real data: the whole route, no argument needed."""
    from mlq import output
    from mlq.demo import demo as run_demo

    output.check_replaceable(out)
    result = run_demo(progress=True, command=command)
    result.save(out)
    show(result.report.to_json() if as_json else tables.summary(result.report, str(out)))
    return 0 if result.met else 1


@main.command()
@click.argument("model", type=FOLDER)
@RECIPE
@click.option("--oracle", is_flag=True, help="also try each layer alone on all samples (O1)")
@click.option("-o", "--out", type=FOLDER, metavar="OUT", help="folder to write, if any")
@JSON
@click.pass_obj
def sensitivity(
    command: str, /, model: Path, out: Path | None, *, as_json: bool, **options: Any
) -> None:
    """Say what each layer of MODEL.onnx loses at each precision, the worst first."""
    from mlq import output, partial

    if out is not None:
        output.check_replaceable(out)
    found, files = partial.sensitivity(model, command=command, progress=True, **options)
    if out is not None:
        output.write(out, files)
    show(files["sensitivities.json"] if as_json else tables.sensitivity(found.sensitivities))


@main.command(name="compile")
@click.argument("model", type=FOLDER)
@click.option("--plan", type=FOLDER, required=True, metavar="FILE", help="plan.json, edited or not")
@click.option("--ranges", type=FOLDER, metavar="FILE", help="default: ranges.json beside the plan")
@click.option(
    "--target", metavar="NAME,...", help="one, or several, the best first: see mlq targets"
)
@BATCH(default="1")
@click.option("--format", "form", default="vmfb", metavar="FORM", help=_FORM)
@OUT
@click.pass_obj
def compile_(command: str, /, model: Path, out: Path, **options: Any) -> None:
    """Compile MODEL.onnx as a plan says, without measuring anything.

    Of several targets OUT has a module each, and run, eval and bench take the first that runs on
    the machine they are on: --target x86:avx512_vnni,x86:avx2.
    """
    from mlq import output, partial

    output.check_replaceable(out)
    files = partial.compile_plan(model, command=command, progress=True, **options)
    output.write(out, files)
    show(tables.written(out, files))
