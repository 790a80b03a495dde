"""Raising changes no number: what GRAPH computes is what ONNX Runtime computes of the file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch_mlir.ir import Location, Module

from mlq import reference
from mlq.dialect import context, functions, layers
from mlq.dialect.locations import names_of
from mlq.dialect.weights import bound
from mlq.frontends.onnx import import_model
from mlq.transforms import leftovers, parse_pipeline
from mlq.transforms.base import Skip, collected_skips, walk

# Of the greatest output: sums of at most some thousand float32 products, folded in float64.
CLOSE = 1e-4

node = helper.make_node
rng = np.random.default_rng(0)

COUNTS = {
    "mlperf_tiny_ic_resnet8": {"conv2d": 9, "residual": 3, "avg_pool2d": 1, "matmul": 1},
    "mlperf_tiny_vww_mobilenetv1": {"conv2d": 27, "avg_pool2d": 1, "matmul": 1},
    "mobilenetv2_1.0": {"conv2d": 52, "residual": 10, "avg_pool2d": 1, "matmul": 1},
    "resnet18_pqf": {
        "conv2d": 20,
        "residual": 8,
        "max_pool2d": 1,
        "avg_pool2d": 1,
        "matmul": 1,
    },
    "resnet20_cifar10": {
        "conv2d": 19,
        "residual": 9,
        "slice": 2,
        "pad": 2,
        "avg_pool2d": 1,
        "matmul": 1,
    },
    "resnet50_pqf": {
        "conv2d": 53,
        "residual": 16,
        "max_pool2d": 1,
        "avg_pool2d": 1,
        "matmul": 1,
    },
    "squeezenet1_1": {"conv2d": 26, "max_pool2d": 3, "concat": 8, "avg_pool2d": 1},
    "vgg_s_cifar10": {"conv2d": 6, "max_pool2d": 3, "matmul": 2},
}


@dataclass(frozen=True)
class Raised:
    """What a pipeline made of a network, and what that computes."""

    output: np.ndarray
    ops: Counter[str]
    names: list[str]
    locations: set[str]
    floats: tuple[Skip, ...]


def raise_(path: Path, image: np.ndarray, pipeline: str = "@raise-fused") -> Raised:
    model = import_model(path)
    store = model.weights.copy()
    with context(), Location.unknown(), bound(store), collected_skips() as skips:
        module = Module.parse(model.text)
        parse_pipeline(pipeline).run(module.operation)
        module.operation.verify()
        ops = walk(module.operation)
        counts = Counter(op.operation.name.removeprefix("mlq.") for op in ops)
        linear = [
            op for kind in ("conv2d", "matmul") for op in walk(module.operation, f"mlq.{kind}")
        ]
        counts["residual"] = sum(op.residual is not None for op in linear)
        named = [op for op in ops if "mlq.name" in op.operation.attributes]
        floats = leftovers.float_nodes(module.operation, skips)
        output = np.empty(0)
        if not floats:
            result = functions.results_of(functions.main_of(module.operation))[0]
            output = reference.run(module, [image])[layers.tensor_name(result)]
        return Raised(
            output,
            counts,
            [op.operation.attributes["mlq.name"].value for op in named],
            {name for op in ops for name in names_of(op.location)},
            floats,
        )


def onnx_runtime(path: Path, image: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


def assert_same(raised: Raised, wanted: np.ndarray) -> None:
    assert raised.floats == ()
    assert raised.output.shape == wanted.shape
    assert np.abs(raised.output - wanted).max() <= CLOSE * max(np.abs(wanted).max(), 1.0)


@pytest.mark.parametrize("name", COUNTS)
def test_real_network(real_data: Path, name: str) -> None:
    path = real_data / "models" / f"{name}.onnx"
    shape = [axis.dim_value or 1 for axis in graph_of(path).input[0].type.tensor_type.shape.dim]
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    raised = raise_(path, image)
    counted = {kind: raised.ops[kind] for kind in COUNTS[name]}
    assert counted == COUNTS[name]
    assert raised.ops["add"] == raised.ops["activate"] == 0
    assert len(set(raised.names)) == len(raised.names)
    assert_same(raised, onnx_runtime(path, image))


def test_every_level_computes_the_same(demo: Path) -> None:
    path = demo / "digits.onnx"
    image = rng.uniform(size=(3, 1, 8, 8)).astype(np.float32)
    wanted = onnx_runtime(path, image)
    folded, fused = (raise_(path, image, f"@raise-{level}") for level in ("folded", "fused"))
    assert_same(folded, wanted)
    assert_same(fused, wanted)
    assert folded.ops["add"] == fused.ops["residual"] == 3
    onnx_level = raise_(path, image, "@raise-onnx")
    assert {each.op for each in onnx_level.floats} == {"onnx.BatchNormalization"}


def test_every_node_stays_visible(demo: Path) -> None:
    path = demo / "digits.onnx"
    nodes = {each.name for each in graph_of(path).node}
    assert nodes <= raise_(path, np.zeros((1, 1, 8, 8), np.float32)).locations


def graph_of(path: Path) -> onnx.GraphProto:
    return onnx.load(path, load_external_data=False).graph


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    shape: tuple[int | str, ...],
    constants: dict[str, Any] | None = None,
) -> Path:
    """A network from `x` to `y`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


