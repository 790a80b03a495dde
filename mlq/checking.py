"""What mlq makes of a network on a target, before any sample is looked at."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import emulation, metrics, peer, planning, targets
from mlq.frontends.data import Samples, load_data
from mlq.network import Network, exposed, load, transform
from mlq.report import FloatOp, Real
from mlq.reporting import float_ops
from mlq.transforms.pipelines import lowering
from mlq.values import Part

Array = NDArray[Any]
# Float sums in another order: on seven trained networks the worst tensor differs by 3.4e-6.
TOLERANCE = 1e-4


class LayerFacts(Part):
    """A layer, the precisions that it can have on the target, and why none of them is integer."""

    name: str
    op: str
    macs: int
    params: int
    precisions: tuple[str, ...]
    why: str = ""


class TensorCheck(Part):
    """How far a tensor is from ONNX Runtime's.

    `difference` is the greatest of any element, as a share of the tensor's greatest; `sqnr_db` is
    None where there is none.
    """

    name: str
    op: str
    difference: Real
    sqnr_db: Real | None
    sound: bool


class Check(Part):
    """What `mlq check` found; `tensors` is empty unless numbers were compared."""

    model: str
    target: str
    opset: int
    nodes: int
    layers: tuple[LayerFacts, ...]
    float_ops: tuple[FloatOp, ...]
    tensors: tuple[TensorCheck, ...] = ()
    quantized_nodes: int = 0

    @property
    def sound(self) -> bool:
        """Whether every tensor that was compared is right."""
        return all(tensor.sound for tensor in self.tensors)


def check(
    model: str | Path,
    target: str = "x86",
    *,
    ir_level: str = "fused",
    numerics: bool = False,
    data: Samples = "random:1",
    preprocess: Path | None = None,
    sizes: str | None = None,
    outputs: str | None = None,
) -> Check:
    """Say which layers can be integer on a target, and what stays float and why.

    With `numerics` the float network is compiled and run, every ONNX node an op of its own, and
    each tensor compared with ONNX Runtime's, on the first sample of `data`. `sizes` are of axes
    that inputs leave open, as `T=98`; `outputs` is where the graph is to end, as `boxes,scores`.
    """
    path, device = Path(model), targets.by_name(target)
    read = partial(load, path, batch=1, sizes=sizes or "", outputs=outputs or "")
    network = read(ir_level=ir_level)
    compared: tuple[TensorCheck, ...] = ()
    if numerics:
        samples = load_data(data, network.model.inputs, preprocess=preprocess, model_path=path)
        nodes = network if ir_level == "onnx" else read(ir_level="onnx")
        compared = tuple(compare(nodes, device, next(samples.batches(1))))
    return Check(
        model=str(path),
        target=device.name,
        opset=network.model.opset,
        nodes=network.model.nodes,
        layers=tuple(
            LayerFacts(
                name=layer.name,
                op=layer.kind,
                macs=layer.macs,
                params=layer.params,
                precisions=tuple(planning.supported_by(network, device, layer)),
                why=_why_float(device, layer.kind),
            )
            for layer in network.layers
        ),
        float_ops=tuple(float_ops(network)),
        tensors=compared,
        quantized_nodes=network.model.quantized_nodes,
    )


def _why_float(target: targets.Target, kind: str) -> str:
    if any(name != "f32" for name in target.precisions(kind)):
        return ""
    return target.float_only or f"{target.name} has {kind} in f32 only"


def compare(
    network: Network, target: targets.Target, inputs: dict[str, Array]
) -> list[TensorCheck]:
    """The float network against ONNX Runtime, tensor by tensor in the network's order."""
    reference = peer.intermediates(network.model, inputs)
    made = network.transform("mlq-expose", generic=False)
    lowered = transform(made.text, made.weights, lowering(target.features))
    rows, outputs = exposed(made), [spec.name for spec in network.model.outputs]
    runner = emulation.load(lowered.text, target, lowered.weights, outputs=len(outputs) + len(rows))
    results = runner.run(*inputs.values())
    nodes = {node.name: node for node in network.model.graph.graph.node}
    checks = []
    for (name, _), value in zip(rows, results[len(results) - len(rows) :], strict=True):
        node = nodes.get(name)
        expected = None if node is None else reference.get(node.output[0])
        if node is not None and expected is not None and expected.size == value.size:
            checks.append(_compared(name, node.op_type, expected, value))
    for name, value in zip(outputs, results, strict=False):
        checks.append(_compared(name, "output", reference[name], value))
    return checks


def _compared(name: str, op: str, expected: Array, value: Array) -> TensorCheck:
    exact = np.asarray(expected, np.float64).reshape(-1)
    found = np.asarray(value, np.float64).reshape(-1)
    scale = float(np.abs(exact).max(initial=0.0)) or 1.0
    difference = float(np.abs(exact - found).max(initial=0.0)) / scale
    ratio = metrics.sqnr_db(exact, found)
    return TensorCheck(
        name=name,
        op=op,
        difference=difference if np.isfinite(difference) else 1e30,
        sqnr_db=ratio if np.isfinite(ratio) else None,
        sound=bool(difference <= TOLERANCE),
    )
