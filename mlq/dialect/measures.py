"""Builders of the ops with which a network measures itself."""

from __future__ import annotations

from torch_mlir.ir import Value

from mlq.dialect import ops
from mlq.dialect.attributes import integer
from mlq.dialect.tensors import tensor


def observe(input: Value, *, bins: int, max_elements: int) -> Value:
    """`mlq.observe`: least, greatest and counts, in one tensor."""
    type_ = tensor([2 + bins])
    return ops.ObserveOp(input, integer(bins), integer(max_elements), type_).statistics


def fake_quantize(input: Value, table: Value, row: int) -> Value:
    """`mlq.fake_quantize` by a row of the run-time table."""
    return ops.FakeQuantizeOp(input, table, integer(row), input.type).output


def compare(reference: Value, value: Value, *, max_elements: int) -> Value:
    """`mlq.compare`: energy of the reference, and of the difference, in one tensor."""
    return ops.CompareOp(reference, value, integer(max_elements), tensor([2])).energies
