"""The report's part on what was chosen among: plans, calibrators, accuracy methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mlq.pages import numbers
from mlq.pages.blocks import (
    Block,
    Cell,
    Dot,
    Fold,
    Heading,
    Limit,
    Paragraph,
    Plot,
    Plots,
    Series,
    Table,
)
from mlq.report import PlanPoint, Report

_KILO, _MEGA = 1e3, 1e6
_Y = "KL to float, milli-nats"


def trade_off(report: Report) -> list[Block]:
    """All plans that were considered, in a plot and a table, and the three that were measured."""
    tried = [plan for plan in report.plans if _is_tried(plan)]
    others = sorted(
        (plan for plan in report.plans if not _is_tried(plan)), key=lambda each: each.predicted_us
    )
    how = (
        "That of the best trial was compiled and measured."
        if report.tuning is not None
        else "Those below were simulated, and then in this order compiled and measured until one"
        " kept the limits."
    )
    said = (
        f"{numbers.things(len(report.plans), 'plan')} considered. {how} KL in milli-nats;"
        " microseconds and sizes are predicted."
    )
    blocks: list[Block] = [
        Heading("Trade-off"),
        Plots((_predicted(report), _measured(report))),
        Paragraph(said),
        _table(tried),
    ]
    if others:
        blocks.append(Fold(f"The other {numbers.things(len(others), 'plan')}", (_table(others),)))
    return blocks


def _is_tried(plan: PlanPoint) -> bool:
    return plan.chosen or plan.drop is not None or plan.simulated_kl_mnat is not None


def _predicted(report: Report) -> Plot:
    """What every plan is predicted to lose and to cost."""
    cost = _cost(report)
    named = [plan for plan in report.plans if plan.chosen or plan.form]
    plain = [plan for plan in report.plans if plan not in named]
    crosses = (
        Dot(cost(plan), plan.simulated_kl_mnat, f"simulated: {_said(plan)}")
        for plan in report.plans
        if plan.simulated_kl_mnat is not None
    )

    def dot(plan: PlanPoint, name: str = "") -> Dot:
        return Dot(cost(plan), plan.predicted_kl_mnat, _said(plan), name)

    series = (
        Series("no plan beats these", "line", tuple(map(dot, _front(report.plans, cost)))),
        Series("considered", "dots", tuple(map(dot, plain))),
        Series("", "marks", tuple(dot(plan, _names(plan)) for plan in named)),
        Series("simulated", "crosses", tuple(crosses)),
    )
    shown = tuple(each for each in series if each.dots)
    x = "predicted ms a call" if report.minimised == "us" else "predicted MB"
    return Plot("Predicted: every plan considered", x, _Y, shown, tuple(_limits(report)))


def _cost(report: Report) -> Callable[[PlanPoint], float]:
    """What plans of this report save: milliseconds, or megabytes."""
    if report.minimised == "us":
        return lambda plan: plan.predicted_us / _KILO
    return lambda plan: plan.predicted_bytes / _MEGA


def _limits(report: Report) -> Iterator[Limit]:
    """The limits that can be drawn into the plot of predictions."""
    if report.noise_budget_mnat is not None:
        yield Limit("KL allowed", y=report.noise_budget_mnat)
    axes = {"us": ("max-latency", 1.0), "bytes": ("max-size", _MEGA)}
    name, unit = axes[report.minimised]
    for each in report.constraints:
        if each.name == name:
            yield Limit(name, x=each.limit / unit)


def _front(plans: tuple[PlanPoint, ...], cost: Callable[[PlanPoint], float]) -> list[PlanPoint]:
    """The plans that no other beats in both predicted noise and predicted cost, cheapest first."""
    front: list[PlanPoint] = []
    for plan in sorted(plans, key=lambda each: (cost(each), each.predicted_kl_mnat)):
        if not front or plan.predicted_kl_mnat < front[-1].predicted_kl_mnat:
            front.append(plan)
    return front


def _names(plan: PlanPoint) -> str:
    return ", ".join(["chosen"] * plan.chosen + [plan.form] * bool(plan.form))


def _said(plan: PlanPoint) -> str:
    return (
        f"{numbers.things(plan.float_layers, 'float layer')}, {plan.predicted_kl_mnat:.2g} mn,"
        f" {numbers.ms(plan.predicted_us / _KILO)}, {numbers.size(plan.predicted_bytes)}"
    )


def _measured(report: Report) -> Plot:
    """The three networks that were compiled: KL on the evaluation samples, time with a whisker."""
    losses = {
        "float": 0.0,
        "int8": report.agreement.int8.kl_mnat,
        "mixed": report.agreement.mixed.kl_mnat,
    }
    dots = []
    for form, kl in losses.items():
        time = getattr(report.latency_ms, form)
        said = f"{form}: {kl:.2g} mn, p50 {numbers.ms(time.p50)}, p90 {numbers.ms(time.p90)}"
        name = "chosen" if form == "mixed" else form
        dots.append(Dot(time.p50, kl, said, name, reach=time.p90))
    series = Series("median of a call; the whisker ends at p90", "marks", tuple(dots))
    return Plot("Measured: the three compiled", "ms a call", _Y, (series,))


def _table(plans: list[PlanPoint]) -> Table:
    header = ("float layers", "predicted KL", "simulated KL", "measured drop", "us", "size", "")
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            str(plan.float_layers),
            _kl(plan.predicted_kl_mnat),
            "" if plan.simulated_kl_mnat is None else _kl(plan.simulated_kl_mnat),
            "" if plan.drop is None else numbers.lost(plan.drop),
            f"{plan.predicted_us:.1f}",
            numbers.size(plan.predicted_bytes),
            _names(plan),
        )
        for plan in plans
    )
    return Table(header, rows, left=frozenset({6}))


def _kl(value: float) -> str:
    """Three digits that count: plans differ by far less than a milli-nat, and by far more."""
    return f"{value:.3g}"


def calibrator(report: Report) -> list[Block]:
    """Which calibrator was taken, and what the others came to."""
    if not report.calibrators_kl_mnat:
        return [Heading("Calibrator"), Paragraph(f"`{report.calibrator}`, as asked for.")]
    said = (
        "KL to float of the simulated all-integer network, in milli-nats. All were tried on a half"
        " of some samples, the best two on the rest too: that of the others is of that half, which"
        " may be easier or harder than the whole."
    )
    table = _ranked("calibrator", report.calibrators_kl_mnat, report.calibrator)
    return [Heading("Calibrator"), Paragraph(said), table]


def methods(report: Report) -> list[Block]:
    """Which accuracy methods were taken, if any were on, and what each set came to."""
    if not report.methods_kl_mnat:
        asked = Heading("Accuracy methods"), Paragraph(f"`{report.methods}`.")
        return [] if report.methods == "none" else [*asked]
    said = (
        "KL to be expected of the simulated all-integer network against the one that was given, in"
        " milli-nats, on samples that no set was fitted to. One is taken only if it loses less than"
        " none by more than chance would make it: Student's paired test over these samples, at 5 %"
        " over all sets."
    )
    table = _ranked("methods", report.methods_kl_mnat, report.methods)
    return [Heading("Accuracy methods"), Paragraph(said), table]


def _ranked(title: str, found: Mapping[str, float], chosen: str) -> Table:
    """What was tried, the least KL first."""
    ordered = sorted(found.items(), key=lambda entry: entry[1])
    rows = tuple((name, _kl(kl), "chosen" if name == chosen else "") for name, kl in ordered)
    return Table((title, "KL mn", ""), rows, left=frozenset({0, 2}))
