"""The list of targets, and one of them in full."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlq.pages.blocks import Block, Cell, Paragraph, Table, Tag

if TYPE_CHECKING:
    from mlq.inventory import TargetFacts
    from mlq.timing import NetworkTimes


def overview(found: Sequence[TargetFacts]) -> list[Block]:
    """A row for each family: what runs it here, which presets it has."""
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            each.name,
            _here(each),
            " ".join(preset.name.partition(":")[2] for preset in each.presets),
        )
        for each in found
    )
    absent = [Paragraph(f"`{each.name}`: {each.why_not}.") for each in found if each.why_not]
    return [
        Table(("target", "runs here on", "presets (target:preset)"), rows, frozenset({0, 1, 2})),
        *absent,
        Paragraph("`mlq targets NAME` says what a target computes in and what it costs."),
    ]


def one(each: TargetFacts) -> list[Block]:
    """Everything about one target."""
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (kind, " ".join(names)) for kind, names in each.precisions.items()
    )
    blocks: list[Block] = [
        Paragraph(f"`{each.name}`: {each.summary}."),
        Table(("layer", "precisions"), rows, left=frozenset({0, 1})),
    ]
    if each.float_only:
        blocks.append(Paragraph(f"Nothing can be integer: {each.float_only}.", alarm=True))
    runs = f"Runs here on {_here(each)}" if each.here else f"Cannot run here: {each.why_not}"
    blocks += [
        Paragraph(f"{runs}."),
        Paragraph(f"Formats: {', '.join(each.formats)}."),
        Paragraph(f"Costs: {each.cost_source}."),
    ]
    presets: tuple[tuple[Cell, ...], ...] = tuple(
        (preset.name, preset.summary.partition(": ")[2], _here(preset) or "no")
        for preset in each.presets
    )
    if presets:
        blocks.append(Table(("preset", "what it is", "here"), presets, left=frozenset({0, 1, 2})))
    return blocks


def times(found: NetworkTimes) -> list[Block]:
    """A row for each layer, the precision that is fastest marked, and the sums."""
    columns = sorted({name for each in found.layers for name in each.us}, key=_floats_first)
    rows: list[tuple[Cell, ...]] = [
        (
            each.name,
            each.op,
            *(f"{each.us[name]:.1f}" if name in each.us else "" for name in columns),
            Tag(min(each.us, key=each.us.__getitem__)),
        )
        for each in found.layers
    ]
    sums = [sum(each.us.get(name, each.us["f32"]) for each in found.layers) for name in columns]
    rows.append(("all", "", *(f"{us:.1f}" for us in sums), ""))
    header = ("layer", "op", *(f"{name} us" for name in columns), "fastest")
    return [
        Table(header, tuple(rows), left=frozenset({0, 1, len(columns) + 2})),
        Paragraph(f"Costs: {found.source}."),
        Paragraph("`mlq quantize` times the kernels that it makes in the same way."),
    ]


def _floats_first(name: str) -> tuple[bool, str]:
    return name != "f32", name


def as_json(found: Sequence[TargetFacts]) -> str:
    """The same for programs."""
    listed = [each.model_dump() for each in found]
    return json.dumps({"schema_version": 1, "targets": listed}, indent=2) + "\n"


def _here(each: TargetFacts) -> str:
    return f"{each.here.partition(' ')[0]} (emulated)" if each.emulated else _short(each.here)


def _short(device: str) -> str:
    """A device's name without what stands in brackets."""
    return device.partition(" (")[0]
