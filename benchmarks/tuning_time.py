"""How long a search takes: `mlq tune` against trying configurations with ONNX Runtime.

    python benchmarks/tuning_time.py [NETWORK ...] [--trials N] [--configurations N] [--no-artifact]

mlq's side is the whole search from nothing: import, compilation (nothing cached), calibration on
all samples, forecasts of all configurations (with calibration on fewer samples, which they need),
the float network over the first evaluation samples, and N trials of quantune, which does not know
the network's own trials, over as many samples as they take, and the float network with them; then
the artifact of the best. ONNX Runtime's side is what its user does for each configuration:
`quantize_static` (calibrating anew), then every evaluation sample through the int8 file. It is
timed on N of the configurations that it has (no power of two), drawn at random, as many with one
calibrator as with the other, whose times differ most; the mean is multiplied by the 96 of
Quantune's space (all), and by the half that random search needs on average to meet the best one
(random). Seconds are CPU seconds of one core, children included, so that other work on the machine
does not count (but for what it takes from the caches). What was chosen is then run over all
samples, as its artifact is, which is not counted: `lost` are its points of accuracy and its
milli-nats. In the next line stand the samples that each trial took.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime_baseline import BATCH, CALIBRATORS, GRANULARITIES, Batches, logits

from mlq import tuner
from mlq.progress import Stages
from mlq.tuning import outcomes
from mlq.tuning.cluster import Task
from mlq.tuning.measurement import Measurement
from mlq.tuning.settings import Settings
from mlq.tuning.space import SPACES, Configuration

POINTS = len(SPACES["quantune96"].points())
WEIGHTED = {"Conv", "Gemm", "MatMul"}


def main() -> None:
    """One line for each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=["mlperf_tiny_ic_resnet8"])
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--configurations", type=int, default=6)
    parser.add_argument("--no-artifact", action="store_true", help="only search")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["MLQ_TRIALS"] = "off"
    onnxruntime.set_default_logger_severity(3)
    header = f"{'mlq':>7} {'artifact':>9} {'each':>7} {'random':>8} {'all':>8} {'lost':>13}"
    print(f"{'CPU seconds':28} {header}")
    for network in networks.find(arguments.networks):
        parts, artifact, best, samples = ours(
            network, arguments.trials, artifact=not arguments.no_artifact
        )
        each = theirs(network, arguments.configurations)
        search = sum(parts.values())
        every, half = POINTS * each, (POINTS + 1) / 2 * each
        print(
            f"{network.name:28} {search:7.1f} {artifact:9.1f} {each:7.1f}"
            f" {half / search:7.1f}x {every / search:7.1f}x"
            f" {best.lost_points:6.2f} {best.kl_mnat:6.2f}"
        )
        print("   of which", *(f"{part} {used:.1f}" for part, used in parts.items()), end="; ")
        print("samples", *samples, flush=True)


def ours(
    network: networks.Network, trials: int, *, artifact: bool
) -> tuple[dict[str, float], float, Measurement, list[int]]:
    """CPU seconds of a search by part, and of the artifact after it; the best; the samples taken.

    The best is run over all samples anew.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLQ_CACHE"] = folder
        settings = Settings(trials=trials)
        task = Task(
            network.model,
            network.calib,
            network.eval,
            settings.target,
            tolerance=settings.tolerance_mnat,
        )
        start = cpu()
        search = tuner.Search(task.objective(), settings, Stages(visible=False), None)
        parts = {"read": cpu() - start}
        for part, work in steps(search):
            start = cpu()
            work()
            parts[part] = cpu() - start
        start = cpu()
        if artifact:
            search.artifact("benchmarks/tuning_time.py")
        used = cpu() - start
        found = outcomes.outcomes(search.study)
        best = outcomes.best(found)
        assert best is not None
        whole = replace(task, tolerance=0.0).objective().measure(best.configuration)
        return parts, used, whole, [each.samples for each in found]


def steps(search: tuner.Search) -> Iterator[tuple[str, Callable[[], object]]]:
    """What a search does by itself, in this order."""
    objective = search.objective
    yield "compile", lambda: objective.simulation
    yield "calibrate", lambda: objective.observations(objective.calib.samples)
    yield "forecast", lambda: [objective.forecasts.of(each) for each in search.space.points()]
    yield "float", objective.prepare
    yield "trials", lambda: search.run(objective, 1)


def theirs(network: networks.Network, count: int) -> float:
    """Mean CPU seconds of a configuration in ONNX Runtime."""
    calib, samples = network.samples(network.calib), network.samples(network.eval)
    space = SPACES["quantune96"].fitted(len(calib.labels))
    points = [each for each in space.points() if each.scheme in ("asymmetric", "symmetric")]
    order = np.random.default_rng(0).permutation(len(points))
    kinds = [[i for i in order if points[i].calibrator == each] for each in space.calibrator]
    drawn = [index for pair in zip(*kinds, strict=True) for index in pair][:count]
    times = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(str(network.model), str(prepared))
        for index in drawn:
            start = cpu()
            int8 = quantized(prepared, network.input, calib.inputs, points[index])
            logits(int8, network.input, samples, network.name)
            times.append(cpu() - start)
    return statistics.fmean(times)


def quantized(prepared: Path, name: str, inputs: Any, point: Configuration) -> Path:
    """One configuration as a file."""
    int8 = prepared.with_name("int8.onnx")
    # Whole batches, which its calibrators insist on.
    samples = point.samples - point.samples % BATCH or point.samples
    ends = weighted(prepared) if point.mixed == "ends" else []
    with quiet():
        quantize_static(
            prepared,
            int8,
            Batches(name, inputs[:samples]),
            quant_format=QuantFormat.QDQ,
            per_channel=GRANULARITIES[
                "per_channel" if point.granularity == "per_axis" else "per_tensor"
            ],
            activation_type=QuantType.QUInt8 if point.scheme == "asymmetric" else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CALIBRATORS[point.calibrator],
            nodes_to_exclude=ends,
            extra_options={"ActivationSymmetric": point.scheme == "symmetric"},
        )
    return int8


def weighted(path: Path) -> list[str]:
    """The first and the last node with weights."""
    nodes = [each.name for each in onnx.load(path).graph.node if each.op_type in WEIGHTED]
    return [nodes[0], nodes[-1]]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The calibrators report with print, and nothing that a benchmark's reader needs."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def cpu() -> float:
    """CPU seconds of this process and of its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
