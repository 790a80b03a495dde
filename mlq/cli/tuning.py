"""The verb that searches: which configuration of the quantizer suits a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from mlq.cli.group import STOPPED, main, show
from mlq.cli.options import FOLDER, JSON, OUT, PREPROCESS, READING, TARGET
from mlq.pages import tables

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType[float]):
    """A time: `90`, `90s`, `10m` or `1.5h`; seconds in Python."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Read a time; click says which option has none."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if match is None or not float(match[1]):
            self.fail(f"{value!r} is no time; write 90s, 10m or 2h", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


class Counts(click.ParamType[tuple[int, ...]]):
    """Numbers separated by commas."""

    name = "counts"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Read the numbers, each once, the smallest first."""
        if isinstance(value, tuple):
            return value
        if re.fullmatch(r"0*[1-9]\d*(,0*[1-9]\d*)*", str(value)) is None:
            self.fail(f"{value!r} is no list of numbers; write 1,128,512", param, ctx)
        return tuple(sorted({int(each) for each in value.split(",")}))


@main.command()
@click.argument("model", type=FOLDER)
@click.option("--calib", required=True, metavar="DATA", help="samples to calibrate on")
@click.option("--eval", required=True, metavar="DATA", help="samples to measure on")
@click.option("--trials", type=int, metavar="N", help="of the study in all (default: 20)")
@click.option(
    "--time", "seconds", type=Duration(), metavar="TIME", help="of this run: 90s, 10m, 2h"
)
@click.option("--sampler", metavar="NAME", help="quantune (default), quantune-cold, random, ...")
@click.option("--space", metavar="NAME", help="quantune96 (default) or full")
@click.option("--only", multiple=True, metavar="KNOB=VALUES", help="e.g. mixed=none; repeatable")
@click.option("--samples", "counts", type=Counts(), metavar="LIST", help="default: 1,128,512")
@click.option("--loss", metavar="NAME", help="kl (default, in milli-nats) or accuracy")
@click.option("--objectives", metavar="LIST", help="loss (default) or loss,latency")
@click.option(
    "--tolerance",
    type=float,
    metavar="POINTS",
    help="of a trial's KL; 0: all samples (default: 0.1)",
)
@click.option("--study", metavar="ADDRESS", help="default: sqlite, in the folder OUT.tuning")
@click.option("--workers", type=int, metavar="N", help="processes that measure (needs mlq[dask])")
@click.option("--scheduler", metavar="ADDRESS", help="of a Dask cluster: tcp://host:8786")
@TARGET
@PREPROCESS
@READING
@click.option("--seed", type=int, metavar="N", help="of sampler and samples (default: 0)")
@click.option("--threads", type=int, metavar="N", help="threads of a call, at most (default: 1)")
@click.option("--plain", is_flag=True, help="a line for each trial, terminal or not; no bars")
@JSON
@OUT
@click.pass_obj
def tune(
    command: str, /, model: Path, out: Path, *, as_json: bool, calib: str, **options: Any
) -> int:
    """Find the configuration of the quantizer that suits MODEL.onnx; write it to OUT.

    A trial is an inference, not a compilation. The same command goes on after Ctrl-C, which writes
    the best so far to OUT, or after a kill.
    """
    from mlq import output, tuner

    output.check_replaceable(out)
    work = out.with_name(f"{out.name}.tuning")
    found = tuner.tune(model, calib, work=work, command=command, progress=True, **options)
    found.result.save(out)
    report = found.result.report
    show(report.to_json() if as_json else tables.summary(report, str(out)))
    return STOPPED if found.interrupted else 0
