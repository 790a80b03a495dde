"""What other tools make of a network that may lose so much KL: for comparison.py.

ONNX Runtime  the nodes that its debugger finds worst are float, in the order of each of its errors
              the fewest that keep to the budget; all-int8 by the best of its calibrators; and in
              the order of what layers lose alone in mlq (O1), which its own tools do not tell
NNCF          `quantize_with_accuracy_control` with each of its backends, ONNX and OpenVINO, in an
              environment of its own, on the file with batch norms folded

ONNX Runtime runs a network by its default, whose sums of 16 bits saturate where there is no VNNI,
if what is lost so stays within the budget, else without them (`exact`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import foreign
import networks
import numpy as np
import onnx
import onnxruntime_baseline as baseline
import onnxruntime_debugger as debugger
from numpy.typing import NDArray
from x86 import openvino_calls

LAYERS = ("Conv", "Gemm", "MatMul", "Add", "AveragePool", "GlobalAveragePool")
Inputs = NDArray[np.float32]


@dataclass(frozen=True)
class Made:
    """A network that a tool made: the nodes it left float, and how it runs."""

    form: str
    floats: tuple[str, ...]
    calib_mnat: float
    logits: Callable[[Inputs], foreign.Logits]
    call: Callable[[], object]


@dataclass(frozen=True)
class Task:
    """A network, what it may lose on the calibration samples, and each layer does alone (O1)."""

    network: networks.Network
    budget: float
    alone: Mapping[str, float]

    @cached_property
    def samples(self) -> networks.Samples:
        """The calibration samples."""
        return self.network.samples(self.network.calib)

    @cached_property
    def exact(self) -> foreign.Logits:
        """The float network's logits."""
        session = foreign.session(str(self.network.model))
        return foreign.logits(session, self._feeds(self.samples.inputs))

    def by_onnxruntime(self, form: str, floats: tuple[str, ...], model: Path) -> Made:
        """A network in ONNX Runtime: by its default if that keeps to the budget, or exactly."""
        default = self._onnxruntime(form, floats, model, exact=False)
        if default.calib_mnat <= self.budget:
            return default
        return self._onnxruntime(f"{form} exact", floats, model, exact=True)

    def by_openvino(self, form: str, floats: tuple[str, ...], model: Path) -> list[Made]:
        """A network in OpenVINO; none where it is not installed."""
        calls = openvino_calls({form: model}, self.samples.inputs[:1], threads=1)
        return [
            self._made(form, floats, partial(_openvino_logits, each), each)
            for each in calls.values()
        ]

    def _onnxruntime(self, form: str, floats: tuple[str, ...], model: Path, *, exact: bool) -> Made:
        session = foreign.session(model.read_bytes(), exact=exact)
        call = partial(session.run, None, self._feeds(self.samples.inputs[:1])[0])

        def logits(inputs: Inputs) -> foreign.Logits:
            return foreign.logits(session, self._feeds(inputs))

        return self._made(form, floats, logits, call)

    def _made(self, form: str, floats: tuple[str, ...], logits: Any, call: Any) -> Made:
        found = logits(self.samples.inputs)
        lost = float(foreign.divergences_mnat(self.exact, found).mean())
        return Made(form, floats, lost, logits, call)

    def _feeds(self, inputs: Inputs) -> list[foreign.Feed]:
        return foreign.feeds(self.network.input, inputs, batch=1)


def _openvino_logits(infer: Any, inputs: Inputs) -> foreign.Logits:
    return np.concatenate([infer([each[None]])[0].astype(np.float64) for each in inputs])


def onnxruntime_lists(task: Task) -> Iterator[Made]:
    """The shortest list within the budget by each error; the calibrator is the best of all-int8."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        tried = {each: _int8(task, place, each) for each in baseline.CALIBRATORS}
        calibrator = min(tried, key=lambda each: tried[each].calib_mnat)
        errors = debugger.errors(task.network, place, calibrator)
        graph = onnx.load(place / "prepared.onnx")
        layers = [each.name for each in graph.graph.node if each.op_type in LAYERS]
        fused = foreign.homes(graph, list(task.alone))
        errors["O1"] = {name: task.alone[fused[name]] for name in layers if name in fused}
        for kind, loss in errors.items():
            worst = foreign.by_layer(graph, layers, loss)
            order = sorted(worst, key=worst.__getitem__, reverse=True)
            lists = (tuple(order[:count]) for count in range(len(order) + 1))
            made = (_int8(task, place, calibrator, kind, each) for each in lists)
            yield from islice((each for each in made if each.calib_mnat <= task.budget), 1)


def _int8(
    task: Task, folder: Path, calibrator: str, kind: str = "", floats: tuple[str, ...] = ()
) -> Made:
    model = baseline.quantize(
        task.network, task.samples, calibrator, "per_channel", folder, exclude=floats
    )
    return task.by_onnxruntime(f"ORT {kind}", floats, model)


def nncf(task: Task, python: Path) -> list[Made]:
    """What NNCF makes for ONNX Runtime and for OpenVINO."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model, samples = baseline.prepared(task.network, place), task.samples.inputs
        made = list[Made]()
        for form, end in (("onnx", "onnx"), ("openvino", "xml")):
            out = place / f"nncf.{end}"
            more = (form, str(out), str(task.budget))
            said = foreign.launched(python, "nncf_control.py", model, samples, *more)
            print(f"NNCF, {form}: {said.seconds:.1f} CPU s, {said.content['kl_mnat']:.2f} mn")
            floats = tuple(said.content["float"])
            if form == "onnx":
                made.append(task.by_onnxruntime("NNCF", floats, out))
            else:
                made += task.by_openvino("NNCF, OpenVINO", floats, out)
    return made
