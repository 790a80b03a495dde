"""The report of a search for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mlq.bitsearch.judging import Front, Judged
from mlq.bitsearch.measuring import kl_of
from mlq.bitsearch.proxy import Noise
from mlq.network import Layer
from mlq.pages import numbers
from mlq.pages.blocks import Bar, Block, Cell, Code, Heading, Page, Paragraph, Table
from mlq.planning import MNAT_PER_UNIT_DROP
from mlq.precision import Precision
from mlq.search import Space, State

_BITS = ("weight_bits", "activation_bits")


@dataclass(frozen=True)
class Told:
    """What the report is about."""

    model: str
    summary: str
    front: Front
    space: Space
    state: State
    noise: Noise
    layers: Sequence[Layer]
    visits: int
    rounding: str
    artifact: str
    command: str


def page(told: Told, drawn: Collection[str]) -> Page:
    """The whole report; `drawn` are the names of the figures that stand beside it."""
    blocks = [
        *verdict(told),
        Heading("Front"),
        *_figure(drawn, "front.svg", "Visited allocations, and the front"),
        Paragraph(_how_measured(told)),
        front_table(told),
        Heading("Bits"),
        *_figure(drawn, "bits.svg", "Bits of each layer"),
        by_form(told),
        _layers(told),
        Heading("Chains"),
        *_figure(drawn, "chains.svg", "Where the chains were"),
        *_chains(told),
        Heading("Made by"),
        Code(told.command),
    ]
    return Page(f"{told.model} on {told.front.hardware}", tuple(blocks))


def verdict(told: Told) -> list[Block]:
    """What was taken, and whether it keeps what was asked."""
    front = told.front
    taken = front.points[front.chosen]
    widest = told.space.us((0,) * len(told.space.sizes))
    what = "top-1" if front.labelled else "agreement with float"
    said = (
        f"{numbers.ms(taken.us / 1e3)} a sample on `{front.hardware}`,"
        f" {numbers.percent(taken.us / widest)} % of the widest allocation's; weights take"
        f" {numbers.size(taken.bytes)}. {what.capitalize()} {numbers.percent(taken.accuracy)} %,"
        f" {numbers.lost(taken.drop)} lost [{numbers.points(taken.drop_95[0])},"
        f" {numbers.points(taken.drop_95[1])}] on {front.judged_samples} samples."
    )
    blocks: list[Block] = []
    if not front.met:
        missed = f"max-drop was missed: no point of the front loses {numbers.lost(front.max_drop)}"
        blocks.append(Paragraph(f"{missed} or less; this one loses least.", alarm=True))
    return [*blocks, Paragraph(said), Paragraph(told.artifact)]


def front_table(told: Told) -> Table:
    """Every judged point of the front."""
    front = told.front
    widest = told.space.us((0,) * len(told.space.sizes))
    rows = tuple(_point(told, i, each, widest) for i, each in enumerate(front.points))
    accuracy = "top-1 %" if front.labelled else "agree %"
    header = ("ms", "latency %", "size", "bits", "KL", "KL judged", accuracy, "lost [95 %]", "")
    return Table(header, rows, left=frozenset({8}))


def _point(told: Told, index: int, each: Judged, widest: float) -> tuple[Cell, ...]:
    low, high = each.drop_95
    return (
        numbers.milliseconds(each.us / 1e3),
        f"{100 * each.us / widest:.1f}",
        numbers.size(each.bytes),
        mean_bits(each, told.layers),
        f"{each.kl_mnat:.1f}",
        f"{each.judged_kl_mnat:.1f}",
        numbers.percent(each.accuracy),
        f"{numbers.points(each.drop)} [{numbers.points(low)}, {numbers.points(high)}]",
        ", ".join(_marks(told, index, each)),
    )


def _marks(told: Told, index: int, each: Judged) -> list[str]:
    taken = ["taken"] if index == told.front.chosen else []
    return [*taken, *([each.improved] if each.improved else [])]


def mean_bits(point: Judged, layers: Sequence[Layer]) -> str:
    """Bits of weights and of activations on average, each layer counted once; one if they agree."""
    every = [Precision.parse(point.precisions[layer.name]) for layer in layers]
    totals = (sum(getattr(each, bits) for each in every) for bits in _BITS)
    return "/".join(dict.fromkeys(f"{total / len(every):.2f}" for total in totals))


def bits_by_form(point: Judged, layers: Sequence[Layer]) -> Mapping[str, tuple[int, str]]:
    """How many layers of each form there are, and their bits on average."""
    forms: dict[str, list[Layer]] = {}
    for layer in layers:
        forms.setdefault(layer.form or layer.kind, []).append(layer)
    return {form: (len(each), mean_bits(point, each)) for form, each in forms.items()}


def by_form(told: Told) -> Table:
    """Mean bits of depthwise, pointwise and other layers, of the point that was taken."""
    found = bits_by_form(told.front.points[told.front.chosen], told.layers)
    rows = tuple((form, str(count), bits) for form, (count, bits) in found.items())
    return Table(("layers", "number", "mean bits"), rows)


def _layers(told: Told) -> Table:
    """Every layer: its bits, its time, and what it loses alone."""
    chosen = told.front.points[told.front.chosen].precisions
    costs = {name: each for each in told.space.decisions for name in each.layers}
    spent = {layer.name: costs[layer.name].options[chosen[layer.name]].us for layer in told.layers}
    most = max(spent.values())
    widths = sorted({name for each in told.noise.values() for name in each}, key=_bits_of)
    rows: list[tuple[Cell, ...]] = []
    for layer in told.layers:
        losses = told.noise[layer.name]
        rows.append((
            layer.name,
            str(layer.product),
            layer.form or layer.kind,
            chosen[layer.name],
            Bar(spent[layer.name] / most, numbers.ms(spent[layer.name] / 1e3)),
            *(f"{losses[name]:.1f}" if name in losses else "" for name in widths),
        ))  # fmt: skip
    header = ("layer", "multiplies", "form", "taken", "time", *(f"{w} alone" for w in widths))
    return Table(header, tuple(rows), left=frozenset({0, 1, 2, 3, 4}))


def _bits_of(name: str) -> int:
    return Precision.parse(name).weight_bits


def _how_measured(told: Told) -> str:
    front = told.front
    return (
        f"{told.summary}. Latency is the model's; KL (milli-nats) and accuracy are of the simulated"
        f" network. KL is what the noise in the logits of {numbers.things(front.samples, 'sample')}"
        f" lets the search expect; KL judged and accuracy are measured on"
        f" {numbers.things(front.judged_samples, 'sample')}, of which float has"
        f" {numbers.percent(front.float_accuracy)} % right. Weights of fewer than 8 bits"
        f" were rounded {told.rounding}; ranges of such activations are those with which the logits"
        " of some calibration samples lose least. Points that are compensated have weights and"
        " biases of their own, fitted in context after the search. Layers that multiply nothing,"
        " and residuals, keep 8 bits and take no time in the model."
    )


def _chains(told: Told) -> list[Block]:
    state = told.state
    rows = tuple(
        (
            str(index),
            numbers.lost(kl_of(rung.threshold or state.objective.threshold) / MNAT_PER_UNIT_DROP),
            f"{rung.temperature:g}",
            str(chain.proposed),
            numbers.percent(chain.accepted / chain.proposed if chain.proposed else 0.0),
            numbers.ms(chain.place.us / 1e3),
            f"{kl_of(chain.place.accuracy):.1f}",
        )
        for index, (rung, chain) in enumerate(zip(state.settings.rungs, state.chains, strict=True))
    )
    header = ("chain", "may lose", "temperature", "proposed", "accepted %", "ends at", "KL there")
    swapped = f"{state.swaps_accepted} of {state.swaps_proposed} swaps of neighbours"
    said = (
        f"{state.step} steps, {told.visits} allocations measured, of which up to"
        f" {state.shares.refining.given} were chosen not by the chains but because the front"
        f" should gain most there; {swapped}. A chain's proposals are first put to a model of what"
        " was visited; those that it thinks bad are not measured, and acceptance makes up for its"
        " errors."
    )
    return [Table(header, rows), Paragraph(said)]


def _figure(drawn: Collection[str], name: str, said: str) -> list[Block]:
    return [Paragraph(f"![{said}]({name})")] if name in drawn else []


def summary(told: Told, out: str) -> list[Block]:
    """The end of `mlq search`: within 80 columns."""
    return [_short(told), by_form(told), *verdict(told), Paragraph(f"open {out}/report.md")]


def _short(told: Told) -> Table:
    """The front without what only the report has room for."""
    whole = front_table(told)
    kept = (0, 1, 2, 3, 5, 6, 8)
    rows = tuple(tuple(row[i] for i in kept) for row in whole.rows)
    return Table(tuple(whole.header[i] for i in kept), rows, left=frozenset({6}))
