"""Recurrent nodes on kernels: against numpy in double precision, and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_kernels import HERE, program, target_of

import mlq
from mlq import emulation, planning, runtime, targets
from mlq.kernels.isa import ISAS, Isa
from mlq.kernels.recurrence import GATES, Cell, Recurrence
from mlq.network import load
from mlq.ranges import Ranges
from mlq.recipe import resolve
from mlq.variant import Variant, build

Array = np.ndarray

# Steps, sequences, hidden units, directions, whether it runs backwards.
SHAPES = ((1, 1, 1, 1, False), (3, 2, 5, 1, True), (4, 1, 16, 2, False), (2, 3, 37, 2, False))
SHAPES += ((5, 1, 72, 1, False),)
CELLS: tuple[Cell, ...] = ("LSTM", "GRU", "RNN")
# Floats' own rounding, a few times over, of numbers of at most one, step by step.
ERROR = 2e-6


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def stepped(cell: Cell, gates: Array, later: Array, states: Sequence[Array]) -> tuple[Array, ...]:
    """The next hidden state, and the next cell's, of products of inputs and of states."""
    hidden, kept = states
    size = hidden.shape[-1]
    (x, h), at = (gates, later), [slice(i * size, (i + 1) * size) for i in range(GATES[cell])]
    if cell == "RNN":
        return np.tanh(x + h), kept
    if cell == "GRU":
        update, reset = (sigmoid((x + h)[..., each]) for each in at[:2])
        new = np.tanh(x[..., at[2]] + reset * h[..., at[2]])
        return (1.0 - update) * new + update * hidden, kept
    taken, shown, forgotten = (sigmoid((x + h)[..., each]) for each in at[:3])
    kept = forgotten * kept + taken * np.tanh((x + h)[..., at[3]])
    return shown * np.tanh(kept), kept


def expected(kernel: Recurrence, gates: Array, weights: Array, later: Array, before: Any) -> Any:
    """All hidden states [T, D, N, H], and both last states [D, N, H]."""
    made = np.zeros((kernel.steps, kernel.directions, kernel.batch, kernel.hidden))
    last = np.zeros((2, *made.shape[1:]))
    for d in range(kernel.directions):
        states, backwards = [each[d] for each in before], kernel.backwards or d == 1
        for t in list(range(kernel.steps))[:: -1 if backwards else 1]:
            products = states[0] @ weights[d].T + later[d]
            states = list(stepped(kernel.cell, gates[t, :, d], products, states))
            made[t, d] = states[0]
        last[:, d] = states
    return made, *last


class Case:
    """A kernel, and numbers for it."""

    def __init__(self, isa: Isa, cell: Cell, shape: tuple[int, int, int, int, bool]) -> None:
        steps, batch, hidden, directions, backwards = shape
        rng = np.random.default_rng(hidden)
        self.kernel = Recurrence(isa, cell, steps, batch, hidden, directions, backwards)
        width = GATES[cell] * hidden
        self.gates = rng.normal(0, 3, (steps, batch, directions, width)).astype("f4")
        self.gates.flat[::7] *= 40  # where exponentials end
        self.weights = rng.normal(0, hidden**-0.5, (directions, width, hidden)).astype("f4")
        self.later = np.zeros((directions, width), np.float32)
        if cell == "GRU":
            self.later[:, -hidden:] = rng.normal(size=(directions, hidden))
        self.before = rng.normal(size=(2, directions, batch, hidden)).astype("f4")

    def inputs(self) -> list[Array]:
        kernel = self.kernel
        beyond = kernel.padded - kernel.hidden
        later = np.pad(self.later[:, -kernel.hidden :], ((0, 0), (0, beyond)))
        given = self.gates, kernel.packed(self.weights), later, *self.before
        return [np.ascontiguousarray(each, np.float32).reshape(-1) for each in given]

    def check(self, found: Array) -> None:
        kernel = self.kernel
        exact = (each.astype(np.float64) for each in (self.gates, self.weights, self.later))
        made, *last = expected(kernel, *exact, self.before.astype(np.float64))
        np.testing.assert_allclose(found[: kernel.made].reshape(made.shape), made, 0, ERROR)
        states = found[kernel.made :].reshape(2, *made.shape[1:3], kernel.padded)
        for state, each in zip(states[: 1 + (kernel.cell == "LSTM")], last, strict=False):
            scale = np.maximum(np.abs(each), 1.0)
            assert np.max(np.abs(state[..., : kernel.hidden] - each) / scale) < ERROR


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_sequences_of_any_size(isa: Isa, cell: Cell) -> None:
    target, cases = target_of(isa), [Case(isa, cell, shape) for shape in SHAPES]
    runner = emulation.load(
        program([case.kernel for case in cases]), target, {}, outputs=len(cases)
    )
    results = runner.run(*(each for case in cases for each in case.inputs()))
    for case, found in zip(cases, results, strict=True):
        case.check(found)


