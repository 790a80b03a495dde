"""Train networks with the ops of MobileNetV3, EfficientNet and a small U-Net on the digits.

    pip install -e .[train]
    python examples/train_mobile.py -o build/mobile      # minutes on one core

`hard_swish`: hard-swish, squeeze-and-excite with hard-sigmoid gates, as MobileNetV3. `silu`: the
same with x * sigmoid(x) and sigmoid gates, as EfficientNet. `unet`: two levels that nearest
resizing and concatenation join, as in a U-Net, with leaky ReLUs. Each is a list of ONNX nodes that
PyTorch trains (see train_digits.py, whose data, training and writer these are).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import onnx
from train_digits import CLASSES, Graph, description, evaluate, splits, to_onnx, train

LOWEST_ACCURACY = 0.95


class MobileGraph(Graph):
    """A graph with the activations and gates of one family of networks."""

    def __init__(self, activation: str, gate: str) -> None:
        super().__init__()
        self._activation, self._gate = activation, gate

    def act(self, name: str, source: str) -> str:
        """The family's activation, as exporters write it."""
        channels = self.channels[source]
        if self._activation == "SiLU":
            sigmoid = self.add(f"{name}/sigmoid", "Sigmoid", (source,), channels)
            return self.add(f"{name}/silu", "Mul", (source, sigmoid), channels)
        numbers = {"alpha": 0.1} if self._activation == "LeakyRelu" else {}
        return self.add(f"{name}/act", self._activation, (source,), channels, **numbers)

    def pointwise(self, name: str, source: str, channels: int) -> str:
        """A convolution with a bias and no batch norm, of one pixel."""
        keys = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "group": 1}
        return self.add(name, "Conv", (source,), channels, bias=True, **keys)

    def squeezed(self, name: str, source: str) -> str:
        """Squeeze-and-excite: channels times a gate that the means of all channels make."""
        channels = self.channels[source]
        x = self.add(f"{name}/pool", "GlobalAveragePool", (source,), channels)
        x = self.relu(f"{name}/reduce", self.pointwise(f"{name}/reduce", x, channels // 4))
        x = self.pointwise(f"{name}/expand", x, channels)
        numbers = {"alpha": 1 / 6, "beta": 0.5} if self._gate == "HardSigmoid" else {}
        gate = self.add(f"{name}/gate", self._gate, (x,), channels, **numbers)
        return self.add(f"{name}/scale", "Mul", (source, gate), channels)

    def bottleneck(
        self, name: str, source: str, widths: tuple[int, int], *, kernel: int, stride: int = 1
    ) -> str:
        """Expand, filter each channel, gate, project; a sum where the shape is kept."""
        wide, narrow = widths
        x = self.act(f"{name}/expand", self.conv(f"{name}/expand", source, wide, kernel=1))
        x = self.conv(f"{name}/dw", x, wide, kernel=kernel, stride=stride, group=wide)
        x = self.squeezed(f"{name}/se", self.act(f"{name}/dw", x))
        x = self.conv(f"{name}/project", x, narrow, kernel=1)
        kept = stride == 1 and narrow == self.channels[source]
        return self.residual(name, x, source) if kept else x

    def head(self, source: str, channels: int) -> None:
        """Means, a hidden layer, the logits."""
        x = self.act("head/conv", self.conv("head/conv", source, channels, kernel=1))
        x = self.add("head/pool", "GlobalAveragePool", (x,), channels)
        x = self.add("head/flatten", "Flatten", (x,), channels)
        self.add("output", "Gemm", (x,), CLASSES, transB=1)


def mobile(activation: str, gate: str) -> Graph:
    """A small MobileNetV3."""
    g = MobileGraph(activation, gate)
    x = g.act("stem", g.conv("stem", "input", 16, kernel=3))
    x = g.bottleneck("block1", x, (48, 16), kernel=3)
    x = g.bottleneck("block2", x, (56, 24), kernel=3, stride=2)
    x = g.bottleneck("block3", x, (72, 24), kernel=5)
    g.head(x, 96)
    return g


def unet() -> Graph:
    """An image halved, computed on, enlarged again, and joined with what it was."""
    g = MobileGraph("LeakyRelu", "Sigmoid")
    top = g.act("down", g.conv("down", "input", 24, kernel=3))
    x = g.add("pool", "MaxPool", (top,), 24, kernel_shape=[2, 2], strides=[2, 2])
    x = g.act("middle", g.conv("middle", x, 40, kernel=3))
    x = g.add(
        "up/resize",
        "Resize",
        (x,),
        40,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    x = g.add("up/join", "Concat", (x, top), 64, axis=1)
    x = g.act("up", g.conv("up", x, 32, kernel=3, stride=2))
    g.head(x, 48)
    return g


NETWORKS = {
    "hard_swish": lambda: mobile("HardSwish", "HardSigmoid"),
    "silu": lambda: mobile("SiLU", "Sigmoid"),
    "unet": unet,
}


def main() -> None:
    """Train, check and write each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("build/mobile"))
    parser.add_argument("names", nargs="*", default=list(NETWORKS), metavar="NAME")
    options = parser.parse_args()
    training, _, evaluation = splits()
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        network = train(NETWORKS[name](), training)
        model = to_onnx(network)
        accuracy = evaluate(model, network, evaluation)
        print(f"{name}: float top-1 on {len(evaluation.labels)} unseen digits: {accuracy:.2%}")
        if accuracy < LOWEST_ACCURACY:
            raise SystemExit(f"under {LOWEST_ACCURACY:.0%}: not written")
        onnx.save(model, options.output / f"{name}.onnx")
        text = {**description(accuracy, len(evaluation.labels)), "model": f"{name}.onnx"}
        (options.output / f"{name}.json").write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
