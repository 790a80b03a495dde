"""Rounding weights so that a layer's result changes least, which nearest rounding does not.

A weight of few bits is chosen by least squares on what the layer reads: minimise
E|W x - Q x^ - c|^2 over the integers Q, where x^ is x as its own bits store it and c corrects the
bias. That is the closest
point of a lattice. Each row is first moved to the real minimum for x^, then rounded coordinate by
coordinate with the error carried on (Babai's nearest plane, which is what GPTQ does: Frantar et
al. 2023, Chen et al. 2025), then improved by coordinate descent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import numerics
from mlq.numerics import Integers, QuantParams, Reals

Array = NDArray[Any]

# Scales tried for each row, as shares of the one that stores its greatest weight.
_SHARES = np.linspace(0.3, 1.0, 29)
# What is added to the diagonal of the moments, as a share of its mean, where nothing else is said.
_DAMPING = 0.01
# Coordinates that are rounded before the others hear of it: products of matrices, not of vectors.
_BLOCK = 64
# Descent ends after so many sweeps over a row's weights, or when none of them moves.
_SWEEPS = 4


@dataclass(frozen=True)
class Moments:
    """What a layer reads, in moments: all that rounding its weight has to know.

    `stored` is the covariance of the stored input x^ with itself, `crossed` that of the float input
    with it: [G, K, K] each, for G groups whose outputs sum over K inputs. `means` are those of the
    float and of the stored input, [2, G, K]. A layer without a bias cannot make up for means: its
    moments are taken about zero, and `means` are zero. `damping` is what the diagonal of `stored`
    is raised by, as a share of its mean: samples are few (`mlq.damping`).
    """

    stored: Array = field(repr=False)
    crossed: Array = field(repr=False)
    means: Array = field(repr=False)
    damping: float = _DAMPING

    @classmethod
    def of(
        cls,
        columns: Reals,
        input: QuantParams | None = None,
        *,
        biased: bool = True,
        damping: float = _DAMPING,
    ) -> Moments:
        """Moments of `columns` [G, K, N], N samples of a group's window, stored as `input` says."""
        kept = columns if input is None else numerics.fake_quantize(columns, input)
        means = np.stack([columns.mean(axis=-1), kept.mean(axis=-1)]) * np.float32(biased)
        centred, count = kept - means[1][..., None], columns.shape[-1]
        turned = centred.transpose(0, 2, 1)
        stored = (centred @ turned).astype(np.float64) / count
        crossed = stored
        if input is not None:
            crossed = ((columns - means[0][..., None]) @ turned).astype(np.float64) / count
        return cls(stored, crossed, means.astype(np.float64), damping)

    @property
    def damped(self) -> Array:
        """`stored` with more on its diagonal, so that it can be inverted and trusted."""
        extra = self.damping * np.mean(np.diagonal(self.stored, axis1=1, axis2=2), axis=1)
        # A group that reads nothing but zeros may store whatever it likes.
        extra = np.where(extra > 0.0, extra, 1.0)
        return self.stored + extra[:, None, None] * np.eye(self.stored.shape[-1])


@dataclass(frozen=True)
class Rounded:
    """A weight as it is stored: integers of the weight's shape, and what they stand for.

    `shift` [O] is to be added to the bias: what the means of the layer's outputs lost.
    """

    stored: Integers = field(repr=False)
    params: QuantParams
    shift: Reals = field(repr=False)

    @property
    def simulated(self) -> Reals:
        """The weight in float, as the quantized network computes with it."""
        return numerics.dequantize(self.stored, self.params)


def reconstruct(weight: Reals, moments: Moments, *, bits: int, axis: int = 0) -> Rounded:
    """Round `weight` to `bits`, symmetric with one scale per output channel (along `axis`).

    The other axes, in their order, are the K inputs that an output sums over; channels of the first
    group come first (ONNX Conv).
    """
    rows = np.moveaxis(weight, axis, 0)
    groups, inputs = moments.stored.shape[:2]
    wanted = rows.reshape(groups, -1, inputs).astype(np.float64)
    hessian = moments.damped
    # Where the input is what is stored, the minimum is the weight itself; elsewhere the damping
    # pulls towards it.
    target = wanted
    if moments.crossed is not moments.stored:
        target = wanted @ (moments.crossed + hessian - moments.stored)
        target = np.linalg.solve(hessian, target.transpose(0, 2, 1)).transpose(0, 2, 1)
    flat = numerics.weight_params(
        target.reshape(-1, inputs).astype(np.float32), bits=bits, granularity="per_axis", axis=0
    )
    most = flat.limits[1]
    widest = np.asarray(flat.scale, np.float64).reshape(groups, -1)
    scales = _scales(target, hessian, widest, most)
    integers = _rounded(target, hessian, scales, most)
    params = replace(flat, scale=tuple(scales.reshape(-1).tolist()), axis=axis % weight.ndim)
    shaped = integers.reshape(rows.shape).astype(params.dtype)
    means = np.einsum("gok,gk->go", wanted, moments.means[0])
    means -= scales * np.einsum("gok,gk->go", integers, moments.means[1])
    shift = means.reshape(-1).astype(np.float32)
    return Rounded(np.ascontiguousarray(np.moveaxis(shaped, 0, axis)), params, shift)


