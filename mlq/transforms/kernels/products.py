"""conv2d and matmul on kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import OpView, Value

from mlq import numerics
from mlq.dialect import layers
from mlq.dialect.ops import Conv2dOp, MatmulOp
from mlq.kernels.conv import Conv
from mlq.kernels.depthwise import Depthwise
from mlq.kernels.finishing import SAFE, Finish, Numbers
from mlq.kernels.image import NO_MARGIN, Margin
from mlq.kernels.isa import Isa
from mlq.numerics import QuantParams
from mlq.transforms.kernels.images import BLOCK, WORD, Images, Lower, constant, unfit
from mlq.transforms.linalg.constants import Constant
from mlq.transforms.linalg.epilogue import bounds_of, params_of

_I32_LIMIT = 1 << 31
_BYTE = 255


@dataclass(frozen=True)
class _Layer:
    """A layer of integers whose weight [KH, KW, I, O] is known; `bound` is of its accumulators."""

    op: Any
    isa: Isa
    source: Value
    key: str
    weight: NDArray[np.int8]
    bias: NDArray[np.int64]
    input: QuantParams
    scale: NDArray[np.float32]
    bound: int

    @property
    def result(self) -> Value:
        """What the layer makes."""
        return self.op.operation.results[0]

    @property
    def output(self) -> QuantParams | None:
        """How the result is quantized; None for unrounded floats."""
        return params_of(self.result)

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel has a filter of its own."""
        depth, channels = self.weight.shape[2:]
        return bool(depth == 1 and 1 < channels == self.groups)

    @property
    def groups(self) -> int:
        """Groups of channels that do not see each other."""
        return int(self.op.groups.value) if isinstance(self.op, Conv2dOp) else 1

    @property
    def window(self) -> dict[str, tuple[int, int]]:
        """Size and steps of the window, as kernels have them."""
        height, width = self.weight.shape[:2]
        steps = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0)}
        if isinstance(self.op, Conv2dOp):
            steps = {key: tuple(getattr(self.op, key))[:2] for key in steps}
        return {"window": (height, width), **steps}

    def finish(self) -> Finish:
        """The steps that make results of sums."""
        limits = (-np.inf, np.inf) if self.output is None else (0, _BYTE)
        low, high = self._limits()
        residual = self.op.residual
        stored = None if residual is None else params_of(residual)
        return Finish(
            result="f32" if self.output is None else "u8",
            residual=None if residual is None else "f32" if stored is None else "u8",
            low=low > limits[0],
            high=high < limits[1],
            guarded=self.output is not None and self._greatest() > SAFE,
        )

    def numbers(self) -> Numbers:
        """What the steps need to know, the same for all channels."""
        low, high = self._limits()
        stored = None if self.op.residual is None else params_of(self.op.residual)
        return Numbers(
            zero_point=0 if self.output is None else self.output.zero_point[0],
            low=low,
            high=high,
            residual_zero_point=0 if stored is None else stored.zero_point[0],
            residual_scale=0.0 if self.op.residual is None else self._residual_scale(),
        )

    def coefficients(self, kernel: Conv | Depthwise) -> Value:
        """The numbers, the scales, and biases that make up for the input's zero point."""
        sums = self.weight.astype(np.int64).sum(axis=(0, 1, 2))
        bias = (self.bias - self.input.zero_point[0] * sums).astype(np.int32)  # wraps, as sums do
        scale = np.broadcast_to(self.scale, bias.shape)
        ordered = kernel.ordered(bias), kernel.ordered(scale)
        values = self.numbers().with_channels(kernel.finish, *ordered)
        return constant(f"{self.key}.coefficients", values)

    def packed(self, kernel: Conv | Depthwise) -> Value:
        """The weight as the kernel reads it."""
        return constant(f"{self.key}.packed", kernel.pack(self.weight))

    def _limits(self) -> tuple[float, float]:
        bounds = bounds_of(self.op)
        if self.output is None:
            return bounds
        return numerics.activation_bounds(self.output, bounds)

    def _residual_scale(self) -> float:
        stored = params_of(self.op.residual)
        unit = 1.0 if self.output is None else self.output.scale[0]
        return float(np.float32((1.0 if stored is None else stored.scale[0]) / unit))

    def _greatest(self) -> float:
        """A bound of what is rounded; there is none where a float residual is added."""
        greatest = self.bound * float(np.max(np.abs(self.scale), initial=0.0))
        if self.op.residual is None:
            return greatest
        unbounded = params_of(self.op.residual) is None
        return np.inf if unbounded else greatest + _BYTE * self._residual_scale()


