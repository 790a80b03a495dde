"""The report's part on layers: their precisions, what each loses, and why some stayed float."""

from __future__ import annotations

from collections import Counter

from mlq.pages import numbers
from mlq.pages.blocks import Bar, Block, Cell, Fold, Heading, Paragraph, Piece, Strip, Table, Tag
from mlq.report import LayerReport, Report

FLOAT = "f32"
# Of layers, as many are shown at once as fit on a screen.
_SHOWN = 12
_WORDS = frozenset({0, 1, 2})


def precisions(report: Report) -> list[Block]:
    """How many layers, and how much of the arithmetic, each kind of op has in each precision."""
    names = sorted({layer.precision for layer in report.layers}, reverse=True)
    total = sum(layer.macs for layer in report.layers) or 1
    rows: list[tuple[Cell, ...]] = []
    for op in sorted({layer.op for layer in report.layers}):
        here = [layer for layer in report.layers if layer.op == op]
        counts = Counter(layer.precision for layer in here)
        macs = sum(layer.macs for layer in here) / total
        rows.append((op, str(len(here)), *(str(counts[n]) for n in names), f"{100 * macs:.1f}"))
    counts = Counter(layer.precision for layer in report.layers)
    rows.append(("all", str(len(report.layers)), *(str(counts[n]) for n in names), "100.0"))
    table = Table(("op", "layers", *names, "% of MACs"), tuple(rows))
    return [Heading("Precisions"), _strip(report), table]


def _strip(report: Report) -> Strip:
    spent = [layer.cost_us.get(layer.precision, 0.0) for layer in report.layers]
    total = sum(spent)
    said = "Layers from input to output, as long as the time that each is predicted to take."
    pieces = (
        Piece(
            f"{layer.name}: {layer.precision}, {us:.3g} us",
            layer.precision,
            us / total if total else 1.0,
        )
        for layer, us in zip(report.layers, spent, strict=True)
    )
    return Strip(said, tuple(pieces))


def worst_first(report: Report) -> list[Block]:
    """Every layer, the one that integers cost most first."""
    ordered = sorted(report.layers, key=lambda layer: (noise(layer), _share(layer)), reverse=True)
    most = max(map(noise, ordered)) or 1.0
    rows = [_row(layer, most) for layer in ordered]
    said = (
        "The layer first that integers cost most: the KL, in milli-nats, that it is predicted to"
        " add in the noisiest precision it may have. Layers that were given a quieter one do not"
        f" add that. Microseconds are what the plan reckons with: {report.cost_source}."
    )
    return [
        Heading("Layers"),
        Paragraph(said),
        *shortened(
            ("layer", "op", "precision", "KL mnat", "us f32 > now"),
            rows,
            left=_WORDS | {3},
            others="The other {} layers",
        ),
        Fold(
            "What was measured of each layer, and why it has its precision", (_measured(ordered),)
        ),
    ]


def shortened(
    header: tuple[str, ...], rows: list[tuple[Cell, ...]], *, left: frozenset[int], others: str
) -> list[Block]:
    """A table of the first rows, and another of the others, folded; `others` has a {} to fill."""
    if len(rows) <= _SHOWN + 2:  # a fold of one or two rows saves nothing
        return [Table(header, tuple(rows), left)]
    rest = Table(header, tuple(rows[_SHOWN:]), left)
    return [
        Table(header, tuple(rows[:_SHOWN]), left),
        Fold(others.format(len(rows) - _SHOWN), (rest,)),
    ]


def noise(layer: LayerReport) -> float:
    """Milli-nats that a layer is predicted to add in the noisiest precision it may have."""
    return max(layer.noise_mnat.values(), default=0.0)


def _share(layer: LayerReport) -> float:
    """The layer's share of the noise that all add when all are integer."""
    return layer.metrics.get("noise_share", 0.0)


def _row(layer: LayerReport, most: float) -> tuple[Cell, ...]:
    found = noise(layer)
    bar = Bar(found / most, f"{found:.2g}", layer.precision)
    return (layer.name, layer.op, Tag(layer.precision), bar, _cost(layer))


def _cost(layer: LayerReport) -> str:
    before, now = layer.cost_us.get(FLOAT), layer.cost_us.get(layer.precision)
    return "" if before is None or now is None else f"{before:.1f} > {now:.1f}"


def _measured(ordered: list[LayerReport]) -> Table:
    """The metrics at the layer's precision; for a float layer, at the first integer one."""
    names = ("activation_sqnr_db", "activation_sqnr_delta_db")
    rows: list[tuple[Cell, ...]] = [
        (
            layer.name,
            f"{100 * _share(layer):.1f}",
            *(numbers.decibels(layer.metrics.get(name)) for name in names),
            numbers.decibels(layer.metrics.get("weight_sqnr_db") if layer.params else None),
            numbers.count(layer.macs),
            numbers.count(layer.params),
            reason(layer),
        )
        for layer in ordered
    ]
    header = ("layer", "noise %", "SQNR dB", "delta dB", "weights dB", "MACs", "params", "why")
    return Table(header, tuple(rows), left=frozenset({0, 7}))


def reason(layer: LayerReport) -> str:
    """Why the layer has its precision."""
    return layer.reason.removeprefix(f"{layer.precision}: ")


def stayed_float(report: Report) -> list[Block]:
    """The layers that the plan left in float, and the ops that no plan can make integer."""
    kept = [layer for layer in report.layers if layer.precision == FLOAT]
    kept.sort(key=noise, reverse=True)
    rows: list[tuple[Cell, ...]] = [
        *((layer.name, layer.op, reason(layer)) for layer in kept),
        *(
            (each.name, each.op, f"no plan can change it: {each.reason}")
            for each in report.float_ops
        ),
    ]
    if not rows:
        nothing = "Nothing: every layer is integer, and every other op only moves elements."
        return [Heading("Stayed float"), Paragraph(nothing)]
    said = []
    if kept:
        said.append(
            f"{numbers.things(len(kept), 'layer')} by the plan's choice: what the next cheaper"
            " precision would add (in milli-nats of KL, mn) and save."
        )
    if report.float_ops:
        ops = numbers.things(len(report.float_ops), "op")
        said.append(f"{ops} of which mlq has no integer form.")
    table = shortened(("what", "op", "why"), rows, left=_WORDS, others="The other {}")
    return [Heading("Stayed float"), Paragraph(" ".join(said)), *table]
