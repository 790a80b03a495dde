"""Where the windows of convolutions and pools lie: auto_pad and ceil_mode resolved to numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch_mlir.ir import Value

from mlq.dialect import build
from mlq.transforms.raising.node import Node, unsupported

IMAGE_RANK, SEQUENCE_RANK = 4, 3


@dataclass(frozen=True)
class Windows:
    """The windows of a node, always 2-D; pads are [top, left, bottom, right].

    `ceil_pads` [bottom, right] is what ceil_mode adds beyond `pads`.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    ceil_pads: tuple[int, ...]

    @property
    def all_pads(self) -> tuple[int, ...]:
        """Pads and ceil_pads together."""
        top, left, bottom, right = self.pads
        return top, left, bottom + self.ceil_pads[0], right + self.ceil_pads[1]

    @property
    def are_pixels(self) -> bool:
        """Whether each is one pixel of the image."""
        return set(self.kernel) == {1} and not any(self.all_pads)


def windows_of(node: Node, kernel: Sequence[int]) -> Windows:
    """The windows of a Conv or a pool of 1 or 2 spatial axes (ONNX Conv, MaxPool, AveragePool)."""
    sizes, rank = spatial(node.shape()), len(kernel)
    if rank != len(node.shape()) - 2:
        unsupported(f"its kernel is {rank}-D, its input {len(node.shape())}-D")
    strides = node.attribute("strides", [1] * rank)
    dilations = node.attribute("dilations", [1] * rank)
    pads = node.attribute("pads", [0] * 2 * rank)
    if min(pads) < 0:
        unsupported("its pads are negative")
    # A sequence [N, C, L] is an image [N, C, 1, L].
    kernel, strides, dilations = (_two(v, 1) for v in (kernel, strides, dilations))
    reaches = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    along = list(zip(_two(pads[:rank], 0), _two(pads[rank:], 0), strict=True))
    mode, ceil = node.attribute("auto_pad", "NOTSET"), [0, 0]
    if mode != "NOTSET":
        along = [auto_pads(mode, *axis) for axis in zip(sizes, reaches, strides, strict=True)]
    if node.attribute("ceil_mode", 0):
        ceil = list(map(ceil_pad, sizes, reaches, strides, along))
    return Windows(
        kernel=tuple(kernel),
        strides=tuple(strides),
        dilations=tuple(dilations),
        pads=(along[0][0], along[1][0], along[0][1], along[1][1]),
        ceil_pads=tuple(ceil),
    )


def auto_pads(mode: str, size: int, reach: int, stride: int) -> tuple[int, int]:
    """Padding before and after along one axis (ONNX auto_pad: VALID, SAME_UPPER, SAME_LOWER).

    `reach` is how far a window extends: dilation * (kernel - 1) + 1.
    """
    if mode == "VALID":
        return 0, 0
    windows = -(-size // stride)
    total = max((windows - 1) * stride + reach - size, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def ceil_pad(size: int, reach: int, stride: int, pads: tuple[int, int]) -> int:
    """What ceil_mode adds after the last element so that the last window fits (ONNX pools).

    A window that would start in the padding behind the last element is left out.
    """
    windows = -(-(size + sum(pads) - reach) // stride) + 1
    if (windows - 1) * stride >= size + pads[0]:
        windows -= 1
    return max((windows - 1) * stride + reach - size - sum(pads), 0)


def spatial(shape: Sequence[int]) -> list[int]:
    """Height and width of [N, C, H, W], or of a sequence [N, C, L] seen as an image of height 1."""
    if len(shape) not in {SEQUENCE_RANK, IMAGE_RANK}:
        unsupported(f"its input is {len(shape)}-D; mlq has convolutions and pools of 1-D and 2-D")
    return _two(list(shape[2:]), 1)


def as_image(value: Value) -> Value:
    """A sequence as an image of height 1; images as they are."""
    shape = build.shape_of(value)
    if len(shape) == IMAGE_RANK:
        return value
    return build.reshape(value, [*shape[:2], 1, *shape[2:]])


def as_input(value: Value, node: Node) -> Value:
    """The image `value` with as many axes as the node's input has."""
    if len(node.shape()) == IMAGE_RANK:
        return value
    batch, channels, _, length = build.shape_of(value)
    return build.reshape(value, [batch, channels, length])


def _two(values: Sequence[int], first: int) -> list[Any]:
    """The values of two spatial axes; those of one get `first` in front."""
    return [first] * (2 - len(values)) + list(values)
