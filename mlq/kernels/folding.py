"""Convolutions to few channels: those of pixels side by side are taken as the channels of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlq.kernels.conv import Conv
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa
from mlq.kernels.storage import REALS


def most(isa: Isa, channels: int) -> int:
    """Pixels of so many channels that fill a register."""
    return max(1, isa.lanes // channels)


def conv(**description: Any) -> Conv:
    """A convolution, folded if that spares products.

    The window then covers those of all pixels, and weights are zero where it exceeds a pixel's own:
    not of reals, as zero times what is not finite is not zero.
    """
    given = Conv(**description)
    count, stride, (height, width) = most(given.isa, given.channels), given.strides[1], given.window
    output = _folded(given.output, count)
    dense = given.channels == given.output.channels and given.residual is None and given.is_joined
    if output is None or not dense or given.kind in REALS:
        return given
    folded = replace(
        given,
        folded=count,
        output=output,
        channels=output.channels,
        window=(height, width + (count - 1) * stride),
        strides=(given.strides[0], count * stride),
    )
    return folded if folded.products < count * given.products else given


def _folded(image: Image, count: int) -> Image | None:
    """An image as one of wider pixels, unless one of them began or ended within another."""
    top, left, bottom, right = image.margin
    if any(size % count for size in (image.width, left, right)):
        return None
    return replace(
        image,
        width=image.width // count,
        channels=image.channels * count,
        margin=(top, left // count, bottom, right // count),
    )
