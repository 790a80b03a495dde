"""What programs share that run another tool in an environment of its own, which has no mlq.

They are given MODEL.onnx and CALIB.npy (inputs of the network), and print JSON in their last line;
`launched` is the other end. It needs numpy, onnx and onnxruntime.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent
Logits = NDArray[np.float64]
Feed = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Said:
    """The JSON that a program printed, and the CPU seconds of its whole process."""

    content: Any
    seconds: float


def launched(
    python: Path | str, program: str, model: Path, calib: NDArray[np.float32], *more: str
) -> Said:
    """Run a program of this folder over the samples."""
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder, "calib.npy")
        np.save(samples, calib)
        return run([str(python), str(FOLDER / program), str(model), str(samples), *more])


def run(command: Sequence[str]) -> Said:
    """Run a command on one core, in an empty folder; what it prints last is JSON."""
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder, "out"), Path(folder, "errors")
        with out.open("w") as to, errors.open("w") as said:
            child = subprocess.Popen(
                ["taskset", "-c", str(core()), *command], stdout=to, stderr=said, cwd=folder
            )
            _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            lines = errors.read_text().strip().splitlines()
            raise SystemExit(f"{' '.join(command)}: {lines[-1] if lines else child.returncode}")
        text = out.read_text().strip()
    content = json.loads(text if text.startswith("{\n") else text.splitlines()[-1])
    return Said(content, usage.ru_utime + usage.ru_stime)


def core() -> int:
    """The one to run on: ONNX Runtime starts as many threads as there are cores, and they spin."""
    return min(os.sched_getaffinity(0))


def arguments() -> tuple[Path, NDArray[np.float32], list[str]]:
    """The model, the samples, and what else `launched` was told."""
    path, calib, *more = sys.argv[1:]
    return Path(path), np.load(calib), more


def feeds(name: str, samples: NDArray[np.float32], batch: int) -> list[Feed]:
    """The samples in batches; the last may be smaller."""
    return [{name: samples[at : at + batch]} for at in range(0, len(samples), batch)]


def session(model: bytes | str, *, exact: bool = True) -> onnxruntime.InferenceSession:
    """One thread; exact: without sums of 16 bits, which saturate where there is no VNNI."""
    options = onnxruntime.SessionOptions()
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def logits(running: onnxruntime.InferenceSession, batches: Iterable[Feed]) -> Logits:
    """The first result of the network for each sample."""
    return np.concatenate([running.run(None, each)[0] for each in batches]).astype(np.float64)


def divergences_mnat(reference: Logits, value: Logits) -> Logits:
    """KL(softmax(reference) || softmax(value)) of each sample, as mlq.metrics has it."""
    p, q = (each - np.logaddexp.reduce(each, axis=1, keepdims=True) for each in (reference, value))
    return np.asarray(1000.0 * np.sum(np.exp(p) * (p - q), axis=1))


def homes(model: onnx.ModelProto, layers: Collection[str]) -> dict[str, str]:
    """The layer of each node, by name; layers are named like one of their nodes.

    A node that is no layer belongs to the last of those that made what it reads.
    """
    maker, found = dict[str, str](), dict[str, str]()
    places = {name: place for place, name in enumerate(layers)}
    for node in model.graph.node:
        made = [maker[each] for each in node.input if each in maker]
        home = node.name if node.name in places else max(made, key=places.__getitem__, default=None)
        if home is not None:
            found[node.name] = home
            maker |= dict.fromkeys(node.output, home)
    return found


def by_layer(
    model: onnx.ModelProto, layers: Collection[str], loss: Mapping[str, float]
) -> dict[str, float]:
    """Of each layer, the most that any node fused into it loses."""
    most = dict[str, float]()
    for name, home in homes(model, layers).items():
        if name in loss:
            most[home] = max(most.get(home, loss[name]), loss[name])
    return most
