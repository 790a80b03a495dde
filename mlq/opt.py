"""mlq-opt: run mlq's passes, MLIR's own passes and named pipelines over textual IR."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass, fields
from inspect import getdoc
from pathlib import Path
from typing import Any

import click
from torch_mlir.ir import Context, Diagnostic, DiagnosticSeverity, Location, MLIRError, Module

from mlq.dialect import context
from mlq.dialect.weights import WeightStore, bound
from mlq.errors import MlqError
from mlq.transforms import PASSES, parse_pipeline
from mlq.transforms.base import flag
from mlq.transforms.pipelines import PIPELINES

SPLIT = "// -----"
_EXPECTED = re.compile(
    r"expected-(?P<kind>error|warning|remark|note)(?:@(?P<where>[+-]\d+|above|below))?"
    r"\s*\{\{(?P<text>.*?)\}\}"
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", default="-", type=click.Path(allow_dash=True))
@click.option("-p", "--pass-pipeline", default="", help="passes and @pipelines, comma separated")
@click.option("--list-passes", is_flag=True, help="describe mlq's passes and pipelines")
@click.option("--split-input-file", is_flag=True, help=f"treat parts between '{SPLIT}' apart")
@click.option("--verify-diagnostics", is_flag=True, help="check expected-error@... comments")
@click.option("--mlir-print-ir-after-all", is_flag=True, help="print the IR after each pass")
@click.option("--mlir-print-debuginfo", is_flag=True, help="print locations")
@click.option("--mlir-print-op-generic", is_flag=True, help="print the generic form")
@click.option("--weights", type=click.Path(exists=True), help=".npz that mlq.weight reads")
@click.option("--debug", is_flag=True, help="say why patterns left ops alone; tracebacks")
def main(file: str, *, list_passes: bool, debug: bool, **options: Any) -> None:
    """Read MLIR from FILE (- is standard input), run passes over it, print it."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mlq").setLevel(logging.DEBUG if debug else logging.WARNING)
    if list_passes:
        print(describe_passes())
        return
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(_complain(f"{file}: cannot be read: {error}"))
    sys.exit(process(text, file, **options))


def process(text: str, file: str = "-", *, split_input_file: bool = False, **options: Any) -> int:
    """Treat every part of `text`; 0 if all went well, 1 otherwise. Runs in process for tests."""
    parts = text.split(SPLIT) if split_input_file else [text]
    failures, line = 0, 0
    for index, part in enumerate(parts):
        # Newlines in front keep the line numbers of diagnostics those of the file.
        failures += _process_part("\n" * line + part, file, _Settings(**options))
        line += part.count("\n")
        if index + 1 < len(parts):
            print(SPLIT)
    return int(failures > 0)


@dataclass(frozen=True)
class _Settings:
    """What the command line asks for, beside the file."""

    pass_pipeline: str = ""
    verify_diagnostics: bool = False
    mlir_print_ir_after_all: bool = False
    mlir_print_debuginfo: bool = False
    mlir_print_op_generic: bool = False
    weights: str | None = None


def _process_part(text: str, file: str, settings: _Settings) -> bool:
    """Run the passes over one part; True if it was not as it should be."""
    store = WeightStore.load(Path(settings.weights)) if settings.weights else WeightStore()
    with context() as made, Location.unknown(), bound(store):
        seen = _Diagnostics(made)
        try:
            printed = _transformed(text, settings)
        except MlqError as error:
            seen.add_message(str(error))
        except MLIRError as error:
            if not seen.messages:
                seen.add_message(str(error))
        else:
            if not settings.verify_diagnostics:
                print(printed)
        if settings.verify_diagnostics:
            return seen.differ_from_expected(text, file)
        for line, kind, message in seen.messages:
            _complain(f"{file}:{line}: {message}" if line else message, kind)
        return bool(seen.messages)


def _transformed(text: str, settings: _Settings) -> str:
    """The module that `text` is after the passes, as text."""
    module = Module.parse(text)
    manager = parse_pipeline(settings.pass_pipeline)
    if settings.mlir_print_ir_after_all:
        manager.enable_ir_printing(print_after_all=True)
    manager.run(module.operation)
    printed: str = module.operation.get_asm(
        enable_debug_info=settings.mlir_print_debuginfo,
        print_generic_op_form=settings.mlir_print_op_generic,
    )
    return printed


class _Diagnostics:
    """What MLIR and mlq complained of, as (line, kind, message)."""

    def __init__(self, made: Context) -> None:
        self.messages: list[tuple[int, str, str]] = []
        made.emit_error_diagnostics = True
        self._handler = made.attach_diagnostic_handler(self._take)

    def _take(self, diagnostic: Diagnostic) -> bool:
        kind = {
            DiagnosticSeverity.ERROR: "error",
            DiagnosticSeverity.WARNING: "warning",
            DiagnosticSeverity.NOTE: "note",
        }.get(diagnostic.severity, "remark")
        found = re.search(r'"[^"]*":(\d+):\d+', str(diagnostic.location))
        text = diagnostic.message or "parse error: mlq ops are written in their generic form only"
        self.messages.append((int(found[1]) if found else 0, kind, text))
        return True

    def add_message(self, message: str) -> None:
        found = re.search(r'loc\("[^"]*":(\d+):\d+\)', message)
        self.messages.append((int(found[1]) if found else 0, "error", message))

    def differ_from_expected(self, text: str, file: str) -> bool:
        """Report expected diagnostics that did not come, and those that nobody expected."""
        left = list(self.messages)
        bad = False
        for number, line in enumerate(text.splitlines(), start=1):
            for match in _EXPECTED.finditer(line):
                where = {"above": -1, "below": 1, None: 0}.get(match["where"])
                at = number + (int(match["where"]) if where is None else where)
                hit = next(
                    (
                        m
                        for m in left
                        if m[0] in {at, 0} and m[1] == match["kind"] and match["text"] in m[2]
                    ),
                    None,
                )
                if hit is None:
                    _complain(f'{file}:{at}: expected {match["kind"]} "{match["text"]}"')
                    bad = True
                else:
                    left.remove(hit)
        for line_number, kind, message in left:
            _complain(f"{file}:{line_number}: unexpected {kind}: {message}")
        return bad or bool(left)


def describe_passes() -> str:
    """Name, summary and options of every pass and pipeline, from the passes themselves."""
    lines: list[str] = []
    for name, cls in sorted(PASSES.items()):
        lines += [name, f"    {(getdoc(cls) or '').partition(chr(10))[0]}"]
        lines += [
            f"      {flag(f.name)}={f.default if f.default != '' else chr(39) * 2}: "
            f"{f.metadata['help']}"
            for f in fields(cls)
        ]
    for name, pipeline in PIPELINES.items():
        lines += [f"@{name}", f"    {pipeline.summary}", f"    {pipeline.text}"]
    return "\n".join(lines)


def _complain(message: str, kind: str = "error") -> int:
    print(f"{kind}: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