class Written:
    """A network of one recurrent node, all of whose results are the network's, samples first."""

    def __init__(self, cell: Cell, hidden: int = 10, **attributes: Any) -> None:
        self.directions = 2 if attributes.get("direction") == "bidirectional" else 1
        self.samples, self.steps, self.features = 2, 6, 7
        self.cell, self.hidden, self.rng = cell, hidden, np.random.default_rng(5)
        self.attributes = {"hidden_size": hidden, **attributes}
        width = GATES[cell] * hidden
        self.arrays = {"w": (width, self.features), "r": (width, hidden), "b": (2 * width,)}
        self.operands = ["x", "w", "r", "b"]
        self.inputs = {"features": (self.samples, self.steps, self.features)}

    def states(self) -> Written:
        """With states that come from outside."""
        names = ["h", "c"][: 1 + (self.cell == "LSTM")]
        self.inputs |= dict.fromkeys(names, (self.samples, self.directions, self.hidden))
        self.operands = [*self.operands, "", *(f"{each}_first" for each in names)]
        return self

    def saved(self, path: Path) -> Path:
        weights = [
            numpy_helper.from_array(
                self.rng.normal(0, 0.5, (self.directions, *shape)).astype("f4"), name
            )
            for name, shape in self.arrays.items()
            if name in self.operands
        ]
        results = ["y", "h", *["c"] * (self.cell == "LSTM")]
        turned = {"y": [2, 0, 1, 3], "h": [1, 0, 2], "c": [1, 0, 2]}
        made = [f"{each}_made" for each in results]
        nodes = [
            helper.make_node("Tanh", ["features"], ["small"]),
            helper.make_node("Transpose", ["small"], ["x"], perm=[1, 0, 2]),
            *(
                helper.make_node("Transpose", [each], [f"{each}_first"], perm=[1, 0, 2])
                for each in list(self.inputs)[1:]
            ),
            helper.make_node(self.cell, self.operands, made, **self.attributes),
            *(
                helper.make_node("Transpose", [f"{each}_made"], [f"{each}_last"], perm=turned[each])
                for each in results
            ),
        ]
        graph = helper.make_graph(
            nodes,
            "n",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in self.inputs.items()
            ],
            [helper.make_tensor_value_info(f"{k}_last", TensorProto.FLOAT, None) for k in results],
            weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        return path


def built(path: Path) -> Variant:
    network = load(path, batch=2)
    ranges = Ranges(calibrator="minmax", samples=1, tensors={})
    return build(network, planning.empty_plan(resolve({})), ranges, targets.host_target())


@HERE
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("cell", CELLS)
def test_nodes_make_what_onnx_runtime_makes(
    tmp_path: Path, cell: Cell, direction: str, *, given: bool
) -> None:
    reset = {"linear_before_reset": 1} if cell == "GRU" else {}
    written = Written(cell, direction=direction, **reset)
    compare(written.states() if given else written, tmp_path / "n.onnx")


