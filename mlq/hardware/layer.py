"""What a hardware model sees of a layer: the shape of its multiplication, and how much of what."""

from __future__ import annotations

from typing import TypeAlias

from pydantic import PositiveInt
from typing_extensions import Self

from mlq.values import Part

Pair: TypeAlias = tuple[PositiveInt, PositiveInt]


class Layer(Part):
    """A convolution, or a matrix product as one of 1x1 windows; counts are for one sample.

    `output` is its height and width; `channels` and `filters` are those of one of the `groups`.
    Hashable, so that models remember what they computed.
    """

    output: Pair
    kernel: Pair = (1, 1)
    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    channels: PositiveInt
    filters: PositiveInt
    groups: PositiveInt = 1

    @classmethod
    def conv(
        cls,
        output: Pair,
        weight: tuple[int, int, int, int],
        *,
        strides: Pair = (1, 1),
        dilations: Pair = (1, 1),
        groups: int = 1,
    ) -> Self:
        """A convolution of OIHW `weight` shape that makes `output` (height, width) pixels."""
        filters, channels, height, width = weight
        return cls(
            output=output,
            kernel=(height, width),
            strides=strides,
            dilations=dilations,
            channels=channels,
            filters=filters // groups,
            groups=groups,
        )

    @classmethod
    def gemm(cls, rows: int, depth: int, columns: int) -> Self:
        """A product of [rows, depth] activations and [depth, columns] weights."""
        return cls(output=(rows, 1), channels=depth, filters=columns)

    @property
    def pixels(self) -> int:
        """Output positions: the rows of the product."""
        return self.output[0] * self.output[1]

    @property
    def window(self) -> int:
        """Elements that one output sums over: the depth of the product."""
        return self.kernel[0] * self.kernel[1] * self.channels

    @property
    def extent(self) -> Pair:
        """Height and width of the padded input as far as windows reach into it."""
        height, width = (
            (size - 1) * stride + (kernel - 1) * dilation + 1
            for size, stride, kernel, dilation in zip(
                self.output, self.strides, self.kernel, self.dilations, strict=True
            )
        )
        return height, width

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all groups."""
        return self.pixels * self.window * self.filters * self.groups

    @property
    def weights(self) -> int:
        """Weight elements of all groups."""
        return self.window * self.filters * self.groups

    @property
    def inputs(self) -> int:
        """Input elements of all groups, padding included."""
        return self.extent[0] * self.extent[1] * self.channels * self.groups

    @property
    def outputs(self) -> int:
        """Output elements of all groups."""
        return self.pixels * self.filters * self.groups

    def __str__(self) -> str:
        kernel, output = ("x".join(map(str, pair)) for pair in (self.kernel, self.output))
        groups = f" in {self.groups} groups" if self.groups > 1 else ""
        return f"{kernel} {self.channels}->{self.filters}{groups} to {output}"
