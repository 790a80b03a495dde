"""Networks on a GPU: exactness and times, built on one machine and run on another.

    python benchmarks/cuda.py build FOLDER [NETWORK ...] [--target cuda:sm_80] [--batches 1 64]
    pip install iree-base-runtime==3.13.0 numpy; python FOLDER/cuda.py run FOLDER

`build` needs no GPU. For each network and batch it compiles mlq's int8, f16 (from sm_80 on; every
layer that can be) and float, and stock IREE's import of the float network in f32 and in f16, and
keeps an input and what int8 and float make of it on this machine's CPU; and a module of one
addition, for what any call costs. `run` needs no mlq: it says whether int8 is equal, bit for bit,
how far the others are off, and the median time of a call with its input on the device; and how many
of the card's int8 operations a second (--peak, in 1e12) those are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

# Dense int8 of NVIDIA's data sheets, in 1e12 operations a second: T4, A100, A10, L4, H100.
PEAKS = {"sm_75": 130.0, "sm_80": 624.0, "sm_86": 250.0, "sm_89": 242.0, "sm_90": 1979.0}
DRIVERS = {"cuda": "cuda", "vulkan": "vulkan"}
FORMS = ("mlq int8", "mlq f16", "mlq float", "stock f32", "stock f16")
_ABOUT = "about.json"
_DISTINCT = 8  # samples of a batch, so that folders are small enough to be carried


def main() -> None:
    """Build, or run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    building = verbs.add_parser("build")
    building.add_argument("folder", type=Path)
    building.add_argument("networks", nargs="*", metavar="NETWORK", help="all by default")
    building.add_argument("--target", default="cuda:sm_80")
    building.add_argument("--batches", nargs="+", type=int, default=[1, 64])
    building.add_argument("--no-stock", action="store_true", help="mlq's forms only")
    running = verbs.add_parser("run")
    running.add_argument("folder", type=Path)
    running.add_argument("--seconds", type=float, default=3.0, help="of each form")
    running.add_argument("--peak", type=float, help="1e12 int8 operations a second")
    running.add_argument("--runtime-flags", nargs="+", default=[], help="of IREE, for all forms")
    running.add_argument("--only", default="*", help="a pattern, as 'resnet20*-64/mlq int8'")
    given = parser.parse_args()
    if given.verb == "run":
        if given.runtime_flags:
            import iree.runtime as rt

            rt.flags.parse_flags(*given.runtime_flags)
        run(given.folder, given.seconds, given.peak, given.only)
        return
    import networks

    given.folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(__file__, given.folder / "cuda.py")
    addition(given.folder / "addition-1", given.target)
    for network in networks.find(given.networks):
        for batch in given.batches:
            build(given.folder, network, batch, given.target, stock=not given.no_stock)


def build(folder: Path, network: Any, batch: int, name: str, *, stock: bool) -> None:
    """One network at one batch: its forms, an input, what the CPU makes of it."""
    from targets import made

    from mlq import artifact, planning, runtime, targets, variant
    from mlq.plan import Plan
    from mlq.recipe import resolve

    device, host = targets.by_name(name), targets.host_target()
    here = folder / f"{network.name}-{batch}"
    here.mkdir(exist_ok=True)
    known = artifact.Artifact.open(made(network.name, network.model, network.calib))
    found = known.recall(batch=batch)
    halves = planning.supported(found.network, device, ["f16"])
    plans = {"int8": found.plan, "float": found.plan.model_copy(update={"layers": {}})}
    if any(halves.values()):
        plans["f16"] = planning.uniform_plan(found.network, resolve({}), "f16", halves)
    samples = network.samples(network.calib).inputs
    x = np.resize(samples[:_DISTINCT], (batch, *samples.shape[1:]))
    np.save(here / "x.npy", x)
    for form, plan in plans.items():
        assert isinstance(plan, Plan)
        vmfb = variant.build(found.network, plan, found.ranges, device).vmfb
        (here / f"mlq {form}.vmfb").write_bytes(vmfb)
        if form == "f16":  # compared with float
            continue
        on_host = variant.build(found.network, plan, found.ranges, host).vmfb
        np.save(here / f"{form}.npy", runtime.load(on_host).run(x)[0])
    if stock:
        imported(here, network.model, device, batch)
    macs = sum(layer.macs for layer in found.network.layers)
    about = {"network": network.name, "batch": batch, "macs": macs, "target": name}
    (here / _ABOUT).write_text(json.dumps(about))
    print(f"{here}: {', '.join(sorted(path.stem for path in here.glob('*.vmfb')))}", flush=True)


def addition(here: Path, name: str) -> None:
    """A network that doubles its input of one element."""
    from mlq import targets

    here.mkdir(exist_ok=True)
    np.save(here / "x.npy", np.ones(1, np.float32))
    np.save(here / "float.npy", np.full(1, 2, np.float32))
    text = (
        "func.func @main(%x: tensor<1xf32>) -> tensor<1xf32> {"
        " %y = arith.addf %x, %x : tensor<1xf32> return %y : tensor<1xf32> }"
    )
    compiled(here, "stock f32", text, targets.by_name(name), "auto")
    about = {"network": "addition", "batch": 1, "macs": 0, "target": name}
    (here / _ABOUT).write_text(json.dumps(about))


