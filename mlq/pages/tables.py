"""What the verbs print: short tables and a sentence or two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlq.pages import numbers
from mlq.pages.blocks import Bar, Block, Cell, Code, Paragraph, Table

if TYPE_CHECKING:
    from mlq.artifact import Bench, Evaluation
    from mlq.checking import Check
    from mlq.report import Report
    from mlq.sensitivities import LayerSensitivity, Sensitivities

# How many of the worst are shown where all would be too many.
_WORST = 12


def sentence(text: str) -> list[Block]:
    """One line."""
    return [Paragraph(text)]


def summary(report: Report, out: str) -> list[Block]:
    """The end of `mlq quantize` and `mlq tune`: within 80 columns."""
    from mlq.pages import content, trials

    blocks: list[Block] = [_forms(report), *content.verdict(report)]
    if report.tuning is not None:
        return [*blocks, Paragraph(f"{trials.sentence(report.tuning)}\nopen {out}/report.html")]
    chosen = f"Calibrator `{report.calibrator}`"
    tried = report.calibrators_kl_mnat
    if tried:
        chosen += f", the best of {len(tried)} by the KL to float"
    if report.methods_kl_mnat:
        chosen += f"; methods `{report.methods}`, of {len(report.methods_kl_mnat)} sets"
    return [*blocks, Paragraph(f"{chosen}.\nopen {out}/report.html")]


def report(found: Report, out: str) -> list[Block]:
    """The report without pictures, and of long tables the first rows: within 80 columns."""
    from mlq.pages import borders, content, layers

    return [
        _forms(found),
        *content.verdict(found),
        *layers.worst_first(found),
        *layers.stayed_float(found),
        *borders.section(found.casts),
        Paragraph(f"\nopen {out}/report.html"),
    ]


def _forms(report: Report) -> Table:
    header = ["", "agree %", "KL mnat", "p50 ms", "speed", "size"]
    rows: list[tuple[Cell, ...]] = []
    for form in ("float", "int8", "mixed"):
        time = getattr(report.latency_ms, form)
        close: tuple[Cell, ...] = ("", "")
        if form != "float":
            part = getattr(report.agreement, form)
            close = (numbers.percent(part.top1), f"{part.kl_mnat:.2f}")
        top1: tuple[Cell, ...] = ()
        if report.accuracy is not None:
            top1 = (numbers.percent(getattr(report.accuracy, form)),)
        speed = numbers.ratio(report.latency_ms.float.p50 / time.p50)
        size = numbers.size(getattr(report.size_bytes, form))
        rows.append((form, *top1, *close, numbers.milliseconds(time.p50), speed, size))
    if report.accuracy is not None:
        header.insert(1, "top-1 %")
    return Table(tuple(header), tuple(rows))


def evaluation(found: Evaluation) -> list[Block]:
    """Accuracy, and agreement with float where that is known."""
    rows: list[tuple[Cell, ...]] = [("samples", str(found.samples))]
    if found.top1 is not None:
        rows.append(("top-1 %", numbers.percent(found.top1)))
    if found.float_top1 is not None:
        rows.append(("top-1 % of float", numbers.percent(found.float_top1)))
    if found.agreement is not None:
        rows += [
            ("agreement with float %", numbers.percent(found.agreement.top1)),
            ("KL to float, mnat", f"{found.agreement.kl_mnat:.2f}"),
            ("SQNR against float, dB", f"{found.agreement.sqnr_db:.1f}"),
        ]
    blocks: list[Block] = [Table((found.data, ""), tuple(rows))]
    if found.top1 is None:
        blocks.append(Paragraph("No labels in this data, so no accuracy."))
    if found.agreement is None:
        blocks.append(Paragraph("Quantize with --save-stages to compare with float too."))
    return blocks


def bench(found: Bench) -> list[Block]:
    """Milliseconds a call, and how much faster the artifact is than each of the others."""
    own = found.latency_ms["mixed"].p50
    rows = tuple(
        (
            name,
            numbers.milliseconds(each.p50),
            numbers.milliseconds(each.p90),
            numbers.milliseconds(each.mean),
            f"{each.std:.2g}",
            str(each.runs),
            "" if name == "mixed" else numbers.ratio(each.p50 / own),
        )
        for name, each in found.latency_ms.items()
    )
    header = ("ms a call", "p50", "p90", "mean", "std", "runs", "mixed is faster by")
    threads = numbers.things(found.threads, "thread")
    said = f"Batch {found.batch}, {threads} of {found.device}, called in turn."
    return [Table(header, rows), Paragraph(said)]


def sensitivity(found: Sensitivities) -> list[Block]:
    """Every layer, the one that adds most noise first."""
    precisions = sorted({name for layer in found.layers.values() for name in layer.candidates})
    blocks: list[Block] = []
    for precision in precisions:
        known = {
            name: layer.candidates[precision]
            for name, layer in found.layers.items()
            if precision in layer.candidates
        }
        shares = _shares(known)
        ordered = sorted(known.items(), key=lambda entry: -shares[entry[0]])
        # 80 columns have room for one of the two.
        last = (
            "KL mnat" if any("oracle_kl_mnat" in each for each in known.values()) else "weights dB"
        )
        header = ("layer", "op", "noise", "SQNR dB", "delta dB", last)
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (
                name,
                found.layers[name].op,
                Bar(shares[name], f"{100 * shares[name]:.1f} %"),
                numbers.decibels(each["activation_sqnr_db"]),
                numbers.decibels(each["activation_sqnr_delta_db"]),
                _last_of(each, found.layers[name]),
            )
            for name, each in ordered
        )
        blocks += [Paragraph(f"All layers in `{precision}`:"), Table(header, rows, left=_FIRST_TWO)]
    said = (
        f"KL to float of the all-{precisions[0]} network: {found.kl_mnat:.2f} milli-nats on"
        f" {numbers.things(found.samples, 'sample')}; sorted by the share of the noise that layers"
        " make, each alone."
    )
    return [*blocks, Paragraph(said)]


def _last_of(each: Mapping[str, float], layer: LayerSensitivity) -> Cell:
    """KL where the layer was tried alone on all samples, else the SQNR of its weight."""
    if "oracle_kl_mnat" in each:
        return f"{each['oracle_kl_mnat']:.3f}"
    return numbers.decibels(each["weight_sqnr_db"] if layer.params else None)


def _shares(known: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Each layer's share of the noise that layers make alone, by the best that was measured."""
    best = next(key for key in _BY_TRUST if all(key in each for each in known.values()))
    total = sum(each[best] for each in known.values()) or 1.0
    return {name: each[best] / total for name, each in known.items()}


