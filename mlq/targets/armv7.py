"""32-bit Arm CPUs with NEON under Linux: a module for IREE, or a program without it."""

from __future__ import annotations

from mlq.targets.base import Target
from mlq.targets.device import Device, Emulator
from mlq.targets.modelled import BYTES, CPU_FORMATS, Peak

TARGET = Target(
    name="armv7",
    summary="32-bit Arm with NEON under Linux (Cortex-A7 to A17); hard-float ABI",
    iree_flags=(
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        "--iree-llvmcpu-target-triple=armv7a-linux-gnueabihf",
        "--iree-llvmcpu-target-cpu=generic",
        "--iree-llvmcpu-target-cpu-features=+neon",
        "--iree-llvmcpu-target-float-abi=hard",
        "--iree-opt-level=O3",
        "--iree-llvmcpu-debug-symbols=false",
    ),
    costs=Peak(
        gigahertz=1.2,
        f32_macs=2.0,
        int8_macs=4.0,
        lanes=2.0,
        bytes_per_us=2_000.0,
        dispatch_us=5.0,
    ).costs(),
    storage=BYTES,
    cpu_features=frozenset({"neon"}),
    device=Device(
        machines=("armv7l", "armv8l"),
        emulator=Emulator(
            program="qemu-arm",
            arguments=("-cpu", "max"),
            sysroot="/usr/arm-linux-gnueabihf",
            library="libc6-armhf-cross",
            compiler="arm-linux-gnueabihf-gcc",
            compiler_package="gcc-arm-linux-gnueabihf",
        ),
    ),
    formats=CPU_FORMATS,
)