def conv2d(op: Conv2dOp, isa: Isa, images: Images) -> Lower | str:
    """A convolution of whatever window; in groups, if they fill vectors; or depthwise."""
    layer = _layer(op, isa, op.input)
    if isinstance(layer, str):
        return layer
    finish, (depth, channels) = layer.finish(), layer.weight.shape[2:]
    if layer.is_depthwise and not (finish.packs and finish.residual is None):
        return "is depthwise and has a residual or a float result"
    whole = depth % WORD == 0 and (channels // layer.groups) % isa.lanes == 0
    if not layer.is_depthwise and layer.groups > 1 and not whole:
        return f"has groups of {depth} channels"
    images.need(op.input, _margin(op, layer.weight.shape[:2]))
    return partial(_depthwise if layer.is_depthwise else _conv, layer)


def matmul(op: MatmulOp, isa: Isa, images: Images) -> Lower | str:
    """A matrix product: a convolution of a row of pixels."""
    layer = _layer(op, isa, op.lhs)
    if isinstance(layer, str):
        return layer
    images.need(op.lhs, NO_MARGIN)
    return partial(_conv, layer)


def _layer(op: Any, isa: Isa, source: Value) -> _Layer | str:
    """The layer, or why kernels do not compute it."""
    input, weight = params_of(source), layers.weight_of(op)
    stored = None if weight is None else params_of(weight)
    activations = [op.operation.results[0], *([op.residual] if op.residual else [])]
    reason = unfit(source, *(each for each in activations if params_of(each) is not None))
    if reason is not None or input is None or stored is None:
        return reason or "is of floats"
    known, bias = Constant.of(weight), Constant.of(op.bias)
    if known is None or any(stored.zero_point) or (op.bias is not None and bias is None):
        return "has a weight that is not known, or not symmetric"
    values = np.zeros(1, np.int64) if bias is None else bias.array.astype(np.int64)
    bound = numerics.accumulator_bound(known.array, layers.weight_axis(op), input, values)
    if bound >= _I32_LIMIT:
        return "may overflow an accumulator of 32 bits"
    scale = numerics.accumulator_scale(input, stored, params_of(op.operation.results[0]))
    filters = _filters(op, known.array)
    return _Layer(op, isa, source, known.key, filters, values, input, scale, bound)


def _filters(op: OpView, array: NDArray[np.int8]) -> NDArray[np.int8]:
    """A weight in HWIO."""
    if not isinstance(op, MatmulOp):
        return array
    return (array.T if op.transpose_rhs.value else array)[None, None]


def _margin(op: Conv2dOp, window: tuple[int, ...]) -> Margin:
    """How far windows reach beyond the image; less than the padding where strides skip it."""
    top, left, *_ = op.pads
    sizes = zip(op.output.type.shape[1:3], op.input.type.shape[1:3], window, strict=True)
    steps = zip(op.strides, op.dilations, (top, left), strict=True)
    bottom, right = (
        max(0, (out - 1) * stride + (k - 1) * dilation + 1 - before - size)
        for (out, size, k), (stride, dilation, before) in zip(sizes, steps, strict=True)
    )
    return top, left, bottom, right


def _conv(layer: _Layer, images: Images) -> None:
    source, output = images.read(layer.source), images.result(layer.result)
    residual = None
    if layer.op.residual is not None:
        residual = images.read(layer.op.residual, output.channels)
    kernel = Conv(
        isa=layer.isa,
        input=source.image.as_row() if isinstance(layer.op, MatmulOp) else source.image,
        output=output,
        residual=None if residual is None else residual.image,
        channels=layer.weight.shape[3],
        groups=layer.groups,
        finish=layer.finish(),
        **layer.window,
    )
    operands = [source.value, layer.packed(kernel), layer.coefficients(kernel)]
    operands += [] if residual is None else [residual.value]
    images.call(kernel, operands, layer.result, output)


def _depthwise(layer: _Layer, images: Images) -> None:
    source, output = images.read(layer.source, BLOCK), images.result(layer.result)
    kernel = Depthwise(
        isa=layer.isa,
        input=source.image,
        output=output,
        finish=layer.finish(),
        **layer.window,
    )
    operands = [source.value, layer.packed(kernel), layer.coefficients(kernel)]
    images.call(kernel, operands, layer.result, output)
