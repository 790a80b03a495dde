"""Networks of today's ops on this x86 CPU: borders, KL to float, and times beside ONNX Runtime's.

    python benchmarks/mobile.py MODEL.onnx --calib DATA --eval DATA [-o OUT] [--seconds 20]
    python benchmarks/mobile.py --random [-o OUT]

The first takes networks with data, such as those of examples/train_mobile.py; the second times one
of MobileNetV3-Small's shapes (hard-swish, gates; 224x224) with random weights, whose KL says
nothing. mlq's int8 is the plan with every layer in w8a8 that can be; ONNX Runtime's is its static
quantization (Q/DQ, U8S8, per channel, minmax) from the same samples. All are called in turn on a
batch of one; a row is the median wall and CPU time of a call.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from mlq import calibration, metrics, planning, runtime, targets, variant
from mlq.frontends.data import load_data
from mlq.latency import time_for
from mlq.network import load
from mlq.recipe import resolve
from mlq.targets.host import cpu_model

Array = NDArray[Any]

# Kernel, hidden and projected channels, gate, activation, stride: table 2 of Howard et al. 2019.
BLOCKS = (
    (3, 16, 16, True, "Relu", 2),
    (3, 72, 24, False, "Relu", 2),
    (3, 88, 24, False, "Relu", 1),
    (5, 96, 40, True, "HardSwish", 2),
    (5, 240, 40, True, "HardSwish", 1),
    (5, 240, 40, True, "HardSwish", 1),
    (5, 120, 48, True, "HardSwish", 1),
    (5, 144, 48, True, "HardSwish", 1),
    (5, 288, 96, True, "HardSwish", 2),
    (5, 576, 96, True, "HardSwish", 1),
    (5, 576, 96, True, "HardSwish", 1),
)


class Writer:
    """An ONNX graph under construction, with He-random weights."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(self, x: str, shape: tuple[int, int, int], *, kernel: int, stride: int = 1) -> str:
        """`shape` is output channels, input channels of a group, groups."""
        made, depth, groups = shape
        fan_in = depth * kernel * kernel
        size = (made, depth, kernel, kernel)
        weight = self.rng.normal(0, np.sqrt(2 / fan_in), size).astype(np.float32)
        names = [f"w{len(self.weights)}", f"b{len(self.weights)}"]
        bias = self.rng.normal(0, 0.05, made).astype(np.float32)
        arrays = zip((weight, bias), names, strict=True)
        self.weights += [numpy_helper.from_array(array, name) for array, name in arrays]
        pads = [kernel // 2] * 4
        return self.node("Conv", x, *names, strides=[stride] * 2, pads=pads, group=groups)

    def gated(self, x: str, channels: int) -> str:
        few = max(8, channels // 4)
        y = self.node("GlobalAveragePool", x)
        y = self.node("Relu", self.conv(y, (few, channels, 1), kernel=1))
        y = self.conv(y, (channels, few, 1), kernel=1)
        return self.node("Mul", x, self.node("HardSigmoid", y, alpha=1 / 6, beta=0.5))

    def model(self) -> onnx.ModelProto:
        x, width = self.node("HardSwish", self.conv("input", (16, 3, 1), kernel=3, stride=2)), 16
        for kernel, hidden, projected, gate, act, stride in BLOCKS:
            y = x
            if hidden != width:
                y = self.node(act, self.conv(y, (hidden, width, 1), kernel=1))
            y = self.node(act, self.conv(y, (hidden, 1, hidden), kernel=kernel, stride=stride))
            y = self.conv(self.gated(y, hidden) if gate else y, (projected, hidden, 1), kernel=1)
            x = self.node("Add", x, y) if stride == 1 and width == projected else y
            width = projected
        x = self.node("HardSwish", self.conv(x, (576, width, 1), kernel=1))
        x = self.conv(self.node("GlobalAveragePool", x), (1024, 576, 1), kernel=1)
        x = self.conv(self.node("HardSwish", x), (1000, 1024, 1), kernel=1)
        x = self.node("Flatten", x)
        sizes = ["batch", 3, 224, 224]
        graph = helper.make_graph(
            self.nodes,
            "mobilenet_v3_small",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, sizes)],
            [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", 1000])],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Reader(CalibrationDataReader):
    """Samples one by one."""

    def __init__(self, name: str, samples: Array) -> None:
        self.pending = iter([{name: samples[i : i + 1]} for i in range(len(samples))])

    def get_next(self) -> Any:
        return next(self.pending, None)


def session(model: Path) -> Any:
    """ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def quantized(model: Path, name: str, samples: Array, folder: Path) -> Path:
    """The network as ONNX Runtime quantizes it."""
    prepared, made = folder / "prepared.onnx", folder / "int8.onnx"
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(
            prepared,
            made,
            Reader(name, samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return made


def measure(
    model: Path,
    calib: str,
    evaluation: str,
    seconds: float,
    *,
    dynamic: bool = False,
    wide: Sequence[str] = (),
) -> None:
    """One network: print where precisions meet, how far outputs are from float, and times.

    With `dynamic`, ONNX Runtime's dynamic quantization (ranges of each call, per channel), too; of
    the `wide` precisions each on all layers that can have it, the others in w8a8.
    """
    network, target = load(model), targets.host_target()
    specs, name = network.sample_specs, network.sample_specs[0].name
    known = {"inputs": specs, "model_path": model}
    x, tested = (
        np.concatenate([batch[name] for batch in load_data(each, **known, samples=most).batches(1)])
        for each, most in ((calib, 64), (evaluation, 500))
    )
    executable = calibration.instrument(network, target)
    observed = calibration.observe(network, (executable.run(each[None]) for each in x))
    ranges = calibration.ranges_by("mse", observed, scheme="asymmetric")
    recipe = resolve({"target": target.name})
    allowed = planning.supported(network, target, ["w8a8"])
    plans = {
        "float": planning.empty_plan(recipe),
        "int8": planning.uniform_plan(network, recipe, "w8a8", allowed),
    }
    for each in wide:
        offered = planning.supported(network, target, ["w8a8", each])
        last = {name: can[-1:] for name, can in offered.items()}
        others = planning.uniform_plan(network, recipe, "w8a8", last).layers
        plan = planning.uniform_plan(network, recipe, each, last)
        plans[each] = plan.model_copy(update={"layers": {**others, **plan.layers}})
    made = {key: variant.build(network, plan, ranges, target) for key, plan in plans.items()}
    casts, counts = made["int8"].casts(), made["int8"].quantized.counts
    borders = f"{len(casts.borders)} borders, {casts.quantize} casts to integers, "
    borders += f"{counts['torch.operator']} ONNX nodes left"
    with tempfile.TemporaryDirectory() as scratch:
        others = {"int8": session(quantized(model, name, x, Path(scratch)))}
        if dynamic:
            quantize_dynamic(model, Path(scratch, "dynamic.onnx"), per_channel=True)
            others["dynamic"] = session(Path(scratch, "dynamic.onnx"))
    theirs = session(model)
    ours = {key: runtime.load(each.vmfb, threads=1) for key, each in made.items()}
    calls: dict[str, Any] = {f"mlq {key}": each.prepare(x[:1]) for key, each in ours.items()}
    calls["ONNX Runtime float"] = lambda: theirs.run(None, {name: x[:1]})
    for kind, each in others.items():
        calls[f"ONNX Runtime {kind}"] = partial(each.run, None, {name: x[:1]})
    print(f"{model.name} on {cpu_model()}, 1 thread: {borders}")
    reference = np.concatenate([theirs.run(None, {name: one[None]})[0] for one in tested])
    of = {f"mlq {key}": [each.run(x[None])[0] for x in tested] for key, each in ours.items()}
    of |= {
        f"ONNX Runtime {kind}": [each.run(None, {name: one[None]})[0] for one in tested]
        for kind, each in others.items()
    }
    times = dict(zip(calls, time_for(list(calls.values()), seconds=seconds), strict=True))
    for form, each in times.items():
        kl = metrics.kl_mnat(reference, np.concatenate(of[form])) if form in of else 0.0
        print(f"  {form:20} {each.p50:8.4f} ms {each.cpu_p50:8.4f} CPU ms  KL {kl:9.4f} mnat")


def main() -> None:
    """Measure the networks that are named, or the random one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--calib", default="random:16")
    parser.add_argument("--eval", default="random:16")
    parser.add_argument("--random", action="store_true", help="MobileNetV3-Small, random weights")
    parser.add_argument("-o", "--out", type=Path, default=Path("benchmarks/out/mobile"))
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    models = list(arguments.models)
    if arguments.random:
        models.append(arguments.out / "mobilenet_v3_small.onnx")
        onnx.save(Writer().model(), models[-1])
    for model in models:
        measure(model, arguments.calib, arguments.eval, arguments.seconds)


if __name__ == "__main__":
    main()
