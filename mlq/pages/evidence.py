"""The report's part on what can be checked: the device, the passes, the times, and the command."""

from __future__ import annotations

from mlq.pages import numbers
from mlq.pages.blocks import Bar, Block, Cell, Code, Heading, Paragraph, Table
from mlq.report import Report


def checks(report: Report) -> list[Block]:
    """The artifact against the reference arithmetic, and how many samples everything took."""
    check, passes = report.device_check, report.inferences
    methods, numpy = passes.methods_probe_samples, passes.numpy_samples
    judged = f", {methods} to choose accuracy methods" if methods else ""
    walked = f"; {numpy} in numpy, to fit weights and biases" if numpy else ""
    equal = check.max_abs_diff_lsb == 0
    result = "equal bit for bit" if equal else f"within {check.max_abs_diff_lsb} LSB"
    said = (
        f"{numbers.things(check.layers, 'integer tensor')} of"
        f" {numbers.things(check.samples, 'sample')} on {check.device}, against the reference"
        f" arithmetic: {result}."
    )
    return [
        Heading("Checks"),
        Paragraph(said, alarm=not equal),
        Paragraph(
            f"Passes over the calibration samples:"
            f" {passes.float:g} float, {passes.quantized:g} quantized; besides,"
            f" {passes.calibrator_probe_samples} samples to choose the calibrator{judged} and"
            f" {passes.plan_check_samples} to check plans, simulated{walked}."
        ),
    ]


def stages(report: Report) -> list[Block]:
    """Where the time went."""
    longest = max((stage.seconds for stage in report.stages), default=1.0) or 1.0
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            stage.name,
            Bar(stage.seconds / longest, f"{stage.seconds:.2f} s"),
            f"{stage.peak_rss_mb:.0f}",
        )
        for stage in report.stages
    )
    total = sum(stage.seconds for stage in report.stages)
    header = ("stage", "seconds", "peak MB so far")
    table = Table(header, rows, left=frozenset({0, 1}))
    return [Heading("Time"), Paragraph(f"{total:.1f} seconds in all."), table]


def provenance(report: Report) -> list[Block]:
    """How to make the same again, and what it was made of."""
    model, hardware = report.model, report.hardware
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return [
        Heading("Reproduce"),
        Code(report.command),
        Paragraph(
            "`recipe.toml` beside this file has every option as it was resolved (give it to"
            " `mlq quantize --recipe`), `manifest.json` the hashes of the network, of the samples"
            " and of every file that was made."
        ),
        Paragraph(
            f"`{model.path}`, SHA-256 `{model.sha256}`, opset {model.opset}, {model.nodes} nodes,"
            f" {numbers.count(model.params)} parameters, {numbers.count(model.macs)} MACs."
        ),
        Paragraph(
            f"{hardware.cpu}, {hardware.cores} cores, {hardware.memory_gb:g} GB; seed"
            f" {report.seed}; level `{report.ir_level}`; {versions}."
        ),
    ]