def error(weight: Reals, rounded: Reals, moments: Moments, *, axis: int = 0) -> float:
    """E|W x - Q x^ - c|^2 summed over outputs, less what no weight can change."""
    groups, inputs = moments.stored.shape[:2]
    exact, stored = (
        np.moveaxis(each, axis, 0).reshape(groups, -1, inputs).astype(np.float64)
        for each in (weight, rounded)
    )
    square = np.einsum("gok,gkl,gol->", stored, moments.stored, stored, optimize=True)
    cross = np.einsum("gok,gkl,gol->", exact, moments.crossed, stored, optimize=True)
    return float(square - 2.0 * cross)


def _scales(target: Array, hessian: Array, widest: Array, most: int) -> Array:
    """The scale of each row with the least error were inputs uncorrelated: [G, O]."""
    importance = np.diagonal(hessian, axis1=1, axis2=2)[:, None, :]
    best, least = widest, np.full(widest.shape, np.inf)
    for share in _SHARES[::-1]:
        scale = (widest * share).astype(np.float32).astype(np.float64)
        steps = numerics.round_and_saturate(target / scale[..., None], 0, -most, most)
        lost = np.sum(importance * np.square(target - steps * scale[..., None]), axis=-1)
        best, least = np.where(lost < least, scale, best), np.minimum(lost, least)
    return best


def _rounded(target: Array, hessian: Array, scales: Array, most: int) -> Array:
    """Integers [G, O, K] near the least of the quadratic form in `target` minus what they say."""
    # The error of the input that matters most is carried on to all others, so it is rounded first.
    order = np.argsort(np.diagonal(hessian, axis1=1, axis2=2), axis=1)
    sorted_target = np.take_along_axis(target, order[:, None, :], axis=2)
    form = np.take_along_axis(hessian, order[:, :, None], axis=1)
    form = np.take_along_axis(form, order[:, None, :], axis=2)
    step = scales[..., None]
    integers = _nearest_plane(sorted_target / step, form, most)
    integers = _descended(sorted_target / step, form, integers, most)
    unsorted = np.empty_like(integers)
    np.put_along_axis(unsorted, np.broadcast_to(order[:, None, :], integers.shape), integers, 2)
    return unsorted


def _nearest_plane(target: Array, form: Array, most: int) -> Array:
    """Babai's rounding, from the last coordinate to the first: [G, O, K] in units of the scale."""
    upper = np.linalg.cholesky(form).transpose(0, 2, 1)
    shares = upper / np.diagonal(upper, axis1=1, axis2=2)[..., None]
    integers = np.zeros(target.shape, np.int64)
    left = np.zeros_like(target)
    for first, end in reversed(_blocks(target.shape[-1])):
        carried = left[..., end:] @ shares[:, first:end, end:].transpose(0, 2, 1)
        wanted = target[..., first:end] + carried
        for k in reversed(range(first, end)):
            near = left[..., k + 1 : end] @ shares[:, k, k + 1 : end, None]
            place = wanted[..., k - first] + near[..., 0]
            integers[..., k] = numerics.round_and_saturate(place, 0, -most, most)
            left[..., k] = target[..., k] - integers[..., k]
    return integers


def _descended(target: Array, form: Array, integers: Array, most: int) -> Array:
    """Coordinate descent: each integer in turn becomes the best one, the others as they are."""
    # Coordinates first, so that what one of them changes lies together.
    chosen = np.ascontiguousarray(integers.transpose(0, 2, 1))
    pull = form @ (target.transpose(0, 2, 1) - chosen)
    for _ in range(_SWEEPS):
        before = chosen.copy()
        for first, end in _blocks(target.shape[-1]):
            here = slice(first, end)
            _settle(chosen[:, here], pull[:, here], form[:, here, here], most)
            changed = (chosen[:, here] - before[:, here]).astype(np.float64)
            for others in (slice(0, first), slice(end, None)):
                pull[:, others] -= form[:, others, here] @ changed
        if np.array_equal(before, chosen):
            break
    return chosen.transpose(0, 2, 1)


def _settle(chosen: Array, pull: Array, form: Array, most: int) -> None:
    """Move each coordinate of a block [G, B, O] in turn, and what pulls at the block with it."""
    for k in range(chosen.shape[1]):
        wanted = chosen[:, k] + pull[:, k] / form[:, k, k, None]
        better = numerics.round_and_saturate(wanted, 0, -most, most)
        change = (better - chosen[:, k]).astype(np.float64)
        if np.any(change):
            pull -= form[:, :, k, None] * change[:, None, :]
            chosen[:, k] = better


def _blocks(coordinates: int) -> list[tuple[int, int]]:
    """First and end of each block."""
    return [(at, min(at + _BLOCK, coordinates)) for at in range(0, coordinates, _BLOCK)]
