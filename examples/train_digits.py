"""Train the network that `mlq demo` quantizes, and write it with its data into mlq/demo.

    pip install -e .[train]
    python examples/train_digits.py          # about a minute on one core

The network is declared once, as a list of ONNX nodes; PyTorch trains that list and the ONNX
writer writes it, batch norms unfolded, so no exporter stands between the two.

Data: scikit-learn's digits, 1797 images of 8x8 pixels in 0..16, from E. Alpaydin and C. Kaynak,
Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998 (CC BY 4.0).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn

SEED = 0
TRAIN, CALIBRATION = 1097, 200  # the other 500 of the 1797 are for evaluation
EPOCHS, BATCH, LEARNING_RATE = 60, 64, 3e-3
SCALE, MEAN, STD = 1 / 16, 0.3053, 0.3764  # mean and deviation of the scaled pixels
CLASSES = 10
OPSET, IR_VERSION = 17, 8
LOWEST_ACCURACY = 0.97
# Float sums in another order: both runtimes stay within this of each other on logits of about 10.
TOLERANCE = 1e-3
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Node:
    """One ONNX node; its output tensor carries its name."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


class Graph:
    """The nodes in order, and how many channels each output has."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.channels = {"input": 1}

    def add(
        self, name: str, op: str, inputs: tuple[str, ...], channels: int, **attributes: Any
    ) -> str:
        self.nodes.append(Node(name, op, inputs, attributes))
        self.channels[name] = channels
        return name

    def conv(
        self, name: str, source: str, channels: int, *, kernel: int, stride: int = 1, group: int = 1
    ) -> str:
        """A convolution without bias and its batch norm."""
        convolved = self.add(
            f"{name}/conv",
            "Conv",
            (source,),
            channels,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=group,
        )
        return self.add(f"{name}/bn", "BatchNormalization", (convolved,), channels)

    def depthwise(self, name: str, source: str) -> str:
        return self.conv(name, source, self.channels[source], kernel=3, group=self.channels[source])

    def relu(self, name: str, source: str) -> str:
        return self.add(f"{name}/relu", "Relu", (source,), self.channels[source])

    def relu6(self, name: str, source: str) -> str:
        return self.add(f"{name}/relu6", "Clip", (source,), self.channels[source])

    def residual(self, name: str, left: str, right: str) -> str:
        return self.add(f"{name}/add", "Add", (left, right), self.channels[left])


def digits_graph() -> Graph:
    """A small residual network with the layers of its big relatives."""
    g = Graph()
    stem = g.relu("stem", g.conv("stem", "input", 32, kernel=3))

    # A depthwise separable block, activation after the sum as in ResNet.
    x = g.relu("block1/depthwise", g.depthwise("block1/depthwise", stem))
    x = g.conv("block1/pointwise", x, 32, kernel=1)
    x = g.relu("block1", g.residual("block1", x, stem))
    pooled = g.add("pool", "MaxPool", (x,), 32, kernel_shape=[2, 2], strides=[2, 2])

    # An inverted bottleneck, nothing after the sum as in MobileNetV2.
    x = g.relu6("block2/expand", g.conv("block2/expand", pooled, 64, kernel=1))
    x = g.relu6("block2/depthwise", g.depthwise("block2/depthwise", x))
    x = g.conv("block2/project", x, 32, kernel=1)
    bottleneck = g.residual("block2", x, pooled)

    # A ResNet block that halves the image and projects its shortcut.
    x = g.relu("block3/conv1", g.conv("block3/conv1", bottleneck, 96, kernel=3, stride=2))
    x = g.conv("block3/conv2", x, 96, kernel=3)
    shortcut = g.conv("block3/shortcut", bottleneck, 96, kernel=1, stride=2)
    x = g.relu("block3", g.residual("block3", x, shortcut))

    x = g.add("head/pool", "GlobalAveragePool", (x,), 96)
    x = g.add("head/flatten", "Flatten", (x,), 96)
    g.add("output", "Gemm", (x,), CLASSES, transB=1)
    return g


class Network(nn.Module):
    """Run a graph in PyTorch."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        # PyTorch allows no dot in a module's name, and this graph has none.
        self.modules_by_name = nn.ModuleDict(
            {node.name: _module(node, graph.channels) for node in graph.nodes}
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = {"input": images}
        for node in self.graph.nodes:
            operands = [values[name] for name in node.inputs]
            values[node.name] = self.modules_by_name[node.name](*operands)
        return values["output"]


class Sum(nn.Module):
    """Addition as a module."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left + right


class Product(nn.Module):
    """Multiplication as a module; a gate of one pixel is repeated."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left * right


class Join(nn.Module):
    """Channels side by side."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.cat([left, right], dim=1)


class HardSigmoid(nn.Module):
    """HardSigmoid of the slope that ONNX nodes of MobileNetV3 have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.hardsigmoid(x)


def _module(node: Node, channels: dict[str, int]) -> nn.Module:
    width, made = channels[node.inputs[0]], channels[node.name]
    a = node.attributes
    makers: dict[str, Callable[[], nn.Module]] = {
        "Conv": lambda: nn.Conv2d(
            width,
            made,
            a["kernel_shape"],
            a["strides"],
            a["pads"][0],
            groups=a["group"],
            bias=a.get("bias", False),
        ),
        "BatchNormalization": lambda: nn.BatchNorm2d(width),
        "Relu": nn.ReLU,
        "Clip": nn.ReLU6,
        "Add": Sum,
        "Mul": Product,
        "Concat": Join,
        "Sigmoid": nn.Sigmoid,
        "HardSigmoid": HardSigmoid,
        "HardSwish": nn.Hardswish,
        "LeakyRelu": lambda: nn.LeakyReLU(a["alpha"]),
        "Resize": lambda: nn.Upsample(scale_factor=2, mode="nearest"),
        "MaxPool": lambda: nn.MaxPool2d(a["kernel_shape"], a["strides"]),
        "GlobalAveragePool": lambda: nn.AdaptiveAvgPool2d(1),
        "Flatten": nn.Flatten,
        "Gemm": lambda: nn.Linear(width, made),
    }
    return makers[node.op]()


@dataclass(frozen=True)
class Split:
    """Images as stored (uint8, N x 8 x 8 x 1, 0..16) and what they show."""

    images: np.ndarray
    labels: np.ndarray

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network is fed (f32, N x 1 x 8 x 8) and should answer."""
        nchw = self.images.transpose(0, 3, 1, 2).astype(np.float32)
        return torch.from_numpy((nchw * SCALE - MEAN) / STD).float(), torch.from_numpy(self.labels)


def splits() -> tuple[Split, Split, Split]:
    """Shuffle the digits into disjoint training, calibration and evaluation samples."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    images = digits.images[order].astype(np.uint8)[..., None]
    labels = digits.target[order].astype(np.int64)
    cuts = [TRAIN, TRAIN + CALIBRATION]
    train, calibration, evaluation = (
        Split(*part) for part in zip(np.split(images, cuts), np.split(labels, cuts), strict=True)
    )
    return train, calibration, evaluation


def _shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image moved by at most one pixel, so that 1097 of them are enough to learn from."""
    background = (0.0 - MEAN) / STD
    padded = nn.functional.pad(images, (1, 1, 1, 1), value=background)
    down, right = torch.randint(0, 3, (2, len(images)), generator=generator).tolist()
    size = images.shape[-1]
    return torch.stack(
        [p[:, y : y + size, x : x + size] for p, y, x in zip(padded, down, right, strict=True)]
    )


def train(graph: Graph, data: Split) -> Network:
    """Train from scratch, the same way each time."""
    return fit(lambda: Network(graph), data)


def fit(make: Callable[[], Module], data: Split) -> Module:
    """Make a network and train it on digits, the same way each time."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(1)  # another number of threads sums in another order
    generator = torch.Generator().manual_seed(SEED)
    network = make()
    images, labels = data.tensors()
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for batch in order[: len(order) // BATCH * BATCH].split(BATCH):
            loss = loss_of(network(_shifted(images[batch], generator)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    return network.eval()


def _weights(node: Node, module: nn.Module) -> dict[str, torch.Tensor]:
    """The node's inputs that are constants, in the order ONNX wants them."""
    if node.op in {"Conv", "Gemm"}:
        parameters = {"weight": module.weight, "bias": module.bias}
        return {f"{node.name}.{k}": v for k, v in parameters.items() if v is not None}
    if node.op == "BatchNormalization":
        words = ("weight", "bias", "running_mean", "running_var")
        return {f"{node.name}.{word}": getattr(module, word) for word in words}
    if node.op == "Clip":
        return {f"{node.name}.min": torch.tensor(0.0), f"{node.name}.max": torch.tensor(6.0)}
    if node.op == "Resize":
        scales = torch.tensor([1.0, 1.0, 2.0, 2.0])
        return {f"{node.name}.roi": torch.zeros(0), f"{node.name}.scales": scales}
    return {}


def to_onnx(network: Network) -> onnx.ModelProto:
    """Write the graph as it stands; the batch size stays open."""
    nodes, initializers = [], []
    for node in network.graph.nodes:
        module = network.modules_by_name[node.name]
        weights = _weights(node, module)
        epsilon = {"epsilon": module.eps} if node.op == "BatchNormalization" else {}
        nodes.append(
            helper.make_node(
                node.op,
                [*node.inputs, *weights],
                [node.name],
                name=node.name,
                **{key: value for key, value in node.attributes.items() if key != "bias"},
                **epsilon,
            )
        )
        initializers += [
            numpy_helper.from_array(tensor.detach().numpy(), name)
            for name, tensor in weights.items()
        ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", CLASSES])],
        initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="examples/train_digits.py",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def evaluate(model: onnx.ModelProto, network: nn.Module, data: Split) -> float:
    """Top-1 accuracy of the ONNX model in ONNX Runtime; it must also agree with PyTorch."""
    images, labels = data.tensors()
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (logits,) = session.run(None, {"input": images.numpy()})
    with torch.no_grad():
        difference = np.abs(logits - network(images).numpy()).max()
    if difference > TOLERANCE:
        raise SystemExit(f"ONNX Runtime and PyTorch differ by {difference:.2e}")
    return float((logits.argmax(1) == labels.numpy()).mean())


def description(accuracy: float, samples: int) -> dict[str, Any]:
    """What stands in digits.json: how images become inputs, and what the outputs mean."""
    return {
        "model": "digits.onnx",
        "dataset": "digits",
        "input": "input",
        "output": "output",
        "classes": [str(digit) for digit in range(CLASSES)],
        "preprocess": {
            "layout": "NCHW",
            "formula": "(image * scale - mean) / std, per channel",
            "scale": SCALE,
            "mean": [MEAN],
            "std": [STD],
        },
        "licence": "Apache-2.0; images: UCI optical digits, CC BY 4.0",
        "float_top1": accuracy,
        "eval_samples": samples,
    }


def main() -> None:
    """Train, check and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).resolve().parent
    parser.add_argument("-o", "--output", type=Path, default=here.parent / "mlq" / "demo")
    folder: Path = parser.parse_args().output

    training, calibration, evaluation = splits()
    network = train(digits_graph(), training)
    model = to_onnx(network)
    accuracy = evaluate(model, network, evaluation)
    print(f"float top-1 on {len(evaluation.labels)} unseen digits: {accuracy:.2%}")
    if accuracy < LOWEST_ACCURACY:
        raise SystemExit(f"under {LOWEST_ACCURACY:.0%}: nothing written")

    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "digits.onnx")
    text = json.dumps(description(accuracy, len(evaluation.labels)), indent=1)
    (folder / "digits.json").write_text(text + "\n")
    for name, split in {"calib": calibration, "eval": evaluation}.items():
        np.savez_compressed(
            folder / f"digits-{name}.npz", images=split.images, labels=split.labels.astype(np.uint8)
        )


if __name__ == "__main__":
    main()
