"""What the report of a run says, in the order in which people ask."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath

from mlq.pages import agreement, numbers, trials
from mlq.pages.blocks import Bar, Block, Cell, Code, Heading, Page, Paragraph, Table
from mlq.report import Constraint, LatencyPart, LayerReport, Report

FORMS = ("float", "int8", "mixed")


def page(report: Report) -> Page:
    """The whole report."""
    blocks: list[Block] = [
        *verdict(report),
        comparison(report),
        Paragraph(_how_compared(report)),
        *trials.section(report.tuning),
        *_precisions(report),
        *_layers(report),
        *_float_ops(report),
        *_choices(report),
        *_checks(report),
        *agreement.section(report),
        *_stages(report),
        *_provenance(report),
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
    slower = "The mixed network is slower than the float one on this machine."
    told = faster < 1.0 and report.stand_in is None
    warned = [Paragraph(slower, alarm=True)] if told else []
    return [*missed, *agreement.stand_in(report), *warned, Paragraph(" ".join(said))]


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


def _precisions(report: Report) -> list[Block]:
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
    return [Heading("Precisions"), Table(("op", "layers", *names, "% of MACs"), tuple(rows))]


def _layers(report: Report) -> list[Block]:
    """Every layer, the one that adds most noise first."""
    shown = sorted(report.layers, key=_noise, reverse=True)
    header = ("layer", "op", "precision", "noise", "SQNR dB", "delta dB", "weights dB", "MACs")
    most = max((_noise(layer) for layer in shown), default=0.0) or 1.0
    rows = tuple((*_layer_row(layer, most), _cost(layer), _reason(layer)) for layer in shown)
    said = (
        "The layer that adds most noise first: its share of what all layers add when all are"
        " integer, the SQNR of its result, what that lost against its operands, and the SQNR of"
        f" its weights. Costs in microseconds are what the plan reckons with: {report.cost_source}."
    )
    return [
        Heading("Layers"),
        Paragraph(said),
        Table((*header, "us f32 > now", "why"), rows, left=frozenset({0, 1, 2, 3, 9})),
    ]


def _layer_row(layer: LayerReport, most: float) -> tuple[Cell, ...]:
    share, metrics = _noise(layer), layer.metrics
    names = ("activation_sqnr_db", "activation_sqnr_delta_db")
    weights = metrics.get("weight_sqnr_db") if layer.params else None
    return (
        layer.name,
        layer.op,
        layer.precision,
        Bar(share / most, f"{100 * share:.1f} %"),
        *(numbers.decibels(metrics.get(name)) for name in names),
        numbers.decibels(weights),
        numbers.count(layer.macs),
    )


def _noise(layer: LayerReport) -> float:
    """The layer's share of the noise that all add when all are integer."""
    return layer.metrics.get("noise_share", 0.0)


def _reason(layer: LayerReport) -> str:
    return layer.reason.removeprefix(f"{layer.precision}: ")


def _cost(layer: LayerReport) -> str:
    before, now = layer.cost_us.get("f32"), layer.cost_us.get(layer.precision)
    return "" if before is None or now is None else f"{before:.1f} > {now:.1f}"


def _float_ops(report: Report) -> list[Block]:
    """Ops that no plan can make integer."""
    if not report.float_ops:
        return [
            Heading("Ops without a precision"),
            Paragraph("None: every op of the network is a layer, or only moves elements."),
        ]
    rows = tuple((each.name, each.op, each.reason) for each in report.float_ops)
    return [
        Heading("Ops without a precision"),
        Paragraph("These stay float whatever the plan says."),
        Table(("op", "kind", "why"), rows, left=frozenset({0, 1, 2})),
    ]


def _choices(report: Report) -> list[Block]:
    """Which calibrator and which plan were taken, and what else was looked at."""
    blocks: list[Block] = [Heading("Calibrator")]
    if report.calibrators_sqnr_db:
        ordered = sorted(report.calibrators_sqnr_db.items(), key=lambda entry: -entry[1])
        rows = tuple(
            (name, f"{sqnr:.2f}", "chosen" if name == report.calibrator else "")
            for name, sqnr in ordered
        )
        said = (
            "What the output of the simulated all-integer network keeps of the float one: the two"
            " best of the first half of the probe samples went on to the rest."
        )
        table = Table(("calibrator", "SQNR dB", ""), rows, left=frozenset({0, 2}))
        blocks += [Paragraph(said), table]
    else:
        blocks.append(Paragraph(f"`{report.calibrator}`, as asked for."))
    return [*blocks, *_plans(report)]


def _plans(report: Report) -> list[Block]:
    header = ("float layers", "predicted KL", "simulated KL", "measured drop", "us", "size", "")
    rows = tuple(
        (
            str(plan.float_layers),
            f"{plan.predicted_kl_mnat:.2f}",
            "" if plan.simulated_kl_mnat is None else f"{plan.simulated_kl_mnat:.2f}",
            "" if plan.drop is None else numbers.lost(plan.drop),
            f"{plan.predicted_us:.1f}",
            numbers.size(plan.predicted_bytes),
            "chosen" if plan.chosen else "",
        )
        for plan in report.plans
    )
    said = (
        "In the order of trying, until one keeps the limits: simulated first, then compiled and"
        " measured. KL in milli-nats; microseconds and size are predicted."
    )
    return [Heading("Plans"), Paragraph(said), Table(header, rows, left=frozenset({6}))]


def _checks(report: Report) -> list[Block]:
    check, casts, passes = report.device_check, report.casts, report.inferences
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
            f"Casts that remain: {casts.quantize} quantize, {casts.dequantize} dequantize,"
            f" {casts.requantize} requantize. Passes over the calibration samples:"
            f" {passes.float:g} float, {passes.quantized:g} quantized; besides,"
            f" {passes.calibrator_probe_samples} samples to choose the calibrator and"
            f" {passes.plan_check_samples} to check plans, simulated."
        ),
    ]


def _stages(report: Report) -> list[Block]:
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


def _provenance(report: Report) -> list[Block]:
    model, hardware = report.model, report.hardware
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return [
        Heading("Made by"),
        Code(report.command),
        Paragraph(
            f"`{model.path}`, SHA-256 `{model.sha256}`, opset {model.opset}, {model.nodes} nodes,"
            f" {numbers.count(model.params)} parameters, {numbers.count(model.macs)} MACs."
        ),
        Paragraph(
            f"{hardware.cpu}, {hardware.cores} cores, {hardware.memory_gb:g} GB; seed"
            f" {report.seed}; level `{report.ir_level}`; {versions}."
        ),
    ]
