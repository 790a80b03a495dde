"""Where modules may run: what is refused before it runs, and with which words."""

from __future__ import annotations

import dataclasses
import platform

import numpy as np
import pytest

from mlq import devices, emulation, programs, runtime, targets
from mlq.errors import CompileError, TargetError
from mlq.targets import Target
from mlq.targets.iree import TARGET_NAME, compile_module

EVERY = [each for family in targets.all_targets() for each in (family, *targets.presets_of(family))]

DOUBLE = """
func.func @main(%x: tensor<4x8xi8>) -> tensor<4x8xi8> {
  %y = arith.addi %x, %x : tensor<4x8xi8>
  return %y : tensor<4x8xi8>
}
"""
X = np.arange(-16, 16, dtype=np.int8).reshape(4, 8)


def foreign() -> Target:
    """A target for CPUs that this machine's is not."""
    machine = platform.machine().lower()
    return targets.by_name("riscv64" if machine in {"aarch64", "arm64"} else "arm64")


def test_a_module_names_its_target_and_runs_there() -> None:
    module = compile_module(DOUBLE, targets.by_name("vmvx"))
    np.testing.assert_array_equal(runtime.load(module).run(X)[0], X + X)
    assert devices.target_of({TARGET_NAME: "vmvx"}, "it").name == "vmvx"
    assert devices.target_of({}, "it") == targets.host_target(), "made before targets were named"


def test_a_module_for_another_machine_is_refused_before_it_runs() -> None:
    module = compile_module(DOUBLE, foreign())
    with pytest.raises(TargetError, match=r"it was compiled for \w+; it is for \w+ CPUs, this mac"):
        runtime.load(module)


def test_features_that_the_cpu_lacks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    arm = targets.by_name("arm64:neoverse-v1")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(devices, "cpu_features", lambda: frozenset({"asimd", "asimddp"}))
    assert "it needs asimdhp, fphp, i8mm, which this CPU" in devices.why_not_here(arm)
    assert devices.why_not_here(targets.by_name("arm64")) == ""
    with pytest.raises(TargetError, match="needs i8mm, which this CPU"):
        devices.target_of({TARGET_NAME: "arm64", "mlq.cpu_features": "asimd i8mm"}, "it")


@pytest.mark.parametrize(
    ("name", "device", "fits"),
    [
        ("vulkan:llvmpipe", "llvmpipe (LLVM 15.0.6, 256 bits)", True),
        ("vulkan:valhall4", "llvmpipe (LLVM 15.0.6, 256 bits)", False),
        ("vulkan:valhall4", "Mali-G715", True),
        ("vulkan:llvmpipe", "NVIDIA A100-SXM4-80GB", False),
        ("vulkan:ampere", "NVIDIA A100-SXM4-80GB", True),
        ("vulkan:rdna3", "AMD Radeon RX 7900 XTX (RADV NAVI31)", True),
        ("vulkan", "anything", True),
    ],
)
def test_code_for_another_gpu_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, device: str, *, fits: bool
) -> None:
    """It would run, and compute something else: its subgroups have another size."""
    monkeypatch.setattr(devices, "gpus", lambda _driver: ([device], ""))
    assert (devices.why_not_here(targets.by_name(name)) == "") == fits


@pytest.mark.parametrize(
    ("name", "present", "said"),
    [
        ("cuda:sm_80", 75, "its code is for sm_80 and newer, Tesla T4 here is sm_75"),
        ("cuda:sm_75", 75, ""),
        ("cuda:sm_61", 90, ""),
        ("cuda", 75, ""),
    ],
)
def test_code_for_a_newer_card_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, present: int, said: str
) -> None:
    """An older one has not the instructions; a newer one's driver compiles for it."""
    monkeypatch.setattr(devices, "gpus", lambda _driver: (["Tesla T4"], ""))
    monkeypatch.setattr(devices, "_capability", lambda: present)
    assert devices.why_not_here(targets.by_name(name)) == said


def test_no_gpu_is_said_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda _driver: ([], "libcuda.so not available; and more"))
    said = devices.why_not_here(targets.by_name("cuda:sm_80"))
    assert said.startswith("there is no cuda device (libcuda.so not available); install NVIDIA's")


@pytest.mark.parametrize("target", EVERY, ids=lambda target: target.name)
def test_every_target_says_where_it_runs_or_why_not(target: Target) -> None:
    reason = emulation.why_not_at_all(target)
    assert bool(reason) != bool(emulation.where(target) and not reason)
    assert "\n" not in reason


def test_an_emulator_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation.shutil, "which", lambda _program: None)
    target = foreign()
    emulator = target.device.emulator
    assert emulator is not None
    assert f"there is no {emulator.program}; install qemu-user" in emulation.why_not_at_all(target)
    with pytest.raises(TargetError, match=r"cannot run here: .*install qemu-user"):
        emulation.load(DOUBLE, target, {}, outputs=1)


def test_an_emulator_that_is_too_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation.shutil, "which", lambda program: program)
    monkeypatch.setattr(emulation, "_major_version", lambda _program: 7)
    said = emulation.why_not_at_all(targets.by_name("cortex-m"))
    assert said.endswith("it takes qemu-arm 10 or newer")


def test_a_program_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match=r"sh failed \(signal 4\), saying: nothing"):
        programs.run(["sh", "-c", "kill -ILL $$"], "/")
    with pytest.raises(TargetError, match=r"sh failed \(exit code 3\), saying: oh"):
        programs.run(["sh", "-c", "echo oh >&2; exit 3"], "/")
    monkeypatch.setattr(emulation, "_PYTHON", "2.0")
    with pytest.raises(TargetError, match="cannot fetch iree-base-runtime"):
        emulation.runtime_tool("manylinux_2_28_sparc")


@pytest.mark.parametrize("capability", ["sm_60", "sm_90"])
def test_cuda_modules_hold_ptx_for_their_card(capability: str) -> None:
    """IREE 3.13 has no sm_90 by name; a description of the device gets code for it all the same."""
    module = compile_module(DOUBLE, targets.by_name(f"cuda:{capability}"))
    assert f".target {capability}".encode() in module


def test_a_gpu_that_the_compiler_does_not_know_is_an_error_of_one_line() -> None:
    """IREE crashes on it; mlq's own names are checked before, and a crash is an error too."""
    wrong = dataclasses.replace(
        targets.by_name("vulkan:llvmpipe"),
        iree_flags=("--iree-hal-target-device=vulkan", "--iree-vulkan-target=swiftshader"),
    )
    with pytest.raises(CompileError, match="Unknown Vulkan target 'swiftshader'") as error:
        compile_module(DOUBLE, wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("vulkan", "reads signed int8 as unsigned"), ("vulkan:adreno", "cannot legalize int8")],
)
def test_a_profile_that_computes_int8_wrongly_is_refused(name: str, said: str) -> None:
    assert targets.by_name(name).precisions("conv2d") == ("f32",)
    with pytest.raises(TargetError, match=f"nothing can be integer on {name}: .*{said}"):
        targets.integer_target(name)
    assert targets.integer_target("vulkan:llvmpipe").float_only == ""


def test_int8_is_right_on_lavapipe() -> None:
    target = targets.by_name("vulkan:llvmpipe")
    if reason := devices.why_not_here(target):
        pytest.skip(reason)
    executable = runtime.load(compile_module(DOUBLE, target))
    for step in range(3):
        np.testing.assert_array_equal(executable.run(X + step)[0], (X + step) * 2)
    executable.prepare(X)()