def reals(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def positive(*shape: int) -> np.ndarray:
    return rng.uniform(0.5, 2.0, size=shape).astype(np.float32)


NORM = {"g": positive(3), "o": reals(3), "m": reals(3), "v": positive(3)}
CONV = {"w": reals(3, 3, 3, 3)}
IMAGE, SEQUENCE, ROW = ("N", 3, 6, 5), ("N", 3, 7), ("N", 3)


def norm(source: str, result: str) -> onnx.NodeProto:
    return node("BatchNormalization", [source, "g", "o", "m", "v"], [result], epsilon=1e-3)


def conv(source: str, result: str) -> onnx.NodeProto:
    return node("Conv", [source, "w"], [result], pads=[1, 1, 1, 1])


def gate(source: str, result: str, *, squash: str = "HardSigmoid") -> list[onnx.NodeProto]:
    """Squeeze-and-excite without the layers in between."""
    return [
        node("GlobalAveragePool", [source], ["pooled"]),
        node(squash, ["pooled"], ["gate"]),
        node("Mul", ["gate", source], [result]),
    ]


NUMBERS = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)}
ERF = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}

CASES: dict[str, tuple[list[onnx.NodeProto], tuple[Any, ...], dict[str, Any]]] = {
    **{
        kind: ([conv("x", "a"), node(kind, ["a"], ["y"], **keys)], IMAGE, CONV)
        for kind, keys in {
            "Elu": {"alpha": 0.5},
            "Erf": {},
            "HardSigmoid": {"alpha": 0.3},
            "HardSwish": {},
            "LeakyRelu": {"alpha": 0.2},
            "Sigmoid": {},
            "Softplus": {},
            "Tanh": {},
        }.items()
    },
    "PRelu": ([node("PRelu", ["x", "half"], ["y"])], ROW, {"half": np.float32([0.5])}),
    "silu": (
        [conv("x", "a"), node("Sigmoid", ["a"], ["s"]), node("Mul", ["s", "a"], ["y"])],
        IMAGE,
        CONV,
    ),
    "hard-swish in pieces": (
        [
            conv("x", "a"),
            node("Add", ["a", "three"], ["b"]),
            node("Clip", ["b", "zero", "six"], ["c"]),
            node("Mul", ["a", "c"], ["d"]),
            node("Div", ["d", "six"], ["y"]),
        ],
        IMAGE,
        CONV | NUMBERS,
    ),
    "hard-sigmoid in pieces": (
        [
            conv("x", "a"),
            node("Add", ["a", "three"], ["b"]),
            node("Clip", ["b", "zero", "six"], ["c"]),
            node("Div", ["c", "six"], ["y"]),
        ],
        IMAGE,
        CONV | NUMBERS,
    ),
    "gelu in pieces": (
        [
            node("Div", ["x", "root"], ["a"]),
            node("Erf", ["a"], ["b"]),
            node("Add", ["b", "one"], ["c"]),
            node("Mul", ["x", "c"], ["d"]),
            node("Mul", ["d", "half"], ["y"]),
        ],
        ROW,
        ERF,
    ),
    "gate": ([conv("x", "a"), *gate("a", "y")], IMAGE, CONV),
    "gate of silu": (
        [node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["a"]), *gate("a", "y")],
        IMAGE,
        {},
    ),
    "resize": (
        [
            node(
                "Resize",
                ["x", "", "factors"],
                ["y"],
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ],
        IMAGE,
        {"factors": np.array([1, 1, 2, 3], np.float32)},
    ),
    "resize of half pixels": (
        [node("Resize", ["x", "", "factors"], ["y"])],
        IMAGE,
        {"factors": np.array([1, 1, 3, 2], np.float32)},
    ),
    "norm first": ([norm("x", "a"), conv("a", "y")], IMAGE, CONV | NORM),
    "norm after relu": (
        [conv("x", "a"), node("Relu", ["a"], ["b"]), norm("b", "y")],
        IMAGE,
        CONV | NORM,
    ),
    "norm after add": (
        [conv("x", "a"), node("Add", ["a", "x"], ["b"]), norm("b", "y")],
        IMAGE,
        CONV | NORM,
    ),
    "norm of a row": ([norm("x", "y")], ROW, NORM),
    "norm of a sequence": ([norm("x", "y")], SEQUENCE, NORM),
    "norm after 1-D conv": (
        [node("Conv", ["x", "k"], ["a"], pads=[1, 1]), norm("a", "b"), node("Relu", ["b"], ["y"])],
        SEQUENCE,
        NORM | {"k": reals(3, 3, 3)},
    ),
    "norm after gemm": (
        [node("Gemm", ["x", "k", "b"], ["a"], transB=1, alpha=0.5), norm("a", "y")],
        ROW,
        NORM | {"k": reals(3, 3), "b": reals(3)},
    ),
    "two norms and arithmetic": (
        [
            conv("x", "a"),
            norm("a", "b"),
            node("Mul", ["b", "f"], ["c"]),
            node("Sub", ["t", "c"], ["d"]),
            node("Div", ["d", "f"], ["e"]),
            norm("e", "y"),
        ],
        IMAGE,
        CONV | NORM | {"f": positive(3, 1, 1), "t": np.float32(0.7)},
    ),
    "preprocessing in the network": (
        [node("Sub", ["x", "f"], ["a"]), node("Div", ["a", "f"], ["b"]), conv("b", "y")],
        IMAGE,
        CONV | {"f": positive(1, 3, 1, 1)},
    ),
    "matmul and bias": (
        [node("MatMul", ["x", "k"], ["a"]), node("Add", ["b", "a"], ["y"])],
        ("N", 2, 3),
        {"k": reals(3, 4), "b": reals(4)},
    ),
    "gemm with alpha, beta and one number": (
        [node("Gemm", ["x", "k", "b"], ["y"], alpha=2.0, beta=0.5)],
        ROW,
        {"k": reals(3, 4), "b": np.float32(3.0)},
    ),
    "residual before two convolutions": (
        [
            conv("x", "a"),
            conv("a", "b"),
            node("Add", ["b", "a"], ["c"]),
            node("Relu", ["c"], ["y"]),
        ],
        IMAGE,
        CONV,
    ),
    "shared weight, different norms": (
        [conv("x", "a"), norm("a", "b"), conv("b", "c"), node("Mul", ["c", "t"], ["y"])],
        IMAGE,
        CONV | NORM | {"t": np.float32(-2.0)},
    ),
    "relu through pool and reshape": (
        [
            conv("x", "a"),
            node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2]),
            node("Flatten", ["b"], ["c"]),
            node("Clip", ["c", "", "t"], ["y"]),
        ],
        IMAGE,
        CONV | {"t": np.float32(0.1)},
    ),
    "clips that do not meet": (
        [
            node("Clip", ["x", "s", "t"], ["a"]),
            node("Clip", ["a", "u", "o"], ["y"]),
        ],
        ROW,
        {"s": np.float32(0), "t": np.float32(6), "u": np.float32(7), "o": np.float32(9)},
    ),
    "maximum and minimum": (
        [conv("x", "a"), node("Max", ["s", "a"], ["b"]), node("Min", ["b", "t"], ["y"])],
        IMAGE,
        CONV | {"s": np.float32(0), "t": reals(1) + 1},
    ),
    "view of the exporter": (
        [
            node("Shape", ["x"], ["a"]),
            node("Gather", ["a", "z"], ["b"]),
            node("Unsqueeze", ["b", "s"], ["c"]),
            node("Concat", ["c", "r"], ["d"], axis=0),
            node("Reshape", ["x", "d"], ["y"]),
        ],
        IMAGE,
        {"z": np.int64(0), "s": ints(0), "r": ints(-1)},
    ),
    "channel shuffle": (
        [
            node("Reshape", ["x", "s"], ["a"]),
            node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]),
            node("Reshape", ["b", "t"], ["y"]),
        ],
        ("N", 6, 4, 4),
        {"s": ints(0, 2, 3, 4, 4), "t": ints(-1, 6, 4, 4)},
    ),
    "squeeze, unsqueeze, slice, pad": (
        [
            node("Unsqueeze", ["x", "two"], ["a"]),
            node("Slice", ["a", "two", "end", "four", "two"], ["b"]),
            node("Pad", ["b", "pads", "t"], ["c"]),
            node("Squeeze", ["c", "two"], ["y"]),
        ],
        ("N", 3, 5, 9),
        {
            "two": ints(2),
            "four": ints(-1),
            "end": ints(-1),
            "pads": ints(0, 1, 0, 0, 2, 0, 0, 0, 0, 1),
            "t": np.float32(0.5),
        },
    ),
    "attention, scaled after": (
        [
            node("Reshape", ["x", "s"], ["a"]),
            node("Transpose", ["a"], ["q"], perm=[0, 2, 1, 3]),
            node("Transpose", ["a"], ["k"], perm=[0, 2, 3, 1]),
            node("MatMul", ["q", "k"], ["m"]),
            node("Mul", ["m", "half"], ["p"]),
            node("MatMul", ["p", "q"], ["y"]),
        ],
        ("N", 5, 12),
        {"s": ints(0, 0, 3, 4), "half": np.float32(0.5)},
    ),
    "attention, scaled before, one head": (
        [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
            node("Mul", ["x", "half"], ["q"]),
            node("Div", ["t", "three"], ["k"]),
            node("MatMul", ["q", "k"], ["p"]),
            node("MatMul", ["p", "x"], ["m"]),
            node("Relu", ["m"], ["y"]),
        ],
        ("N", 5, 4),
        {"half": np.float32(0.5), "three": np.float32([3])},
    ),
    "products of many axes": (
        [
            node("Reshape", ["x", "s"], ["a"]),
            node("Transpose", ["a"], ["b"], perm=[0, 1, 2, 4, 3]),
            node("MatMul", ["a", "b"], ["y"]),
        ],
        ("N", 6, 4, 4),
        {"s": ints(0, 2, 3, 2, 8)},
    ),
    "means": (
        [
            node("ReduceMean", ["x"], ["a"], axes=[-1, 2], keepdims=0),
            node("GlobalAveragePool", ["x"], ["b"]),
            node("Flatten", ["b"], ["c"]),
            node("Concat", ["a", "c"], ["y"], axis=-1),
        ],
        IMAGE,
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [2, None], ids=["batch 2", "any batch"])
def test_small_network(tmp_path: Path, case: str, batch: int | None) -> None:
    nodes, shape, constants = CASES[case]
    path = save(tmp_path / "n.onnx", nodes, (batch or "N", *shape[1:]), constants)
    image = np.random.default_rng(2).normal(size=(2, *shape[1:])).astype(np.float32)
    assert_same(raise_(path, image), onnx_runtime(path, image))


