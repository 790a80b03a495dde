"""ONNX Runtime, which mlq is compared with; optional, and used nowhere else in mlq."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.errors import ModelError, UsageError
from mlq.frontends.onnx import ImportedModel

Array = NDArray[Any]
_FLOATS = {"tensor(float16)": np.float16, "tensor(double)": np.float64}


class Peer:
    """A session of ONNX Runtime on the CPU.

    Where a CPU has no dot products of bytes, ONNX Runtime adds pairs of products in 16 bits, which
    saturate, unless it is told to be `exact`; then it is slower.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        threads: int = 1,
        optimise: bool = True,
        exact: bool = True,
    ) -> None:
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        if not optimise:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = runtime.InferenceSession(
                str(model) if isinstance(model, Path) else model,
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:  # noqa: BLE001 - its exceptions share no class of their own
            where = model if isinstance(model, Path) else "the model"
            reason = str(error).splitlines()[0]
            raise ModelError(f"{where}: ONNX Runtime refuses it: {reason}") from None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every output by name; what is no tensor (a sequence, a map) is left out."""
        names = [output.name for output in self._session.get_outputs()]
        results = self._session.run(names, self._fitting(inputs))
        pairs = zip(names, results, strict=True)
        return {name: value for name, value in pairs if isinstance(value, np.ndarray)}

    def call(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """A call to be timed."""
        names = [output.name for output in self._session.get_outputs()]
        given = self._fitting(inputs)
        return lambda: self._session.run(names, given)

    def _fitting(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Inputs in the floats of the file, which mlq takes for f32."""
        types = {each.name: _FLOATS.get(each.type) for each in self._session.get_inputs()}
        return {
            name: array if types.get(name) is None else array.astype(types[name], copy=False)
            for name, array in inputs.items()
        }


def intermediates(model: ImportedModel, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of the model that a node makes, by name, as ONNX Runtime computes it.

    No graph optimisation, so that each node is computed as it stands.
    """
    with tempfile.TemporaryDirectory(prefix="mlq-") as folder:
        path = Path(folder, "model.onnx")
        model.save_onnx(path)
        exposed = type(model.graph).FromString(path.read_bytes())
        known = {output.name for output in exposed.graph.output}
        made = (name for node in exposed.graph.node for name in node.output if name)
        for name in made:
            if name not in known:
                exposed.graph.output.add(name=name)
        path.write_bytes(exposed.SerializeToString())
        return Peer(path, optimise=False).run(inputs)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UsageError(
            "ONNX Runtime is not installed; pip install onnxruntime (the extra mlq[dev] has it)"
        ) from None
    return onnxruntime
