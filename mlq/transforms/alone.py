"""What a layer by itself makes of floats, as far as it is compared."""

from __future__ import annotations

from torch_mlir.ir import OpView, Value

from mlq.dialect import build, functions
from mlq.dialect.ops import Conv2dOp
from mlq.numerics.sampling import row_step


def computed_alone(
    op: OpView, reference: functions.Mapping, clean: dict[int, Value], max_elements: int
) -> Value:
    """What a layer makes of float operands; of a convolution only the rows that are compared."""
    count, channels, height, width = [*build.shape_of(op.output), *[1] * 4][:4]
    step = row_step([count, height, width, channels], max_elements)
    if not isinstance(op, Conv2dOp) or step == 1:
        alone = dict(reference)
        functions.clone_op(op, alone, clean)
        return alone[op.output]
    given = [
        clean.get(i, reference.get(operand, operand))
        for i, operand in enumerate(op.operation.operands)
    ]
    input, weight, *more = given
    bias = None if op.bias is None else more.pop(0)
    residual = None if op.residual is None else more.pop()
    if residual is not None:
        sizes = [count, channels, -(-height // step), width]
        residual = build.slice(residual, offsets=[0] * 4, sizes=sizes, strides=[1, 1, step, 1])
    down, right = op.strides
    return build.conv2d(
        input,
        weight,
        bias=bias,
        residual=residual,
        strides=[down * step, right],
        activation=build.Activation.of(op),
        **build.attributes_of(op, "pads", "dilations", "groups", "layout"),
    )