def test_gelu_in_pieces_behind_a_bias_is_one_function(tmp_path: Path) -> None:
    """What a bias, not yet folded, is read by comes over two bridges."""
    nodes = [
        node("MatMul", ["x", "k"], ["m"]),
        node("Add", ["m", "b"], ["a"]),
        node("Div", ["a", "root"], ["d"]),
        node("Erf", ["d"], ["e"]),
        node("Add", ["e", "one"], ["f"]),
        node("Mul", ["a", "f"], ["g"]),
        node("Mul", ["g", "half"], ["y"]),
    ]
    constants = ERF | {"k": reals(3, 4), "b": reals(4)}
    path = save(tmp_path / "n.onnx", nodes, (2, 5, 3), constants)
    image = np.random.default_rng(2).normal(size=(2, 5, 3)).astype(np.float32)
    raised = raise_(path, image)
    assert (raised.ops["nonlinearity"], raised.ops["mul"], raised.ops["conv2d"]) == (1, 0, 0)
    assert_same(raised, onnx_runtime(path, image))


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("attention")])
def test_attention_scales_products_as_it_multiplies(tmp_path: Path, case: str) -> None:
    """Rows move as a whole, and no op is left that multiplies by a number."""
    nodes, shape, constants = CASES[case]
    path = save(tmp_path / "n.onnx", nodes, (2, *shape[1:]), constants)
    image = np.random.default_rng(2).normal(size=(2, *shape[1:])).astype(np.float32)
    ops = raise_(path, image).ops
    assert (ops["batch_matmul"], ops["conv2d"], ops["mul"]) == (2, 0, 0)