def imported(here: Path, model: Path, target: Any, batch: int) -> None:
    """Stock IREE's import of the network, as it is and as ONNX Runtime's tool makes it f16."""
    import onnx
    from onnx.tools import update_model_dims
    from onnxruntime.transformers.float16 import convert_float_to_float16

    network = onnx.load(model)
    ends = {
        each.name: [batch, *(d.dim_value for d in each.type.tensor_type.shape.dim[1:])]
        for each in (*network.graph.input, *network.graph.output)
    }
    constants = {each.name for each in network.graph.initializer}
    inputs = {e.name: ends[e.name] for e in network.graph.input if e.name not in constants}
    outputs = {each.name: ends[each.name] for each in network.graph.output}
    fixed = update_model_dims.update_inputs_outputs_dims(network, inputs, outputs)
    compiled(here, "stock f32", text_of(fixed, here), target)
    halves = convert_float_to_float16(fixed, keep_io_types=True)
    # The tool appends the cast of the input behind its first user.
    nodes = sorted(halves.graph.node, key=lambda n: not n.name.startswith("graph_input_cast"))
    halves.graph.ClearField("node")
    halves.graph.node.extend(nodes)
    compiled(here, "stock f16", text_of(halves, here), target)


def compiled(here: Path, form: str, text: str, target: Any, kind: str = "onnx") -> None:
    """A module of that name, or a line that says why there is none."""
    from mlq.errors import CompileError
    from mlq.targets.iree import compile_module

    try:
        vmfb = compile_module(text, target, extra_flags=(f"--iree-input-type={kind}",))
    except CompileError as error:
        print(f"{here}: {form} does not compile: {error}", flush=True)
    else:
        (here / f"{form}.vmfb").write_bytes(vmfb)


def text_of(network: Any, here: Path) -> str:
    """IREE's own import of a network."""
    import onnx
    from iree.compiler.tools.import_onnx import __main__ as importer

    source, text = here / "stock.onnx", here / "stock.mlir"
    onnx.save(network, source)
    importer.main(importer.parse_arguments([str(source), "-o", str(text)]))
    found = text.read_text()
    source.unlink()
    text.unlink()
    return found


def run(folder: Path, seconds: float, peak: float | None, only: str) -> None:
    """Run what was built, and print a line for each form."""
    for about in sorted(folder.glob(f"*/{_ABOUT}")):
        known, here = json.loads(about.read_text()), about.parent
        family, _, preset = known["target"].partition(":")
        most = peak or PEAKS.get(preset)
        for form in FORMS:
            path = here / f"{form}.vmfb"
            if path.exists() and fnmatch(f"{here.name}/{form}", only):
                found = measured(path, DRIVERS.get(family, "local-task"), here, seconds)
                print(row(known, form, found, most), flush=True)


def measured(path: Path, driver: str, here: Path, seconds: float) -> tuple[float, float]:
    """The greatest difference from what the CPU made, and the median time of a call, in ms."""
    import iree.runtime as rt

    try:
        config = rt.Config(driver)
    except RuntimeError as error:
        raise SystemExit(f"no {driver} device: {error.__cause__ or error}") from None
    module = rt.VmModule.mmap(config.vm_instance, str(path))
    context = rt.SystemContext(config=config)
    context.add_vm_module(module)
    function = module.lookup_function(entry_of(module))
    x = rt.asdevicearray(config.device, np.load(here / "x.npy"))
    arguments = rt.VmVariantList(1)
    arguments.push_ref(x._buffer_view)  # noqa: SLF001  what the VM takes

    def call() -> Any:
        results = rt.VmVariantList(1)
        context.vm_context.invoke(function, arguments, results)
        return results

    expected = np.load(here / f"{'int8' if path.stem == 'mlq int8' else 'float'}.npy")
    view = call().get_as_object(0, rt.HalBufferView)
    got = downloaded(config.device, view).astype(np.float64).reshape(expected.shape)
    difference, times, end = float(np.abs(got - expected).max()), [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return difference, statistics.median(times)


def downloaded(device: Any, view: Any) -> Any:
    """A copy of a result, by way of memory that the device allocates (see mlq.devices.download).

    The wheel's own download needs aligned pages.
    """
    import iree.runtime as rt

    staged = device.allocator.allocate_buffer(
        int(rt.MemoryType.HOST_LOCAL | rt.MemoryType.DEVICE_VISIBLE),
        int(rt.BufferUsage.TRANSFER_TARGET | rt.BufferUsage.MAPPING_SCOPED),
        view.byte_length,
    )
    semaphore = device.create_semaphore(0)
    before, after = (rt.HalFence.create_at(semaphore, value) for value in (0, 1))
    device.queue_copy(view.get_buffer(), staged, before, after)
    after.wait()
    stored = np.dtype(rt.HalElementType.map_to_dtype(view.element_type))
    return np.array(staged.map().asarray(view.shape, stored), copy=True)


def entry_of(module: Any) -> str:
    """The one function that callers are meant to call: not the asynchronous one, not `__init`."""
    names = [name for name in module.function_names if not name.startswith("__")]
    return next(name for name in names if not name.endswith("$async"))


def row(known: dict[str, Any], form: str, found: tuple[float, float], peak: float | None) -> str:
    """One line of the table."""
    difference, milliseconds = found
    operations = 2 * known["macs"] / milliseconds / 1e9
    share = f"{operations / peak:7.2%} of peak" if peak and form == "mlq int8" else ""
    equal = "EXACT" if difference == 0 else f"off by {difference:.1e}"
    rate = f"{operations:8.2f} T operations/s"
    name = f"{known['network']} x{known['batch']}"
    return f"{name:34} {form:10} {milliseconds:9.3f} ms {rate} {share:16} {equal}"


if __name__ == "__main__":
    main()
