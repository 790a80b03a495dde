"""`mlq`: one verb for the whole route, and one for each thing to do with its parts.

A handler reads its options, calls one function of mlq and prints; whatever it does is open to
Python too. Exit codes: 0 done, 1 done but a limit was missed, 2 bad input or usage, 3 a fault of
mlq itself, 130 stopped by hand.
"""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from rich.console import Console

from mlq import __version__
from mlq.errors import MlqError
from mlq.pages import tables
from mlq.pages.terminal import rendered

_USAGE, _BROKEN, _STOPPED = 2, 3, 130
Handler = TypeVar("Handler", bound=Callable[..., Any])
_FOLDER = click.Path(path_type=Path)


class Verbs(click.Group):
    """A group whose errors are one line on stderr and an exit code that scripts can rely on."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> NoReturn:
        given = list(sys.argv[1:] if args is None else args)
        plain = [each for each in given if each != "--debug"]
        debug = len(plain) < len(given)
        extra |= {"standalone_mode": False, "obj": shlex.join(["mlq", *plain])}
        try:
            code = super().main(plain, *more, **extra)
        except (KeyboardInterrupt, click.Abort):
            _complain("stopped; nothing was written")
            code = _STOPPED
        except click.UsageError as error:
            hint = f"; see {error.ctx.command_path} --help" if error.ctx else ""
            code = _complain(error.format_message().rstrip(".") + hint)
        except (MlqError, click.ClickException) as error:
            code = _complain(str(error), debug=debug)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            code = _complain(f"{where}{error.strerror}", debug=debug)
        except Exception as error:  # noqa: BLE001 - whatever it is, scripts get a code of its own
            what = "; run it again with --debug, and report what that says"
            _complain(f"mlq is at fault: {type(error).__name__}: {error}{what}", debug=debug)
            code = _BROKEN
        sys.exit(code or 0)


def _complain(message: str, *, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    print(f"mlq: error: {' '.join(message.split())}", file=sys.stderr)
    return _USAGE


def _options(*options: Callable[[Handler], Handler]) -> Callable[[Handler], Handler]:
    """Several options as one decorator, in the order in which help shows them."""

    def decorate(handler: Handler) -> Handler:
        for option in reversed(options):
            handler = option(handler)
        return handler

    return decorate


_TARGET = click.option("--target", metavar="NAME", help="device family; see mlq targets")
_PREPROCESS = click.option(
    "--preprocess",
    type=_FOLDER,
    metavar="FILE",
    help="how images become inputs (default: MODEL.json beside MODEL.onnx)",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="print JSON, not a table")
_THREADS = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="threads of a call (default: as made)",
)
_OUT = click.option(
    "-o", "--out", type=_FOLDER, required=True, metavar="OUT", help="folder to write"
)

_RECIPE = _options(
    click.option(
        "--calib", required=True, metavar="DATA", help=".npz, .npy, folder of images or random:N"
    ),
    _TARGET,
    click.option("--precisions", metavar="LIST", help="what layers may have (default: f32,w8a8)"),
    click.option("--ir-level", metavar="LEVEL", help="fused (default), folded or onnx"),
    click.option("--effort", metavar="NAME", help="default, or quick: two inferences only"),
    click.option("--metric", metavar="NAME", help="auto (default), output-error, sqnr-delta, ..."),
    click.option("--calibrator", metavar="NAME", help="auto (default), minmax, entropy, ..."),
    click.option("--scheme", metavar="NAME", help="asymmetric (default), symmetric, ..."),
    click.option("--granularity", metavar="NAME", help="per_axis (default) or per_tensor"),
    _PREPROCESS,
    click.option("--samples", type=int, metavar="N", help="calibrate on N of them (default: all)"),
    click.option("--batch", type=int, metavar="N", help="samples of one call (default: 1)"),
    click.option("--seed", type=int, metavar="N", help="picks samples (default: 0)"),
    click.option("--threads", type=int, metavar="N", help="threads of a call (default: 1)"),
    click.option("--recipe", type=_FOLDER, metavar="FILE", help="options from a recipe.toml"),
)
_LIMITS = _options(
    click.option("--eval", metavar="DATA", help="labelled data to check the accuracy on"),
    click.option("--max-drop", type=float, metavar="SHARE", help="0.01 (default) is one point"),
    click.option("--max-size", type=int, metavar="BYTES", help="of model.vmfb"),
    click.option("--max-latency", type=float, metavar="MS", help="of one call"),
)


@click.group(
    cls=Verbs, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, "-V", "--version", message="mlq %(version)s")
def main() -> None:
    """Quantize ONNX networks: fast, explained, within the accuracy you ask for.

    Every verb takes --debug, which adds a traceback to an error.
    """


@main.command()
@click.argument("model", type=_FOLDER)
@_LIMITS
@_RECIPE
@click.option("--save-stages", is_flag=True, help="write the IR of each stage to OUT/stages")
@_JSON
@_OUT
@click.pass_obj
def quantize(command: str, /, model: Path, out: Path, *, as_json: bool, **options: Any) -> int:
    """Quantize MODEL.onnx, check it against its float form, and write it to OUT."""
    from mlq import compiler, output

    output.check_replaceable(out)
    result = compiler.quantize(model, command=command, progress=True, **options)
    result.save(out)
    _show(result.report.to_json() if as_json else tables.summary(result.report, str(out)))
    return 0 if result.met else 1


@main.command()
@click.option(
    "-o", "--out", type=_FOLDER, default=Path("out/demo"), metavar="OUT", show_default=True
)
@_JSON
@click.pass_obj
def demo(command: str, /, out: Path, *, as_json: bool) -> int:
    """Quantize a bundled network on real data: the whole route, no argument needed."""
    from mlq import output
    from mlq.demo import demo as run_demo

    output.check_replaceable(out)
    result = run_demo(progress=True, command=command)
    result.save(out)
    _show(result.report.to_json() if as_json else tables.summary(result.report, str(out)))
    return 0 if result.met else 1


@main.command()
@click.argument("module", type=_FOLDER)
@click.option("--input", "inputs", required=True, metavar="X.npz", help="arrays by input name")
@click.option("-o", "--out", type=_FOLDER, metavar="Y.npz", help="write the outputs by name")
@_THREADS
def run(module: Path, inputs: str, out: Path | None, threads: int | None) -> None:
    """Run MODULE (OUT/model.vmfb) over samples."""
    from mlq import artifact, output

    results = artifact.run(module, inputs, threads=threads, progress=True)
    if out is not None:
        output.write_arrays(out, results)
    _show(tables.arrays(results))


@main.command(name="eval")
@click.argument("out", type=_FOLDER)
@click.option("--data", required=True, metavar="DATA", help="samples, with labels for accuracy")
@click.option("--preprocess", type=_FOLDER, metavar="FILE", help="default: as when quantized")
@_THREADS
@_JSON
def evaluate(out: Path, data: str, *, as_json: bool, **options: Any) -> None:
    """Measure the accuracy of the network in OUT on other data."""
    from mlq import artifact

    found = artifact.evaluate(out, data, progress=True, **options)
    _show(found.model_dump_json(indent=2) if as_json else tables.evaluation(found))


@main.command()
@click.argument("out", type=_FOLDER)
@_THREADS
@click.option("--against", metavar="WHAT", help="onnxruntime, an ONNX file or another OUT")
@_JSON
def bench(out: Path, *, as_json: bool, **options: Any) -> None:
    """Time the network in OUT, in turn with what it is compared with."""
    from mlq import artifact

    found = artifact.bench(out, **options)
    _show(found.model_dump_json(indent=2) if as_json else tables.bench(found))


@main.command()
@click.argument("model", type=_FOLDER)
@_RECIPE
@click.option("-o", "--out", type=_FOLDER, metavar="OUT", help="folder to write, if any")
@_JSON
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
    _show(files["sensitivities.json"] if as_json else tables.sensitivity(found.sensitivities))


@main.command(name="compile")
@click.argument("model", type=_FOLDER)
@click.option(
    "--plan", type=_FOLDER, required=True, metavar="FILE", help="plan.json, edited or not"
)
@click.option("--ranges", type=_FOLDER, metavar="FILE", help="default: ranges.json beside the plan")
@_TARGET
@click.option("--batch", type=int, default=1, metavar="N", help="samples of one call (default: 1)")
@_OUT
@click.pass_obj
def compile_(command: str, /, model: Path, out: Path, **options: Any) -> None:
    """Compile MODEL.onnx as a plan says, without measuring anything."""
    from mlq import output, partial

    output.check_replaceable(out)
    files = partial.compile_plan(model, command=command, progress=True, **options)
    output.write(out, files)
    _show(tables.written(out, files))


@main.command()
@click.argument("out", type=_FOLDER)
@click.option("--format", "form", type=click.Choice(["qdq"]), default="qdq", show_default=True)
@click.option("-o", "--output", type=_FOLDER, metavar="FILE", help="default: OUT/model.qdq.onnx")
def export(out: Path, form: str, output: Path | None) -> None:
    """Write the network in OUT as ONNX with Q/DQ nodes, which ONNX Runtime runs."""
    from mlq import export as exporting

    destination = output or out / f"model.{form}.onnx"
    exporting.to_qdq(out, destination)
    _show(tables.sentence(f"wrote `{destination}`"))


@main.command()
@_JSON
def targets(*, as_json: bool) -> None:
    """List the devices that mlq compiles for, and what they compute in."""
    from mlq import targets as known

    found = known.all_targets()
    _show(tables.targets_json(found) if as_json else tables.targets(found))


@main.command()
@click.argument("model", type=_FOLDER)
@click.option("--target", default="x86", metavar="NAME", help="see mlq targets (default: x86)")
@click.option("--ir-level", default="fused", metavar="LEVEL", help="fused (default), folded, onnx")
@click.option("--numerics", is_flag=True, help="compare each float tensor with ONNX Runtime's")
@click.option("--data", default="random:1", metavar="DATA", help="for --numerics (random:1)")
@_PREPROCESS
@_JSON
def check(model: Path, *, as_json: bool, **options: Any) -> int:
    """Say which layers of MODEL.onnx can be integer on a target, and what stays float and why."""
    from mlq import checking

    found = checking.check(model, **options)
    _show(found.model_dump_json(indent=2) if as_json else tables.check(found))
    return 0 if found.sound else 1


def _show(content: Any) -> None:
    """Print JSON as it is, and blocks as the terminal can show them."""
    if isinstance(content, str | bytes):
        print(content if isinstance(content, str) else content.decode(), end="")
    else:
        Console().print(rendered(*content))
