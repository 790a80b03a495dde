"""conv2d and matmul on kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import BlockArgument, OpView, RankedTensorType, Value

from mlq import numerics
from mlq.dialect import build, layers
from mlq.dialect.ops import Conv2dOp, MatmulOp, TransposeOp, WeightOp
from mlq.dialect.shapes import DYNAMIC
from mlq.kernels import code, library, winograd
from mlq.kernels.image import NO_MARGIN, Image, Margin
from mlq.kernels.isa import Isa
from mlq.kernels.library import Device
from mlq.kernels.storage import REALS
from mlq.kernels.winograd_conv import Winograd
from mlq.precision import BYTE_BITS
from mlq.transforms.kernels.images import BLOCK, HALF, Images, Lower, is_open, kind_of, unfit
from mlq.transforms.kernels.layer import Layer
from mlq.transforms.linalg.constants import Constant
from mlq.transforms.linalg.epilogue import params_of

_I32_LIMIT = 1 << 31


def conv2d(op: Conv2dOp, isa: Device, images: Images) -> Lower | str:
    """A convolution of whatever window; in groups, if they fill vectors; or depthwise."""
    layer = _layer(op, isa, op.input)
    if isinstance(layer, str):
        return layer
    if layer.is_depthwise and op.residual is not None:
        return "is depthwise and has a residual"
    kind, result = kind_of(op.input), kind_of(op.output)
    reason = library.unfit_conv(isa, layer.shape, layer.groups, kind=kind, result=result)
    # Groups must lie side by side in memory, where fewer channels may be padded.
    is_padded = kind not in REALS and build.shape_of(op.input)[-1] < BLOCK
    if is_padded and layer.groups > 1 and not layer.is_depthwise:
        reason = f"has groups of {layer.shape[2]} channels"
    if reason is not None:
        return reason
    top, left, bottom, right = _margin(op, layer.shape[:2])
    more = 0 if layer.is_depthwise else library.beyond(isa, layer.shape, op.strides[1], kind=kind)
    images.need(op.input, (top, left, bottom, right + more))
    if isinstance(isa, Isa) and op.residual is None and _is_narrow(op, images):
        images.narrow.add(op.output)
    if layer.is_depthwise:
        return partial(_depthwise, layer)
    form = _form(layer)
    return partial(_conv, layer) if form is None else partial(_winograd, layer, form)


def matmul(op: MatmulOp, isa: Device, images: Images) -> Lower | str:
    """A matrix product: a convolution of a row of pixels."""
    layer = _layer(op, isa, op.lhs)
    if isinstance(layer, str):
        return layer
    images.need(op.lhs, NO_MARGIN)
    return partial(_conv, layer)


def _layer(op: Any, isa: Device, source: Value) -> Layer | str:
    """The layer, or why kernels do not compute it."""
    weight = layers.weight_of(op)
    if weight is None or not all(map(_is_weight, layers.constants_of(op).values())):
        return "has a weight or a bias that is computed"
    known = Constant.of(weight)
    if op.bias is not None and Constant.of(op.bias) is None and known is not None:
        return "has a bias that is not known, and a weight that is"
    if params_of(source) is None:
        return _reals(op, isa, source, known)
    return "has a weight that is not known" if known is None else _integers(op, isa, source, known)


def _integers(op: Any, isa: Device, source: Value, weight: Constant) -> Layer | str:
    stored, result = params_of(layers.weight_of(op)), op.operation.results[0]
    activations = [result, *([] if op.residual is None else [op.residual])]
    reason = unfit(isa, source, *(each for each in activations if params_of(each) is not None))
    input, bias = params_of(source), Constant.of(op.bias)
    if reason is not None or input is None or stored is None or any(stored.zero_point):
        return reason or "has a weight of floats, or one that is not symmetric"
    isa = isa.wide if isinstance(isa, Isa) and stored.bits > BYTE_BITS else isa
    least = library.least_weight(isa, kind_of(source))
    if weight.array.min(initial=0) < least:
        return f"has a weight below {least}, whose products need more than 16 bits"
    values = np.zeros(1, np.int64) if bias is None else bias.array.astype(np.int64)
    bound = numerics.result_bound(weight.array, layers.weight_axis(op), input, values)
    if bound >= _I32_LIMIT:
        return "may overflow an accumulator of 32 bits"
    scale, filters = numerics.accumulator_scale(input, stored, params_of(result)), _filters(op)
    known = _arranged(op, weight.array)
    return Layer(
        op, isa, source, weight.key, filters, known, values, input, scale, bound, stored.bits
    )


def _reals(op: Any, isa: Device, source: Value, weight: Constant | None) -> Layer | str:
    result = op.operation.results[0]
    activations = [source, result, *([] if op.residual is None else [op.residual])]
    if any(params_of(value) is not None for value in (layers.weight_of(op), *activations)):
        return "is of floats and of integers"
    bias = Constant.of(op.bias)
    values = np.zeros(1, np.float32) if bias is None else bias.array
    known = None if weight is None else _arranged(op, weight.array)
    key = weight.key if weight is not None else build.name_of(op) or "real"
    return Layer(op, isa, source, key, _filters(op), known, values)


def _is_weight(value: Value) -> bool:
    """Whether a value is from the weight store, perhaps with its axes in another order."""
    if isinstance(value, BlockArgument):
        return False
    owner = value.owner.opview
    if isinstance(owner, TransposeOp):
        return _is_weight(owner.input)
    return isinstance(owner, WeightOp)


def _filters(op: OpView) -> tuple[int, int, int, int]:
    """The sizes of a weight in HWIO."""
    weight = layers.weight_of(op)
    assert weight is not None
    sizes = list(weight.type.shape)
    if isinstance(op, MatmulOp):
        sizes = [1, 1, *(reversed(sizes) if op.transpose_rhs.value else sizes)]
    height, width, depth, channels = sizes
    return height, width, depth, channels


def _arranged(op: OpView, array: NDArray[Any]) -> NDArray[Any]:
    """A weight in HWIO."""
    if not isinstance(op, MatmulOp):
        return array
    return (array.T if op.transpose_rhs.value else array)[None, None]


def _margin(op: Conv2dOp, window: tuple[int, int]) -> Margin:
    """How far windows reach beyond the image; less than the padding where strides skip it."""
    top, left, *_ = op.pads
    sizes = zip(op.output.type.shape[1:3], op.input.type.shape[1:3], window, strict=True)
    steps = zip(op.strides, op.dilations, (top, left), strict=True)
    bottom, right = (
        max(0, (out - 1) * stride + (k - 1) * dilation + 1 - before - size)
        for (out, size, k), (stride, dilation, before) in zip(sizes, steps, strict=True)
    )
    return top, left, bottom, right


def _is_narrow(op: Conv2dOp, images: Images) -> bool:
    """Whether pixels of the result may be half of a block, as those must be that it reads."""
    if layers.form_of(op) == "depthwise":
        return op.input in images.narrow
    return build.shape_of(op.output)[-1] == HALF and _read_by_halves(op.output)


def _read_by_halves(value: Value) -> bool:
    """Whether only convolutions read an image; those by channel make another that they read."""

    def is_fit(op: OpView, operand: int) -> bool:
        if not isinstance(op, Conv2dOp) or operand > 0:
            return False
        several = build.shape_of(op.output)[2] > 1
        return layers.form_of(op) != "depthwise" or (several and _read_by_halves(op.output))

    return all(is_fit(use.owner.opview, use.operand_number) for use in value.uses)


def _form(layer: Layer) -> winograd.Form | None:
    """By which of Winograd's forms a convolution of integers takes the least time, if by any."""
    if layer.filters is None or layer.groups > 1 or kind_of(layer.source) != "u8":
        return None
    _, height, width, _ = build.shape_of(layer.result)
    steps = {key: size for key, size in layer.window.items() if key != "pads"}
    forms = library.by_winograd(layer.isa, layer.shape, (height, width), **steps)
    return next((form for form in forms if form.fits(layer.filters)), None)


