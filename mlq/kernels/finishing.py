"""What becomes of accumulators: scaled, a residual added, rounded, saturated, stored (numerics)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code, coefficients, lanes
from mlq.kernels.code import Index
from mlq.kernels.pixels import Part, Pixels
from mlq.kernels.storage import REALS, Kind, Packing, Storage

StorageOf: TypeAlias = Callable[[Kind], Storage]
"""How a device holds integers of a kind."""

# cvtps2dq gives the least i32 for what it cannot hold; well below nothing needs a guard.
SAFE = float(1 << 30)
FITTING = float((1 << 15) - 1 - (1 << 7))
"""The greatest result for which 16 bits do, before and after the zero point is added."""
_WHOLE = float(3 << 22)  # sums with it are whole, ties even, and their last bits are the number


@dataclass(frozen=True)
class Finish:
    """Which steps a layer needs; the numbers for them are coefficients, at run time.

    `sums` are integers, which a scale makes real, or reals already. `low` and `high` say whether
    the activation's bounds lie within the storage, or within the reals; `guarded` that a result may
    be so large that it must be clamped before it is rounded, `fits` that it is within FITTING;
    `even` that it is, and the zero point even, so that ties are the same with it; `apart` that its
    vectors come in an order in which they cannot be packed.
    """

    result: Kind
    sums: Literal["i32", "f32"] = "i32"
    residual: Kind | None = None
    low: bool = False
    high: bool = False
    guarded: bool = False
    fits: bool = False
    even: bool = False
    apart: bool = False

    @property
    def packs(self) -> bool:
        """Whether vectors are packed four at a time, which wants channels in another order."""
        alike = self.residual is None or self.residual == self.result
        return self.result != "f32" and alike and not self.apart


@dataclass(frozen=True)
class Numbers:
    """The numbers of a layer that are the same for all channels."""

    zero_point: int = 0
    low: float = 0.0
    high: float = 255.0
    residual_zero_point: int = 0
    residual_scale: float = 0.0

    def with_channels(
        self,
        finish: Finish,
        bias: NDArray[np.int32] | NDArray[np.float32],
        scale: NDArray[np.float32],
        storage_of: StorageOf,
    ) -> NDArray[np.int32]:
        """The coefficients: this as it is stored, the bits of the biases and of the scales."""
        header = np.zeros(coefficients.HEADER, np.int32)
        real = header.view(np.float32)
        real[[coefficients.REAL_LOW, coefficients.REAL_HIGH]] = (
            self.low - self.zero_point,
            self.high - self.zero_point,
        )
        if finish.result not in REALS:
            header[[coefficients.ZERO_POINT, coefficients.LOW, coefficients.HIGH]] = [
                storage_of(finish.result).stored(int(number))
                for number in (self.zero_point, self.low, self.high)
            ]
        if finish.even:
            real[coefficients.SHIFT] = -_WHOLE - header[coefficients.ZERO_POINT]
        residual = storage_of(finish.residual or finish.result)
        header[coefficients.RESIDUAL_ZERO_POINT] = residual.stored(self.residual_zero_point)
        real[coefficients.RESIDUAL_SCALE] = self.residual_scale
        return np.concatenate([header, bias.view(np.int32), scale.view(np.int32)])


def coefficient_count(channels: int) -> int:
    """Elements of the coefficients of so many channels."""
    return coefficients.HEADER + 2 * channels


class Finisher:
    """The code after an accumulation, for one kernel; `memory` holds the coefficients."""

    def __init__(
        self,
        finish: Finish,
        storage_of: Callable[[Kind], Packing],
        memory: Value,
        channels: int,
    ) -> None:
        self._finish, self._storage = finish, storage_of(finish.result)
        self._residual = storage_of(finish.residual or finish.result)
        self._memory, self._channels = memory, channels

    def biases(self, channel: Index, width: int) -> Value:
        """The biases of some channels, with which their accumulators begin."""
        biases = code.load(self._memory, code.plus(channel, coefficients.HEADER), width)
        return code.view(biases, self._finish.sums)

    def scales(self, channel: Index, width: int) -> Value:
        """The scales of some channels."""
        at = code.plus(channel, self._channels + coefficients.HEADER)
        return code.view(code.load(self._memory, at, width), "f32")

    def zero_point(self, name: str = "i32") -> Value:
        """What stands for zero in the result, where it is stored as the type `name`."""
        return code.bits(self._number(coefficients.ZERO_POINT), name)

    def store(
        self,
        sums: Sequence[Sequence[Value]],
        scales: Sequence[Value],
        target: Pixels,
        *,
        residual: Pixels | None = None,
        width: int | None = None,
    ) -> None:
        """Finish the sums of pixels, a vector for each of `scales`, and store them.

        Of the channels, the first `width` are in memory.
        """
        size, packs = code.lanes_of(scales[0]), self._finish.packs
        width = size * len(scales) if width is None else width
        group = lanes.group_of(code.element_of(target.memory)) if packs else 1
        runs = lanes.runs(len(scales), group)
        for first, count in runs:
            part = Part(
                sums=[pixel[first : first + count] for pixel in sums],
                scales=scales[first : first + count],
                first=first * size,
                count=min(count * size, width - first * size),
            )
            (self._store_packed if packs else self._store_alone)(part, target, residual)

    def _store_alone(self, part: Part, target: Pixels, residual: Pixels | None) -> None:
        for i, (total,) in enumerate(part.sums):
            term = None if residual is None else part.loaded(residual, i)
            if term is not None and self._finish.residual != "f32":
                term = self._residual.extended(term)
            value = self._real(total, part.scales[0], term)
            part.store(self.stored(value, code.element_of(target.memory)), target, i)

    def _store_packed(self, part: Part, target: Pixels, residual: Pixels | None) -> None:
        """A group of vectors at a time; of the last pixel again where there are fewer."""
        count, last = len(part.scales), len(part.sums) - 1
        group = lanes.group_of(code.element_of(target.memory))
        at_once, zero = group // count, self._zero_added()
        for start in range(0, last + 1, at_once):
            pixels = [min(start + i, last) for i in range(at_once)]
            terms: Sequence[Value | None] = [None] * group
            if residual is not None:
                rest = part.side_by_side(residual, pixels)
                terms = lanes.unpacked(self._storage, lanes.joined(rest, count))
            vectors = [vector for pixel in pixels for vector in part.sums[pixel]]
            each = zip(vectors, list(part.scales) * at_once, terms, strict=True)
            stored = self._packed([self._real(*one) for one in each], zero)
            if part.follow(target, pixels):
                part.store(lanes.by_pixel(stored, count), target, start)
                continue
            parted = dict(zip(pixels, lanes.parted(stored, count), strict=True))
            for pixel, value in parted.items():
                part.store(value, target, pixel)

    def _real(self, total: Value, scale: Value, residual: Value | None) -> Value:
        """`f32(acc) * scale [+ residual]`, no product of which is fused with the sum."""
        real = code.vector_type(code.lanes_of(total), "f32")
        product = total
        if self._finish.sums == "i32":
            product = arith.mulf(arith.sitofp(real, total), scale)
        if residual is None:
            return product
        if residual.type != real:
            centre = self._splat(coefficients.RESIDUAL_ZERO_POINT, total)
            residual = arith.sitofp(real, arith.subi(residual, centre))
        term = arith.mulf(residual, self._real_splat(coefficients.RESIDUAL_SCALE, total))
        return arith.addf(code.fenced(product), code.fenced(term))

    def stored(self, value: Value, name: str) -> Value:
        """Reals as elements of a type, not packed with others."""
        if self._finish.result == "f32":
            return self._clamped(value, low=self._finish.low, high=self._finish.high)
        steps, zero_point, fits = self._steps(value), self.zero_point(), self._finish.guarded
        return self._bounded(lanes.narrowed(self._storage, steps, zero_point, name, fits=fits))

    def packed(self, values: Sequence[Value]) -> Value:
        """A group of vectors of reals as one of elements."""
        return self._packed(values, self._zero_added())

    def _zero_added(self) -> Value:
        """The zero point in the type in which packing adds it, or what rounds with it."""
        if self._shifted is not None:
            return code.bits(self._number(coefficients.SHIFT), "f32")
        return self.zero_point(lanes.summed(self._storage))

    @property
    def _shifted(self) -> Callable[[Value, Value], Value] | None:
        """What adds the zero point and rounds, if it may, and the CPU gains by it."""
        return self._storage.shifted if self._finish.even else None

    def _packed(self, values: Sequence[Value], zero: Value) -> Value:
        if self._finish.guarded and not self._storage.saturates:
            values = [self._clamped(value, low=True, high=True) for value in values]
        fits, shifted = self._finish.fits, self._shifted
        if shifted is None:
            steps = [self._storage.nearest(value) for value in values]
            return self._bounded(lanes.packed(self._storage, steps, zero, fits=fits))
        shift = code.splat(zero, code.lanes_of(values[0]))
        steps = [code.view(shifted(value, shift), "i32") for value in values]
        return self._bounded(lanes.packed(self._storage, steps, None, fits=fits))

    def _steps(self, value: Value) -> Value:
        """The nearest integers, ties to even."""
        if self._finish.guarded:
            value = self._clamped(value, low=True, high=True)
        return self._storage.nearest(value)

    def _clamped(self, value: Value, *, low: bool, high: bool) -> Value:
        if low:
            bound = self._real_splat(coefficients.REAL_LOW, value)
            value = code.greater(value, bound)
        if high:
            bound = self._real_splat(coefficients.REAL_HIGH, value)
            value = code.lesser(value, bound)
        return value

    def _bounded(self, stored: Value) -> Value:
        """Elements within the activation's bounds; bytes in words still need their own, too."""
        words = code.element_of(stored) != self._storage.plain
        signed = words or self._storage.signed
        least, most = (arith.maxsi, arith.minsi) if signed else (arith.maxui, arith.minui)
        if self._finish.low or words:
            stored = least(stored, self._element_splat(coefficients.LOW, stored))
        if self._finish.high or words:
            stored = most(stored, self._element_splat(coefficients.HIGH, stored))
        return stored

    def _number(self, place: int) -> Value:
        return code.scalar(self._memory, place)

    def _splat(self, place: int, like: Value) -> Value:
        return code.splat(self._number(place), code.lanes_of(like))

    def _real_splat(self, place: int, like: Value) -> Value:
        return code.view(self._splat(place, like), "f32")

    def _element_splat(self, place: int, like: Value) -> Value:
        number = code.bits(self._number(place), code.element_of(like))
        return code.splat(number, code.lanes_of(like))
