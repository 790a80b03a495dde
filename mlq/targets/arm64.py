"""64-bit Arm CPUs under Linux: generated kernels, IREE's llvm-cpu otherwise; presets are cores."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlq.targets.base import Target
from mlq.targets.device import ARM64_MACHINES, Device, Emulator
from mlq.targets.modelled import CPU_FORMATS, PACKED, Peak

# What LLVM calls a feature, and what Linux lists it as.
_LINUX = {"dotprod": ("asimddp",), "i8mm": ("i8mm",), "fullfp16": ("asimdhp", "fphp")}


@dataclass(frozen=True)
class _Core:
    """One kind of core: its features in LLVM's words, its peak, and who plays it in qemu 7."""

    features: tuple[str, ...]
    peak: Peak
    played_by: str = "max"


def _peak(gigahertz: float, pipes: int, *, dot: int, bytes_per_us: float = 10_000.0) -> Peak:
    """The peak of `pipes` vector units of 128 bits, each with `dot` int8 MACs a clock."""
    return Peak(
        gigahertz=gigahertz,
        f32_macs=4.0 * pipes,
        int8_macs=float(dot * pipes),
        lanes=4.0 * pipes,
        bytes_per_us=bytes_per_us,
        dispatch_us=2.0,
    )


# int8 MACs a clock and pipe: 8 by smull and smlal, 16 by sdot, 32 by smmla.
_CORES = {
    "cortex-a53": _Core((), _peak(1.4, 1, dot=8, bytes_per_us=4_000.0), "cortex-a53"),
    "cortex-a55": _Core(("dotprod", "fullfp16"), _peak(1.8, 1, dot=16, bytes_per_us=6_000.0)),
    "cortex-a72": _Core((), _peak(1.8, 2, dot=8, bytes_per_us=6_000.0), "cortex-a72"),
    "cortex-a76": _Core(("dotprod", "fullfp16"), _peak(2.4, 2, dot=16), "cortex-a76"),
    "neoverse-n1": _Core(
        ("dotprod", "fullfp16"), _peak(2.5, 2, dot=16, bytes_per_us=20_000.0), "neoverse-n1"
    ),
    "neoverse-v1": _Core(
        ("dotprod", "fullfp16", "i8mm"), _peak(2.6, 4, dot=32, bytes_per_us=30_000.0)
    ),
    "neoverse-v2": _Core(
        ("dotprod", "fullfp16", "i8mm"), _peak(2.8, 4, dot=32, bytes_per_us=40_000.0)
    ),
    "apple-m": _Core(("dotprod", "fullfp16"), _peak(3.2, 4, dot=16, bytes_per_us=60_000.0)),
}


def _flags(features: tuple[str, ...]) -> tuple[str, ...]:
    listed = ",".join(f"+{name}" for name in ("neon", *features))
    return (
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        "--iree-llvmcpu-target-triple=aarch64-linux-gnu",
        "--iree-llvmcpu-target-cpu=generic",
        f"--iree-llvmcpu-target-cpu-features={listed}",
        "--iree-opt-level=O3",
        "--iree-llvmcpu-debug-symbols=false",
    )


def _device(cpu: str) -> Device:
    """Emulated as `cpu`, so that an instruction which the core lacks is seen."""
    emulator = Emulator(
        program="qemu-aarch64",
        arguments=("-cpu", cpu),
        sysroot="/usr/aarch64-linux-gnu",
        library="libstdc++6-arm64-cross",
        wheel="manylinux_2_28_aarch64",
        compiler="aarch64-linux-gnu-gcc",
        compiler_package="gcc-aarch64-linux-gnu",
    )
    return Device(machines=ARM64_MACHINES, emulator=emulator)


TARGET = Target(
    name="arm64",
    summary="64-bit Arm under Linux, any core (NEON); arm64:CORE also uses what CORE has",
    iree_flags=_flags(()),
    costs=_CORES["cortex-a72"].peak.costs(),
    storage=PACKED,
    cpu_features=frozenset({"asimd"}),
    device=_device("cortex-a53"),
    formats=CPU_FORMATS,
)


PRESETS = {
    name: replace(
        TARGET,
        name=f"{TARGET.name}:{name}",
        summary=f"{name}: NEON{''.join(f', {each}' for each in core.features)}",
        iree_flags=_flags(core.features),
        costs=core.peak.costs(),
        device=_device(core.played_by),
        cpu_features=TARGET.cpu_features.union(*(_LINUX[each] for each in core.features)),
    )
    for name, core in _CORES.items()
}
