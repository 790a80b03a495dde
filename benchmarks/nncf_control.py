"""NNCF's accuracy control on an ONNX file: run by comparison.py and peers.py, see foreign.py.

    python benchmarks/nncf_control.py MODEL.onnx CALIB.npy [OUT.onnx MILLINATS]

The environment needs nncf, onnx and onnxruntime, not mlq. What is held is the mean KL to float, in
milli-nats, on the calibration samples, at most MILLINATS above that of float itself (nothing);
without them, layers are ranked and no more. Prints JSON: the ONNX nodes that stayed float, the
KL, by node its place in the ranking (the greatest costs most), and CPU seconds until it was known.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any
from unittest import mock

import foreign
import nncf
import onnx
from nncf.quantization.algorithms.accuracy_control.ranker import Ranker

LAYERS = {"Conv", "Gemm", "MatMul", "Add", "AveragePool", "GlobalAveragePool"}
Item = tuple[int, foreign.Feed]


def controlled(
    model: onnx.ModelProto, items: list[Item], budget: float | None
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The network within the budget, and what was found on the way."""
    found: dict[str, Any] = {}
    start = time.process_time()
    exact = outputs(model, items)
    rank = Ranker.rank_groups_of_quantizers

    def ranked(*args: Any, **options: Any) -> Any:
        groups = rank(*args, **options)
        if not found:
            places = [
                (each.node_name, at) for at, group in enumerate(groups) for each in group.operations
            ]
            found.update(ranking=dict(places), seconds=time.process_time() - start)
        return groups

    def validate(tried: onnx.ModelProto, data: Iterable[Item]) -> tuple[float, list[float]]:
        # It is given few of the samples at times; one number each, or it asks for them one by one.
        chosen = list(data)
        reference = exact[[index for index, _ in chosen]]
        lost = foreign.divergences_mnat(reference, outputs(tried, chosen)) / 1000.0
        # NNCF divides by what it has of float, which must not be nothing.
        return 1.0 - float(lost.mean()), [float(each) for each in 1.0 - lost]

    data = nncf.Dataset(items, lambda item: item[1])
    with mock.patch.object(Ranker, "rank_groups_of_quantizers", ranked):
        made = nncf.quantize_with_accuracy_control(
            model,
            data,
            data,
            validate,
            max_drop=(budget or 0.0) / 1000.0,
            drop_type=nncf.DropType.ABSOLUTE,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                **({"max_num_iterations": 1} if budget is None else {})
            ),
        )
    found["kl_mnat"] = float(foreign.divergences_mnat(exact, outputs(made, items)).mean())
    return made, found


def outputs(model: onnx.ModelProto, items: list[Item]) -> foreign.Logits:
    """Logits of each sample."""
    running = foreign.session(model.SerializeToString())
    return foreign.logits(running, [feed for _, feed in items])


def kept(model: onnx.ModelProto) -> list[str]:
    """The layers of which no operand comes out of an integer."""
    stored = {each.output[0] for each in model.graph.node if each.op_type == "DequantizeLinear"}
    layers = [each for each in model.graph.node if each.op_type in LAYERS]
    return [each.name for each in layers if not stored & set(each.input)]


def main() -> None:
    """Quantize, write the network, and say what it loses."""
    path, calib, more = foreign.arguments()
    out, budget = (more[0], float(more[1])) if more else (None, None)
    model = onnx.load(path)
    feeds = foreign.feeds(model.graph.input[0].name, calib, batch=1)
    made, found = controlled(model, list(enumerate(feeds)), budget)
    if out is not None:
        onnx.save(made, out)
    print(json.dumps({"float": kept(made), **found}))


if __name__ == "__main__":
    main()
