"""Layers between their stored operands and their stored result.

Nothing is stored between a product, its residual and its activation: ONNX has no fused residual,
and one more rounding would be a larger difference than any order of float operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch_mlir.ir import Value

from mlq.dialect import build, nodes, quant, shapes
from mlq.dialect.build import Activation
from mlq.errors import DiagnosticError
from mlq.numerics import nonlinear
from mlq.numerics.nonlinear import Step
from mlq.transforms.qdq.tensors import Tensors, clipped, name_of, shape_of

_MATRIX = 2  # the rank that Gemm takes
# The node that a step is, and its attributes; a step without any adds or multiplies by its number.
_NODES: dict[str, tuple[str, tuple[str, ...]]] = {
    "add": ("Add", ()),
    "elu": ("Elu", ("alpha",)),
    "erf": ("Erf", ()),
    "hard_sigmoid": ("HardSigmoid", ("alpha", "beta")),
    "hard_swish": ("HardSwish", ()),
    "leaky_relu": ("LeakyRelu", ("alpha",)),
    "multiply": ("Mul", ()),
    "sigmoid": ("Sigmoid", ()),
    "softplus": ("Softplus", ()),
    "tanh": ("Tanh", ()),
    "times_input": ("Mul", ()),
}


def conv2d(op: Any, at: Tensors) -> Value:
    """Conv, then Add of the residual."""
    expect_nchw(op)
    name = name_of(op.output)
    operands = [at.real(op.input), at.real(op.weight)]
    if op.bias is not None:
        operands.append(at.real(op.bias))
    attributes = build.attributes_of(op, "strides", "pads", "dilations")
    attributes["group"] = int(op.groups.value)
    product = nodes.node("Conv", operands, real_type(op), name, **attributes)
    return _finished(op, at, product)


def matmul(op: Any, at: Tensors) -> Value:
    """Gemm of matrices, otherwise MatMul and Add of the bias; then Add of the residual."""
    name, type_ = name_of(op.output), real_type(op)
    bias = [] if op.bias is None else [at.real(op.bias)]
    if len(build.shape_of(op.lhs)) == _MATRIX:
        operands = [at.real(op.lhs), at.real(op.rhs), *bias]
        transposed = int(bool(op.transpose_rhs.value))
        product = nodes.node("Gemm", operands, type_, name, transB=transposed)
    else:
        operands = [at.real(op.lhs), _columns(op, at)]
        product = nodes.node("MatMul", operands, type_, name)
        if bias:
            product = nodes.node("Add", [product, *bias], type_, f"{name}:bias")
    return _finished(op, at, product)


def batch_matmul(op: Any, at: Tensors) -> Value:
    """MatMul, and Mul if it is scaled."""
    operands, factor = [at.real(op.lhs), _columns(op, at)], np.float32(op.alpha.value)
    name, type_ = name_of(op.output), real_type(op)
    if factor == 1.0:
        return _stored(op, at, nodes.node("MatMul", operands, type_, name))
    product = nodes.node("MatMul", operands, type_, f"{name}:product")
    number = nodes.constant(np.array(factor), f"{name}:alpha")
    return _stored(op, at, nodes.node("Mul", [product, number], type_, name))


def add(op: Any, at: Tensors) -> Value:
    """Add."""
    operands = [at.real(op.lhs), at.real(op.rhs)]
    return _stored(op, at, nodes.node("Add", operands, real_type(op), name_of(op.output)))


def mul(op: Any, at: Tensors) -> Value:
    """Mul."""
    operands = [at.real(op.lhs), at.real(op.rhs)]
    return _stored(op, at, nodes.node("Mul", operands, real_type(op), name_of(op.output)))


def nonlinearity(op: Any, at: Tensors) -> Value:
    """A node for each step, of which the last one has the name of the op."""
    name, given = name_of(op.output), at.real(op.input)
    function, value = nonlinear.parse(op.function.value), given
    for number, step in enumerate(function, start=1):
        called = name if number == len(function) else f"{name}:{step.name}.{number}"
        value = _step(step, value, given, called)
    return _stored(op, at, value)


def _step(step: Step, value: Value, given: Value, name: str) -> Value:
    """One step of a function, as the node that it is."""
    if step.name == "clip":
        least, most = np.array(step.numbers, np.float32)
        return clipped(value, least, most, name)
    kind, keys = _NODES[step.name]
    if step.name == "times_input":
        return nodes.node(kind, [value, given], value.type, name)
    if not keys and step.numbers:
        number = nodes.constant(np.array(step.numbers[0], np.float32), f"{name}:number")
        return nodes.node(kind, [value, number], value.type, name)
    attributes = dict(zip(keys, step.numbers, strict=True))
    return nodes.node(kind, [value], value.type, name, **attributes)


def avg_pool2d(op: Any, at: Tensors) -> Value:
    """GlobalAveragePool of a whole image, otherwise AveragePool."""
    expect_nchw(op)
    keys = ("kernel", "strides", "pads", "ceil_pads", "count_include_pad")
    kernel, strides, pads, ceil_pads, counted = build.attributes_of(op, *keys).values()
    x, name, type_ = at.real(op.input), name_of(op.output), real_type(op)
    if kernel == build.shape_of(op.input)[2:] and not any([*pads, *ceil_pads]):
        return _stored(op, at, nodes.node("GlobalAveragePool", [x], type_, name))
    counted = counted and any(pads)
    if counted and any(ceil_pads):
        # Zeros that stand in the input are counted, what the op pads besides is not.
        x, pads, counted = _padded(x, pads, name), [0, 0, 0, 0], False
    if not counted:
        pads = [pads[0], pads[1], pads[2] + ceil_pads[0], pads[3] + ceil_pads[1]]
    pooled = nodes.node(
        "AveragePool",
        [x],
        type_,
        name,
        kernel_shape=kernel,
        strides=strides,
        pads=pads,
        count_include_pad=int(counted),
    )
    return _stored(op, at, pooled)


def expect_nchw(op: Any) -> None:
    """ONNX knows one layout."""
    if op.layout.value != "nchw":
        raise DiagnosticError(op, "is in NHWC, ONNX is in NCHW; run this pass on QUANTIZED")


def real_type(op: Any) -> Any:
    """The torch type of the op's result in floats."""
    return nodes.vtensor(build.shape_of(op.output), "f32")


