"""Kernels for GPUs: PTX executed by an interpreter, SPIR-V on lavapipe; what they are made of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import ptx
import pytest
import test_kernels as cases
from numpy.typing import NDArray
from ptx_network import Network
from test_kernels import CONVS, DEPTHWISE, Case, Shape
from torch_mlir.ir import Location, Module

from mlq import devices, reference, runtime, targets
from mlq.dialect import context
from mlq.dialect.weights import WeightStore, bound
from mlq.kernels import library
from mlq.kernels.gpu import planning, tensor_cores, threads
from mlq.kernels.gpu.planning import Plan, Room, Task, best_plan
from mlq.kernels.library import Device
from mlq.targets.base import Target
from mlq.targets.iree import compile_module
from mlq.transforms import parse_pipeline
from mlq.transforms.pipelines import lowering

Array = NDArray[Any]
RNG = np.random.default_rng

CARDS = {"cuda_mma": "cuda:sm_80", "cuda_dp4a": "cuda:sm_61"}
LAVAPIPE = "vulkan:llvmpipe"
TYPES = {"i32": np.int32, "f32": np.float32}

# Opcodes, and the one decoration, of SPIR-V's specification.
SPIRV_MAGIC, SU_DOT, DECORATE, NO_CONTRACTION = 0x07230203, 4452, 71, 42
F_MUL, F_ADD = 133, 129


def small_cases(isa: Device) -> Iterator[Case]:
    rng = RNG(0)
    shapes = [shape for shape in CONVS if shape.g == 1]
    yield from (cases.convolution(shape, isa, rng, depthwise=False) for shape in shapes)
    yield from (cases.convolution(shape, isa, rng, depthwise=True) for shape in DEPTHWISE)
    yield cases.max_pool(isa, rng)
    yield cases.concat(isa, rng, (24, 100, 3))
    yield from (cases.mean_pool(isa, rng, result=result) for result in ("u8", "f32"))
    yield cases.quantize(isa, rng, channels=3, width=35)
    yield cases.quantize_image(isa, rng, channels=7)


class Executed:
    """Kernels of CUDA, compiled once, to be executed by the interpreter."""

    def __init__(self, name: str, made: list[Case]) -> None:
        text = cases.program([case.kernel for case in made])
        self.symbols = re.findall(r"entry_points = \[@(\w+)::", text)
        self.texts = ptx.modules(compile_module(text, targets.by_name(CARDS[name])))
        self.kernels = {k: v for each in self.texts for k, v in ptx.kernels(each).items()}

    def run(self, number: int, case: Case) -> tuple[Array, Counter[str]]:
        buffer = case.kernel.buffers[-1]
        result = np.full(buffer.count, 0x55, TYPES[buffer.element])
        buffers = [np.array(each) for each in case.inputs()] + [result]
        kernel = self.kernels[self.symbols[number]]
        return result, ptx.run(kernel, case.kernel.grid, buffers)


@pytest.mark.parametrize("name", CARDS)
def test_ptx_is_exact(name: str) -> None:
    made = list(small_cases(library.named(name)))
    executed = Executed(name, made)
    for i, case in enumerate(made):
        found, counts = executed.run(i, case)
        case.check(found)
        symbol = executed.symbols[i]
        if symbol.startswith(("conv", "depthwise")):
            tensor = name == "cuda_mma" and symbol.startswith("conv")
            assert counts["mma" if tensor else "dp4a"] > 0, symbol
            assert not counts["dp4a" if tensor else "mma"], symbol
    assert not any(re.search(r"\bfma\.rn|[^.]mul\.f32|add\.f32", text) for text in executed.texts)


TILED = (
    Shape(n=2, h=11, w=13, k=3, p=1, c=32, o=80, residual="u8", margin=(1, 1, 1, 1)),
    Shape(h=9, w=9, k=3, s=2, p=1, c=48, o=64),
    Shape(n=3, h=9, w=9, c=64, o=136, residual="f32", result="f32"),
    Shape(h=17, w=19, k=5, s=2, p=2, c=4, o=40),
)


@pytest.mark.parametrize("plan", [Plan(4, 4), Plan(2, 8), Plan(1, 4, 4)])
def test_plans_of_all_sizes_are_exact(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    monkeypatch.setattr(tensor_cores, "best_plan", lambda *_: plan)
    isa, rng = library.named("cuda_mma"), RNG(1)
    made = [cases.convolution(shape, isa, rng, depthwise=False) for shape in TILED]
    executed = Executed("cuda_mma", made)
    for i, case in enumerate(made):
        case.check(executed.run(i, case)[0])


# By 16 bytes of a pixel at once, or 8: fewer pixels than a tile, an incomplete step, few steps.
STAGED = (
    Shape(n=2, h=11, w=13, k=3, p=1, c=64, o=128, residual="u8", margin=(1, 1, 1, 1)),
    Shape(h=9, w=9, k=3, s=2, p=1, c=80, o=64),
    Shape(n=3, h=9, w=9, c=64, o=180, residual="f32", result="f32"),
    Shape(h=7, w=7, k=3, p=2, d=2, c=64, o=36),
    Shape(n=2, h=3, w=5, c=48, o=64, guarded=True),
    Shape(h=9, w=10, c=256, s=2, margin=(1, 0, 2, 0)),
    Shape(h=1, w=1, c=320, o=101, result="f32"),
    Shape(h=9, w=9, k=3, p=1, c=24, residual="u8"),
    Shape(n=2, h=7, w=7, c=160),
)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(4, 4, across=2, stages=4),
        Plan(2, 4, across=1, stages=3),
        Plan(2, 4, across=2, stages=4, warps=8),
    ],
)
def test_tiles_that_are_copied_in_stages_are_exact(
    monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    monkeypatch.setattr(tensor_cores, "best_plan", lambda *_: plan)
    isa, rng = library.named("cuda_mma"), RNG(4)
    made = [cases.convolution(shape, isa, rng, depthwise=False) for shape in STAGED]
    executed = Executed("cuda_mma", made)
    for i, case in enumerate(made):
        assert plan.fits(case.kernel.task)
        found, counts = executed.run(i, case)
        case.check(found)
        assert counts["cp"] > 0


def test_what_is_copied_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its thread, then by all."""
    monkeypatch.setattr(tensor_cores, "best_plan", lambda *_: Plan(2, 4, across=1, stages=2))
    case = cases.convolution(STAGED[1], library.named("cuda_mma"), RNG(4), depthwise=False)
    executed = Executed("cuda_mma", [case])
    kernel = executed.kernels[executed.symbols[0]]
    steps = list(kernel.steps)

    def of(*code: str) -> int:
        return next(i for i, step in enumerate(steps) if step.code[: len(code)] == code)

    nothing = ptx.Step("", negated=False, code=("mov", "b32"), operands=("_", "0"))
    late = replace(steps[of("cp", "async", "wait_group")], operands=("1",))
    for place, instead, complaint in (
        (of("cp", "async", "wait_group"), nothing, "read before it was waited for"),
        (of("cp", "async", "wait_group"), late, "read before it was waited for"),
        (of("bar"), nothing, "before a barrier"),
    ):
        kernel.steps[place] = instead
        with pytest.raises(AssertionError, match=complaint):
            executed.run(0, case)
        kernel.steps[place] = steps[place]
    case.check(executed.run(0, case)[0])