def test_a_scale_amid_nodes_is_no_layer(tmp_path: Path) -> None:
    """As of a product that mlq has no op for, and whose readers stay float."""
    nodes = [
        node("Softmax", ["x"], ["m"]),
        node("Mul", ["m", "half"], ["s"], name="scale"),
        node("Softmax", ["s"], ["y"]),
    ]
    path = save(tmp_path / "n.onnx", nodes, (1, 3, 4, 4), {"half": np.float32(0.5)})
    raised = raise_(path, np.empty(0))
    assert raised.ops["conv2d"] == 0
    reason = "it stands between ONNX nodes, which stay float"
    assert Skip("onnx.Mul", "scale", reason) in raised.floats


FLOATS: dict[str, tuple[list[onnx.NodeProto], tuple[Any, ...], str]] = {
    "unknown": ([node("Celu", ["x"], ["y"])], ROW, "mlq has no op for ONNX Celu"),
    "any batch": (
        [node("DepthToSpace", ["x"], ["y"], blocksize=1)],
        IMAGE,
        "its batch is known only at run time, or it is of no images",
    ),
    "slopes": (
        [node("PRelu", ["x", "s"], ["y"])],
        ROW,
        "its slope differs from channel to channel",
    ),
    "between pixels": (
        [node("Resize", ["x", "", "f"], ["y"], mode="cubic")],
        IMAGE,
        "it is no resize to the nearest pixel that repeats each one",
    ),
    "between pixels of a part": (
        [
            node(
                "Resize",
                ["x", "", "f"],
                ["y"],
                mode="linear",
                coordinate_transformation_mode="tf_crop_and_resize",
            )
        ],
        IMAGE,
        "its pixels are not simply between others: tf_crop_and_resize",
    ),
    "rounded pixels": (
        [node("Resize", ["x", "", "f"], ["y"], coordinate_transformation_mode="asymmetric")],
        IMAGE,
        "it is no resize to the nearest pixel that repeats each one",
    ),
    "half a pixel": (
        [node("Resize", ["x", "", "h"], ["y"])],
        IMAGE,
        "its factors are no whole numbers, or not only of height and width",
    ),
    "reflect": (
        [node("Pad", ["x", "p"], ["y"], mode="reflect")],
        ROW,
        "its mode is 'reflect', not 'constant'",
    ),
    "greater of two": (
        [node("Max", ["x", "x"], ["y"])],
        ROW,
        "its operands are not an activation and a constant",
    ),
    "zero": ([node("Div", ["x", "z"], ["y"])], ROW, "it divides by zero"),
    "run time": (
        [node("MatMul", ["x", "x"], ["y"])],
        (3, 3),
        "its right side is computed at run time",
    ),
}