def activated(x: Value, activation: Activation, name: str) -> Value:
    """Relu or Clip of reals."""
    if activation.kind == "none":
        return x
    if activation.kind == "relu":
        return nodes.node("Relu", [x], x.type, name)
    return clipped(x, np.float32(activation.low), np.float32(activation.high), name)


def _finished(op: Any, at: Tensors, product: Value) -> Value:
    if op.residual is not None:
        operands = [product, at.real(op.residual)]
        product = nodes.node("Add", operands, product.type, f"{name_of(op.output)}:add")
    return _stored(op, at, product)


def _stored(op: Any, at: Tensors, real: Value) -> Value:
    """The activation, which a quantized result does by saturating, and the result's storage."""
    name, element = name_of(op.output), build.element_of(op.output)
    has_activation = "activation" in op.operation.attributes
    activation = Activation.of(op) if has_activation else Activation()
    if quant.is_quantized(element):
        return at.quantized(real, element, name, activation.bounds)
    return activated(real, activation, f"{name}:{activation.kind}")


def _columns(op: Any, at: Tensors) -> Value:
    """The right side as [K, N]: a weight is transposed now, anything else when it is there."""
    if not op.transpose_rhs.value:
        return at.real(op.rhs)
    name, (*leading, rows, columns) = name_of(op.rhs), build.shape_of(op.rhs)
    type_ = nodes.vtensor([*leading, columns, rows], "f32")
    axes = len(leading)
    order = [*range(axes), axes + 1, axes]
    return nodes.node("Transpose", [at.real(op.rhs)], type_, f"{name}:transpose", perm=order)


def _padded(x: Value, pads: Sequence[int], name: str) -> Value:
    """Zeros around an image."""
    top, left, bottom, right = pads
    widths = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    operands = [
        x,
        nodes.constant(widths, f"{name}:pads"),
        nodes.constant(np.array(0, np.float32), f"{name}:zero"),
    ]
    shape = shapes.pad(shape_of(x.type), low=[0, 0, top, left], high=[0, 0, bottom, right])
    return nodes.node("Pad", operands, nodes.vtensor(shape, "f32"), f"{name}:pad")
