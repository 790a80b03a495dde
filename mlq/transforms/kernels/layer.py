"""A layer as kernels compute it: what it multiplies by, and how its sums are finished."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq import numerics
from mlq.dialect import linalg
from mlq.dialect.layers import weight_of
from mlq.dialect.ops import Conv2dOp, MatmulOp
from mlq.kernels.finishing import FITTING, SAFE, Finish, Numbers
from mlq.kernels.library import Device, Weighted
from mlq.kernels.storage import REALS
from mlq.kernels.winograd_conv import Winograd
from mlq.numerics import QuantParams
from mlq.targets.iree import NIBBLES, TAPS
from mlq.transforms.kernels.images import constant, kind_of
from mlq.transforms.linalg.constants import arranged, moved
from mlq.transforms.linalg.epilogue import bounds_of, params_of

_NIBBLE, _LOW = 4, 15


@dataclass(frozen=True)
class Layer:
    """A layer of integers, whose weight and bias are known, or of reals (`input` None).

    `shape` is that of the weight as filters, [KH, KW, I, O]; `filters` are its elements where they
    are known, and then the bias is, too; `bound` is of the accumulators of integers, `bits` are
    those of the weight.
    """

    op: Any
    isa: Device
    source: Value
    key: str
    shape: tuple[int, int, int, int]
    filters: NDArray[Any] | None
    bias: NDArray[Any]
    input: QuantParams | None = None
    scale: NDArray[np.float32] = field(default_factory=lambda: np.ones(1, np.float32))
    bound: int = 0
    bits: int = 8

    @property
    def result(self) -> Value:
        """What the layer makes."""
        return self.op.operation.results[0]

    @property
    def output(self) -> QuantParams | None:
        """How the result is quantized; None for floats."""
        return params_of(self.result)

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel has a filter of its own."""
        depth, channels = self.shape[2:]
        return bool(depth == 1 and 1 < channels == self.groups)

    @property
    def groups(self) -> int:
        """Groups of channels that do not see each other."""
        return int(self.op.groups.value) if isinstance(self.op, Conv2dOp) else 1

    @property
    def window(self) -> dict[str, tuple[int, int]]:
        """Size and steps of the window, as kernels have them."""
        steps = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0)}
        if isinstance(self.op, Conv2dOp):
            steps = {key: tuple(getattr(self.op, key))[:2] for key in steps}
        return {"window": self.shape[:2], **steps}

    def finish(self) -> Finish:
        """The steps that make results of sums."""
        result, (low, high) = kind_of(self.result), self._limits()
        fits = self._fits()
        most = np.inf if result in REALS else self.isa.storage_of(result).most
        limits = (-np.inf if result in REALS else 0, most)
        return Finish(
            result=result,
            sums="f32" if self.input is None else "i32",
            residual=None if self.op.residual is None else kind_of(self.op.residual),
            low=low > limits[0],
            high=high < limits[1],
            guarded=self.output is not None and self._greatest() > SAFE,
            fits=fits,
            even=fits and self.numbers().zero_point % 2 == 0,
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

    def coefficients(self, kernel: Weighted) -> Value:
        """The numbers, the scales, and biases that make up for the input's zero point."""
        bias: NDArray[Any] = self.bias.astype(np.float32)
        if self.input is not None:
            assert self.filters is not None
            sums = self.filters.astype(np.int64).sum(axis=(0, 1, 2))
            # The bias may wrap around, as the sums then do.
            storage = self.isa.storage_of(kind_of(self.source))
            zero = storage.stored(self.input.zero_point[0])
            bias = (self.bias - zero * sums).astype(np.int32)
        numbers, isa, channels = self.numbers(), self.isa, self.shape[3]
        scale = kernel.ordered(np.broadcast_to(self.scale, channels))
        order = kernel.ordered(np.arange(1, channels + 1))

        def made(bias: NDArray[Any]) -> NDArray[Any]:
            ordered = moved(order, np.broadcast_to(bias, channels))
            return numbers.with_channels(kernel.finish, ordered, scale, isa.storage_of)

        if self.filters is None and self.op.bias is not None:
            return arranged(self.op.bias, "coefficients", made, (kernel, numbers))
        return constant(f"{self.key}.coefficients", made(bias))

    def packed(self, kernel: Weighted) -> Value:
        """The weight as the kernel reads it: now, or when it is known."""
        if self.filters is not None:
            packed = kernel.pack(self.filters)
            if self.bits <= _NIBBLE:
                stored = _unpacked(f"{self.key}{NIBBLES}", packed)
            else:
                stored = constant(
                    f"{self.key}{TAPS if isinstance(kernel, Winograd) else '.packed'}", packed
                )
            return _transformed(stored, kernel) if isinstance(kernel, Winograd) else stored
        turned = isinstance(self.op, MatmulOp) and self.op.transpose_rhs.value
        shape = self.shape

        def made(weight: NDArray[Any]) -> NDArray[Any]:
            return kernel.pack((weight.T if turned else weight).reshape(shape))

        return arranged(weight_of(self.op), "packed", made, (kernel, turned), moves=True)

    def _limits(self) -> tuple[float, float]:
        bounds = bounds_of(self.op)
        if self.output is None:
            return bounds
        return numerics.activation_bounds(self.output, bounds)

    def _residual_scale(self) -> float:
        stored = params_of(self.op.residual)
        unit = 1.0 if self.output is None else self.output.scale[0]
        return float(np.float32((1.0 if stored is None else stored.scale[0]) / unit))

    def _fits(self) -> bool:
        """Whether 16 bits do for what is rounded, and the CPU gains by it."""
        gains = self.output is not None and self.isa.storage.cut is not None
        return gains and self._greatest() < FITTING

    def _greatest(self) -> float:
        """A bound of what is rounded; there is none where a float residual is added."""
        greatest = self.bound * float(np.max(np.abs(self.scale), initial=0.0))
        if self.op.residual is None:
            return greatest
        stored = params_of(self.op.residual)
        if stored is None:
            return np.inf
        return greatest + stored.limits[1] * self._residual_scale()


def _unpacked(key: str, packed: NDArray[np.int8]) -> Value:
    """Integers of 4 bits, two to a byte in the module, and a byte each once it is loaded.

    The first half is in the low nibbles, the second in the high ones. IREE runs this at load.
    """
    low, high = np.split(packed, 2)
    i8 = linalg.integer_type(8)
    stored = constant(key, (low & _LOW | high << _NIBBLE).astype(np.int8))
    sizes, whole = linalg.sizes_of(stored), linalg.whole(stored)

    def half(place: int) -> Value:
        def nibble(byte: Value) -> Value:
            four = arith.constant(i8, _NIBBLE)
            return arith.shrsi(byte if place else arith.shli(byte, four), four)

        return linalg.elementwise([whole], i8, sizes, nibble)

    return linalg.joined([half(0), half(1)])


def _transformed(taps: Value, kernel: Winograd) -> Value:
    """For each place of a tile its sum of the nine taps of each weight; IREE runs this at load."""
    places, count = kernel.form.combinations.shape
    factors, i16 = linalg.array(kernel.form.combinations), linalg.integer_type(16)

    def added(factor: Value, tap: Value, total: Value) -> Value:
        return arith.addi(total, arith.muli(factor, arith.extsi(i16, tap)))

    first, made = 0, []
    for blocks, each in kernel.blocks:
        size = blocks * count * each
        rows = linalg.reshape(linalg.slice(taps, [first], [size], [1]), [blocks, count, each])
        part = linalg.generic(
            "block place n | tap",
            [(factors, "place, tap"), (rows, "block, tap, n")],
            (linalg.filled([blocks, places, each], i16, 0), "block, place, n"),
            added,
        )
        made.append(linalg.reshape(part, [blocks * places * each]))
        first += size
    return linalg.joined(made)
