"""The report's part on tensors: the values that calibration saw, and the range that each keeps."""

from __future__ import annotations

from mlq.pages.blocks import Block, Fold, Heading, Paragraph, Spread, Spreads
from mlq.ranges import Ranges, TensorRange
from mlq.report import Report

# Shown at once, those of which most is cut off; more would be a page of pictures.
_SHOWN = 8
_LEAST_SHARE = 1e-4


def section(report: Report, ranges: Ranges) -> list[Block]:
    """A histogram of every tensor with its range, those first of which most is cut off."""
    places = {layer.name: index for index, layer in enumerate(report.layers)}
    # What is no layer's result (an input, a concatenation) has no place of its own: it comes last.
    ordered = sorted(ranges.tensors, key=lambda name: (places.get(name, len(places)), name))
    beyond = {name: share_beyond(ranges.tensors[name]) for name in ordered}
    worst = sorted(ordered, key=lambda name: -beyond[name])[:_SHOWN]
    spreads = {name: _spread(name, ranges.tensors[name], beyond[name]) for name in ordered}
    others = tuple(spreads[name] for name in ordered if name not in worst)
    said = (
        f"The values of each tensor that layers read, over {ranges.samples} calibration samples,"
        f" and the range that integers would cover, chosen by `{ranges.calibrator}`. Heights are"
        " logarithmic; what lies beyond the range saturates. Those of which most does come first."
    )
    blocks: list[Block] = [
        Heading("Tensors"),
        Paragraph(said),
        Spreads(tuple(spreads[name] for name in worst)),
    ]
    if others:
        blocks.append(Fold(f"The other {len(others)} tensors", (Spreads(others),)))
    return blocks


def share_beyond(tensor: TensorRange) -> float:
    """The share of a tensor's values that its range does not cover, read off its histogram."""
    if tensor.low <= tensor.minimum and tensor.maximum <= tensor.high:
        return 0.0
    counts, low = tensor.histogram.counts, tensor.histogram.low
    width = (tensor.histogram.high - low) / len(counts)
    kept = 0.0
    for index, count in enumerate(counts):
        # The outer bins end where the values do.
        left = max(low + index * width, tensor.minimum)
        right = min(low + (index + 1) * width, tensor.maximum)
        inside = min(right, tensor.high) - max(left, tensor.low)
        if inside > 0.0:
            kept += count * min(inside / (right - left), 1.0)
    return max(1.0 - kept / (sum(counts) or 1), 0.0)


def _spread(name: str, tensor: TensorRange, beyond: float) -> Spread:
    share = f"{100 * beyond:.2g} %" if beyond >= _LEAST_SHARE else "less than 0.01 %"
    lost = f"; {share} beyond" if beyond > 0.0 else "; nothing beyond"
    histogram = tensor.histogram
    return Spread(
        title=name,
        note=f"keeps {tensor.low:.3g} to {tensor.high:.3g}{lost}",
        low=histogram.low,
        high=histogram.high,
        counts=histogram.counts,
        extremes=(tensor.minimum, tensor.maximum),
        kept=(tensor.low, tensor.high),
    )