_BY_TRUST = ("oracle_expected_mnat", "output_expected_mnat", "combined_error", "noise_share")


_FIRST_TWO = frozenset({0, 1})


def written(out: Path, files: Mapping[str, bytes | str]) -> list[Block]:
    """What stands in a folder now."""
    rows = tuple((f"{out}/{name}", numbers.size(len(each))) for name, each in files.items())
    return [Table(("wrote", "size"), rows)]


def arrays(found: Mapping[str, Any]) -> list[Block]:
    """Shapes of outputs, and what their first sample says."""
    rows = tuple(
        (name, "x".join(map(str, each.shape)), str(each.dtype), _first(each))
        for name, each in found.items()
    )
    return [Table(("output", "shape", "type", "first sample"), rows, left=frozenset({0, 1, 2, 3}))]


def _first(array: Any) -> str:
    values = array[0].reshape(-1)
    shown = " ".join(f"{value:.4g}" for value in values[:5])
    return shown + (" ..." if values.size > 5 else "")  # noqa: PLR2004 - as many are shown


def check(found: Check) -> list[Block]:
    """What can be integer, what stays float, and what was computed wrongly."""
    from mlq.pages import content

    rows: list[tuple[Cell, ...]] = [
        (layer.name, layer.op, numbers.count(layer.macs), " ".join(layer.precisions))
        for layer in found.layers
    ]
    integer = sum(len(layer.precisions) > 1 for layer in found.layers)
    blocks: list[Block] = [
        Table(("layer", "op", "MACs", "can be"), tuple(rows), left=frozenset({0, 1, 3})),
        Paragraph(
            f"{found.model}: opset {found.opset}, {found.nodes} nodes,"
            f" {numbers.things(len(found.layers), 'layer')}, of which {integer} can be integer on"
            f" {found.target}. {content.was_quantized(found.quantized_nodes)}".rstrip()
        ),
    ]
    reasons = {layer.why for layer in found.layers}
    if len(reasons) == 1 and "" not in reasons:
        blocks.append(Paragraph(f"No layer can be integer: {reasons.pop()}.", alarm=True))
    kept = (
        *((each.name, each.op, each.why) for each in found.layers if each.why in reasons - {""}),
        *((each.name, each.op, each.reason) for each in found.float_ops),
    )
    if kept:
        blocks.append(Table(("stays float", "kind", "why"), kept, left=frozenset({0, 1, 2})))
    else:
        blocks.append(Paragraph("Nothing else is computed: no op must stay float."))
    return [*blocks, *_numerics(found)]


def _numerics(found: Check) -> list[Block]:
    if not found.tensors:
        return []
    worst = sorted(found.tensors, key=lambda each: -each.difference)[:_WORST]
    wrong = [each for each in found.tensors if not each.sound]
    rows = tuple(
        (each.name, each.op, f"{each.difference:.1e}", "" if each.sound else "wrong")
        for each in worst
    )
    table = Table(("tensor", "op", "difference", ""), rows, left=frozenset({0, 1, 3}))
    said = (
        f"{len(found.tensors)} float tensors compared with ONNX Runtime, the worst shown;"
        f" {len(wrong)} wrong."
    )
    first = [Code(f"first wrong: {wrong[0].name}")] if wrong else []
    return [table, Paragraph(said, alarm=bool(wrong)), *first]
