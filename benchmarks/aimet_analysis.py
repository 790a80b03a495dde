"""AIMET's QuantAnalyzer and phase 1 of its AMP on an ONNX file: run by peers.py, see foreign.py.

    python benchmarks/aimet_analysis.py MODEL.onnx CALIB.npy {analyzer,amp} BATCH

The environment is `pip install aimet-onnx==2.42.0`, without mlq. Both judge a layer by the mean KL
to float over all samples, in milli-nats. Prints JSON: by node what is lost, and CPU seconds without
imports.

analyzer   QuantAnalyzer's analysis by enabling the quantizers of one op at a time
amp        analyze_mixed_precision_sensitivity: one quantizer group at a time (what an op reads)
"""

from __future__ import annotations

import json
import time
from typing import Any

import foreign
import onnx
from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight
from aimet_onnx.common.defs import CallbackFunc
from aimet_onnx.mixed_precision import analyze_mixed_precision_sensitivity
from aimet_onnx.quant_analyzer import QuantAnalyzer
from aimet_onnx.quantsim import QuantizationSimModel

PRECISION = ("int8", "int8")


def analyzed(model: onnx.ModelProto, feeds: list[foreign.Feed], judge: Any) -> dict[str, float]:
    """By op what is lost where it alone is quantized, as QuantAnalyzer has it."""
    calibrate = CallbackFunc(lambda session, _: foreign.logits(session, feeds), None)
    analyzer = QuantAnalyzer(model, feeds[0], calibrate, CallbackFunc(judge, None))
    sim = analyzer.create_quantsim_and_encodings(
        "tf_enhanced", default_param_bw=8, default_activation_bw=8, config_file=None
    )
    return dict(analyzer.perform_per_layer_analysis_by_enabling_quantizers(sim))


def grouped(model: onnx.ModelProto, feeds: list[foreign.Feed], judge: Any) -> dict[str, float]:
    """By node what is lost where its quantizer group is: what it reads, weights and activations."""
    fold_all_batch_norms_to_weight(model)
    sim = QuantizationSimModel(
        model,
        dummy_input=feeds[0],
        session_options_kwargs={"intra_op_num_threads": 1},
    )
    reads = {each.name: list(each.input) for each in model.graph.node}
    found = analyze_mixed_precision_sensitivity(sim, [PRECISION], judge, feeds)
    (by_tensor, _), *_ = found.values()
    # A weight is in the group of its node; a node without one is known by what it reads.
    known = {
        name: [by_tensor[each] for each in of[1::-1] if each in by_tensor]
        for name, of in reads.items()
    }
    return {name: losses[0] for name, losses in known.items() if losses}


def main() -> None:
    """Judge the layers one by one."""
    path, calib, (form, batch) = foreign.arguments()
    model = onnx.load(path)
    feeds = foreign.feeds(model.graph.input[0].name, calib, int(batch))
    start = time.process_time()
    exact = foreign.logits(foreign.session(str(path)), feeds)

    def judge(session: Any, _: Any = None) -> float:
        return -float(foreign.divergences_mnat(exact, foreign.logits(session, feeds)).mean())

    scores = {"analyzer": analyzed, "amp": grouped}[form](model, feeds, judge)
    seconds = time.process_time() - start
    print(json.dumps({"loss": {name: -each for name, each in scores.items()}, "seconds": seconds}))


if __name__ == "__main__":
    main()