@pytest.mark.parametrize("case", FLOATS)
def test_what_stays_float_says_why(tmp_path: Path, case: str) -> None:
    nodes, shape, reason = FLOATS[case]
    nodes[0].name = "it"
    known = {
        "p": ints(0, 1, 0, 1),
        "z": np.float32(0),
        "s": np.linspace(0.1, 0.3, ROW[-1], dtype=np.float32),
        "f": np.array([1, 1, 2, 2], np.float32),
        "h": np.array([1, 1, 1.5, 2], np.float32),
    }
    constants = {name: array for name, array in known.items() if name in nodes[0].input}
    raised = raise_(save(tmp_path / "n.onnx", nodes, shape, constants), np.empty(0))
    assert raised.floats == (Skip(f"onnx.{nodes[0].op_type}", "it", reason),)
    assert "to_builtin_tensor" not in raised.names  # the bridge has the node's name
    assert "it" in raised.names


@st.composite
def windows(draw: st.DrawFn, kind: str) -> tuple[list[int], dict[str, Any]]:
    """Sizes of an input, and the attributes of a Conv or pool on it."""
    rank = draw(st.integers(1, 2))

    def several(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(rank)]

    sizes, kernel = several(5, 11), several(1, 3)
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": several(1, 3)}
    mode = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if mode == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, kernel[i % rank] - 1)) for i in range(2 * rank)]
    else:
        attributes["auto_pad"] = mode
    # ONNX Runtime 1.31 forgets dilations when it computes the padding of SAME.
    if kind != "AveragePool" and mode in {"NOTSET", "VALID"}:
        attributes["dilations"] = several(1, 2)
    if kind != "Conv":
        attributes["ceil_mode"] = draw(st.integers(0, 1))
    if kind == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    # ONNX Runtime refuses the negative padding that its formula for SAME gives then.
    assume(
        mode in {"NOTSET", "VALID"}
        or all(k >= s for k, s in zip(kernel, attributes["strides"], strict=True))
    )
    return sizes, attributes