def _conv(layer: Layer, images: Images) -> None:
    source = images.read(layer.source)
    image = source.image.as_row() if isinstance(layer.op, MatmulOp) else source.image
    make = library.of(layer.isa, sized=images.sized).conv
    kernel, residual = _kernel(make, layer, images, image)
    _called(kernel, layer, images, [source.value, *residual])


def _winograd(layer: Layer, form: winograd.Form, images: Images) -> None:
    source = images.read(layer.source)
    kernel, residual = _kernel(partial(Winograd, form=form), layer, images, source.image)
    tiles = kernel.transform
    buffer = tiles.buffers[-1]
    sizes = [DYNAMIC, buffer.count] if is_open(layer.result) else [buffer.count]
    made = RankedTensorType.get(sizes, code.element(buffer.element))
    value = images.dispatch(tiles, [source.value], made)
    _called(kernel, layer, images, [value, *residual])


def _kernel(
    make: Callable[..., Any], layer: Layer, images: Images, input: Image
) -> tuple[Any, list[Value]]:
    """The kernel of a layer that reads such an image, and the residual that it adds, if any."""
    output, residual = images.result(layer.result), None
    if layer.op.residual is not None:
        residual = images.read(layer.op.residual, output.channels)
    kernel = make(
        isa=layer.isa,
        input=input,
        output=output,
        residual=None if residual is None else residual.image,
        channels=layer.shape[3],
        groups=layer.groups,
        finish=layer.finish(),
        kind=kind_of(layer.source),
        **layer.window,
    )
    return kernel, [] if residual is None else [residual.value]


def _called(kernel: library.Weighted, layer: Layer, images: Images, values: list[Value]) -> None:
    """Make the result by a kernel of what it reads: image, weights, coefficients, residual."""
    source, *residual = values
    operands = [source, layer.packed(kernel), layer.coefficients(kernel), *residual]
    images.call(kernel, operands, layer.result, images.result(layer.result))


def _depthwise(layer: Layer, images: Images) -> None:
    source, output = images.read(layer.source, BLOCK), images.result(layer.result)
    kernel = library.of(layer.isa, sized=images.sized).depthwise(
        isa=layer.isa,
        input=source.image,
        output=output,
        finish=layer.finish(),
        kind=kind_of(layer.source),
        **layer.window,
    )
    _called(kernel, layer, images, [source.value])
