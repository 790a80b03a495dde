"""GPUs through Vulkan; a preset names the profile that the code is made for.

Only a profile with int8 arithmetic, 8-bit storage and a dot product of 4 x int8 computes int8
rightly in IREE 3.13: without, i8 operands are read as u8, or at wrong addresses, silently. And the
code assumes the profile's subgroup size: on a device with another it is wrong, silently.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlq.targets.base import Target
from mlq.targets.device import Device
from mlq.targets.modelled import BYTES, Peak


@dataclass(frozen=True)
class _Profile:
    """What a profile stands for, the device names (a regular expression) that it fits, a peak."""

    what: str
    pattern: str
    peak: Peak
    float_only: str = ""


def _peak(gigahertz: float, lanes: float, bytes_per_us: float, *, dot: float) -> Peak:
    """`lanes` float32 multiply-accumulates a clock, and `dot` times as many of int8."""
    return Peak(
        gigahertz=gigahertz,
        f32_macs=lanes,
        int8_macs=lanes * dot,
        lanes=lanes,
        bytes_per_us=bytes_per_us,
        dispatch_us=20.0,
    )


_WRONG = (
    "IREE 3.13 reads signed int8 as unsigned in code for the default Vulkan profile; give a"
    " profile with int8 dot products, as vulkan:llvmpipe (mlq targets lists them)"
)
_ADRENO = (
    "IREE 3.13 cannot legalize int8 for its adreno profile (unrealized_conversion_cast); its float"
    " code is all there is"
)

_PROFILES = {
    "llvmpipe": _Profile(
        "Mesa's software renderer (lavapipe)", "llvmpipe", _peak(3.0, 16.0, 10_000.0, dot=1.0)
    ),
    "valhall4": _Profile(
        "Mali-G77 to G715 (Valhall)", r"Mali-G[3-7]\d", _peak(0.85, 512.0, 25_000.0, dot=4.0)
    ),
    "rdna3": _Profile(
        "AMD RX 7000 (RDNA 3)", r"RX 7\d\d\d|NAVI3|gfx11", _peak(2.3, 6144.0, 576_000.0, dot=4.0)
    ),
    "turing": _Profile(
        "NVIDIA RTX 20, T4 (Turing)",
        r"RTX 20|GTX 16|\bT4\b|Quadro RTX",
        _peak(1.5, 2560.0, 320_000.0, dot=4.0),
    ),
    "ampere": _Profile(
        "NVIDIA RTX 30, A10, A100 (Ampere)",
        r"RTX 30|RTX A\d|\bA\d{1,3}\b",
        _peak(1.7, 9216.0, 600_000.0, dot=4.0),
    ),
    "adreno": _Profile(
        "Qualcomm Adreno", "Adreno", _peak(0.7, 768.0, 40_000.0, dot=4.0), float_only=_ADRENO
    ),
}


_DOT = frozenset({"spirv_dot"})


def _flags(*profile: str) -> tuple[str, ...]:
    return ("--iree-hal-target-device=vulkan", *profile, "--iree-opt-level=O3")


TARGET = Target(
    name="vulkan",
    summary="any Vulkan GPU, float only; vulkan:PROFILE computes in int8 too",
    iree_flags=_flags(),
    costs=_peak(1.0, 256.0, 20_000.0, dot=1.0).costs(integers=False),
    storage=BYTES,
    device=Device(driver="vulkan"),
    float_only=_WRONG,
)

PRESETS = {
    name: replace(
        TARGET,
        name=f"{TARGET.name}:{name}",
        summary=f"{name}: {profile.what}",
        iree_flags=_flags(f"--iree-vulkan-target={name}"),
        costs=profile.peak.costs(integers=not profile.float_only),
        gpu_features=frozenset() if profile.float_only else _DOT,
        device=Device(driver="vulkan", pattern=profile.pattern),
        float_only=profile.float_only,
    )
    for name, profile in _PROFILES.items()
}