@pytest.mark.parametrize(
    "rule", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
)
def test_linear_resizes(tmp_path: Path, rule: str) -> None:
    """To any sizes, and by factors of which float32 knows what the sizes are."""
    sizes = st.lists(st.integers(1, 7), min_size=2, max_size=2)
    factors = st.lists(st.sampled_from([0.5, 1.0, 1.25, 2.0, 3.0]), min_size=2, max_size=2)

    @settings(max_examples=20)
    @given(sizes, st.one_of(sizes, factors))
    def check(before: list[int], wanted: list[float]) -> None:
        by_factors = isinstance(wanted[0], float)
        assume(not by_factors or all(n * f >= 1 for n, f in zip(before, wanted, strict=True)))
        kind, inputs = (np.float32, ["x", "", "f"]) if by_factors else (int, ["x", "", "", "f"])
        known = {"f": np.array([1, 1 if by_factors else 3, *wanted], kind)}
        nodes = [node("Resize", inputs, ["y"], mode="linear", coordinate_transformation_mode=rule)]
        path = save(tmp_path / "n.onnx", nodes, (1, 3, *before), known)
        image = reals(1, 3, *before)
        raised = raise_(path, image)
        assert_same(raised, onnx_runtime(path, image))
        assert raised.ops["resample"] == 1

    check()


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_a_pool_of_single_pixels_picks_them(tmp_path: Path, kind: str) -> None:
    nodes = [node(kind, ["x"], ["y"], kernel_shape=[1, 1], strides=[2, 3])]
    path = save(tmp_path / "n.onnx", nodes, ("N", 4, 7, 9), {})
    image = reals(2, 4, 7, 9)
    raised = raise_(path, image)
    assert_same(raised, onnx_runtime(path, image))
    assert raised.ops["slice"] == 1


