"""The two ops with weights, conv2d and matmul, made anew with other operands."""

from __future__ import annotations

from torch_mlir.ir import OpView, Value

from mlq.dialect import build
from mlq.dialect.build import NAME, Activation
from mlq.dialect.ops import Conv2dOp, MatmulOp

Linear = Conv2dOp | MatmulOp


def rebuilt(
    op: Linear,
    *,
    weight: Value | None = None,
    bias: Value | None = None,
    residual: Value | None = None,
    activation: Activation | None = None,
) -> OpView:
    """`op` at the insertion point, with its name; what is not given stays as it is."""
    bias = op.bias if bias is None else bias
    residual = op.residual if residual is None else residual
    activation = Activation.of(op) if activation is None else activation
    element = build.element_of(op.output)
    if isinstance(op, MatmulOp):
        made = build.matmul(
            op.lhs,
            op.rhs if weight is None else weight,
            bias=bias,
            residual=residual,
            transpose_rhs=bool(op.transpose_rhs.value),
            activation=activation,
            element=element,
        )
    else:
        made = build.conv2d(
            op.input,
            op.weight if weight is None else weight,
            bias=bias,
            residual=residual,
            activation=activation,
            element=element,
            **build.attributes_of(op, "strides", "pads", "dilations", "groups", "layout"),
        )
    if NAME in op.operation.attributes:
        made.owner.attributes[NAME] = op.operation.attributes[NAME]
    return made.owner.opview
