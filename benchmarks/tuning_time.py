"""How long a search takes: `mlq tune` against trying configurations with ONNX Runtime.

    python benchmarks/tuning_time.py [NETWORK ...] [--trials N] [--configurations N] [--repeats N]
                                    [--no-artifact]

mlq's side is the whole search from nothing: what `mlq tune` does when it is typed, with nothing
cached, up to the last of N trials: compilation, calibration on all samples, forecasts of all
configurations (with calibration on fewer samples, which they need), the float network over the
first evaluation samples, and N trials of quantune, which does not know the network's own trials,
over as many samples as they take, and the float network with them; then the artifact of the best.
ONNX Runtime's side is what its user does for each configuration: `quantize_static` (calibrating
anew), then every evaluation sample through the int8 file, with the threads that it takes by
itself. It is timed on N of the configurations that it has (no power of two), drawn at random, as
many with one calibrator as with the other, whose times differ most, by turns with mlq's searches;
the mean is multiplied by the 96 of Quantune's space (all), and by the half that random search
needs on average to meet the best one (random).

Both are timed by the clock, and in CPU seconds, children included. Other work on the machine makes
the former longer, on both sides, and leaves mlq less of what it does side by side; `import` is what
either needs to start, in a process of its own: it is not in the other figures. What was chosen is
then run over all samples, as its artifact is, which is not counted: `lost` are its points of
accuracy and its milli-nats. In the last line stand the samples that each trial took.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

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


class Seconds(NamedTuple):
    """By the clock, and of the CPU."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.1f}/{self.cpu:.1f}"


def main() -> None:
    """Some lines for each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=["mlperf_tiny_ic_resnet8"])
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--configurations", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=1, help="searches; the median is taken")
    parser.add_argument("--no-artifact", action="store_true", help="only search")
    arguments = parser.parse_args()
    os.environ["MLQ_TRIALS"] = "off"
    onnxruntime.set_default_logger_severity(3)
    for what, module in (("mlq", "mlq.tuner"), ("ONNX Runtime", "onnxruntime.quantization")):
        print(f"import of {what}: {importing(module)} s")
    for network in networks.find(arguments.networks):
        compared(network, arguments)


def compared(network: networks.Network, arguments: argparse.Namespace) -> None:
    """Search, and time configurations of ONNX Runtime between; print both."""
    searches, times = [], []
    others = theirs(network, arguments.configurations)
    for repeat in range(arguments.repeats):
        searches.append(ours(network, arguments.trials, artifact=not arguments.no_artifact))
        share = -(-arguments.configurations * (repeat + 1) // arguments.repeats)
        times += list(itertools.islice(others, share - len(times)))
    others.close()
    print(f"{network.name}: seconds by the clock / of the CPU")
    for index, kind in enumerate(Seconds._fields):
        found = [sum(part[index] for part in each.parts.values()) for each in searches]
        search, each = statistics.median(found), statistics.fmean(time[index] for time in times)
        random, every = (POINTS + 1) / 2 * each, POINTS * each
        listed = " ".join(f"{one:.1f}" for one in found)
        print(
            f"  {kind:4} search {search:.1f} ({listed}), each of ONNX Runtime {each:.2f}:"
            f" random {random / search:.1f}x, all {every / search:.1f}x"
        )
    for each in searches:
        print("   of which", *(f"{part} {used}" for part, used in each.parts.items()), end="")
        print(f"; artifact {each.artifact}" if each.artifact.wall else "")
    best, samples = searches[-1].best, searches[-1].samples
    print(f"   lost {best.lost_points:.2f} {best.kl_mnat:.2f}; samples", *samples, flush=True)


class Search(NamedTuple):
    """Seconds of a search by part, and of the artifact after it; the best; the samples taken."""

    parts: dict[str, Seconds]
    artifact: Seconds
    best: Measurement
    samples: list[int]


def ours(network: networks.Network, trials: int, *, artifact: bool) -> Search:
    """A search from nothing; the best is then run over all samples anew."""
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
        found: list[tuner.Search] = []

        def read() -> None:
            found.append(tuner.Search(task.objective(), settings, Stages(visible=False), None))

        parts = {"read": timed(read)}
        (search,) = found
        points, objective = search.space.points(), search.objective
        parts["compile, calibrate"] = timed(lambda: search.study)
        parts["forecast, float"] = timed(lambda: objective.foresee(points, objective.prepare))
        parts["trials"] = timed(lambda: search.run(objective, 1))
        made = Seconds(0.0, 0.0)
        if artifact:
            made = timed(lambda: search.artifact("benchmarks/tuning_time.py"))
        tried = outcomes.outcomes(search.study)
        best = outcomes.best(tried)
        assert best is not None
        whole = replace(task, tolerance=0.0).objective().measure(best.configuration)
        return Search(parts, made, whole, [each.samples for each in tried])


def theirs(network: networks.Network, count: int) -> Generator[Seconds]:
    """Seconds of one configuration after the other in ONNX Runtime."""
    calib, samples = network.samples(network.calib), network.samples(network.eval)
    space = SPACES["quantune96"].fitted(len(calib.labels))
    points = [each for each in space.points() if each.scheme in ("asymmetric", "symmetric")]
    order = np.random.default_rng(0).permutation(len(points))
    kinds = [[i for i in order if points[i].calibrator == each] for each in space.calibrator]
    drawn = [index for pair in zip(*kinds, strict=True) for index in pair][:count]
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(str(network.model), str(prepared))
        for index in drawn:

            def one(point: Configuration = points[index]) -> None:
                int8 = quantized(prepared, network.input, calib.inputs, point)
                logits(int8, network.input, samples, network.name, threads=0)

            yield timed(one)


def importing(module: str) -> Seconds:
    """What it takes to import a module in a process of its own, the second time."""
    command = [sys.executable, "-c", f"import {module}"]
    subprocess.run(command, check=True)
    return timed(lambda: subprocess.run(command, check=True))


def timed(work: Callable[[], object]) -> Seconds:
    """What a piece of work takes."""
    start = Seconds(time.perf_counter(), cpu())
    work()
    return Seconds(time.perf_counter() - start.wall, cpu() - start.cpu)


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
