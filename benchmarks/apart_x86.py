"""Kernels on an x86 CPU that has no mlq: built on one machine, timed on another.

    python benchmarks/apart_x86.py build FOLDER [NETWORK ...] [--form NAME] [--preset avx2] [...]
    pip install iree-base-runtime==3.13.0 numpy; python FOLDER/apart_x86.py run FOLDER

`build` compiles each network, every layer int8 if it can be (with --float none), and keeps an input
and what this machine's kernels make of it; and the inner loops of the kernels, of which the fastest
is the peak. --coarse rounds weights so that folders compress; times do not depend on them. Built
again from other code under another --form, both are in the folder. `run` says whether each form's
result is equal, bit for bit, then times forms in turn on one core: milliseconds of a call, and of
each kernel the median, over rounds, of the least time in a round (microseconds, IREE's profiler).
With --joined kernels that follow one another are one dispatch, as in modules that are used.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_PEAK, _CALLS, _LEAST_ROUNDS = "peak.json", 20, 2
_COARSE, _LARGE = 48, 1 << 12  # steps of a coarse weight, and which weights are


def main() -> None:
    """Build, or run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    building = verbs.add_parser("build")
    building.add_argument("folder", type=Path)
    building.add_argument("networks", nargs="*", metavar="NETWORK", help="all by default")
    building.add_argument("--form", default="mlq", help="a name for this code (default: mlq)")
    building.add_argument("--preset", default="avx512_vnni", help="default: avx512_vnni")
    building.add_argument("--float", action="store_true", help="no layer int8")
    building.add_argument("--joined", action="store_true", help="kernels in one dispatch")
    building.add_argument("--coarse", action="store_true", help="weights that compress")
    running = verbs.add_parser("run")
    running.add_argument("folder", type=Path)
    running.add_argument("--seconds", type=float, default=10.0, help="of each network")
    given = parser.parse_args()
    if given.verb == "run":
        run(given.folder, given.seconds)
        return
    import networks

    given.folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(__file__, given.folder / "apart_x86.py")
    peaks(given.folder, given.preset)
    for network in networks.find(given.networks):
        build(network, given)


def build(network: Any, given: argparse.Namespace) -> None:
    """One form of a network, and beside the first one an input and what becomes of it here."""
    from targets import made

    from mlq import artifact, runtime, targets, variant

    found = artifact.Artifact.open(made(network.name, network.model, network.calib))
    known = found.recall(batch=1)
    plan = known.plan.model_copy(update={"layers": {}}) if given.float else known.plan
    quantized = variant.quantize(known.network, plan, known.ranges)
    if given.coarse:
        for key, weight in quantized.weights.items():
            quantized.weights[key] = coarse(np.asarray(weight))
    here = given.folder / (network.name + ("-float" if given.float else ""))
    here.mkdir(exist_ok=True)
    target, host = targets.by_name(f"x86:{given.preset}"), targets.host_target()
    lowered = variant.lowered(quantized, target)
    used = variant.joined(lowered, target) if given.joined else lowered
    vmfb = variant.compiled(used, target)
    (here / f"{given.form}.vmfb").write_bytes(vmfb)
    if not (here / "y.npy").exists():
        x = network.samples(network.calib).inputs[:1]
        np.save(here / "x.npy", x)
        on_host = runtime.load(variant.compiled(variant.lowered(quantized, host), host))
        np.save(here / "y.npy", on_host.run(x)[0])
    print(f"{here / given.form}.vmfb", flush=True)


def coarse(weight: np.ndarray) -> np.ndarray:
    """A large weight in few steps."""
    if weight.size < _LARGE or weight.dtype not in (np.int8, np.float32):
        return weight
    step = _COARSE / 127 * (127 if weight.dtype == np.int8 else np.abs(weight).max() / 2)
    return (np.trunc(weight / step) * step).astype(weight.dtype)


def peaks(folder: Path, preset: str) -> None:
    """The inner loops on every tile that registers hold."""
    import layers_x86

    from mlq import targets
    from mlq.kernels import library
    from mlq.kernels.isa import Isa
    from mlq.targets.iree import compile_module

    target, known = targets.by_name(f"x86:{preset}"), {}
    isa = library.named(preset)
    assert isinstance(isa, Isa)
    for kind in ("u8", "f32"):
        loops = layers_x86.tiles(isa, isa.unit(kind))
        text, buffers = layers_x86.program(loops)
        (folder / f"peak-{kind}.vmfb").write_bytes(compile_module(text, target))
        known[kind] = {
            "inputs": [f"{each.count}x{each.element}=1" for each in buffers],
            "products": {each.label: each.products for each in loops},
        }
    (folder / _PEAK).write_text(json.dumps(known))


