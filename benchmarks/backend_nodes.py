"""ONNX's backend node tests: what stock IREE passes, and what mlq passes with an empty plan.

    python benchmarks/backend_nodes.py --runner stock --sample 150
    python benchmarks/backend_nodes.py --runner stock mlq --filter 'conv|pool'
    python benchmarks/backend_nodes.py --summary

With an empty plan every layer stays float, so a test that stock IREE passes and mlq fails is a
fault of mlq's. Each test is compiled and run in a worker process of its own kind, which may crash
or hang: that is recorded and the next test goes on in a new worker. Results are added to
benchmarks/out/backend_nodes.jsonl as they come; a test that stands there is not run again until
`--again`. Outputs are compared as ONNX's own runner does, with the tolerances of the test.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import re
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from rich.console import Console
from rich.progress import track

KNOWN = Path(__file__).resolve().parent / "out" / "backend_nodes.jsonl"
TIMEOUT = 120  # seconds for one test, far above the few that a slow one takes
SEED = 0
_DETAIL = 240  # characters of an error that are kept


@dataclass(frozen=True)
class Case:
    """One test: a model of one node (or its expansion), inputs and what must come out."""

    name: str
    model: onnx.ModelProto
    inputs: list[Any]
    outputs: list[Any]
    rtol: float
    atol: float


@dataclass(frozen=True)
class Outcome:
    """What came of one test: `pass`, or the stage that failed and the reason in one line."""

    runner: str
    case: str
    status: str
    detail: str = ""
    seconds: float = 0.0


class StageError(Exception):
    """A stage of a runner failed; the stage is the outcome's status."""

    def __init__(self, stage: str, error: BaseException) -> None:
        super().__init__(_first_error(str(error)) or type(error).__name__)
        self.stage = stage


# Runners: from an ONNX file to a compiled module --------------------------------------------------


def stock(model: Path) -> bytes:
    """IREE as it comes: its own ONNX importer, then iree-compile for this CPU."""
    from iree.compiler import tools
    from iree.compiler.tools.import_onnx import __main__ as importer

    mlir = model.with_suffix(".mlir")
    try:
        importer.main(importer.parse_arguments([str(model), "-o", str(mlir)]))
    except (Exception, SystemExit) as error:  # noqa: BLE001  any of them is a failed import
        raise StageError("import", error) from None
    try:
        module: bytes = tools.compile_file(
            str(mlir),
            input_type="onnx",
            target_backends=["llvm-cpu"],
            extra_args=["--iree-llvmcpu-target-cpu=host"],
        )
    except Exception as error:  # noqa: BLE001  any of them is a failed compilation
        raise StageError("compile", error) from None
    return module


def mlq(model: Path) -> bytes:
    """The whole route of mlq with a plan that names no layer: all of it stays float."""
    from mlq import network, targets, variant
    from mlq.frontends.onnx import import_model
    from mlq.plan import Plan
    from mlq.ranges import Ranges

    plan = Plan(
        target="x86", ir_level="fused", scheme="asymmetric", granularity="per_axis", layers={}
    )
    ranges = Ranges(calibrator="minmax", samples=0, tensors={})
    try:
        imported = import_model(model, batch=None)
    except Exception as error:  # noqa: BLE001  any of them is a failed import
        raise StageError("import", error) from None
    try:
        # Not `network.load`: it refuses networks without any layer, as most of these are.
        raised = network.transform(imported.text, imported.weights, "@raise-fused", generic=False)
        whole = network.Network(
            imported, "fused", raised.text, raised.weights, layers=(), float_ops=raised.skips
        )
        return variant.build(whole, plan, ranges, targets.by_name("x86")).vmfb
    except Exception as error:  # noqa: BLE001  any of them is a failed compilation
        raise StageError("compile", error) from None


RUNNERS: dict[str, Callable[[Path], bytes]] = {"stock": stock, "mlq": mlq}


# Running a compiled module ------------------------------------------------------------------------


def run(module: bytes, inputs: Sequence[np.ndarray], like: Sequence[Any]) -> list[np.ndarray]:
    """Call the module's one function; results are read as the types of the expected ones."""
    import iree.runtime as rt

    config = rt.Config("local-sync")
    vm = rt.VmModule.copy_buffer(config.vm_instance, module)
    context = rt.SystemContext(vm_modules=[vm], config=config)
    entry = next(n for n in vm.function_names if not n.startswith("__") and "$async" not in n)
    arguments = rt.VmVariantList(len(inputs))
    for array in inputs:
        arguments.push_ref(_view(rt, config.device, array))
    results = rt.VmVariantList(len(like))
    context.vm_context.invoke(vm.lookup_function(entry), arguments, results)
    if results.size != len(like):
        raise TypeError(f"{results.size} results, {len(like)} expected")
    views = (results.get_as_object(i, rt.HalBufferView) for i in range(results.size))
    return [_array(view, np.asarray(one)) for view, one in zip(views, like, strict=True)]


