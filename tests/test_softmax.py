"""Softmax on kernels, against numpy in double precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from test_kernels import HERE, own, program, target_of

from mlq import emulation, planning, runtime, targets
from mlq.kernels.isa import ISAS, Isa
from mlq.kernels.softmax import Softmax
from mlq.network import load
from mlq.ranges import Ranges
from mlq.recipe import resolve
from mlq.variant import build

SIZES = ((1, 1), (3, 2), (2, 7), (5, 8), (4, 9), (3, 16), (2, 31), (3, 64), (70, 197), (1, 1000))
# A float's own rounding, a few times over.
ERROR = 1e-6


def exact(x: np.ndarray) -> np.ndarray:
    shifted = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def rows(count: int, size: int) -> np.ndarray:
    """Small and large numbers, alike ones, and what masks leave out."""
    rng = np.random.default_rng(size)
    x = (rng.normal(size=(count, size)) * rng.choice([0.0, 1.0, 30.0, 1e4], (count, 1))).astype(
        "f4"
    )
    masked = rng.random(x.shape) < 0.2
    masked[:, 0] = False
    x[masked] = rng.choice(np.float32([-np.inf, -1e9, np.finfo(np.float32).min]), masked.sum())
    return x


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_rows_of_any_length(isa: Isa) -> None:
    target = target_of(isa)
    text = program([Softmax(isa, *each) for each in SIZES])
    given = [rows(*each) for each in SIZES]
    runner = emulation.load(text, target, {}, outputs=len(SIZES))
    for x, found in zip(given, runner.run(*(x.reshape(-1) for x in given)), strict=True):
        np.testing.assert_allclose(found.reshape(x.shape), exact(x), rtol=0, atol=ERROR)


@HERE
def test_what_is_no_number_stays_none() -> None:
    x = rows(4, 9)
    x[1, 3], x[2, 8] = np.nan, np.inf
    text = program([Softmax(own(), *x.shape)])
    runner = emulation.load(text, targets.host_target(), {}, outputs=1)
    found = runner.run(x.reshape(-1))[0].reshape(x.shape)
    assert np.isnan(found[1:3]).any(axis=-1).all()
    np.testing.assert_allclose(found[::3], exact(x[::3]), rtol=0, atol=ERROR)


@HERE
@pytest.mark.parametrize(("axis", "kernels"), [(-1, 1), (2, 1), (1, 0)])
def test_a_node_along_the_last_axis_is_a_kernel(tmp_path: Path, axis: int, kernels: int) -> None:
    sizes, path = [1, 5, 11], tmp_path / "n.onnx"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name in "xy"]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Softmax", ["twice"], ["y"], axis=axis),
    ]
    graph = helper.make_graph(nodes, "n", *([each] for each in ends))
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    network, target = load(path, batch=1), targets.host_target()
    ranges = Ranges(calibrator="minmax", samples=1, tensors={})
    made = build(network, planning.empty_plan(resolve({})), ranges, target)
    assert (
        made.lowered.text.count('sym_name = "softmax_5x11", sym_visibility = "private"') == kernels
    )
    x = np.where(np.isinf(rows(5, 11)), np.float32(-1e4), rows(5, 11))[None]
    found = runtime.load(made.vmfb, threads=1).run(x)[0]
    expected = np.moveaxis(exact(np.moveaxis(2 * x, axis, -1)), -1, axis)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ERROR)
