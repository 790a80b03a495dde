"""Targets, and IREE's compiler behind them: errors, cache, determinism of bytes."""

from __future__ import annotations

import dataclasses
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from mlq import targets
from mlq.errors import CompileError, TargetError
from mlq.targets import Costs, Storage, Target, Work, caching, host, iree, refusals

X86 = targets.by_name("x86")
EVERY = [each for family in targets.all_targets() for each in (family, *targets.presets_of(family))]

# [N, 4] plus a weight, in the generic form that lowering writes.
ADD = """
"builtin.module"() ({
  "util.global"() {sym_name = "w0", sym_visibility = "private", type = tensor<4xi8>,
    initial_value = #stream.parameter.named<"model"::"conv1.weight"> : tensor<4xi8>} : () -> ()
  "func.func"() ({
  ^bb0(%x: tensor<?x4xi8>):
    %w = "util.global.load"() {global = @w0, is_immutable} : () -> tensor<4xi8>
    %c0 = arith.constant 0 : index
    %n = tensor.dim %x, %c0 : tensor<?x4xi8>
    %empty = tensor.empty(%n) : tensor<?x4xi8>
    %y = linalg.generic {
      indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (j)>,
                       affine_map<(i, j) -> (i, j)>],
      iterator_types = ["parallel", "parallel"]}
      ins(%x, %w : tensor<?x4xi8>, tensor<4xi8>) outs(%empty : tensor<?x4xi8>) {
    ^bb0(%a: i8, %b: i8, %o: i8):
      %s = arith.addi %a, %b : i8
      linalg.yield %s : i8
    } -> tensor<?x4xi8>
    "func.return"(%y) : (tensor<?x4xi8>) -> ()
  }) {function_type = (tensor<?x4xi8>) -> tensor<?x4xi8>, sym_name = "main"} : () -> ()
}) : () -> ()
"""
WEIGHTS = {"conv1.weight": np.array([1, 2, 3, 4], np.int8)}


