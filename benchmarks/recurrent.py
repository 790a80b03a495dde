"""Networks of recurrent cells beside IREE's own code for them and ONNX Runtime; one thread.

    python benchmarks/recurrent.py [--seconds 20]

Random weights and samples: what is measured is time. `mlq` is what `mlq quantize` makes, of which
the cells are float kernels, `IREE` the float network without any of mlq's kernels, and ONNX Runtime
computes in float, too. Called in turn on one sample; medians.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import mlq
from mlq import runtime, targets
from mlq.kernels.recurrence import GATES, Cell
from mlq.latency import time_for
from mlq.network import load
from mlq.peer import Peer
from mlq.targets.base import Target
from mlq.targets.iree import compile_module


@dataclass(frozen=True)
class Stack:
    """Layers of one kind of cell, and a class for the last step, or for each."""

    name: str
    cell: Cell
    steps: int
    features: int
    hidden: int
    layers: int = 1
    directions: int = 1

    def model(self) -> onnx.ModelProto:
        """The network, with random weights."""
        rng, nodes, weights = np.random.default_rng(0), list[onnx.NodeProto](), []

        def constant(array: object, dtype: type = np.float32) -> str:
            weights.append(numpy_helper.from_array(np.asarray(array, dtype), f"c{len(weights)}"))
            return str(weights[-1].name)

        def node(kind: str, *inputs: str, **attributes: object) -> str:
            nodes.append(helper.make_node(kind, inputs, [f"v{len(nodes)}"], **attributes))
            return f"v{len(nodes) - 1}"

        width, features = GATES[self.cell] * self.hidden, self.features
        x = node("Transpose", "x", perm=[1, 0, 2])
        for _ in range(self.layers):
            sizes = ((width, features), (width, self.hidden), (2 * width,))
            drawn = [constant(rng.normal(0, 0.1, (self.directions, *each))) for each in sizes]
            made = {"hidden_size": self.hidden, "linear_before_reset": 1}
            if self.cell != "GRU":
                del made["linear_before_reset"]
            direction = "bidirectional" if self.directions > 1 else "forward"
            y = node(self.cell, x, *drawn, direction=direction, **made)
            features = self.directions * self.hidden
            turned = node("Transpose", y, perm=[0, 2, 1, 3])
            x = node("Reshape", turned, constant([0, 0, features], np.int64))
        row = node("Transpose", x, perm=[1, 0, 2])
        node("MatMul", row, constant(rng.normal(0, 0.1, (features, 32))))
        ends = {"x": [1, self.steps, self.features], nodes[-1].output[0]: [1, self.steps, 32]}
        given, made = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
            for name, shape in ends.items()
        )
        graph = helper.make_graph(nodes, "stack", given, made, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


STACKS = (
    Stack("LSTM, 49 steps, 40 to 64", "LSTM", 49, 40, 64),
    Stack("GRU, 49 steps, 40 to 64", "GRU", 49, 40, 64),
    Stack("RNN, 49 steps, 40 to 64", "RNN", 49, 40, 64),
    Stack("2 LSTM both ways, 26 steps, 256", "LSTM", 26, 256, 256, 2, 2),
    Stack("2 GRU, 100 steps, 80 to 128", "GRU", 100, 80, 128, 2),
)


def measure(stack: Stack, folder: Path, seconds: float) -> str:
    """A row of the table."""
    path = folder / "stack.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(stack.model()), path)
    x = np.random.default_rng(1).normal(size=(1, stack.steps, stack.features)).astype(np.float32)
    ours = runtime.load(mlq.quantize(path, "random:16", max_drop=None).vmfb)
    theirs = runtime.load(_plain(path, targets.host_target()))
    peer = Peer(path, threads=1, exact=False)
    calls = [ours.prepare(x), theirs.prepare(x), peer.call({"x": x})]
    took = [each.p50 for each in time_for(calls, seconds=seconds)]
    row = "".join(f"{each:>13.3f}" for each in took)
    return f"{stack.name:34}{row}{took[1] / took[0]:>14.2f}{took[2] / took[0]:>14.2f}"


def _plain(path: Path, target: Target) -> bytes:
    """The float network as IREE compiles it."""
    made = load(path, batch=1).transform("@lower-linalg")
    return compile_module(made.text, target, weights=made.weights, embed=True)


def main() -> None:
    """Print a row a network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each network (20)")
    seconds = parser.parse_args().seconds
    titles = "mlq ms", "IREE ms", "ONNX RT ms"
    print(f"{'':34}" + "".join(f"{each:>13}" for each in titles) + "   IREE / mlq    ORT / mlq")
    for stack in STACKS:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(stack, Path(folder), seconds), flush=True)


if __name__ == "__main__":
    main()
