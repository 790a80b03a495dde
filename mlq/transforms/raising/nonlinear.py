"""Functions of each element: activations that are more than a clamp, and products."""

from __future__ import annotations

from collections.abc import Callable

from torch_mlir.ir import Value

from mlq.dialect import build, shapes
from mlq.numerics.nonlinear import Step, parse
from mlq.transforms.raising.node import Node, unsupported

_PLAIN = {
    "Erf": "erf",
    "HardSwish": "hard_swish",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Tanh": "tanh",
}
_GELU = parse("multiply(0.707106781) | erf | add(1) | times_input | multiply(0.5)")
_MISH = parse("softplus | tanh | times_input")


def mul(node: Node) -> Value:
    """Mul of two activations, the lesser of which is repeated to fit the other."""
    lhs, rhs = node.activation(0), node.activation(1)
    if not shapes.broadcasts(build.shape_of(rhs), build.shape_of(lhs)):
        lhs, rhs = rhs, lhs
    if not shapes.broadcasts(build.shape_of(rhs), build.shape_of(lhs)):
        unsupported("its operands differ in rank, or both are repeated to fit each other")
    return build.mul(lhs, rhs)


def _plain(node: Node) -> Value:
    """A function without numbers."""
    return _made(node, Step(_PLAIN[node.kind]))


def elu(node: Node) -> Value:
    """Elu."""
    return _made(node, Step("elu", (node.attribute("alpha", 1.0),)))


def gelu(node: Node) -> Value:
    """Gelu by erf; the approximation by tanh is another function."""
    if node.attribute("approximate", "none") != "none":
        unsupported("it approximates erf by tanh")
    return build.nonlinearity(node.activation(), _GELU)


def mish(node: Node) -> Value:
    """Mish."""
    return build.nonlinearity(node.activation(), _MISH)


def hard_sigmoid(node: Node) -> Value:
    """HardSigmoid."""
    numbers = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    return _made(node, Step("hard_sigmoid", numbers))


def leaky_relu(node: Node) -> Value:
    """LeakyRelu."""
    return _made(node, Step("leaky_relu", (node.attribute("alpha", 0.01),)))


def prelu(node: Node) -> Value:
    """PRelu with one slope for all channels."""
    slope = node.array(1, "slope")
    if slope.size != 1:
        unsupported("its slope differs from channel to channel")
    return _made(node, Step("leaky_relu", (float(slope.item()),)))


def _made(node: Node, step: Step) -> Value:
    return build.nonlinearity(node.activation(), (step,))


FUNCTIONS: dict[str, Callable[[Node], Value]] = {
    **dict.fromkeys(_PLAIN, _plain),
    "Elu": elu,
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "LeakyRelu": leaky_relu,
    "Mish": mish,
    "Mul": mul,
    "PRelu": prelu,
}