# ONNX's names of types are NumPy's (with ml_dtypes); these are IREE's.
_ELEMENTS = {
    "bool": "BOOL_8",
    "float16": "FLOAT_16",
    "float32": "FLOAT_32",
    "float64": "FLOAT_64",
    "bfloat16": "BFLOAT_16",
    "float8_e4m3fn": "FLOAT_8_E4M3_FN",
    "float8_e4m3fnuz": "FLOAT_8_E4M3_FNUZ",
    "float8_e5m2": "FLOAT_8_E5M2",
    "float8_e5m2fnuz": "FLOAT_8_E5M2_FNUZ",
    "float8_e8m0fnu": "FLOAT_8_E8M0_FNU",
    **{f"int{bits}": f"SINT_{bits}" for bits in (4, 8, 16, 32, 64)},
    **{f"uint{bits}": f"UINT_{bits}" for bits in (4, 8, 16, 32, 64)},
}


def _view(rt: Any, device: Any, array: np.ndarray) -> Any:
    """The array as an argument; two 4-bit elements share a byte, the first in its low half."""
    name = array.dtype.name
    if name not in _ELEMENTS:
        raise TypeError(f"IREE has no elements of type {name}")
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if name.endswith("int4"):
        low, high = np.resize(data & 15, (data.size + 1) // 2 * 2).reshape(-1, 2).T
        data = low | high << 4
    buffer = device.allocator.allocate_buffer_copy(
        memory_type=int(rt.MemoryType.DEVICE_LOCAL),
        allowed_usage=int(rt.BufferUsage.DEFAULT | rt.BufferUsage.MAPPING),
        device=device,
        buffer=data,
    )
    element = getattr(rt.HalElementType, _ELEMENTS[name])
    return rt.HalBufferView(buffer, list(array.shape), int(element))


def _array(view: Any, like: np.ndarray) -> np.ndarray:
    """A result, with the sign that IREE's integers lack taken from what is expected."""
    bits = int(view.element_type) & 0xFF
    numerical = int(view.element_type) >> 24
    expected = like.dtype.itemsize * 8
    # The numerical types of IREE's element types: from 0x20 on they are floats.
    is_float, wants_float = numerical >= 0x20, like.dtype.kind in "fV" and like.dtype.kind != "b"
    if bits != expected or is_float != wants_float:
        raise AssertionError(f"a result of {bits} bits, type {numerical:#x}, for {like.dtype}")
    stored = np.array(view.map().asarray(view.shape, np.dtype(f"u{expected // 8}")), copy=True)
    return stored.view(like.dtype)


# One test, in a worker ----------------------------------------------------------------------------


def attempt(runner: str, case: Case) -> Outcome:
    """Import, compile, run and compare; whatever goes wrong becomes the outcome."""
    from onnx.backend.test.runner import Runner

    start = time.perf_counter()

    def outcome(status: str, detail: str = "") -> Outcome:
        seconds = round(time.perf_counter() - start, 2)
        return Outcome(runner, case.name, status, detail[:_DETAIL], seconds)

    try:
        inputs = [_tensor(value) for value in case.inputs]
        outputs = [_tensor(value) for value in case.outputs]
    except TypeError as error:
        return outcome("unfit", str(error))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        onnx.save(case.model, model)
        try:
            found = run(RUNNERS[runner](model), inputs, outputs)
            Runner.assert_similar_outputs(outputs, found, case.rtol, case.atol)
        except StageError as error:
            return outcome(error.stage, str(error))
        except AssertionError as error:
            return outcome("numerics", " ".join(str(error).split()))
        except Exception as error:  # noqa: BLE001  whatever it is, it is this test's failure
            return outcome("run", _first_error(str(error)) or type(error).__name__)
    return outcome("pass")


def _tensor(value: Any) -> np.ndarray:
    """A tensor of a test as an array; TypeError for sequences, optionals and strings."""
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    if value is None or isinstance(value, list | onnx.SequenceProto | onnx.OptionalProto):
        raise TypeError(f"no tensor but {type(value).__name__}")
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        raise TypeError("strings")
    return array


def _first_error(text: str) -> str:
    """The line of a compiler's output that says what is wrong, without its place."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return re.sub(r"^.*?error:\s*", "", errors[0]) if errors else " ".join(lines[:2])


def _serve(connection: Any) -> None:
    """A worker's life: take a test, send back its outcome."""
    os.setsid()  # so that a hanging compiler that it started can be ended with it
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    warnings.simplefilter("ignore")
    while True:
        connection.send(attempt(*connection.recv()))


class Worker:
    """A process that is replaced when it crashes or hangs."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._start()

    def attempt(self, runner: str, case: Case) -> Outcome:
        """The outcome of a test, whatever becomes of the process."""
        start = time.perf_counter()
        self.connection.send((runner, case))
        try:
            if self.connection.poll(self.timeout):
                return self.connection.recv()  # type: ignore[no-any-return]  # what was sent
            status, detail = "timeout", f"over {self.timeout} s"
        except (EOFError, ConnectionError):
            self.process.join()
            status, detail = "crash", f"exit code {self.process.exitcode}"
        self.close()
        self._start()
        return Outcome(runner, case.name, status, detail, round(time.perf_counter() - start, 2))

    def close(self) -> None:
        """End the process and whatever it started."""
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it may not lead its group yet
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()

    def _start(self) -> None:
        # Spawned, not forked: neither compiler survives a fork once it has threads.
        spawn = multiprocessing.get_context("spawn")
        self.connection, other = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(other,), daemon=True)
        self.process.start()
        other.close()


# All tests ----------------------------------------------------------------------------------------


def collect() -> list[Case]:
    """Every node test that this version of onnx has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case import node

        cases = node.collect_testcases(None)
    # Each has one data set.
    return [
        Case(c.name, c.model, list(inputs), list(outputs), c.rtol, c.atol)
        for c in cases
        for inputs, outputs in c.data_sets
    ]


def choose(cases: list[Case], pattern: str, sample: int | None) -> list[Case]:
    """Those whose names match; a larger sample contains every smaller one."""
    matching = sorted((c for c in cases if re.search(pattern, c.name)), key=lambda c: c.name)
    random.Random(SEED).shuffle(matching)  # noqa: S311  no secret
    return matching[:sample]


def attempt_all(work: list[tuple[str, Case]], jobs: int, timeout: float) -> Iterator[Outcome]:
    """Outcomes as they come, from `jobs` workers."""
    idle = [Worker(timeout) for _ in range(jobs)]

    def one(item: tuple[str, Case]) -> Outcome:
        worker = idle.pop()
        try:
            return worker.attempt(*item)
        finally:
            idle.append(worker)

    with ThreadPool(jobs) as pool:
        try:
            yield from pool.imap_unordered(one, work)
        finally:
            for worker in idle:
                worker.close()


def known() -> dict[tuple[str, str], Outcome]:
    """What earlier runs found; the last word on a test counts."""
    if not KNOWN.exists():
        return {}
    outcomes = (Outcome(**json.loads(line)) for line in KNOWN.read_text().splitlines())
    return {(o.runner, o.case): o for o in outcomes}


def summarize(outcomes: Sequence[Outcome], *, failures: bool) -> None:
    """Counts by runner, and where the two differ."""
    for runner in RUNNERS:
        mine = [o for o in outcomes if o.runner == runner]
        if mine:
            counts = Counter(o.status for o in mine)
            rest = ", ".join(f"{k} {n}" for k, n in counts.most_common() if k != "pass")
            print(f"{runner}: passes {counts['pass']} of {len(mine)} ({rest or 'no failure'})")
    by_case: dict[str, dict[str, Outcome]] = {}
    for o in outcomes:
        by_case.setdefault(o.case, {})[o.runner] = o
    both = [found for found in by_case.values() if len(found) == len(RUNNERS)]
    lost = [f["mlq"] for f in both if f["stock"].status == "pass" != f["mlq"].status]
    won = [f["mlq"] for f in both if f["stock"].status != "pass" == f["mlq"].status]
    if both:
        print(f"run by both: {len(both)}")
        print(f"stock passes, mlq fails: {len(lost)}; mlq passes, stock fails: {len(won)}")
    for o in lost + ([o for o in outcomes if o.status != "pass"] if failures else []):
        print(f"  {o.runner} {o.case}: {o.status}: {o.detail}")


def main() -> None:
    """Run what is asked for and not known yet, then say how things stand."""
    arguments = _arguments()
    before = known()
    if not arguments.summary:
        cases = choose(collect(), arguments.filter, arguments.sample)
        again = set(arguments.again)
        work = [
            (runner, case)
            for case in cases
            for runner in arguments.runner
            if (found := before.get((runner, case.name))) is None
            or not again.isdisjoint({found.status, "all"})
        ]
        KNOWN.parent.mkdir(parents=True, exist_ok=True)
        outcomes = attempt_all(work, arguments.jobs, arguments.timeout)
        with KNOWN.open("a") as file:
            console = Console(stderr=True)
            for outcome in track(outcomes, "node tests", total=len(work), console=console):
                file.write(json.dumps(asdict(outcome)) + "\n")
                file.flush()
    matching = [o for o in known().values() if re.search(arguments.filter, o.case)]
    summarize(matching, failures=arguments.failures)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runner", nargs="+", choices=RUNNERS, default=["stock"])
    parser.add_argument("--filter", default="", help="a regular expression for the tests' names")
    parser.add_argument("--sample", type=int, help="only so many tests, always the same ones")
    parser.add_argument("--again", nargs="+", default=[], help="statuses to run again, or all")
    parser.add_argument("--jobs", type=int, default=1, help="workers")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds for one test")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--failures", action="store_true", help="list each failure")
    return parser.parse_args()


if __name__ == "__main__":
    main()
