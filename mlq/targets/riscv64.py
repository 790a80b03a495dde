"""64-bit RISC-V CPUs under Linux; the preset adds the vector extension."""

from __future__ import annotations

from dataclasses import replace

from mlq.targets.base import Target
from mlq.targets.device import Device, Emulator
from mlq.targets.modelled import BYTES, CPU_FORMATS, Peak


def _flags(features: str) -> tuple[str, ...]:
    return (
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        "--iree-llvmcpu-target-triple=riscv64-linux-gnu",
        "--iree-llvmcpu-target-cpu=generic-rv64",
        "--iree-llvmcpu-target-abi=lp64d",
        f"--iree-llvmcpu-target-cpu-features={features}",
        "--iree-opt-level=O3",
        "--iree-llvmcpu-debug-symbols=false",
    )


def _peak(lanes: float, int8_macs: float) -> Peak:
    return Peak(
        gigahertz=1.6,
        f32_macs=lanes,
        int8_macs=int8_macs,
        lanes=lanes,
        bytes_per_us=4_000.0,
        dispatch_us=3.0,
    )


_EMULATOR = Emulator(
    program="qemu-riscv64",
    arguments=("-cpu", "rv64"),
    sysroot="/usr/riscv64-linux-gnu",
    library="libc6-riscv64-cross",
    compiler="riscv64-linux-gnu-gcc",
    compiler_package="gcc-riscv64-linux-gnu",
)

TARGET = Target(
    name="riscv64",
    summary="64-bit RISC-V under Linux, rv64gc; riscv64:rvv has vectors of at least 128 bits",
    iree_flags=_flags("+m,+a,+f,+d,+c"),
    costs=_peak(1.0, 1.0).costs(),
    storage=BYTES,
    device=Device(machines=("riscv64",), emulator=_EMULATOR),
    formats=CPU_FORMATS,
)

_VECTORS = ("-cpu", "rv64,v=true,vext_spec=v1.0,vlen=128")

PRESETS = {
    "rvv": replace(
        TARGET,
        name="riscv64:rvv",
        summary="rvv: rv64gcv, vectors of 128 bits or more",
        iree_flags=_flags("+m,+a,+f,+d,+c,+v,+zvl128b"),
        costs=_peak(4.0, 8.0).costs(),
        device=Device(machines=("riscv64",), emulator=replace(_EMULATOR, arguments=_VECTORS)),
    )
}
