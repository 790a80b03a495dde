"""A plan on other targets: what `mlq verify` found, and who stood in for a target."""

from __future__ import annotations

from mlq.pages.blocks import Block, Cell, Heading, Paragraph, Table
from mlq.report import AgreementCheck, Report, TargetCheck

_SHOWN = 12
_HEADER = ("target", "integers equal", "float diff", "", "on")
_LEFT = frozenset({0, 1, 4})


def section(report: Report) -> list[Block]:
    """The same plan on other targets, if it was verified there."""
    if report.targets is None:
        return []
    return [Heading("Targets"), *blocks(report.targets)]


def stand_in(report: Report) -> list[Paragraph]:
    """That the artifact was not run, and what was."""
    found = report.stand_in
    if found is None:
        return []
    said = (
        f"The artifact was not run on {report.target}, which cannot run here: {found.reason}."
        f" Accuracy, agreement and times are of the same plan compiled for {found.target}; sizes"
        f" are of what was compiled for {report.target}."
    )
    return [Paragraph(said, alarm=True)]


def blocks(found: AgreementCheck) -> list[Block]:
    """A row for each target that ran, the tensors that differ, and why the others did not run."""
    ran = [each for each in found.targets if not each.not_run]
    said: list[Block] = []
    if ran:
        said = [
            Table(
                ("target", "integers equal", "float diff", "", "on"), tuple(map(_row, ran)), _LEFT
            ),
            Paragraph(_method(found, ran[0])),
        ]
    for each in ran:
        said += _wrong(each)
    for each in found.targets:
        if each.not_run:
            said.append(Paragraph(f"`{each.target}`: {_not_run(each)}.", alarm=not each.sound))
    return said


def _row(each: TargetCheck) -> tuple[Cell, ...]:
    floats = f"{each.float_difference:.1e}" if each.float_tensors else ""
    equal = f"{each.integer_equal} of {each.integer_tensors}"
    return (each.target, equal, floats, "agrees" if each.sound else "differs", _short(each.device))


def _short(device: str) -> str:
    """A device's name without what stands in brackets."""
    return device.partition(" (")[0]


def _method(found: AgreementCheck, base: TargetCheck) -> str:
    samples = "1 sample" if found.samples == 1 else f"{found.samples} samples"
    return (
        f"Every tensor of {samples} of `{found.data}`, against {base.target}: integers bit for bit,"
        f" floats within {found.tolerance:g} of the tensor's greatest."
    )


def _wrong(each: TargetCheck) -> list[Block]:
    wrong = [row for row in each.tensors if not row.sound]
    if not wrong:
        return []
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (row.name, row.storage, f"{row.difference:.3g}") for row in wrong[:_SHOWN]
    )
    first = f"{each.target} differs in {len(wrong)} tensors; in the network's order, the first:"
    return [
        Paragraph(first, alarm=True),
        Table(("tensor", "storage", "difference"), rows, left=frozenset({0, 1})),
    ]


def _not_run(each: TargetCheck) -> str:
    compiled = f"compiled ({each.compiled_bytes} bytes), but it " if each.compiled_bytes else ""
    return compiled + each.not_run