def compiler_calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are run from now on; they run all the same."""
    calls: list[list[str]] = []
    run = subprocess.run

    def spy(command: list[str], **options: object) -> object:
        calls.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", spy)
    return calls


def test_a_target_is_found_by_its_file() -> None:
    assert targets.by_name("x86") in targets.all_targets()
    files = {path.stem for path in Path(targets.__file__).parent.glob("*.py")}
    named = {target.name.replace("-", "_") for target in targets.all_targets()}
    assert named <= files


def test_an_unknown_target_lists_near_names_and_all() -> None:
    with pytest.raises(TargetError, match=r"no target 'x68'; did you mean x86\? targets: .*x86"):
        targets.by_name("x68")
    with pytest.raises(TargetError, match=r"no target 'toaster'; targets: "):
        targets.by_name("toaster")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cortex-a76", "did you mean arm64:cortex-a76?"),
        ("arm64:cortex-a67", "arm64 has no preset 'cortex-a67'; did you mean arm64:cortex-a76"),
        ("sm_90", "did you mean cuda:sm_90?"),
        ("cuda:hopper", "cuda has no preset 'hopper'; presets: sm_60"),
        ("vulkan:swiftshader", "vulkan has no preset 'swiftshader'; presets: llvmpipe"),
        ("aarch64", "did you mean arm64?"),
        ("x86:avx", "x86 has no preset 'avx'; did you mean x86:avx2 or x86:avx512? presets: avx2"),
        ("vmvx:avx2", "vmvx has no preset 'avx2'; presets: none"),
    ],
)
def test_a_preset_is_found_by_its_near_names(name: str, said: str) -> None:
    with pytest.raises(TargetError) as error:
        targets.by_name(name)
    assert said in str(error.value)


def test_the_host_has_a_target() -> None:
    assert targets.host_target() in targets.all_targets()
    assert platform.machine().lower() in (*targets.host_target().device.machines, "other")


def test_nothing_compares_the_name_of_a_target() -> None:
    for path in Path(targets.__file__).parent.parent.rglob("*.py"):
        assert "target.name ==" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("target", EVERY, ids=lambda target: target.name)
def test_every_precision_of_a_target_has_a_cost_and_a_storage(target: Target) -> None:
    for kind in target.kinds:
        for precision in target.precisions(kind):
            for form in ("", "pointwise", "depthwise"):
                work = Work(
                    kind=kind,
                    macs=10**6,
                    params=100,
                    input_elements=64,
                    output_elements=64,
                    form=form,
                )
                assert target.cost_us(work, precision) > 0
        assert "f32" in target.precisions(kind)
    assert target.cost_source


def toy() -> Target:
    return Target(
        name="toy",
        summary="one operation in a nanosecond",
        iree_flags=(),
        costs=Costs(
            giga_ops={
                "conv2d": {"f32": 1.0, "w8a8": 4.0},
                "conv2d.depthwise": {"w8a8": 2.0},
                "add": {"f32": 1.0},
            },
            bytes_per_us=1000.0,
            dispatch_us=3.0,
            source="made up",
        ),
        storage={"f32": Storage(weight=4, activation=4), "w8a8": Storage(weight=1, activation=1)},
    )


def test_cost_is_a_roofline() -> None:
    work = Work(kind="conv2d", macs=8000, params=1000, input_elements=500, output_elements=500)
    assert toy().cost_us(work, "f32") == 3 + 8  # both bounds
    assert toy().cost_us(work, "w8a8") == 3 + 2
    few = dataclasses.replace(work, macs=1)
    assert toy().cost_us(few, "f32") == 3 + 8
    assert toy().cost_us(few, "w8a8") == 3 + 2
    depthwise = dataclasses.replace(work, form="depthwise")
    assert toy().cost_us(depthwise, "w8a8") == 3 + 4
    assert toy().cost_us(depthwise, "f32") == 3 + 8, "a form without a row costs as its kind"
    assert toy().size_bytes(work, "w8a8") == 1000
    assert toy().cast_us(1000, "w8a8") == 5


def test_a_precision_the_target_lacks_is_an_error() -> None:
    work = Work(kind="add", macs=0, params=0, input_elements=10, output_elements=5)
    assert not toy().supports("add", "w8a8")
    with pytest.raises(TargetError, match="toy cannot run add in w8a8; choose from f32"):
        toy().cost_us(work, "w8a8")
    assert toy().supports("softmax", "f32"), "what no table knows can be left in float"


def test_cpu_model_and_features_are_known_on_linux() -> None:
    assert host.cpu_model()
    if sys.platform == "linux":
        assert host.cpu_features()
        assert "fpu" not in host.cpu_features(), "only what a compiler would use"


def test_versions_name_both_wheels() -> None:
    assert set(iree.versions()) == {"iree-base-compiler", "iree-base-runtime"}


def test_equal_input_gives_equal_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLQ_CACHE", "off")
    calls = compiler_calls(monkeypatch)
    first = iree.compile_module(ADD, X86, weights=WEIGHTS)
    second = iree.compile_module(ADD, X86, weights=WEIGHTS)
    assert len(calls) == 2
    assert first == second
    assert b"/tmp" not in first
    assert str(Path.home()).encode() not in first


def test_bytecode_and_bytes_are_accepted(tmp_path: Path) -> None:
    text = iree.compile_module(ADD, X86, weights=WEIGHTS, cache=tmp_path)
    assert iree.compile_module(ADD.encode(), X86, weights=WEIGHTS, cache=tmp_path) == text


def test_a_second_compilation_comes_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLQ_CACHE", str(tmp_path / "cache"))
    calls = compiler_calls(monkeypatch)
    first = iree.compile_module(ADD, X86, weights=WEIGHTS)
    unused = {**WEIGHTS, "another": np.zeros(3, np.float32)}
    assert iree.compile_module(ADD, X86, weights=unused) == first
    assert len(calls) == 1
    other = {"conv1.weight": np.array([4, 3, 2, 1], np.int8)}
    assert iree.compile_module(ADD, X86, weights=other) != first
    iree.compile_module(ADD, X86, embed=False)
    slower = dataclasses.replace(X86, iree_flags=(*X86.iree_flags, "--iree-opt-level=O1"))
    iree.compile_module(ADD, slower, weights=WEIGHTS)
    assert len(calls) == 4
    assert not list((tmp_path / "cache").glob("*.part"))


def test_the_cache_forgets_what_was_not_used_for_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, name in enumerate(("oldest", "older", "newest")):
        caching.store(tmp_path, name, bytes(100))
        os.utime(tmp_path / name, (index, index))
    monkeypatch.setattr(caching, "_CACHE_BYTES", 250)
    caching.prune(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"older", "newest"}


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert iree.compile_module(ADD, X86, weights=WEIGHTS, cache=tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("func.func @main( {", r"cannot read the module: .*1:17"),
        (ADD.replace("addi", "addf"), r"'arith.addf' op operand #0 must be floating-point"),
        (ADD.replace("model", "elsewhere").replace("func.return", "func.retrun"), "cannot read"),
    ],
)
def test_text_that_is_no_module_is_one_line(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=message) as error:
        iree.compile_module(text, X86, weights=WEIGHTS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (None, "asks for weight 'conv1.weight', which the weight store lacks"),
        (np.zeros(5, np.int8), r"'conv1.weight' is int8\[5\], the module declares tensor<4xi8>"),
        (np.zeros(4, np.float32), r"'conv1.weight' is float32\[4\]"),
    ],
)
def test_a_weight_that_does_not_fit_is_named(array: np.ndarray | None, message: str) -> None:
    weights = {} if array is None else {"conv1.weight": array}
    with pytest.raises(CompileError, match=message):
        iree.compile_module(ADD, X86, weights=weights)


def test_weights_of_bfloat16_are_embedded(tmp_path: Path) -> None:
    bfloat16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    text = ADD.replace("xi8", "xbf16").replace("i8", "bf16").replace("addi", "addf")
    weights = {"conv1.weight": np.array([1, 2, 3, 4], bfloat16)}
    assert iree.compile_module(text, X86, weights=weights, cache=tmp_path)


def test_what_iree_cannot_generate_is_fused_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLQ_CACHE", "off")
    fail = f"import sys; sys.exit('error: these {iree._OVERFUSED}')"
    run, calls = subprocess.run, []

    def overfuse(command: list[str], **options: Any) -> Any:
        calls.append(command)
        fails = iree._FUSE_LESS not in command
        return run([sys.executable, "-c", fail] if fails else command, **options)

    monkeypatch.setattr(subprocess, "run", overfuse)
    assert iree.compile_module(ADD, X86, weights=WEIGHTS)
    assert len(calls) == 2


def test_a_refusal_says_how_to_reproduce_it(tmp_path: Path) -> None:
    wrong = dataclasses.replace(X86, iree_flags=("--iree-hal-target-device=toaster",))
    with pytest.raises(CompileError, match=r"cannot compile the module: .*to reproduce: iree-comp"):
        iree.compile_module(ADD, wrong, weights=WEIGHTS, cache=tmp_path)
    (kept,) = tmp_path.glob("failed-*.mlirbc")
    assert kept.stat().st_size > 0


def test_a_crash_of_the_compiler_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLQ_CACHE", "off")
    crash = [sys.executable, "-c", "import os; os.abort()"]
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _, **options: run(crash, **options))
    with pytest.raises(CompileError, match=f"died .killed by signal {signal.SIGABRT:d}"):
        iree.compile_module(ADD, X86, weights=WEIGHTS)


def test_interrupting_kills_the_compiler(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import subprocess, sys\n"
        "from mlq import targets\n"
        "from mlq.targets import iree\n"
        "run = subprocess.run\n"
        "slow = [sys.executable, '-c', 'import time; print(1); time.sleep(60)']\n"
        "subprocess.run = lambda _, **options: print('go', flush=True) or run(slow, **options)\n"
        "text = 'module { }'\n"
        "iree.compile_module(text, targets.by_name('x86'))\n"
    )
    command = [sys.executable, str(script)]
    environment = {**os.environ, "MLQ_CACHE": "off"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) != 0
        # The pipe closes only when the compiler is gone too.
        process.stdout.read()


def test_a_node_that_iree_has_no_code_for_is_named() -> None:
    kind = "!torch.vtensor<[2,3],f32>"
    text = f"""func.func @main(%x: {kind}) -> {kind}
        attributes {{torch.onnx_meta.opset_version = 17 : si64}} {{
      %y = torch.operator "onnx.Unheard"(%x) : ({kind}) -> {kind}
      return %y : {kind}
    }}"""
    with pytest.raises(CompileError, match="IREE has no code for ONNX Unheard"):
        iree.compile_module(text, X86)


def test_a_node_that_iree_fails_over_is_named() -> None:
    boxes, scores, found = (
        f"!torch.vtensor<[{shape}],{kind}>"
        for shape, kind in (("1,6,4", "f32"), ("1,2,6", "f32"), ("?,3", "si64"))
    )
    text = f"""func.func @main(%b: {boxes}, %s: {scores}) -> {found}
        attributes {{torch.onnx_meta.opset_version = 17 : si64}} {{
      %y = torch.operator "onnx.NonMaxSuppression"(%b, %s) : ({boxes}, {scores}) -> {found}
      return %y : {found}
    }}"""
    with pytest.raises(CompileError, match="no code for ONNX NonMaxSuppression as it stands"):
        iree.compile_module(text, X86)
    reason = "-:3:7: error: something that does not say of what"
    assert refusals.node_at_fault(reason, text) == "NonMaxSuppression"
    assert refusals.node_at_fault(reason.replace("3", "4"), text) == ""
    assert refusals.node_at_fault("out of memory", text) == ""
