"""Layer norms on kernels, against numpy in double precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from test_kernels import HERE, program, target_of

from mlq import emulation, planning, runtime, targets
from mlq.kernels.isa import ISAS, Isa
from mlq.kernels.layer_norm import LayerNorm
from mlq.network import load
from mlq.ranges import Ranges
from mlq.recipe import resolve
from mlq.variant import build

Array = NDArray[Any]

SIZES = ((1, 1), (3, 2), (2, 7), (5, 8), (4, 9), (3, 16), (2, 31), (3, 64), (197, 192), (1, 1000))
EPSILON = 1e-5
# A float's own rounding, a few times over, of numbers around one.
ERROR = 4e-6


def exact(x: Array, scale: Array, shift: Array, epsilon: float = EPSILON) -> Array:
    x = x.astype(np.float64)
    distance = x - x.mean(axis=-1, keepdims=True)
    variance = (distance**2).mean(axis=-1, keepdims=True)
    normal: Array = distance / np.sqrt(variance + epsilon) * scale + shift
    return normal


def rows(count: int, size: int) -> tuple[Array, Array]:
    """Small and large numbers, far from zero and alike; scales and shifts."""
    rng = np.random.default_rng(size)
    spread, middle = rng.choice([0.0, 1e-4, 1.0, 1e4], (2, count, 1))
    x = rng.normal(middle, 1, (count, size)) * spread
    return x.astype("f4"), rng.normal(1, 1, (2, size)).astype("f4")


def error(x: Array, scale: Array) -> Array:
    """Of each number: of the mean, which is that of the largest numbers, the spread makes more."""
    spread = np.sqrt(x.astype(np.float64).var(axis=-1, keepdims=True) + EPSILON)
    least: Array = ERROR * (1 + np.abs(x).max(axis=-1, keepdims=True) / spread)
    return least * (1 + np.abs(scale))


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_rows_of_any_length(isa: Isa) -> None:
    text = program([LayerNorm(isa, *each, EPSILON) for each in SIZES])
    given = [rows(*each) for each in SIZES]
    runner = emulation.load(text, target_of(isa), {}, outputs=len(SIZES))
    found = runner.run(*(each for x, numbers in given for each in (x.reshape(-1), *numbers)))
    for (x, numbers), y in zip(given, found, strict=True):
        difference = np.abs(y.reshape(x.shape) - exact(x, *numbers))
        assert (difference <= error(x, numbers[0])).all(), x.shape


@HERE
@pytest.mark.parametrize(
    ("axis", "shape", "name"),
    [
        (-1, [1, 5, 11], "layer_norm_5x11"),
        (2, [1, 5, 11], "layer_norm_5x11"),
        (1, [1, 5, 11], "layer_norm_1x55"),
        (-1, [1, 7], "layer_norm_1x7"),
        (-2, [1, 2, 3, 4], "layer_norm_2x12"),
    ],
)
@pytest.mark.parametrize("shifts", [True, False])
def test_a_node_is_a_kernel(
    tmp_path: Path, axis: int, shape: list[int], name: str, *, shifts: bool
) -> None:
    first, epsilon = axis % len(shape), 0.01
    x, numbers = rows(int(np.prod(shape[:first])), int(np.prod(shape[first:])))
    if not shifts:
        numbers[1] = 0
    given = numbers.reshape(2, *shape[first:])
    inputs = {"scale": given[0]} | ({"shift": given[1]} if shifts else {})
    model = network(tmp_path, shape, inputs, axis=axis, epsilon=epsilon)
    made = built(model)
    assert f'sym_name = "{name}", sym_visibility = "private"' in made.lowered.text
    found = runtime.load(made.vmfb, threads=1).run(x.reshape(shape))[0].reshape(x.shape)
    difference = np.abs(found - exact(2 * x, *numbers, epsilon))
    assert (difference <= error(2 * x, numbers[0])).all()


@HERE
def test_numbers_may_be_made_by_a_kernel(tmp_path: Path) -> None:
    x, numbers = rows(5, 11)
    model = network(tmp_path, [1, 5, 11], {"scale": numbers[0]}, axis=-1, epsilon=EPSILON)
    proto = onnx.load(model)
    proto.graph.node[1].input[1] = "made"
    proto.graph.input.append(helper.make_tensor_value_info("given", TensorProto.FLOAT, [1, 11]))
    proto.graph.node.insert(0, helper.make_node("Relu", ["given"], ["twofold"]))
    proto.graph.node.insert(1, helper.make_node("Squeeze", ["twofold"], ["made"]))
    onnx.save(proto, model)
    made = built(model)
    assert "layer_norm_5x11" in made.lowered.text
    found = runtime.load(made.vmfb, threads=1).run(x[None], numbers[:1])[0][0]
    scale = np.maximum(numbers[0], 0)
    assert (np.abs(found - exact(2 * x, scale, 0 * scale)) <= error(2 * x, scale)).all()


@HERE
def test_numbers_that_are_repeated_are_left_to_iree(tmp_path: Path) -> None:
    numbers = {"scale": np.float32([[2.0], [3.0]])}
    model = network(tmp_path, [1, 2, 3], numbers, axis=1, epsilon=EPSILON)
    made = built(model)
    assert "layer_norm_" not in made.lowered.text


def network(
    folder: Path, shape: list[int], numbers: dict[str, Array], *, axis: int, epsilon: float
) -> Path:
    """A layer norm of twice the input."""
    path, known = folder / "n.onnx", list(numbers)
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node(
            "LayerNormalization", ["twice", *known], ["y"], axis=axis, epsilon=epsilon
        ),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    weights = [numpy_helper.from_array(numbers[name], name) for name in known]
    graph = helper.make_graph(nodes, "n", *([each] for each in ends), weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def built(model: Path) -> Any:
    ranges = Ranges(calibrator="minmax", samples=1, tensors={})
    plan = planning.empty_plan(resolve({}))
    return build(load(model, batch=1), plan, ranges, targets.host_target())
