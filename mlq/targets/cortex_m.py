"""Arm microcontrollers without an operating system: an object file that any C program links."""

from __future__ import annotations

from dataclasses import replace

from mlq.targets.base import Target
from mlq.targets.device import Device, Emulator
from mlq.targets.modelled import BYTES, Peak


def _flags(triple: str, cpu: str, features: str) -> tuple[str, ...]:
    return (
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        f"--iree-llvmcpu-target-triple={triple}-none-eabihf",
        f"--iree-llvmcpu-target-cpu={cpu}",
        "--iree-llvmcpu-target-float-abi=hard",
        f"--iree-llvmcpu-target-cpu-features={features}",
        "--iree-opt-level=O3",
        "--iree-llvmcpu-debug-symbols=false",
    )


def _peak(gigahertz: float, f32_macs: float, int8_macs: float) -> Peak:
    return Peak(
        gigahertz=gigahertz,
        f32_macs=f32_macs,
        int8_macs=int8_macs,
        lanes=f32_macs,
        bytes_per_us=gigahertz * 4e3,
        dispatch_us=10.0,
    )


def _emulator(cpu: str, *more: str) -> Emulator:
    return Emulator(
        program="qemu-arm",
        arguments=("-cpu", cpu),
        sysroot="",
        library="libnewlib-arm-none-eabi",
        least_version=10,  # 7.2 dies of an assertion (page_set_flags) on any Cortex-M program
        compiler="arm-none-eabi-gcc",
        compiler_flags=(f"-mcpu={cpu}", "-mthumb", "-mfloat-abi=hard", *more, _SEMIHOSTED),
        compiler_package="gcc-arm-none-eabi",
    )


_SEMIHOSTED = "--specs=rdimon.specs"

TARGET = Target(
    name="cortex-m",
    summary="Arm microcontrollers: an object file and C, no runtime; Cortex-M7, or a preset",
    iree_flags=_flags("thumbv7em", "cortex-m7", "+dsp"),
    costs=_peak(0.4, 0.5, 0.5).costs(),
    storage=BYTES,
    minimise="bytes",
    device=Device(driver="none", machines=("none",), emulator=_emulator("cortex-m7")),
    formats=("static-library",),
    fixed_batch="a static library has buffers of known sizes",
)

PRESETS = {
    "m4": replace(
        TARGET,
        name=f"{TARGET.name}:m4",
        summary="m4: Cortex-M4F",
        iree_flags=_flags("thumbv7em", "cortex-m4", "+dsp"),
        costs=_peak(0.17, 0.3, 0.5).costs(),
        device=replace(TARGET.device, emulator=_emulator("cortex-m4", "-mfpu=fpv4-sp-d16")),
    ),
    "m55": replace(
        TARGET,
        name=f"{TARGET.name}:m55",
        summary="m55: Cortex-M55 with MVE",
        iree_flags=_flags("thumbv8.1m.main", "cortex-m55", "+mve.fp,+dsp,+fullfp16"),
        costs=_peak(0.4, 1.0, 2.0).costs(),
        device=replace(TARGET.device, emulator=_emulator("cortex-m55")),
    ),
}