@HERE
def test_without_biases_there_are_none(tmp_path: Path) -> None:
    written = Written("LSTM")
    written.operands = ["x", "w", "r"]
    compare(written, tmp_path / "n.onnx")


def compare(written: Written, path: Path) -> None:
    """What a kernel makes with what ONNX Runtime does."""
    made = built(written.saved(path))
    assert f'"onnx.{written.cell}"' not in made.lowered.text
    given = {k: written.rng.normal(size=v).astype("f4") for k, v in written.inputs.items()}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = runtime.load(made.vmfb).run(*given.values())
    for each, known in zip(found, session.run(None, given), strict=True):
        np.testing.assert_allclose(each, known, rtol=0, atol=ERROR)


def peepholes(written: Written) -> Written:
    written.arrays["p"] = (3 * written.hidden,)
    written.operands = ["x", "w", "r", "b", "", "", "", "p"]
    return written


@HERE
@pytest.mark.parametrize(
    "written",
    [
        peepholes(Written("LSTM")),
        Written("LSTM", clip=0.5),
        Written("LSTM", input_forget=1),
        Written("LSTM", activations=["HardSigmoid", "Tanh", "Tanh"]),
        Written("GRU"),
        Written("RNN", activations=["Relu"]),
    ],
    ids=["peepholes", "clip", "coupled", "functions", "reset before", "relu"],
)
def test_others_stay_nodes(tmp_path: Path, written: Written) -> None:
    network = load(written.saved(tmp_path / "n.onnx"), batch=2)
    lowered = network.transform("@lower-" + next(isa.name for isa in ISAS if isa.features))
    assert f'"onnx.{written.cell}"' in lowered.text


RECOGNIZER = """<ir_version: 8, opset_import: ["" : 17]>
n (float[1, 1, 16, 48] x) => (float[1, 12, 11] y) {
  a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, wa)
  b = Relu(a)
  c = Conv <strides = [8, 2], pads = [0, 1, 0, 1]> (b, wc)
  d = Relu(c)
  e = Squeeze(d, axes)
  f = Transpose <perm = [2, 0, 1]> (e)
  g = LSTM <hidden_size = 12, direction = "bidirectional"> (f, w1, r1, b1)
  h = Transpose <perm = [0, 2, 1, 3]> (g)
  i = Reshape(h, shape)
  j = LSTM <hidden_size = 12, direction = "bidirectional"> (i, w2, r2, b2)
  k = Transpose <perm = [2, 0, 1, 3]> (j)
  l = Reshape(k, rows)
  y = MatMul(l, wy)
}"""
"""Text read from an image: convolutions, two layers of LSTM, a class for each column."""
FLOATS = {
    "wa": (8, 1, 3, 3),
    "wc": (10, 8, 8, 3),
    "w1": (2, 48, 10),
    "w2": (2, 48, 24),
    "r1": (2, 48, 12),
    "r2": (2, 48, 12),
    "b1": (2, 96),
    "b2": (2, 96),
    "wy": (24, 11),
}
INTEGERS = {"axes": [2], "shape": [0, 0, -1], "rows": [1, 12, 24]}


@HERE
def test_a_network_with_recurrent_layers_is_quantized(tmp_path: Path) -> None:
    """IREE cannot compile three times two LSTMs in one function, as a lockstep has them."""
    path, rng = tmp_path / "recognizer.onnx", np.random.default_rng(2)
    model = onnx.parser.parse_model(RECOGNIZER)
    floats = {k: rng.normal(0, 0.4, shape).astype("f4") for k, shape in FLOATS.items()}
    integers = {k: np.array(each, np.int64) for k, each in INTEGERS.items()}
    for name, array in (floats | integers).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    made = mlq.quantize(path, "random:8", max_drop=None)
    left = {each.name: each.op for each in made.report.float_ops}
    assert sorted(left.values()).count("LSTM") == 2
    assert made.report.agreement.int8.sqnr_db > 20