def test_much_work_is_staged_and_little_is_not() -> None:
    large = Task(pixels=12544, channels=256, words=4, steps=36, aligned=True)
    assert best_plan(large).stages > 2
    assert not best_plan(large._replace(aligned=False)).stages
    assert not best_plan(large._replace(pixels=49)).stages, "few workgroups"
    assert not best_plan(large, Room(3.375, 4)).stages, "in a cluster"


SHIFTED = """.entry k(.param .u64 a)
.maxntid 32
{
ld.param.b64 %rd1, [a];
mov.b32 %r1, %tid.x;
mul.wide.u32 %rd2, %r1, 16;
add.s64 %rd3, %rd1, %rd2;
cp.async.cg.shared.global [%rd2], [%rd3], 16;
cp.async.commit_group;
cp.async.wait_group 0;
bar.sync 0;
xor.b32 %r2, %r1, 1;
mul.wide.u32 %rd4, %r2, 16;
ld.shared.b32 %r3, [%rd4];
BARRIER
cp.async.cg.shared.global [%rd2], [%rd3], 16;
cp.async.commit_group;
WAIT
st.global.b32 [%rd3], %r3;
ret;
}"""


@pytest.mark.parametrize(
    ("barrier", "wait", "complaint"),
    [
        ("bar.sync 0;", "cp.async.wait_group 0;", ""),
        ("", "cp.async.wait_group 0;", "written before a barrier"),
        ("bar.sync 0;", "", "copies that nothing waits for"),
    ],
)
def test_no_copy_begins_where_others_read(barrier: str, wait: str, complaint: str) -> None:
    text = SHIFTED.replace("BARRIER", barrier).replace("WAIT", wait)
    kernel, memory = ptx.kernels(text)["k"], RNG(5).integers(0, 99, (32, 4)).astype(np.int32)
    expected = memory[np.arange(32) ^ 1, 0]
    if complaint:
        with pytest.raises(AssertionError, match=complaint):
            ptx.run(kernel, (1, 1, 1), [memory])
        return
    ptx.run(kernel, (1, 1, 1), [memory])
    np.testing.assert_array_equal(memory[:, 0], expected)


