"""Files that are quantized already: the reals that their integers stand for.

Scales are powers of two and inputs whole numbers, so that nothing is rounded: what is left of a
quantized network, saturation, must be in the one of reals, bit for bit.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import mlq
from mlq import checking, export, output
from mlq.errors import ModelError
from mlq.frontends.onnx import ImportedModel, import_model
from mlq.network import load
from mlq.peer import Peer

Array = NDArray[Any]
IMAGE = "float[N,4,6,6] x"
CONSTANTS: dict[str, Array] = {
    "one": np.array(1.0, np.float32),
    "half": np.array(0.5, np.float32),
    "two": np.array(2.0, np.float32),
    "step": np.array(2.0**-8, np.float32),
    "scales": np.array([0.5, 1, 2, 4, 1, 0.5], np.float32),
    "scales5": np.array([2, 4, 2, 2, 4], np.float32),
    "zero": np.array(0, np.uint8),
    "middle": np.array(128, np.uint8),
    "signed": np.array(0, np.int8),
    "shifted": np.array(3, np.int8),
    "none": np.zeros(6, np.int8),
    "none5": np.zeros(5, np.int8),
    "shifts": np.array([1, -2, 0, 3, 1, 2], np.int8),
    "wide": np.array(0, np.int32),
}
BODIES = {
    "nodes": f"""({IMAGE}) => (float[N,5] y) {{
        q = QuantizeLinear (x, one, zero)
        a = DequantizeLinear (q, one, zero)
        w = DequantizeLinear <axis=0> (w6_4_3_3, scales, none)
        b = DequantizeLinear <axis=0> (b6, scales)
        c = Conv (a, w, b)
        d = QuantizeLinear (c, half, zero)
        e = MaxPool <kernel_shape=[2,2]> (d)
        f = Transpose <perm=[0,2,3,1]> (e)
        g = DequantizeLinear (f, half, zero)
        h = Flatten (g)
        v = DequantizeLinear (w54_5, half, signed)
        y = MatMul (h, v) }}""",
    "trained": f"""({IMAGE}) => (float[N,6,4,4] y) {{
        scale = Constant <value_float=0.25> ()
        same = Identity (scale)
        q = QuantizeLinear (x, one, signed)
        a = DequantizeLinear (q, one, signed)
        p = QuantizeLinear (r6_4_3_3, same, signed)
        w = DequantizeLinear (p, same, signed)
        c = Conv (a, w)
        d = Relu (c)
        e = QuantizeLinear (d, one, middle)
        y = DequantizeLinear (e, one, middle) }}""",
    "operators": f"""({IMAGE}) => (float[N,5] y) {{
        q = QuantizeLinear (x, one, middle)
        c = QLinearConv (q, one, middle, s6_4_3_3, scales, none, half, zero, b6)
        d = QLinearConv <strides=[1,1]> (q, one, middle, s6_4_3_3, one, signed, one, middle)
        e = com.microsoft.QLinearAdd (c, half, zero, d, one, middle, half, zero)
        f = com.microsoft.QLinearConcat <axis=1> (half, zero, c, half, zero, e, half, zero)
        g = com.microsoft.QLinearAveragePool <kernel_shape=[1,1], strides=[4,4]>
            (f, half, zero, half, zero)
        h = Flatten (g)
        i = QLinearMatMul (h, half, zero, s12_6, two, signed, one, middle)
        j = com.microsoft.QGemm <transB=1>
            (i, one, middle, s5_6, scales5, none5, c5, two, middle)
        y = DequantizeLinear (j, two, middle) }}""",
    "measured": """(float[N,16] x) => (float[N,6] y) {
        q, s, z = DynamicQuantizeLinear (x)
        a = MatMulInteger (q, w16_6, z, shifts)
        c = Cast <to=1> (a)
        t = Mul (s, scales)
        y = Mul (c, t) }""",
    "sums": f"""({IMAGE}) => (float[N,6,4,4] y) {{
        q = QuantizeLinear (x, half, middle)
        a = ConvInteger (q, w6_4_3_3, middle, shifted)
        y = Cast <to=1> (a) }}""",
    "ends": """(uint8[N,4,6,6] x) => (int8[N,6,4,4] y) {
        a = DequantizeLinear (x, half, middle)
        w = DequantizeLinear (w6_4_3_3, one, signed)
        c = Conv (a, w)
        y = QuantizeLinear (c, two, signed) }""",
}


def made(body: str, path: Path, *, opset: int = 17) -> Path:
    """A model of `body`; `w6_4_3_3` is an initializer of small numbers, `s6` mostly of zeros."""
    header = f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]>\nmade '
    model, rng = onnx.parser.parse_model(header + body), np.random.default_rng(0)
    for name in sorted(set(re.findall(r"\b[a-z]\w*\b", body))):
        array = CONSTANTS.get(name)
        if array is None and (found := re.fullmatch(r"([bcrsvw])([\d_]+)", name)):
            shape = [int(size) for size in found[2].split("_")]
            dtype = {"b": np.int32, "c": np.int32, "r": np.float32}.get(found[1], np.int8)
            some = [-1, 0, 0, 0, 1] if found[1] == "s" else range(-3, 4)
            array = rng.choice(some, size=shape).astype(dtype)
        if array is not None:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(model, path)
    return path


def of_reals(path: Path, folder: Path) -> tuple[ImportedModel, Path]:
    found = import_model(path, batch=3, in_floats=True)
    found.save_onnx(folder / "reals.onnx")
    return found, folder / "reals.onnx"


def whole(least: int, most: int, *shape: int) -> Array:
    return np.random.default_rng(1).integers(least, most + 1, size=shape).astype(np.float32)


def run(path: Path, x: Array) -> Array:
    (y,) = Peer(path, optimise=False).run({"x": x}).values()
    return y


@pytest.mark.parametrize(
    ("kind", "most"), [("nodes", 60), ("trained", 2), ("operators", 1), ("sums", 60)]
)
def test_only_saturation_is_left(kind: str, most: int, tmp_path: Path) -> None:
    path = made(BODIES[kind], tmp_path / "n.onnx")
    found, reals = of_reals(path, tmp_path)
    assert found.quantized_nodes > 0
    assert not {"Q", "D"} & {node.op_type[0] for node in found.graph.graph.node}
    x = whole(-most, most, 3, 4, 6, 6)
    y = run(path, x)
    assert len(np.unique(y)) > 9, "most of it saturates: nothing is compared"
    np.testing.assert_array_equal(y, run(reals, x))


def test_scales_that_calls_find_are_left_out(tmp_path: Path) -> None:
    path = made(BODIES["measured"], tmp_path / "n.onnx")
    _, reals = of_reals(path, tmp_path)
    x = whole(0, 255, 3, 16)
    x[0, :2] = 0, 255  # so that the scale that is found is one
    np.testing.assert_array_equal(run(path, x), run(reals, x))


def test_inputs_and_outputs_are_reals(tmp_path: Path) -> None:
    path = made(BODIES["ends"], tmp_path / "n.onnx")
    found, reals = of_reals(path, tmp_path)
    assert [each.dtype for each in (*found.inputs, *found.outputs)] == ["float32"] * 2
    stored = whole(110, 145, 3, 4, 6, 6).astype(np.uint8)
    y = run(path, stored)
    assert np.abs(y.astype(int)).max() < 127
    x = (stored.astype(np.float32) - 128) / 2
    np.testing.assert_allclose(run(reals, x), 2.0 * y, atol=1.0)  # half a step


def test_an_input_is_integers_or_reals_to_all(tmp_path: Path) -> None:
    body = """(uint8[N,4,6,6] x) => (float[N,4,6,6] y) {
        c = Cast <to=1> (x)
        t = Transpose <perm=[0,1,3,2]> (x)
        d = DequantizeLinear (t, half, middle)
        q = QuantizeLinear (d, half, middle)
        e = DequantizeLinear (q, half, middle)
        y = Add (c, e) }"""
    with pytest.raises(ModelError, match="'c' \\(Cast\\) computes with integers"):
        load(made(body, tmp_path / "n.onnx"))


def test_rows_of_tables_are_looked_up_as_reals(tmp_path: Path) -> None:
    body = """(int64[N,3] x) => (float[N,5,3] y) {
        g = Gather (w9_6, x)
        t = Transpose <perm=[0,2,1]> (g)
        e = DequantizeLinear (t, half, shifted)
        q = QuantizeLinear (e, half, signed)
        d = DequantizeLinear (q, half, signed)
        y = MatMul (r5_6, d) }"""
    path = made(body, tmp_path / "n.onnx")
    found, reals = of_reals(path, tmp_path)
    assert [node.op_type for node in found.graph.graph.node if node.op_type != "Identity"] == [
        "Gather",
        "Transpose",
        "MatMul",
    ]
    x = np.arange(9).reshape(3, 3)
    np.testing.assert_array_equal(run(path, x), run(reals, x))


@pytest.mark.parametrize("ways", [1, 2])
def test_recurrent_weights_are_turned(ways: int, tmp_path: Path) -> None:
    direction = "forward" if ways == 1 else "bidirectional"
    body = f"""(float[3,N,6] x) => (float[3,{ways},N,5] y) {{
        s = Constant <value_floats=[{", ".join(["0.125", "0.25"][:ways])}]> ()
        z = Constant <value_ints=[{", ".join("12"[:ways])}]> ()
        k = Cast <to=3> (z)
        y = com.microsoft.DynamicQuantizeLSTM <hidden_size=5, direction="{direction}">
            (x, w{ways}_6_20, v{ways}_5_20, r{ways}_40, , , , , s, k, s, k) }}"""
    path = made(body, tmp_path / "n.onnx")
    _, reals = of_reals(path, tmp_path)
    x = np.random.default_rng(1).normal(size=(3, 4, 6)).astype(np.float32)
    # ONNX Runtime rounds what is multiplied to 8 bits, in each call by its greatest.
    np.testing.assert_allclose(run(path, x), run(reals, x), atol=0.03)


@pytest.mark.parametrize("opset", [10, 13])
def test_old_files_have_other_clips(opset: int, tmp_path: Path) -> None:
    body = f"""({IMAGE}) => (float[N,6,4,4] y) {{
        q = QuantizeLinear (x, one, middle)
        c = QLinearConv (q, one, middle, w6_4_3_3, scales, none, half, zero, b6)
        y = DequantizeLinear (c, half, zero) }}"""
    path = made(body, tmp_path / "n.onnx", opset=opset)
    _, reals = of_reals(path, tmp_path)
    x = whole(-60, 60, 3, 4, 6, 6)
    np.testing.assert_array_equal(run(path, x), run(reals, x))


def test_clips_stand_only_where_saturation_is_a_relu(tmp_path: Path) -> None:
    body = f"""({IMAGE}) => (float[N,4,6,6] y) {{
        a = Relu (x)
        b = QuantizeLinear (a, one, zero)
        c = DequantizeLinear (b, one, zero)
        d = AveragePool <kernel_shape=[1,1]> (c)
        e = QuantizeLinear (d, one, zero)
        f = DequantizeLinear (e, one, zero)
        g = Neg (f)
        h = QuantizeLinear (g, one, middle)
        i = DequantizeLinear (h, one, middle)
        j = QuantizeLinear (i, one, zero)
        k = DequantizeLinear (j, one, zero)
        l = Neg (k)
        m = QuantizeLinear <output_dtype=3> (l, one)
        y = DequantizeLinear (m, one) }}"""
    found, _ = of_reals(made(body, tmp_path / "n.onnx", opset=21), tmp_path)
    kinds = [node.op_type for node in found.graph.graph.node]
    assert [kind for kind in kinds if kind != "Identity"] == [
        "Relu",
        "AveragePool",
        "Neg",
        "Clip",
        "Neg",
    ]


@pytest.mark.parametrize(
    ("body", "node"),
    [
        ("q = QuantizeLinear (x, s, zero)\n y = DequantizeLinear (q, one, zero)", "'q'"),
        ("q = QuantizeLinear (x, one, zero)\n y = Cast <to=1> (q)", "'y' \\(Cast\\)"),
        ("q = QuantizeLinear (x, one, zero)\n a = ConvInteger (q, q)\n y = Cast <to=1> (a)", "'a'"),
        ("q = QuantizeLinear (x, one, zero)\n y = DequantizeLinear (q, two, zero)", "'y'"),
        (
            (
                "q = QuantizeLinear (x, one, zero)\n p = QuantizeLinear (x, two, zero)\n"
                "c = Concat <axis=1> (q, p)\n y = DequantizeLinear (c, one, zero)"
            ),
            "'c' \\(Concat\\)",
        ),
        (
            (
                "q = QuantizeLinear (x, one, zero)\n a = ConvInteger (q, w6_4_3_3, middle)\n"
                "y = Cast <to=1> (a)"
            ),
            "'a'",
        ),
        (
            (
                "q = QuantizeLinear (x, one, zero)\n a = ConvInteger (q, w6_4_3_3)\n"
                "c = Add (a, b6)\n y = Cast <to=1> (c)"
            ),
            "'c' \\(Add\\)",
        ),
        ("y = QLinearConv (x, one, zero)", "'y'"),
        (
            (
                "w = DequantizeLinear <axis=0> (w6_4_3_3, scales5, none5)\n"
                "q = QuantizeLinear (x, one, zero)\n d = DequantizeLinear (q, one, zero)\n"
                "y = Conv (d, w)"
            ),
            "'w'",
        ),
        ("q = QuantizeLinear (x)\n y = DequantizeLinear (q, one)", "'q'"),
        ("y = com.microsoft.QLinearAdd (x, one)", "'y'"),
        ("y = QLinearConv (x, s, zero, w6_4_3_3, s, signed, one, zero, b6)", "'y'"),
    ],
)
def test_other_integers_are_named(body: str, node: str, tmp_path: Path) -> None:
    path = made(f"({IMAGE}, float s) => (float[N,6,4,4] y) {{ {body} }}", tmp_path / "n.onnx")
    said = rf"n.onnx: node that makes {node}.* computes with integers whose reals are not known"
    with pytest.raises(ModelError, match=said):
        load(path)


def test_what_mlq_exports_can_be_quantized_again(demo: Path, tmp_path: Path) -> None:
    samples = str(demo / "digits-calib.npz")
    options: dict[str, Any] = {"precisions": "f32,w8a8", "samples": 60, "max_drop": None}
    first = mlq.quantize(demo / "digits.onnx", samples, calibrator="minmax", **options)
    output.write(tmp_path / "out", first.files)
    path = tmp_path / "again.onnx"
    export.to_qdq(tmp_path / "out", path)
    again = mlq.quantize(path, samples, preprocess=demo / "digits.json", **options)
    assert [each.name for each in again.report.layers] == [e.name for e in first.report.layers]
    assert again.report.model.quantized_nodes > 0 == first.report.model.quantized_nodes
    assert "The file was quantized: float is the network that its" in again.files["report.md"]
    # What is rounded twice to the same steps loses no more than what is rounded once.
    assert again.report.agreement.int8.kl_mnat < 2 * first.report.agreement.int8.kl_mnat + 0.1
    assert checking.check(path).quantized_nodes == again.report.model.quantized_nodes
