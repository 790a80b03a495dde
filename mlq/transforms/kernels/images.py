"""Images as kernels hold them, with margins and padded channels, and as other ops see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import Operation, RankedTensorType, Type, Value

from mlq.dialect import build, linalg, quant
from mlq.dialect.ops import ReshapeOp
from mlq.dialect.shapes import DYNAMIC
from mlq.kernels import code
from mlq.kernels.executable import MARGIN_VALUE, Executables, Kernel
from mlq.kernels.image import NO_MARGIN, Image, Margin
from mlq.kernels.library import Device
from mlq.kernels.storage import REALS, Kind, Storage
from mlq.transforms.base import walk
from mlq.transforms.linalg.constants import Constant
from mlq.transforms.linalg.epilogue import params_of

WORD, HALF, BLOCK = 4, 8, 16
"""Channels of one dot product, and of the narrowest vector that kernels read at once, or half."""

_IMAGE = 4  # axes of an image


@dataclass(frozen=True)
class Held:
    """An image in memory: the tensor of storage, and where its elements are in it."""

    value: Value
    image: Image


class Images:
    """The images of one module as far as they have been made, each with the margin it needs.

    If `sized`, layers of floats are computed by kernels that are told their sizes.
    """

    def __init__(self, module: Operation, isa: Device, *, sized: bool) -> None:
        self.executables, self._isa, self.sized = Executables(module), isa, sized
        # What was reshaped: the ops themselves come to read what other ops see of an image.
        self._reshaped = {op.output: op.input for op in walk(module, ReshapeOp)}
        self._margins: dict[Value, Margin] = {}
        self._held: dict[Value, Held] = {}
        self._made: set[Value] = set()
        self._plain: dict[Value, Value] = {}
        self.unpadded: set[Value] = set()  # images of integers whose pixels are no whole words
        self.narrow: set[Value] = set()  # those whose pixels may be half of a block
        self.caller = ""  # the layer that is being lowered, or that reads what is moved

    @property
    def calls(self) -> Sequence[tuple[str, str]]:
        """Layer and kernel of each call, in order; casts are of no layer."""
        return self.executables.calls

    def need(self, value: Value, margin: Margin) -> None:
        """Reserve a margin around an image, for a kernel that will read it."""
        value = self._behind(value)
        known = self._margins.get(value, NO_MARGIN)
        top, left, bottom, right = (max(pair) for pair in zip(known, margin, strict=True))
        self._margins[value] = (top, left, bottom, right)

    def result(self, value: Value, least: int = BLOCK) -> Image:
        """How a kernel is to store the image `value` that it makes; channels of f32 unpadded."""
        image, margin = image_of(value), self._margins.get(value, NO_MARGIN)
        if value in self.narrow:
            # Two pixels may be written as one.
            top, left, bottom, right = margin
            margin = (top, left + left % 2, bottom, right + right % 2)
        as_is = kind_of(value) == "f32" or value in self.unpadded
        least = min(least, HALF) if value in self.narrow else least
        channels = image.channels if as_is else _padded(image.channels, least)
        return replace(image, channels=channels, margin=margin)

    def read(self, value: Value, least: int = WORD) -> Held:
        """The image as a kernel reads it; what no kernel made is copied if it lacks something.

        Where images of one pixel are read as the rows of a matrix, that is what they are.
        """
        source, shape = self._behind(value), image_of(value)
        held = self._held.get(source) or self._viewed(value, least)
        if held is None or held.image.channels < self.result(source, least).channels:
            held = self._held[source] = self._copied(source, least)
        if held.image.batch == shape.batch:
            return held
        if not held.image.is_dense:
            return self._copied(value, least)
        return Held(held.value, replace(shape, channels=held.image.channels))

    def _viewed(self, value: Value, least: int) -> Held | None:
        """The image of the same elements in another shape, where nothing is between them.

        Of a dynamic batch samples must stay samples.
        """
        source, shape = self._reshaped.get(value), image_of(value)
        if source is None or (is_open(source) and image_of(source).size != shape.size):
            return None
        held = self._held.get(source) or self._viewed(source, least)
        is_dense = held is not None and held.image == image_of(source)
        same = held if is_dense and self.result(value, least) == shape else None
        return None if same is None else Held(same.value, shape)

    def _behind(self, value: Value) -> Value:
        """The image of one pixel that the row of a matrix is, if it is one."""
        source = self._reshaped.get(value)
        if source is None:
            return value
        before, after = build.shape_of(source), build.shape_of(value)
        is_point = len(before) == _IMAGE and before[1:3] == [1, 1]
        return source if is_point and after == [before[0], before[3]] else value

    def call(self, kernel: Kernel, operands: Sequence[Value], result: Value, image: Image) -> None:
        """Make the image `result` by a kernel."""
        element = code.element(self._isa.element(kind_of(result)))
        type_ = RankedTensorType.get([*_batch(result), *image.shape[1:]], element)
        made = self.dispatch(kernel, operands, type_)
        self._held[result] = Held(made, image)
        self._made.add(result)

    def dispatch(
        self, kernel: Kernel, operands: Sequence[Value], result: Type, workers: Value | None = None
    ) -> Value:
        """Call a kernel whose result is no image."""
        return self.executables.dispatch(kernel, operands, result, self.caller, workers=workers)

    def zero_of(self, value: Value) -> Value:
        """What stands for zero in the margin of an image, as kernels read it."""
        return constant("margin", np.full(MARGIN_VALUE.count, self.zero(value), np.int32))

    def is_made(self, value: Value) -> bool:
        """Whether a kernel made this value."""
        return value in self._made

    def plain(self, value: Value) -> Value:
        """A value that a kernel made, as the op that it replaced would have made it."""
        if value not in self._plain:
            held, inner = self._held[value], image_of(value)
            part, batch = held.value, linalg.sizes_of(held.value)[:1]
            if held.image.shape != inner.shape:
                top, left, *_ = held.image.margin
                sizes = [*batch, *inner.shape[1:]]
                part = linalg.slice(part, [0, top, left, 0], sizes, [1] * len(sizes))
            shape = build.shape_of(value)
            part = linalg.reshape(part, [*batch, *shape[1:]] if shape[0] == DYNAMIC else shape)
            if params_of(value) is not None:
                storage = self._isa.storage_of(kind_of(value))
                part = self._each(part, code.element(storage.plain), storage, storage.shown)
                part = quant.scast(part, value.type).result
            self._plain[value] = part
        return self._plain[value]

    def _copied(self, value: Value, least: int) -> Held:
        """An image with its margin and a number of channels that kernels can read."""
        value = self.plain(value) if self.is_made(value) else value
        image, held = image_of(value), self.result(value, least)
        zero, kind = self.zero(value), kind_of(value)
        if kind not in REALS:
            storage, name = self._isa.storage_of(kind), self._isa.element(kind)
            plain = RankedTensorType.get(value.type.shape, code.element(storage.plain))
            value, hidden = quant.scast(value, plain).result, partial(storage.hidden, name=name)
            value = self._each(value, code.element(name), storage, hidden)
        top, left, bottom, right = held.margin
        beyond = held.channels - image.channels
        batch = linalg.sizes_of(value)[:1] if is_open(value) else [image.batch]
        whole = linalg.reshape(value, [*batch, *image.shape[1:]])
        padded = linalg.pad(whole, [0, top, left, 0], [0, bottom, right, beyond], zero)
        return Held(padded, held)

    def zero(self, value: Value) -> int:
        """What stands for zero among the elements of an image."""
        params = params_of(value)
        if params is None:
            return 0
        return self._isa.storage_of(kind_of(value)).stored(params.zero_point[0])

    @staticmethod
    def _each(
        value: Value, element: Type, storage: Storage, body: Callable[[Value], Value]
    ) -> Value:
        """Every element turned into one of a type, where elements are not what the numbers are."""
        if value.type.element_type == element and not storage.offset:
            return value
        sizes = linalg.sizes_of(value)
        return linalg.elementwise([linalg.whole(value)], element, sizes, body)


Lower = Callable[[Images], None]
"""Puts a call of a kernel in the place of an op."""


def image_of(value: Value) -> Image:
    """A tensor as an image without a margin: NHWC, or a matrix whose rows are pixels.

    Of a batch of any size it is the image of one sample.
    """
    *pixels, channels = build.shape_of(value)
    if is_open(value):
        pixels[0] = 1
    batch, height, width = pixels if len(pixels) + 1 == _IMAGE else (1, 1, prod(pixels))
    return Image(batch, height, width, channels)


def is_open(value: Value) -> bool:
    """Whether the size of the batch, the first axis, is known at run time only."""
    return DYNAMIC in build.shape_of(value)[:1]


def _batch(value: Value) -> list[int]:
    """The first size of the tensor that holds an image."""
    return [DYNAMIC] if is_open(value) else [image_of(value).batch]


def kind_of(value: Value) -> Kind:
    """What an image is of."""
    params = params_of(value)
    if params is None:
        return "f16" if quant.is_half(value.type) else "f32"
    return "u8" if params.dtype.itemsize == 1 else "u16"


def unfit(isa: Device, *activations: Value) -> str | None:
    """Why kernels cannot compute an op: what they read and write is u8 or u16."""
    for value in activations:
        params = params_of(value)
        if params is None:
            return "is of floats"
        if params.signed or params.axis is not None or kind_of(value) not in isa.kinds:
            integers = " or ".join(sorted(isa.kinds - REALS, key=len))
            return f"stores activations otherwise than in {integers}"
    return None


def constant(key: str, array: NDArray[Any]) -> Value:
    """Numbers that a kernel reads, in the weight store."""
    return Constant(key, array).value()


def _padded(channels: int, least: int) -> int:
    return max(least, -(-channels // WORD) * WORD)