def run(folder: Path, seconds: float) -> None:
    """Print the peaks, and a table for each network."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        print(*{line.split(":")[1].strip() for line in file if line.startswith("model name")})
    for kind, known in json.loads((folder / _PEAK).read_text()).items():
        inputs = [f"--input={each}" for each in known["inputs"]]
        found = profiled(folder / f"peak-{kind}.vmfb", inputs)
        rates = {key: known["products"][key] / us / 1e3 for key, us in found.items()}
        best = max(rates, key=rates.__getitem__)
        print(f"peak of {kind}: {rates[best]:.1f}e9 products a second ({best})", flush=True)
    for here in sorted(each.parent for each in folder.glob("*/x.npy")):
        table(here, seconds)


def table(here: Path, seconds: float) -> None:
    """One network: bits, milliseconds, microseconds by kernel."""
    forms, given = sorted(here.glob("*.vmfb")), [f"--input=@{here / 'x.npy'}"]
    for form in forms:
        with tempfile.TemporaryDirectory() as temporary:
            result = Path(temporary) / "y.npy"
            tool("iree-run-module", form, [*given, f"--output=@{result}"])
            equal = np.load(result).tobytes() == np.load(here / "y.npy").tobytes()
        print(f"{here.name} {form.stem}: {'equal' if equal else 'DIFFERENT'}", flush=True)
    calls: dict[Path, list[float]] = defaultdict(list)
    kernels: dict[str, dict[Path, list[float]]] = defaultdict(lambda: defaultdict(list))
    end, rounds = time.monotonic() + seconds, 0
    while rounds < _LEAST_ROUNDS or time.monotonic() < end:
        for form in forms if rounds % 2 else reversed(forms):
            calls[form].append(called(form, given))
            for key, us in profiled(form, given).items():
                # Forms may pad the channels of the network's input, or not.
                kernels[re.sub(r"_[1-4]x", "_Cx", key)][form].append(us)
        rounds += 1
    print(f"{here.name}, {rounds} rounds of {_CALLS} calls")
    row("", [form.stem for form in forms])
    row("a call, ms", [f"{statistics.median(calls[form]):.3f}" for form in forms])
    us = {
        key: [statistics.median(by.get(form, [0.0])) for form in forms]
        for key, by in kernels.items()
    }
    for key, values in us.items():
        row(key, [f"{value:.1f}" for value in values])
    row("all kernels", [f"{sum(column):.1f}" for column in zip(*us.values(), strict=True)])


def row(name: str, cells: Sequence[str]) -> None:
    """One line of a table."""
    print(f"{name:44}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


def called(module: Path, inputs: list[str]) -> float:
    """Milliseconds of a call."""
    flags = [*inputs, f"--benchmark_min_time={_CALLS}x", "--benchmark_format=json"]
    text = tool("iree-benchmark-module", module, flags)
    return float(json.loads(text[text.index("{") :])["benchmarks"][0]["real_time"])


def profiled(module: Path, inputs: list[str]) -> dict[str, float]:
    """Microseconds of each kernel in one call, by the least time of its dispatches."""
    with tempfile.TemporaryDirectory() as temporary:
        profile = str(Path(temporary) / "profile")
        flags = ["--device_profiling_mode=host-execution", f"--device_profiling_output={profile}"]
        tool("iree-benchmark-module", module, [*inputs, f"--benchmark_min_time={_CALLS}x", *flags])
        text = tool("iree-profile", None, ["dispatch", "--format=jsonl", profile])
    groups = [json.loads(line) for line in text.splitlines()]
    return {
        each["key"]: each["min_ns"] / 1e3 * each["count"] / _CALLS
        for each in groups
        if each["type"] == "host_dispatch_group"
    }


def tool(name: str, module: Path | None, flags: list[str]) -> str:
    """What a program of the runtime's wheel prints."""
    import iree.runtime as rt

    command = [str(Path(rt.__file__).parents[1] / "_runtime_libs" / name)]
    if module is not None:
        command += [f"--module={module}", "--function=main", "--device=local-sync"]
    done = subprocess.run([*command, *flags], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip()[-500:]}")
    return done.stdout


if __name__ == "__main__":
    main()
