"""Draw what docs/tuning.md shows, from the trials that mlq ships (needs mlq[plots]).

    python benchmarks/tuning_plots.py [--seeds N] [--trials N] [--out FOLDER]

tuning-curves.png      the best KL so far by the number of trials, for each sampler: how far above
                       the least it is, median over seeds
tuning-importance.svg  which columns make the surrogate's trees better
tuning-predicted.png   the surrogate's scores, grown on the other networks only, against measured KL
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import networks
import numpy as np
import optuna
from quantune_replay import chosen, default_files, forecasts_of, taking_part
from scipy.stats import spearmanr

from mlq.tuning.sampler import SAMPLERS
from mlq.tuning.space import SPACES
from mlq.tuning.surrogate import Surrogate
from mlq.tuning.trials import Trials, read

try:
    import matplotlib as mpl
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit("plots need matplotlib; install it with: pip install 'mlq[plots]'") from None

COLUMNS = 12
# What is left of a loss that is found exactly, on a logarithmic axis: milli-nats.
LEAST = 0.01
DPI = 80


def main() -> None:
    """Draw all three."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--out", type=Path, default=networks.ROOT / "docs" / "pictures")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The same picture is the same file; text stays text.
    mpl.rcParams |= {"svg.hashsalt": "mlq", "svg.fonttype": "none", "font.size": 8}
    data = taking_part(read(default_files(own=True), loss="kl"), SPACES["quantune96"])
    arguments.out.mkdir(parents=True, exist_ok=True)
    # Many points and lines are smaller as pixels.
    for name, figure in (
        ("predicted.png", predicted(data)),
        ("importance.svg", importance(data)),
        ("curves.png", curves(data, arguments.seeds, arguments.trials)),
    ):
        path = arguments.out / f"tuning-{name}"
        known = {"metadata": {"Date": None}} if path.suffix == ".svg" else {"dpi": DPI}
        figure.savefig(path, bbox_inches="tight", **known)
        print(path)


def curves(data: Trials, seeds: int, trials: int) -> Any:
    """A panel for each network, a line for each sampler."""
    figure, panels = panel_for_each(data)
    for model, panel in zip(data.models, panels, strict=True):
        known = {each.configuration: each.loss for each in data.of(model)}
        for name in SAMPLERS:
            runs = [
                [known[p] for p in itertools.islice(chosen(data, model, name, seed), trials)]
                for seed in range(seeds)
            ]
            best = np.median(np.minimum.accumulate(np.array(runs), axis=1), axis=0)
            width = 2.5 if name == "quantune" else 1.0
            panel.plot(
                range(1, trials + 1),
                np.maximum(best - min(known.values()), LEAST),
                label=name,
                linewidth=width,
            )
        panel.set(title=model, xlabel="trials", ylabel="KL above the least, mnat", yscale="log")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    return figure


def importance(data: Trials) -> Any:
    """One bar for each of the columns that matter most."""
    first = data.models[0]
    found = Surrogate(data, data.features[first], forecasts_of(data, first)).importance()
    names, shares = zip(*list(found.items())[:COLUMNS], strict=True)
    figure, axes = plt.subplots(figsize=(5, 2.6))
    axes.barh(names[::-1], 100 * np.array(shares[::-1]))
    axes.set(xlabel="share of the gain, %")
    return figure


def predicted(data: Trials) -> Any:
    """A panel for each network, a point for each configuration."""
    figure, panels = panel_for_each(data)
    for model, panel in zip(data.models, panels, strict=True):
        trials = data.of(model)
        known = forecasts_of(data, model)
        surrogate = Surrogate(data.without(model), data.features[model], known)
        scores = surrogate.predict([], [each.configuration for each in trials]).mean
        losses = [each.loss for each in trials]
        order = spearmanr(scores, losses).statistic
        panel.scatter(scores, losses, s=6)
        title = f"{model}\nrank correlation {order:.2f}"
        panel.set(title=title, xlabel="predicted score", ylabel="measured KL, mnat", yscale="log")
    return figure


def panel_for_each(data: Trials) -> tuple[Any, list[Any]]:
    """A figure with two panels a row, and its panels."""
    rows = -(-len(data.models) // 2)
    figure, panels = plt.subplots(rows, 2, figsize=(8, 2.8 * rows), constrained_layout=True)
    flat = list(np.ravel(panels))
    for extra in flat[len(data.models) :]:
        extra.remove()
    return figure, flat[: len(data.models)]


if __name__ == "__main__":
    main()
