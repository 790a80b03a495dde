"""What a convolution or a matrix product is, whatever computes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from typing_extensions import Self

from mlq.kernels.finishing import Finish
from mlq.kernels.image import Image
from mlq.kernels.storage import Kind

ConvolutionT = TypeVar("ConvolutionT", bound="Convolution")


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution of u8 by i8, or of floats, finished in registers (numerics.conv2d, finish).

    `kind` says what `input` holds.

    The margin of `input` holds its zero point and covers the padding; `pads` are [top, left].
    `channels` are those of the output that are stored.
    """

    input: Image
    output: Image
    residual: Image | None
    channels: int
    window: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int]
    groups: int
    finish: Finish
    kind: Kind = "u8"

    @property
    def label(self) -> str:
        """As `conv3x3s2_64x56x56_128`."""
        image, stride = self.input, "" if self.strides == (1, 1) else f"s{self.strides[0]}"
        size = f"{image.channels}x{image.height}x{image.width}"
        kind = {"u8": "", "u16": "wide_", "f16": "half_", "f32": "real_"}[self.kind]
        return f"{kind}conv{self.window[0]}x{self.window[1]}{stride}_{size}_{self.channels}"

    @property
    def is_joined(self) -> bool:
        """Whether the pixels of a window's row lie side by side."""
        return self.dilations[1] == 1 and self.groups == 1

    def flattened(self) -> Self:
        """The same with all pixels in one row, where nothing tells rows and images apart."""
        images = [self.input, self.output, *([self.residual] if self.residual else [])]
        pointwise = self.window == (1, 1) and self.strides == (1, 1) and self.pads == (0, 0)
        if not pointwise or not all(image.is_dense for image in images):
            return self
        residual = None if self.residual is None else self.residual.as_row()
        return replace(
            self, input=self.input.as_row(), output=self.output.as_row(), residual=residual
        )
