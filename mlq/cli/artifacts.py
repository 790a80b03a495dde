"""The verbs that take an artifact: run, eval, bench, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlq.cli.group import main, show
from mlq.cli.options import COMPILED, FOLDER, JSON, THREADS
from mlq.pages import tables


@main.command()
@click.argument("module", type=FOLDER)
@click.option("--input", "inputs", required=True, metavar="X.npz", help="arrays by input name")
@click.option("-o", "--out", type=FOLDER, metavar="Y.npz", help="write the outputs by name")
@COMPILED
@THREADS
def run(module: Path, inputs: str, out: Path | None, **options: Any) -> None:
    """Run MODULE (OUT/model.vmfb) over samples."""
    from mlq import artifact, output

    results = artifact.run(module, inputs, progress=True, **options)
    if out is not None:
        output.write_arrays(out, results)
    show(tables.arrays(results))


@main.command(name="eval")
@click.argument("out", type=FOLDER)
@click.option("--data", required=True, metavar="DATA", help="samples, with labels for accuracy")
@click.option("--preprocess", type=FOLDER, metavar="FILE", help="default: as when quantized")
@COMPILED
@THREADS
@JSON
def evaluate(out: Path, data: str, *, as_json: bool, **options: Any) -> None:
    """Measure the accuracy of the network in OUT on other data."""
    from mlq import artifact

    found = artifact.evaluate(out, data, progress=True, **options)
    show(found.model_dump_json(indent=2) if as_json else tables.evaluation(found))


@main.command()
@click.argument("out", type=FOLDER)
@THREADS
@click.option("--against", metavar="WHAT", help="onnxruntime, an ONNX file or another OUT")
@JSON
def bench(out: Path, *, as_json: bool, **options: Any) -> None:
    """Time the network in OUT, in turn with what it is compared with."""
    from mlq import artifact

    found = artifact.bench(out, **options)
    show(found.model_dump_json(indent=2) if as_json else tables.bench(found))


@main.command()
@click.argument("out", type=FOLDER)
@click.option("--format", "form", type=click.Choice(["qdq"]), default="qdq", show_default=True)
@click.option("-o", "--output", type=FOLDER, metavar="FILE", help="default: OUT/model.qdq.onnx")
def export(out: Path, form: str, output: Path | None) -> None:
    """Write the network in OUT as ONNX with Q/DQ nodes, which ONNX Runtime runs."""
    from mlq import export as exporting

    destination = output or out / f"model.{form}.onnx"
    exporting.to_qdq(out, destination)
    show(tables.sentence(f"wrote `{destination}`"))
