"""What kernels compute of floats: all of f32, or some of f16, or neither."""

from __future__ import annotations

from torch_mlir.ir import OpView

from mlq.dialect import ops
from mlq.kernels import library
from mlq.kernels.library import Device
from mlq.transforms.kernels.images import kind_of

_OF_HALVES = (
    ops.AvgPool2dOp,
    ops.ConcatOp,
    ops.Conv2dOp,
    ops.MatmulOp,
    ops.MaxPool2dOp,
    ops.PadOp,
    ops.QuantizeOp,
    ops.SliceOp,
    ops.TransposeOp,
)


def unfit(op: OpView, isa: Device) -> str | None:
    """Why no kernel computes an op, if it is for its floats; what makes others of f32 is not."""
    operands = list(op.operation.operands)
    kinds = [kind_of(each) for each in (*operands, *op.operation.results)]
    if "f16" in kinds:
        return None if "f16" in isa.kinds and isinstance(op, _OF_HALVES) else "is of f16"
    is_real = kinds[0] == "f32" and not isinstance(op, ops.QuantizeOp)
    return "is of floats" if is_real and not library.computes_reals(isa) else None
