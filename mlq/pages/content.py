"""What the report of a run says, in the order in which people ask."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath

from mlq.pages import agreement, borders, evidence, layers, numbers, plans, tensors, trials
from mlq.pages.blocks import Bar, Block, Card, Cards, Cell, Page, Paragraph, Table
from mlq.ranges import Ranges
from mlq.report import Constraint, LatencyPart, LayerReport, Report

FORMS = ("float", "int8", "mixed")


def page(report: Report, ranges: Ranges) -> Page:
    """The whole report; `ranges` are those that the network was quantized with."""
    *alarms, said = verdict(report)
    blocks: list[Block] = [
        *alarms,
        cards(report),
        said,
        comparison(report),
        Paragraph(_how_compared(report)),
        *plans.trade_off(report),
        *trials.section(report.tuning),
        *layers.precisions(report),
        *layers.worst_first(report),
        *layers.stayed_float(report),
        *borders.section(report.casts),
        *tensors.section(report, ranges),
        *plans.calibrator(report),
        *plans.methods(report),
        *evidence.checks(report),
        *agreement.section(report),
        *evidence.stages(report),
        *evidence.provenance(report),
    ]
    return Page(f"{PurePath(report.model.path).name} on {report.target}", tuple(blocks))


def verdict(report: Report) -> list[Paragraph]:
    """What came out, in sentences; a limit that was missed first."""
    missed = [Paragraph(_missed(each), alarm=True) for each in report.constraints if not each.met]
    latency, sizes = report.latency_ms, report.size_bytes
    faster = latency.float.p50 / latency.mixed.p50
    said = [f"{_split(report.layers)}."]
    if report.accuracy is not None:
        change = report.accuracy.mixed - report.accuracy.float
        said.append(
            f"Top-1 {numbers.percent(report.accuracy.mixed)} %, {numbers.points(change)} points"
            f" against float on {report.accuracy.n} samples."
        )
    else:
        said.append(
            f"The mixed network predicts what the float one does for"
            f" {numbers.percent(report.agreement.mixed.top1)} % of"
            f" {report.agreement.n} samples (no labels, so no accuracy)."
        )
    said.append(
        f"{numbers.milliseconds(latency.mixed.p50)} ms a call,"
        f" {numbers.ratio(faster)} as fast as float; {numbers.size(sizes.mixed)},"
        f" float {numbers.size(sizes.float)}."
    )
    said.append(was_quantized(report.model.quantized_nodes))
    text = " ".join(filter(None, said))
    return [*missed, *agreement.stand_in(report), *_warnings(report, faster), Paragraph(text)]


def _warnings(report: Report, faster: float) -> list[Paragraph]:
    """What one had better know at once."""
    found, model = [], report.model
    # Of two networks that are the same one is always slower, by chance.
    differs = any(layer.precision != "f32" for layer in report.layers)
    if differs and faster < 1.0 and report.stand_in is None:
        found.append("The mixed network is slower than the float one on this machine.")
    if model.open_sizes:
        found.append(
            "What depends on sizes that the network leaves open stays float;"
            f" `--sizes {model.open_sizes}`, which the samples have, would fix them."
        )
    return [Paragraph(each, alarm=True) for each in found]


def was_quantized(nodes: int) -> str:
    """What is to be known of a file that had so many nodes on integers; empty if it had none."""
    if not nodes:
        return ""
    had = numbers.things(nodes, "node")
    return f"The file was quantized: float is the network that its {had} on integers stood for."


def cards(report: Report) -> Cards:
    """Accuracy, latency and size, each as one large figure beside what it is compared with."""
    latency, sizes = report.latency_ms, report.size_bytes
    times = {form: getattr(latency, form).p50 for form in FORMS}
    files = {form: float(getattr(sizes, form)) for form in FORMS}
    faster, smaller = times["float"] / times["mixed"], sizes.float / sizes.mixed
    threads = numbers.things(report.hardware.threads, "thread")
    stand_in = report.stand_in
    return Cards((
        _closeness(report),
        Card(
            "Latency of a call" if stand_in is None else f"Latency of a call on {stand_in.target}",
            numbers.ms(times["mixed"]),
            f"{numbers.ratio(faster)} as fast as float, on {threads}",
            _bars({form: (each, numbers.ms(each)) for form, each in times.items()}),
        ),
        Card(
            "Size",
            numbers.size(files["mixed"]),
            f"{numbers.ratio(smaller)} smaller than float",
            _bars({form: (each, numbers.size(each)) for form, each in files.items()}),
        ),
    ))  # fmt: skip


def _closeness(report: Report) -> Card:
    """Accuracy, or where there are no labels, agreement with float."""
    agree, found = report.agreement.mixed, report.accuracy
    if found is None:
        shares = {"int8": report.agreement.int8.top1, "mixed": agree.top1}
        title = "Agreement with float"
        note = f"of {report.agreement.n} samples; KL {agree.kl_mnat:.2f} milli-nats"
    else:
        shares = {form: getattr(found, form) for form in FORMS}
        title = "Top-1 accuracy"
        low, high = found.mixed_minus_float_95
        note = (
            f"{numbers.points(found.mixed - found.float)} points against float"
            f" [{numbers.points(low)}, {numbers.points(high)}]; KL {agree.kl_mnat:.2f} milli-nats"
        )
    bars = {form: (share, f"{numbers.percent(share)} %") for form, share in shares.items()}
    return Card(title, f"{numbers.percent(shares['mixed'])} %", note, _bars(bars, whole=1.0))


def _bars(
    values: dict[str, tuple[float, str]], *, whole: float | None = None
) -> tuple[tuple[str, Bar], ...]:
    """Bars from zero, the longest as long as can be, or as `whole` says."""
    most = whole or max(value for value, _ in values.values()) or 1.0
    tones = {"float": "f32", "int8": "w8a8", "mixed": "mixed"}
    return tuple(
        (form, Bar(value / most, said, tones[form])) for form, (value, said) in values.items()
    )


def comparison(report: Report) -> Table:
    """Float, all-integer and mixed beside each other."""
    header = ["", "KL mnat", "agree %", "SQNR dB", "p50 ms", "p90 ms", "speed", "size"]
    rows: list[list[Cell]] = [_form_row(report, form) for form in FORMS]
    if report.accuracy is not None:
        header[1:1] = ["top-1 %", "points [95 %]"]
        for row, cells in zip(rows, _accuracies(report), strict=True):
            row[1:1] = cells
    return Table(tuple(header), tuple(map(tuple, rows)))


def _accuracies(report: Report) -> list[list[Cell]]:
    found = report.accuracy
    assert found is not None
    cells: list[list[Cell]] = [[numbers.percent(found.float), ""]]
    for value, (low, high) in (
        (found.int8, found.int8_minus_float_95),
        (found.mixed, found.mixed_minus_float_95),
    ):
        interval = f"[{numbers.points(low)}, {numbers.points(high)}]"
        cells.append([numbers.percent(value), f"{numbers.points(value - found.float)} {interval}"])
    return cells


def _form_row(report: Report, form: str) -> list[Cell]:
    time: LatencyPart = getattr(report.latency_ms, form)
    close: list[Cell] = ["", "", ""]
    if form != "float":
        part = getattr(report.agreement, form)
        close = [f"{part.kl_mnat:.2f}", numbers.percent(part.top1), f"{part.sqnr_db:.1f}"]
    return [
        form,
        *close,
        numbers.milliseconds(time.p50),
        numbers.milliseconds(time.p90),
        numbers.ratio(report.latency_ms.float.p50 / time.p50),
        numbers.size(getattr(report.size_bytes, form)),
    ]


def _how_compared(report: Report) -> str:
    threads = numbers.things(report.hardware.threads, "thread")
    return (
        f"On the same {report.agreement.n} samples of `{report.agreement.data}`; agreement, KL and"
        f" SQNR are against float. Latency is of one call on {threads} of {report.hardware.cpu},"
        f" the three called in turn, {report.latency_ms.mixed.runs} times each."
    )


def _missed(constraint: Constraint) -> str:
    shown = {"max-drop": numbers.lost, "max-size": numbers.size}.get(constraint.name, numbers.ms)
    return (
        f"{constraint.name} was missed: {shown(constraint.value)}, the limit was"
        f" {shown(constraint.limit)}. This is the best that was found."
    )


def _split(layers: tuple[LayerReport, ...]) -> str:
    """`10 layers run in w8a8, 1 in f32`."""
    found = Counter(layer.precision for layer in layers).most_common()
    (first, count), *others = found
    verb = "runs" if count == 1 else "run"
    rest = "".join(f", {count} in {name}" for name, count in others)
    return f"{numbers.things(count, 'layer')} {verb} in {first}{rest}"
