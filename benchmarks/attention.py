"""A transformer of a real one's shapes, with random weights, beside ONNX Runtime; one thread.

    python benchmarks/attention.py [--blocks 12] [-o OUT] [--seconds 20]

The blocks of DeiT-Tiny (Touvron et al. 2021, table 1): 197 tokens of 192 channels, 3 heads, GELU by
erf as exporters write it. What is printed is that of mobile.py, with activations of more than a
byte and ONNX Runtime's dynamic quantization, too; with random weights the KL says nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mobile
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDE = "w8a16", "w12a12"
TOKENS, WIDTH, HEADS, CLASSES = 197, 192, 3, 1000
SPLIT, JOIN = [0, TOKENS, HEADS, WIDTH // HEADS], [0, TOKENS, WIDTH]


class Writer(mobile.Writer):
    """Nodes of a transformer."""

    def constant(self, value: object, dtype: type) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def linear(self, x: str, depth: int, width: int) -> str:
        weight = self.rng.normal(0, depth**-0.5, (depth, width))
        product = self.node("MatMul", x, self.constant(weight, np.float32))
        bias = self.constant(self.rng.normal(0, 0.02, width), np.float32)
        return self.node("Add", product, bias)

    def norm(self, x: str) -> str:
        scale, shift = (self.constant(np.full(WIDTH, n), np.float32) for n in (1, 0))
        return self.node("LayerNormalization", x, scale, shift, axis=-1)

    def heads(self, x: str, order: list[int]) -> str:
        parts = self.node("Reshape", self.linear(x, WIDTH, WIDTH), self.constant(SPLIT, np.int64))
        return self.node("Transpose", parts, perm=order)

    def gelu(self, x: str) -> str:
        inner = self.node("Erf", self.node("Div", x, self.constant(2**0.5, np.float32)))
        gate = self.node("Add", inner, self.constant(1, np.float32))
        return self.node("Mul", self.node("Mul", x, gate), self.constant(0.5, np.float32))

    def block(self, x: str) -> str:
        y = self.norm(x)
        q, k, v = (self.heads(y, order) for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
        scale = self.constant((WIDTH // HEADS) ** -0.5, np.float32)
        scores = self.node("Softmax", self.node("Mul", self.node("MatMul", q, k), scale), axis=-1)
        y = self.node("Transpose", self.node("MatMul", scores, v), perm=[0, 2, 1, 3])
        y = self.node("Reshape", y, self.constant(JOIN, np.int64))
        x = self.node("Add", x, self.linear(y, WIDTH, WIDTH))
        y = self.gelu(self.linear(self.norm(x), WIDTH, 4 * WIDTH))
        return self.node("Add", x, self.linear(y, 4 * WIDTH, WIDTH))

    def transformer(self, blocks: int) -> onnx.ModelProto:
        x = "input"
        for _ in range(blocks):
            x = self.block(x)
        x = self.node("ReduceMean", self.norm(x), self.constant([1], np.int64), keepdims=0)
        x = self.linear(x, WIDTH, CLASSES)
        graph = helper.make_graph(
            self.nodes,
            "transformer",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *JOIN[1:]])],
            [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, CLASSES])],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def main() -> None:
    """Write the network and measure it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("-o", "--out", type=Path, default=Path("benchmarks/out/attention"))
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = options.out / f"transformer-{options.blocks}.onnx"
    onnx.save(Writer().transformer(options.blocks), model)
    mobile.measure(model, "random:16", "random:8", options.seconds, dynamic=True, wide=WIDE)


if __name__ == "__main__":
    main()
