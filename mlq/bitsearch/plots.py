"""The figures of a search as SVG, by matplotlib (the extra `plots`): front, bits, chains."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlq.bitsearch.judging import Front
from mlq.bitsearch.measuring import LEAST_KL, kl_of
from mlq.precision import Precision
from mlq.search import Visit

Figure = Any
# Equal figures are equal bytes.
_SETTINGS: Any = {
    "svg.hashsalt": "mlq",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_COLOURS = {2: "#b2182b", 3: "#ef8a62", 4: "#67a9cf", 8: "#2166ac"}
_GREY, _ACCENT = "#9aa5ad", "#0b6e8f"
# More points than this make a file that nobody opens.
_MOST_DOTS = 1500


def figures(
    found: Front,
    visits: Sequence[Visit],
    trace: Mapping[int, Sequence[tuple[float, float]]],
    layers: Sequence[tuple[str, str]],
) -> dict[str, bytes]:
    """The three figures by file name, none without matplotlib; `layers` are name and form."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Drawn
    except ImportError:
        return {}
    with mpl.rc_context(_SETTINGS):
        made = {
            "front.svg": _front(Drawn(figsize=(6.4, 3.8), layout="constrained"), found, visits),
            "bits.svg": _bits(Drawn(figsize=(7.2, 2.6), layout="constrained"), found, layers),
            "chains.svg": _chains(Drawn(figsize=(6.4, 3.8), layout="constrained"), trace),
        }
        return {name: _svg(figure) for name, figure in made.items()}


def _svg(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def _front(figure: Figure, found: Front, visits: Sequence[Visit]) -> Figure:
    axes = figure.subplots()
    step = -(-len(visits) // _MOST_DOTS)
    shown = visits[::step]
    axes.scatter(
        [each.us / 1e3 for each in shown],
        [max(kl_of(each.accuracy), LEAST_KL) for each in shown],
        s=3,
        color=_GREY,
        alpha=0.5,
        label="visited",
    )
    milliseconds = [each.us / 1e3 for each in found.points]
    axes.plot(
        milliseconds,
        [max(each.kl_mnat, LEAST_KL) for each in found.points],
        "o-",
        markersize=4,
        color=_ACCENT,
        label="front, as the search expects",
    )
    axes.plot(
        milliseconds,
        [max(each.judged_kl_mnat, LEAST_KL) for each in found.points],
        "s--",
        markersize=3,
        color="#b2182b",
        label="the same, measured on other samples",
    )
    taken = found.points[found.chosen]
    axes.axvline(taken.us / 1e3, color=_ACCENT, linewidth=0.7)
    axes.set_yscale("log")
    axes.set_xlabel(f"milliseconds on {found.hardware}")
    axes.set_ylabel("KL to float, milli-nats")
    axes.legend(frameon=False)
    return figure


def _bits(figure: Figure, found: Front, layers: Sequence[tuple[str, str]]) -> Figure:
    axes = figure.subplots()
    chosen = found.points[found.chosen].precisions
    precisions = [Precision.parse(chosen[name]) for name, _ in layers]
    bits = [each.weight_bits for each in precisions]
    colours = [_COLOURS.get(each, _GREY) for each in bits]
    bars = axes.bar(range(len(bits)), bits, color=colours, width=0.8)
    for bar, (_, form) in zip(bars, layers, strict=True):
        if form == "depthwise":
            bar.set_hatch("////")
            bar.set_edgecolor("white")
    others = [each.activation_bits for each in precisions]
    if others != bits:
        axes.plot(range(len(others)), others, "k_", label="activations")
        axes.legend(frameon=False)
    axes.set_yticks(sorted({*found.bits, *others, 8}))
    axes.set_xlabel("layer, in the order of the network (hatched: depthwise)")
    axes.set_ylabel("bits")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.01)
    return figure


def _chains(figure: Figure, trace: Mapping[int, Sequence[tuple[float, float]]]) -> Figure:
    above, below = figure.subplots(2, sharex=True)
    steps = np.array(sorted(trace))
    chosen = steps[:: max(1, -(-len(steps) // _MOST_DOTS))]
    for chain in range(len(trace[int(steps[0])]) if len(steps) else 0):
        places = [trace[int(step)][chain] for step in chosen]
        above.plot(chosen, [us / 1e3 for us, _ in places], linewidth=0.8, label=f"chain {chain}")
        below.plot(chosen, [max(kl_of(share), LEAST_KL) for _, share in places], linewidth=0.8)
    above.set_ylabel("milliseconds")
    below.set_ylabel("KL, milli-nats")
    below.set_yscale("log")
    below.set_xlabel("step")
    above.legend(frameon=False, ncols=4, fontsize=7)
    return figure
