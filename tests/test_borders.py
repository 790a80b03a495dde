"""Borders between precisions, as they are read off a module."""

from __future__ import annotations

from torch_mlir.ir import Location, Module

from mlq.casts import Border
from mlq.dialect import context
from mlq.dialect.borders import RESULT, borders

HEAD = """
!u = tensor<1x2x4x4x!quant.uniform<u8:f32, 0.5>>
!v = tensor<1x2x4x4x!quant.uniform<u8:f32, 0.25>>
!f = tensor<1x2x4x4xf32>
!t = !torch.vtensor<[1,2,4,4],f32>
"""
ACTIVATION = 'activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>'
POOL = (
    "kernel = array<i64: 1, 1>, strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>,"
    ' ceil_pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nchw"'
)


def found(body: str) -> list[tuple[str, ...]]:
    """The borders of a @main on %x, called "x", as rows of words."""
    text = f'{HEAD}func.func @main(%x: !f {{mlq.name = "x"}}) -> !f {{{body}}}'
    with context(), Location.unknown():
        return [_row(border) for border in borders(Module.parse(text).operation)]


def _row(border: Border) -> tuple[str, ...]:
    readers = " ".join(border.consumers)
    return (border.kind, border.tensor, border.producer, readers, border.before, border.after)


def test_input_and_result_have_names() -> None:
    assert found(f"""
      %q = "mlq.quantize"(%x) : (!f) -> !u
      %y = "mlq.add"(%q, %q) {{{ACTIVATION}, mlq.name = "y"}} : (!u, !u) -> !f
      return %y : !f
    """) == [
        ("quantize", "x", "x", "y", "f32", "u8"),
        ("unrounded", "y", "y", RESULT, "i32", "f32"),
    ]


def test_every_kind_of_cast_is_found_and_readers_through_what_moves_elements() -> None:
    assert found(f"""
      %q = "mlq.quantize"(%x) : (!f) -> !u
      %p = "mlq.max_pool2d"(%q) {{{POOL}, mlq.name = "p"}} : (!u) -> !u
      %a = "mlq.add"(%p, %p) {{{ACTIVATION}, mlq.name = "a"}} : (!u, !u) -> !u
      %r = "mlq.requantize"(%p) : (!u) -> !v
      %b = "mlq.add"(%r, %r) {{{ACTIVATION}, mlq.name = "b"}} : (!v, !v) -> !v
      %d = "mlq.dequantize"(%b) : (!v) -> !f
      %e = "mlq.dequantize"(%a) : (!u) -> !f
      %c = "mlq.add"(%d, %e) {{{ACTIVATION}, mlq.name = "c"}} : (!f, !f) -> !f
      return %c : !f
    """) == [
        ("quantize", "x", "x", "a b", "f32", "u8"),
        ("requantize", "p", "x", "b", "u8", "u8"),
        ("dequantize", "b", "b", "c", "u8", "f32"),
        ("dequantize", "a", "a", "c", "u8", "f32"),
    ]


def test_onnx_nodes_are_known_by_their_names_on_both_sides() -> None:
    assert found(f"""
      %s = torch_c.from_builtin_tensor %x : !f -> !t
      %n = torch.operator "onnx.Sin"(%s) : (!t) -> !t loc("before")
      %y = torch_c.to_builtin_tensor %n : !t -> !f
      %q = "mlq.quantize"(%y) : (!f) -> !u
      %a = "mlq.add"(%q, %q) {{{ACTIVATION}, mlq.name = "a"}} : (!u, !u) -> !f
      %t = torch_c.from_builtin_tensor %a : !f -> !t
      %m = torch.operator "onnx.Cos"(%t) : (!t) -> !t loc("after")
      %z = torch_c.to_builtin_tensor %m : !t -> !f
      return %z : !f
    """) == [
        ("quantize", "before", "before", "a", "f32", "u8"),
        ("unrounded", "a", "a", "after", "i32", "f32"),
    ]


def test_a_layer_read_in_both_ways_is_at_two_borders() -> None:
    assert found(f"""
      %q = "mlq.quantize"(%x) : (!f) -> !u
      %y = "mlq.add"(%q, %q) {{{ACTIVATION}, mlq.name = "y"}} : (!u, !u) -> !f
      %r = "mlq.quantize"(%y) : (!f) -> !v
      %z = "mlq.add"(%r, %r) {{{ACTIVATION}, mlq.name = "z"}} : (!v, !v) -> !f
      %c = "mlq.add"(%y, %z) {{{ACTIVATION}, mlq.name = "c"}} : (!f, !f) -> !f
      return %c : !f
    """) == [
        ("quantize", "x", "x", "y", "f32", "u8"),
        ("unrounded", "y", "y", "c", "i32", "f32"),
        ("quantize", "y", "y", "z", "f32", "u8"),
        ("unrounded", "z", "z", "c", "i32", "f32"),
    ]


def test_what_stays_in_one_precision_has_no_border() -> None:
    assert not found(f"""
      %y = "mlq.add"(%x, %x) {{{ACTIVATION}, mlq.name = "y"}} : (!f, !f) -> !f
      return %y : !f
    """)
