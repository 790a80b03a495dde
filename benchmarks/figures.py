"""Rebuild the tables and figures of docs/quantunev2.md into docs/figures (needs mlq[plots]).

    make figures                                              everything, all networks
    python benchmarks/figures.py [ranking] [dequantization] [levels] [complexity] [fronts]
                                    [-n NETWORK ...]

ranking.md               rank correlation of each metric with layers tried alone (O1), by network
dequantization.md, .svg  one layer at a time becomes float, in the order of each metric
levels.md                casts, loss and latency of all-int8 at each level of the IR
complexity.md, .svg      CPU seconds of effort quick by the number of parameters
fronts.md, .svg          plans of MobileNetV2 from all-int8 to float, by what they are made with

Each is made of what oracle.py, dequantization.py, levels.py, complexity.py and fronts.py keep
in benchmarks/out, and measures what is missing there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import complexity
import dequantization
import fronts
import levels
import networks
import numpy as np
import oracle

from mlq.recipe import METRICS

try:
    import matplotlib as mpl
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit("figures need matplotlib; install it with: pip install 'mlq[plots]'") from None

OUT = networks.ROOT / "docs" / "figures"
# `combined` was designed on these; what it is worth is read on the others.
DESIGN = {
    "resnet20_cifar10",
    "vgg_s_cifar10",
    "mlperf_tiny_ic_resnet8",
    "mlperf_tiny_vww_mobilenetv1",
    "squeezenet1_1",
}
BOLD = {"combined": "tab:red", "output-typical": "tab:blue", "O1": "black", "random": "tab:gray"}
Networks = Sequence[networks.Network]


def ranking(chosen: Networks) -> None:
    """Spearman by metric and network, and what each effort costs beside the oracle."""
    found = [oracle.measured(network) for network in chosen]
    header = ["metric", *(each.name for each in found), "mean", "mean of those not designed on"]
    judged = [index for index, each in enumerate(found) if each.name not in DESIGN]
    text = ""
    for what, by in (("KL", "oracle_kl_mnat"), ("expected KL", "oracle_expected_mnat")):
        text += f"Rank correlation (Spearman) with the {what} of each layer alone, all samples.\n\n"
        rows = [_ranks(name, key, found, judged, by) for name, key in METRICS.items()]
        text += table(header, rows) + "\n"
    known = [(each.name, each.agreement) for each in found if each.agreement]
    text += "Ranks by one half of the samples with those by the other, of KL and of expected KL: "
    text += ", ".join(f"{name} {kl:.2f} and {expected:.2f}" for name, (kl, expected) in known)
    text += ".\n\nCPU seconds of one thread over the calibration samples, compilation left out:\n\n"
    text += table(
        ["network", "layers", "calibrate", "lockstep", "few", "oracle", "oracle / quick"],
        [_costs(each) for each in found if "calibrate" in each.seconds],
    )
    write("ranking.md", text)


def _ranks(
    name: str, key: str, found: list[oracle.Measured], judged: list[int], by: str
) -> list[str]:
    values = [each.correlation(key, by) for each in found]
    held_out = float(np.mean([values[index] for index in judged])) if judged else None
    return [f"`{name}`", *map(_number, values), _number(float(np.mean(values))), _number(held_out)]


def _costs(each: oracle.Measured) -> list[str]:
    parts = each.seconds
    seconds = [f"{parts[part]:.2f}" for part in ("calibrate", "lockstep", "few", "oracle")]
    layers = str(len(each.sensitivities.layers))
    # A journal that was whole already says nothing about time.
    ratio = f"{each.gain:.1f}" if parts["oracle"] else ""
    return [each.name, layers, *seconds, ratio]


def dequantized(chosen: Networks) -> None:
    """A panel for each network, and the areas under the curves."""
    drawn = {network.name: dequantization.curves(network) for network in chosen}
    names = list(next(iter(drawn.values())))
    rows = []
    for name in names:
        areas = [dequantization.area(curves[name]) for curves in drawn.values()]
        rows.append([f"`{name}`", *(f"{each:.3f}" for each in areas), f"{np.mean(areas):.3f}"])
    text = (
        "Area under the curve of KL by the number of float layers, all-int8 and all layers being 1:"
        " less is better. `random` is the mean of three orders.\n\n"
    )
    text += table(["order", *drawn, "mean"], rows)
    write("dequantization.md", text + "\n![curves](dequantization.svg)\n")
    figure, panels = panels_for(drawn)
    for (network, curves), panel in zip(drawn.items(), panels, strict=True):
        for name, curve in curves.items():
            counts, kls = zip(*curve, strict=True)
            if name in BOLD:
                panel.plot(counts, kls, label=name, color=BOLD[name], linewidth=2.2)
            else:
                panel.plot(counts, kls, label=name, linewidth=0.9, linestyle="--")
        panel.set(title=network, xlabel="float layers", ylabel="KL, mnat")
    panels[0].legend(fontsize=6)
    save(figure, "dequantization.svg")


def leveled(chosen: Networks) -> None:
    """A row for each network and level."""
    rows = []
    for network in chosen:
        for level, each in levels.rows(network, 4.0).items():
            kinds = ("layers", "quantize", "dequantize", "requantize")
            counts = [str(int(each[kind])) for kind in kinds]
            rows.append([network.name, level, *counts, f"{each['kl']:.2f}", f"{each['ms']:.3f}"])
    header = [
        "network",
        "level",
        "layers",
        "quantize",
        "dequantize",
        "requantize",
        "KL mnat",
        "CPU ms",
    ]
    said = "All layers that can be in int8, quantized at each level of the IR.\n\n"
    write("levels.md", said + table(header, rows))


def grown(_chosen: Networks) -> None:
    """Points, and the line through them, on axes of logarithms."""
    found = complexity.points()
    rows = [
        [f"{each['params'] / 1e6:.2f}", f"{each['macs'] / 1e6:.0f}", f"{each['seconds']:.2f}"]
        for each in found
    ]
    offset, slope, *_ = complexity.fit(found)
    text = (
        f"CPU seconds of effort quick on {complexity.SAMPLES} samples of synthetic networks:"
        f" {complexity.said(found)}.\n\n"
    )
    text += table(["million parameters", "million MACs", "seconds"], rows)
    write("complexity.md", text + "\n![seconds by parameters](complexity.svg)\n")
    figure, axes = plt.subplots(figsize=(4.5, 3.2))
    params = np.array([each["params"] for each in found]) / 1e6
    axes.plot(params, [each["seconds"] for each in found], "o", label="measured")
    line = np.geomspace(params[0], params[-1], 50)
    axes.plot(line, offset + slope * line, label="linear fit")
    axes.set(xscale="log", yscale="log", xlabel="million parameters", ylabel="CPU seconds")
    axes.legend()
    save(figure, "complexity.svg")


def fronted(chosen: Networks) -> None:
    """A panel for each network of those asked for; MobileNetV2 where all are."""
    drawn = [
        each
        for each in chosen
        if len(chosen) < len(networks.NAMES) or each.name == "mobilenetv2_1.0"
    ]
    figure, panels = panels_for([each.name for each in drawn])
    text = ""
    for network, panel in zip(drawn, panels, strict=True):
        found, rows = fronts.measured(network, 20.0), list[list[str]]()
        for form, points in found.items():
            for point in points:
                counts = ", ".join(f"{count} {name}" for name, count in point.layers.items())
                numbers = f"{point.kl_mnat:.2f}", f"{100 * point.agreement:.2f}", f"{point.ms:.3f}"
                rows.append([form, counts, *numbers])
            times, losses = zip(*((each.ms, each.kl_mnat) for each in points), strict=True)
            panel.plot(times, losses, ".-", label=form)
        panel.set(title=network.name, xlabel="CPU ms", ylabel="KL, mnat")
        panel.legend(fontsize=6)
        text += f"{network.name}, KL to float on the evaluation images, one thread.\n\n"
        text += table(["form", "layers", "KL mnat", "agree %", "CPU ms"], rows) + "\n"
    write("fronts.md", text + "![fronts](fronts.svg)\n")
    save(figure, "fronts.svg")


def panels_for(names: Any) -> tuple[Any, list[Any]]:
    """A figure with two panels a row, one for each name."""
    rows = -(-len(names) // 2)
    figure, grid = plt.subplots(
        rows, 2, figsize=(9, 3 * rows), constrained_layout=True, squeeze=False
    )
    flat = list(np.ravel(grid))
    for extra in flat[len(names) :]:
        extra.remove()
    return figure, flat[: len(names)]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def write(name: str, text: str) -> None:
    """Write a page of docs/figures."""
    (OUT / name).write_text(text)
    print((OUT / name).relative_to(networks.ROOT))


def save(figure: Any, name: str) -> None:
    """Write a picture of docs/figures; the same picture is the same file."""
    figure.savefig(OUT / name, metadata={"Date": None}, bbox_inches="tight")
    print((OUT / name).relative_to(networks.ROOT))


FIGURES: dict[str, Callable[[Networks], None]] = {
    "ranking": ranking,
    "dequantization": dequantized,
    "levels": leveled,
    "complexity": grown,
    "fronts": fronted,
}


def main() -> None:
    """Make the figures that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("figures", nargs="*", help=f"of {', '.join(FIGURES)} (default: all)")
    parser.add_argument("-n", "--networks", nargs="+", default=[], help="default: all")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.figures) - set(FIGURES)):
        raise SystemExit(f"unknown figure {', '.join(unknown)}; known: {', '.join(FIGURES)}")
    mpl.rcParams |= {"svg.hashsalt": "mlq", "svg.fonttype": "none", "font.size": 8}
    Path(OUT).mkdir(parents=True, exist_ok=True)
    chosen = networks.find(arguments.networks)
    for name in arguments.figures or FIGURES:
        FIGURES[name](chosen)


if __name__ == "__main__":
    main()