def test_few_threads_take_several_pixels() -> None:
    """A GPU that is busy: each thread reuses its weights."""
    shape = Shape(n=2, h=48, w=49, k=3, p=1, c=16, o=64)
    for depthwise in (False, True):
        each = replace(shape, c=64) if depthwise else shape
        case = cases.convolution(each, library.named("cuda_dp4a"), RNG(2), depthwise=depthwise)
        assert case.kernel.tile > 1  # type: ignore[attr-defined]  # of both kernels here
        case.check(Executed("cuda_dp4a", [case]).run(0, case)[0])


def test_many_workgroups_lie_along_two_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_LONGEST", 2)
    isa, rng = library.named("cuda_mma"), RNG(3)
    made = [
        cases.convolution(TILED[0], isa, rng, depthwise=False),
        cases.convolution(DEPTHWISE[1], isa, rng, depthwise=True),
    ]
    executed = Executed("cuda_mma", made)
    for i, case in enumerate(made):
        assert case.kernel.grid[1] > 1
        case.check(executed.run(i, case)[0])


def test_the_interpreter_sees_what_is_wrong() -> None:
    """Else the tests above would prove nothing."""
    isa = library.named("cuda_mma")
    case = cases.convolution(CONVS[0], isa, RNG(0), depthwise=False)
    executed = Executed("cuda_mma", [case])
    right, kernel = executed.run(0, case)[0], executed.kernels[executed.symbols[0]]
    steps = list(kernel.steps)
    place = next(i for i, step in enumerate(steps) if step.code[0] == "mma")
    a, b, c, d = steps[place].operands[1].strip("{}").split(",")
    wrong = [
        replace(steps[place], operands=(steps[place].operands[0], f"{{{order}}}", *rest))
        for order in (f"{b},{a},{c},{d}", f"{a},{b},{d},{c}")
        for rest in [steps[place].operands[2:]]
    ]
    signed = tuple("s8" if part == "u8" else part for part in steps[place].code)
    for spoiled in (*wrong, replace(steps[place], code=signed)):
        kernel.steps[place] = spoiled
        assert (executed.run(0, case)[0] != right).any()
    kernel.steps[place] = steps[place]
    short = [np.array(each) for each in case.inputs()]
    short[0] = short[0][: len(short[0]) // 2]
    with pytest.raises(AssertionError, match="beyond"):
        ptx.run(kernel, case.kernel.grid, [*short, right])
    load = next(i for i, step in enumerate(steps) if step.code[:2] == ("ld", "global"))
    target, address = steps[load].operands
    shifted = re.sub(r"(\+\d+)?\]", "+2]", address)
    kernel.steps[load] = replace(steps[load], operands=(target, shifted))
    with pytest.raises(AssertionError, match="not aligned"):
        executed.run(0, case)


def test_warps_that_share_a_tile_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_cores, "best_plan", lambda *_: Plan(1, 2, 4))
    case = cases.convolution(CONVS[0], library.named("cuda_mma"), RNG(0), depthwise=False)
    executed = Executed("cuda_mma", [case])
    kernel = executed.kernels[executed.symbols[0]]
    case.check(executed.run(0, case)[0])
    barrier = next(i for i, step in enumerate(kernel.steps) if step.code[0] == "bar")
    kernel.steps[barrier] = ptx.Step("", negated=False, code=("mov", "b32"), operands=("_", "0"))
    with pytest.raises(AssertionError, match="before a barrier"):
        executed.run(0, case)


def opcodes(vmfb: bytes) -> tuple[Counter[int], Counter[int]]:
    """How often each SPIR-V opcode, and decoration, is in a module."""
    found, decorations = Counter[int](), Counter[int]()
    for match in re.finditer(re.escape(SPIRV_MAGIC.to_bytes(4, "little")), vmfb):
        start = match.start()
        length = int.from_bytes(vmfb[start - 4 : start], "little")  # as flatbuffers store it
        words, at = np.frombuffer(vmfb[start : start + 4 * length], np.uint32), 5
        while at < length:
            code = int(words[at] & 0xFFFF)
            found[code] += 1
            if code == DECORATE:
                decorations[int(words[at + 2])] += 1
            at += int(words[at] >> 16)
    return found, decorations


