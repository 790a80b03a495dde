"""NNCF's accuracy control on an ONNX file: run by peer_plans.py and peers.py, see foreign.py.

    python benchmarks/nncf_control.py MODEL.onnx CALIB.npy {onnx,openvino} [OUT MILLINATS]

The environment is `pip install nncf==3.4.0 onnx onnxruntime openvino`, without mlq. Both of NNCF's
backends quantize, judge by and write what their runtime runs. What is held is the mean KL to float,
in milli-nats, on the calibration samples, at most MILLINATS above that of float itself (nothing);
without them, layers are ranked and no more. Prints JSON: the nodes that stayed float, the KL, by
node its place in the ranking (the greatest costs most), and CPU seconds until that was known.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import foreign
import nncf
import numpy as np
import onnx
import openvino
from nncf.quantization.algorithms.accuracy_control.ranker import Ranker

LAYERS = {"Conv", "Gemm", "MatMul", "Add", "AveragePool", "GlobalAveragePool"}
OPENVINO_LAYERS = {"Convolution", "GroupConvolution", "MatMul", "AvgPool", "ReduceMean"}
Item = tuple[int, foreign.Feed]


class Onnx:
    """A file as it is, run by ONNX Runtime."""

    def __init__(self, path: Path, _feed: foreign.Feed) -> None:
        self.model = onnx.load(path)

    @staticmethod
    def logits(model: onnx.ModelProto, feeds: list[foreign.Feed]) -> foreign.Logits:
        return foreign.logits(foreign.session(model.SerializeToString()), feeds)

    @staticmethod
    def floats(made: onnx.ModelProto) -> list[str]:
        """The layers of which no operand comes out of an integer."""
        nodes = made.graph.node
        stored = {each.output[0] for each in nodes if each.op_type == "DequantizeLinear"}
        layers = [each for each in nodes if each.op_type in LAYERS]
        return [each.name for each in layers if not stored & set(each.input)]

    @staticmethod
    def save(made: onnx.ModelProto, out: str) -> None:
        onnx.save(made, out)


class OpenVino:
    """A file as OpenVINO converts it, compiled by OpenVINO."""

    def __init__(self, path: Path, feed: foreign.Feed) -> None:
        ((_, sample),) = feed.items()
        self.model = openvino.convert_model(path, input=list(sample.shape))
        nodes = onnx.load(path).graph.node
        self._makers = {output: node.name for node in nodes for output in node.output}

    @staticmethod
    def logits(model: Any, feeds: list[foreign.Feed]) -> foreign.Logits:
        if isinstance(model, openvino.Model):
            model = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return np.concatenate([model(each)[0].astype(np.float64) for each in feeds])

    def floats(self, made: openvino.Model) -> list[str]:
        """The layers that read no activation which was quantized."""
        names = []
        for node in made.get_ordered_ops():
            read = [each.get_source_output().get_node().get_type_name() for each in node.inputs()]
            residual = node.get_type_name() == "Add" and "Constant" not in read
            if (residual or node.get_type_name() in OPENVINO_LAYERS) and read[0] != "FakeQuantize":
                names += self._named(node)
        return names

    def _named(self, node: Any) -> list[str]:
        # A bias is an addition of its own; the ONNX node's result is named there.
        readers = [each.get_node() for each in node.output(0).get_target_inputs()]
        tensors = [*node.output(0).get_names()]
        tensors += [name for each in readers for name in each.output(0).get_names()]
        found = (self._makers[each] for each in tensors if each in self._makers)
        return [name for name in found if not name.endswith("Relu")][:1]

    @staticmethod
    def save(made: openvino.Model, out: str) -> None:
        openvino.save_model(made, out, compress_to_fp16=False)


BACKENDS: dict[str, type[Onnx | OpenVino]] = {"onnx": Onnx, "openvino": OpenVino}


def controlled(
    backend: Onnx | OpenVino, items: list[Item], budget: float | None
) -> tuple[Any, dict[str, Any]]:
    """The network within the budget, and what was found on the way."""
    found: dict[str, Any] = {}
    start = time.process_time()
    exact = backend.logits(backend.model, [feed for _, feed in items])
    rank = Ranker.rank_groups_of_quantizers

    def ranked(*args: Any, **options: Any) -> Any:
        groups = rank(*args, **options)
        if not found:
            # OpenVINO makes two ops of one with a bias.
            places = {
                each.node_name.removesuffix("/WithoutBiases"): place
                for place, group in enumerate(groups)
                for each in group.operations
            }
            found.update(ranking=places, seconds=time.process_time() - start)
        return groups

    def validate(tried: Any, data: Iterable[Item]) -> tuple[float, list[float]]:
        # It is given few of the samples at times; one number each, or it asks for them one by one.
        chosen = list(data)
        value = backend.logits(tried, [feed for _, feed in chosen])
        lost = foreign.divergences_mnat(exact[[index for index, _ in chosen]], value) / 1000.0
        # NNCF divides by what it has of float, which must not be nothing.
        return 1.0 - float(lost.mean()), [float(each) for each in 1.0 - lost]

    data = nncf.Dataset(items, lambda item: item[1])
    with mock.patch.object(Ranker, "rank_groups_of_quantizers", ranked):
        made = nncf.quantize_with_accuracy_control(
            backend.model,
            data,
            data,
            validate,
            max_drop=(budget or 0.0) / 1000.0,
            drop_type=nncf.DropType.ABSOLUTE,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                **({"max_num_iterations": 1} if budget is None else {})
            ),
        )
    value = backend.logits(made, [feed for _, feed in items])
    found["kl_mnat"] = float(foreign.divergences_mnat(exact, value).mean())
    return made, found


def main() -> None:
    """Quantize, write the network, and say what it loses."""
    path, calib, (form, *more) = foreign.arguments()
    out, budget = (more[0], float(more[1])) if more else (None, None)
    name = onnx.load(path).graph.input[0].name
    feeds = foreign.feeds(name, calib, batch=1)
    backend = BACKENDS[form](path, feeds[0])
    made, found = controlled(backend, list(enumerate(feeds)), budget)
    if out is not None:
        backend.save(made, out)
    print(json.dumps({"float": backend.floats(made), **found}))


if __name__ == "__main__":
    main()
