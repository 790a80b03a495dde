"""NVIDIA GPUs through PTX text, which the driver of any newer card compiles; presets name sm_XX."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlq.targets.base import Target
from mlq.targets.device import Device
from mlq.targets.modelled import BYTES, Peak


@dataclass(frozen=True)
class _Card:
    """A card of one compute capability: CUDA cores, GHz, GB/s.

    `int8_macs` are multiply-accumulates a clock by the best instruction that kernels use. What
    multiplies matrices of bytes does so with half as many f16.
    """

    name: str
    cores: int
    gigahertz: float
    gigabytes: float
    int8_macs: float

    def peak(self, features: frozenset[str] = frozenset()) -> Peak:
        """The data sheet's, where kernels use such features."""
        return Peak(
            gigahertz=self.gigahertz,
            f32_macs=float(self.cores),
            int8_macs=self.int8_macs,
            lanes=float(self.cores),
            bytes_per_us=self.gigabytes * 1e3,
            dispatch_us=5.0,
            f16_macs=self.int8_macs / 2 if "mma_s8" in features else 0.0,
        )


_CARDS = {
    "sm_60": _Card("P100", 3584, 1.3, 732, 3584 / 2),
    "sm_61": _Card("GTX 1080", 2560, 1.7, 320, 4 * 2560),
    "sm_70": _Card("V100", 5120, 1.5, 900, 4 * 5120),
    "sm_75": _Card("T4", 2560, 1.5, 320, 4 * 2560),
    "sm_80": _Card("A100", 6912, 1.4, 1555, 108 * 2048),
    "sm_86": _Card("A10", 9216, 1.7, 600, 72 * 1024),
    "sm_89": _Card("L4", 7424, 2.0, 300, 58 * 1024),
    "sm_90": _Card("H100", 16896, 1.8, 3350, 132 * 4096),
}

# IREE 3.13 knows no sm_90 by name ("missing GPU target"); described, it compiles for it.
_SM_90 = (
    '#hal.device.target<"cuda", [#hal.executable.target<"cuda", "cuda-nvptx-fb", {'
    'iree_codegen.target_info = #iree_gpu.target<arch = "sm_90", features = "+ptx80", wgp = <'
    "compute = fp64|fp32|fp16|int64|int32|int16|int8, storage = b64|b32|b16|b8,"
    " subgroup = shuffle|arithmetic, dot = dp4xi8toi32,"
    " mma = [<NV_MMA_SYNC_F32_16x8x16_F16>, <NV_MMA_SYNC_F16_16x8x16_F16>],"
    " subgroup_size_choices = [32], max_workgroup_sizes = [1024, 1024, 1024],"
    " max_thread_count_per_workgroup = 1024, max_workgroup_memory_bytes = 166912,"
    " max_workgroup_counts = [2147483647, 65535, 65535]>>}>]> : !hal.device"
)
_DESCRIBED = {"sm_90": _SM_90}


# What kernels are generated for, and the capability from which on there is it: below, the compiler
# would abort ("Cannot select: intrinsic").
_FEATURES = {"dp4a": 61, "mma_s8": 80, "clusters": 90}
_INT8 = {
    frozenset(): "int8 one by one, as dp4a is from sm_61 on",
    frozenset({"dp4a"}): "int8 by dp4a",
    frozenset({"dp4a", "mma_s8"}): "int8 by mma and dp4a, f16 by mma",
    frozenset(_FEATURES): "int8 by mma and dp4a, f16 by mma, many layers in one launch",
}


def _number(capability: str) -> int:
    return int(capability.removeprefix("sm_"))


def _features(capability: str) -> frozenset[str]:
    return frozenset(name for name, least in _FEATURES.items() if _number(capability) >= least)


def _flags(capability: str) -> tuple[str, ...]:
    optimized = ("--iree-opt-level=O3",)
    if capability in _DESCRIBED:
        return optimized
    return (
        "--iree-hal-target-device=cuda",
        f"--iree-cuda-target={capability}",
        *optimized,
    )


TARGET = Target(
    name="cuda",
    summary="NVIDIA GPUs from sm_60 on, as PTX that the driver compiles; cuda:sm_XX for newer",
    iree_flags=_flags("sm_60"),
    costs=_CARDS["sm_60"].peak().costs(),
    storage=BYTES,
    device=Device(driver="cuda"),
)

PRESETS = {
    capability: replace(
        TARGET,
        name=f"{TARGET.name}:{capability}",
        summary=f"{capability}: such as {card.name}; {_INT8[_features(capability)]}",
        iree_flags=_flags(capability),
        costs=card.peak(_features(capability)).costs(),
        gpu_features=_features(capability),
        device=Device(driver="cuda", capability=_number(capability)),
        executable_target=_DESCRIBED.get(capability, ""),
    )
    for capability, card in _CARDS.items()
}