def test_spirv_is_exact_and_has_dot_products() -> None:
    target = targets.by_name(LAVAPIPE)
    made = list(small_cases(library.named("vulkan_dot")))
    vmfb = compile_module(cases.program([case.kernel for case in made]), target)
    found, decorations = opcodes(vmfb)
    assert found[SU_DOT] > 100
    assert decorations[NO_CONTRACTION] == found[F_MUL] + found[F_ADD] > 0
    if reason := devices.why_not_here(target):
        pytest.skip(reason)
    results = runtime.load(vmfb).run(*(x for case in made for x in case.inputs()))
    for case, result in zip(made, results, strict=True):
        case.check(result)


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [
        ("cuda", "@lower-linalg"),
        ("cuda:sm_60", "@lower-linalg"),
        ("cuda:sm_61", "@lower-cuda_dp4a"),
        ("cuda:sm_75", "@lower-cuda_dp4a"),
        ("cuda:sm_80", "@lower-cuda_mma"),
        ("cuda:sm_90", "@lower-cuda_cluster"),
        ("vulkan", "@lower-linalg"),
        ("vulkan:adreno", "@lower-linalg"),
        (LAVAPIPE, "@lower-vulkan_dot"),
    ],
)
def test_a_gpu_gets_the_kernels_that_it_has_instructions_for(name: str, pipeline: str) -> None:
    """Below sm_61 there is no dp4a, below sm_80 no mma of int8: the compiler would abort."""
    assert lowering(targets.by_name(name).features) == pipeline


def lowered_network(target: Target) -> tuple[str, WeightStore, Array, Array]:
    """A small network for a target, its weights, an input, and what must come out."""
    text, store = cases.network()
    x = RNG(0).normal(0, 2, (1, 3, 30, 30)).astype(np.float32)
    with context(), Location.unknown(), bound(store):
        module = Module.parse(text)
        expected = reference.run(module, [x])["y"]
        parse_pipeline(lowering(target.features)).run(module.operation)
        lowered = str(module.operation.get_asm(print_generic_op_form=True))
    assert lowered.count('"flow.dispatch"(') == 9
    return lowered, store, x, expected


@pytest.mark.parametrize("card", CARDS.values())
def test_a_network_in_the_interpreter_is_that_of_the_reference(card: str) -> None:
    """IREE's own code, for what has no kernel, is executed, too."""
    lowered, store, x, expected = lowered_network(targets.by_name(card))
    network = Network(lowered, targets.by_name(card), store)
    np.testing.assert_array_equal(network.run(x)[0], expected)
    assert (network.executed["mma"] > 0) == (card == CARDS["cuda_mma"])


def test_a_network_of_staged_kernels_is_that_of_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever there can be stages, however small the layer."""
    monkeypatch.setattr(planning, "_HIDDEN", 1e-6)
    monkeypatch.setattr(tensor_cores, "best_plan", best_plan.__wrapped__)
    target = targets.by_name(CARDS["cuda_mma"])
    lowered, store, x, expected = lowered_network(target)
    network = Network(lowered, target, store)
    np.testing.assert_array_equal(network.run(x)[0], expected)
    assert network.executed["cp"] > 0


def test_a_network_on_lavapipe_is_that_of_the_reference() -> None:
    target = targets.by_name(LAVAPIPE)
    if reason := devices.why_not_here(target):
        pytest.skip(reason)
    lowered, store, x, expected = lowered_network(target)
    vmfb = compile_module(lowered, target, weights=store)
    np.testing.assert_array_equal(runtime.load(vmfb).run(x)[0], expected)


def test_a_call_sends_a_gpu_no_constants() -> None:
    """Nor does it record its dispatches: both are done once, as the module is loaded."""
    target = targets.by_name(CARDS["cuda_mma"])
    lowered, store, *_ = lowered_network(target)
    assert "@max_pool" in lowered
    code = compile_module(lowered, target, weights=store, extra_flags=("--compile-to=hal",))
    loading, _, call = code.decode().partition("util.func public @main")
    assert "hal.device.queue.read" in loading
    assert "hal.device.queue.execute" in call
    assert "hal.device.queue.read" not in call
    assert "hal.command_buffer.create" in loading
    assert "util.call" not in call