@pytest.mark.usefixtures("onnxruntime_oracle")
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool", "Conv"])
def test_windows(tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    folder = tmp_path_factory.mktemp(kind)

    @settings(max_examples=40)
    @given(windows(kind))
    def check(drawn: tuple[list[int], dict[str, Any]]) -> None:
        sizes, attributes = drawn
        constants, operands = {}, ["x"]
        if kind == "Conv":
            operands, constants = ["x", "w"], {"w": reals(4, 2, *attributes["kernel_shape"])}
            attributes = attributes | {"group": 2}
        nodes = [node(kind, operands, ["y"], **attributes)]
        path = save(folder / "n.onnx", nodes, ("N", 4, *sizes), constants)
        image = reals(2, 4, *sizes)
        assert_same(raise_(path, image), onnx_runtime(path, image))

    check()


@st.composite
def spread(draw: st.DrawFn) -> tuple[list[int], dict[str, Any]]:
    """Sizes of an input, and the attributes of a ConvTranspose on it."""
    rank = draw(st.integers(1, 2))

    def several(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(rank)]

    sizes, kernel, strides = several(1, 5), several(1, 5), several(1, 4)
    more = [draw(st.integers(0, stride - 1)) for stride in strides]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    mode = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "shape"]))
    if mode == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, kernel[i % rank] - 1)) for i in range(2 * rank)]
        attributes["output_padding"] = more
        begins, ends = attributes["pads"][:rank], attributes["pads"][rank:]
        least = zip(sizes, kernel, strides, more, begins, ends, strict=True)
        assume(all((n - 1) * s + k + p - low - high > 0 for n, k, s, p, low, high in least))
    elif mode == "shape":
        attributes["output_shape"] = [
            (n - 1) * s + draw(st.integers(1, k))
            for n, k, s in zip(sizes, kernel, strides, strict=True)
        ]
    else:
        attributes["auto_pad"] = mode
        assume(all(k >= s for k, s in zip(kernel, strides, strict=True)))
    return sizes, attributes


def test_transposed_convolutions(tmp_path: Path) -> None:
    @settings(max_examples=60)
    @given(spread(), st.sampled_from(["xw", "xwb"]))
    def check(drawn: tuple[list[int], dict[str, Any]], operands: str) -> None:
        sizes, attributes = drawn
        constants = {"w": reals(3, 2, *attributes["kernel_shape"]), "b": reals(2)}
        nodes = [node("ConvTranspose", operands, ["a"], **attributes), node("Relu", ["a"], ["y"])]
        constants = {name: constants[name] for name in operands[1:]}
        path = save(tmp_path / "n.onnx", nodes, (2, 3, *sizes), constants)
        image = reals(2, 3, *sizes)
        raised = raise_(path, image)
        assert_same(raised, onnx_runtime(path, image))
        assert (raised.ops["conv2d"], raised.ops["activate"]) == (1, 0)

    check()


BACKEND = (
    "averagepool",
    "conv",
    "convtranspose",
    "depthtospace",
    "gemm",
    "globalaveragepool",
    "maxpool",
    "pad",
    "slice",
)
MAY_STAY_FLOAT = (
    "it cuts the batch",
    "it has groups, or windows with gaps",
    "its indices are used",
    "its kernel has other axes than its input",
    "its input is 5-D",
    "its input is of",
    "its mode is",
    "its windows are dilated",
    "a step of it is negative",
    "nothing is left of its input",
    "its bias differs from row to row",
)


def backend_cases() -> list[Any]:
    """ONNX's own tests of these operators; importing a module defines its cases."""
    from onnx.backend.test.case import node as cases

    for module in BACKEND:
        import_module(f"onnx.backend.test.case.node.{module}")
    return [
        each
        for each in cases._NodeTestCases
        if {n.op_type.lower() for n in each.model.graph.node} <= set(BACKEND)
    ]


def test_onnx_backend_cases(tmp_path: Path) -> None:
    raised = 0
    for case in backend_cases():
        inputs, outputs = case.data_sets[0]
        model, path = onnx.ModelProto(), tmp_path / "n.onnx"
        model.CopyFrom(case.model)
        # All operands but the first are constants here, as they are in networks.
        for value, array in list(zip(model.graph.input, inputs, strict=False))[1:]:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
            model.graph.input.remove(value)
        onnx.save(model, path)
        made = raise_(path, inputs[0])
        if made.floats:
            assert made.floats[0].reason.startswith(MAY_STAY_FLOAT), (case.name, made.floats)
            continue
        raised += 1
        # ONNX's expected values are written with four digits.
        assert made.output.shape == outputs[0].shape, case.name
        np.testing.assert_allclose(made.output, outputs[0], 1e-3, 1e-4, err_msg=case.name)
    assert raised >= 50
