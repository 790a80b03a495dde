"""The host's x86 CPU: generated kernels, and IREE's llvm-cpu backend for the rest."""

from __future__ import annotations

from dataclasses import replace

from mlq.targets.base import Costs, Storage, Target
from mlq.targets.device import X86_MACHINES, Device, Emulator
from mlq.targets.host import cpu_features

# Instruction set extensions in Linux's words, and in LLVM's where they are others.
_AVX2 = ("avx2", "bmi1", "bmi2", "f16c", "fma")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl")
_LLVM = {"bmi1": "bmi", "avx_vnni": "avxvnni", "avx512_vnni": "avx512vnni"}
_LEVELS = {
    "avx2": _AVX2,
    "avx_vnni": (*_AVX2, "avx_vnni"),
    "avx512": _AVX512,
    "avx512_vnni": (*_AVX512, "avx512_vnni"),
}
# What Bochs 2.7 plays has all of these but AVX-VNNI, which a CPU of Bochs 3 has.
_PLAYED = Emulator(
    program="bochs",
    arguments=("corei7_icelake_u",),
    package="bochs",
    least_version=0,
    bare_metal=True,
    compiler="cc",
    compiler_package="gcc",
)
_PLAYED_LATELY = replace(_PLAYED, arguments=("sapphire_rapids",), least_version=3)


def _flags(*cpu: str) -> tuple[str, ...]:
    return (
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        *cpu,
        "--iree-opt-level=O3",
        # Of products that no kernel computes, such as those of attention: a third of the time.
        "--iree-opt-data-tiling=true",
        "--iree-llvmcpu-enable-ukernels=all",
        "--iree-llvmcpu-debug-symbols=false",
        # Bytes, as their logarithm, at a multiple of which inner loops begin: of the stem of a
        # network of 29 us one that began elsewhere took 4.5 us instead of 2.2.
        "--x86-experimental-pref-innermost-loop-alignment=5",
    )


# Printed by benchmarks/costs_x86.py on an AMD EPYC (family 25 model 1, AVX2), one thread, of seven
# networks' layers: where there are dot products of bytes, integers are faster than this by far,
# floats are not. `add`, `mul` (by a gate) and `nonlinearity` (hard-swish, sigmoid) are in none of
# them: of one image of 96x28x28 each, timed between pools whose time was subtracted. Nor is
# `batch_matmul`, which has the rate of attention: 197 tokens, three heads of 64 channels.
# Weights of 4 bits become bytes when the module is loaded: w4a8 then runs as w8a8 does. So do wide
# activations, for which AVX2 has the very instructions that bytes take there: networks took 0.96 to
# 1.03 times as long (benchmarks/sixteen_bits.py, four of them).
_GIGA_OPS = {
    "conv2d": {"f32": 43.0, "w8a8": 72.5, "w4a8": 72.5},
    "conv2d.pointwise": {"f32": 44.1, "w8a8": 69.9, "w4a8": 69.9},
    "conv2d.depthwise": {"f32": 17.9, "w8a8": 23.2, "w4a8": 23.2},
    "matmul": {"f32": 3.9, "w8a8": 12.8, "w4a8": 12.8},
    "batch_matmul": {"f32": 39.0, "w8a8": 62.0},
    "add": {"f32": 2.3, "w8a8": 8.3},
    "mul": {"f32": 4.2, "w8a8": 5.0},
    "avg_pool2d": {"f32": 0.8, "w8a8": 14.6},
    "nonlinearity": {"f32": 1.4, "w8a8": 4.3, "w8a12": 2.2, "w10a12": 2.2, "w12a12": 2.2},
}


# Precisions of wide activations, and those of bytes whose products take as long where bytes are
# multiplied as words.
_WIDE = {
    "w8a16": "w8a8",
    "w8a12": "w8a8",
    "w4a16": "w4a8",
    "w12a12": "w8a8",
    "w10a12": "w8a8",
}


def _measured(f32: float, bytes_: float, words: float) -> dict[str, float]:
    """A row of the table by what activations are; weights of 4 bits are bytes by then."""
    of_words = dict.fromkeys(_WIDE, words)
    return {"f32": f32, "w8a8": bytes_, "w4a8": bytes_, **of_words}


# Printed by benchmarks/costs_x86.py --reports, of eight networks that were quantized on an Intel
# Xeon (family 6 model 207, AVX512-VNNI; AMX is not used); the other rows are those of above.
_WITH_VNNI = {
    "conv2d": _measured(58.6, 176.6, 68.3),
    "conv2d.pointwise": _measured(62.9, 164.7, 65.3),
    "conv2d.depthwise": _measured(16.6, 34.4, 17.8),
    "matmul": _measured(3.9, 16.6, 10.2),
    "avg_pool2d": _measured(0.7, 13.5, 12.5),
}
# Of 16 bits there is no table: it would have too many entries.
_AS_LISTED = frozenset({"nonlinearity"})
# An instruction adds up four products of bytes, or two of words: reckoned, not measured.
_OF_BYTES, _SLOWER = frozenset({"avx_vnni", "avx512_vnni"}), 2.0


def _costs(features: frozenset[str]) -> Costs:
    """What layers cost on a CPU with these features."""
    slower = _SLOWER if features & _OF_BYTES else 1.0
    rows = _GIGA_OPS | (_WITH_VNNI if "avx512_vnni" in features else {})
    return Costs(
        giga_ops={
            row: rates
            | {
                wide: rates.get(wide, rates[narrow] / slower)
                for wide, narrow in _WIDE.items()
                if narrow in rates and row not in _AS_LISTED
            }
            for row, rates in rows.items()
        },
        bytes_per_us=24_900.0,
        dispatch_us=0.7,
        source="average rate of each op kind, measured on one x86 CPU; not this network's layers",
    )


TARGET = Target(
    name="x86",
    summary="the host's x86 CPU: generated kernels, IREE's llvm-cpu for the rest",
    iree_flags=_flags("--iree-llvmcpu-target-cpu=host"),
    costs=_costs(cpu_features()),
    storage={
        "f32": Storage(weight=4, activation=4),
        "w8a8": Storage(weight=1, activation=1),
        "w4a8": Storage(weight=0.5, activation=1),
        "w8a16": Storage(weight=1, activation=2),
        "w8a12": Storage(weight=1, activation=2),
        "w4a16": Storage(weight=0.5, activation=2),
        "w12a12": Storage(weight=2, activation=2),
        "w10a12": Storage(weight=2, activation=2),
    },
    cpu_features=cpu_features(),
    menu="f32,w8a8,w10a12",
    device=Device(machines=X86_MACHINES),
    formats=("vmfb", "vmfb+irpa", "static-library", "c-array"),
)

PRESETS = {
    name: replace(
        TARGET,
        name=f"{TARGET.name}:{name}",
        summary=f"{name}: {', '.join(features)}",
        iree_flags=_flags(
            "--iree-llvmcpu-target-triple=x86_64-linux-gnu",
            "--iree-llvmcpu-target-cpu=x86-64",
            "--iree-llvmcpu-target-cpu-features="
            + ",".join(f"+{_LLVM.get(each, each)}" for each in features),
        ),
        costs=_costs(frozenset(features)),
        cpu_features=frozenset(features),
        device=replace(
            TARGET.device, emulator=_PLAYED_LATELY if "avx_vnni" in features else _PLAYED
        ),
    )
    for name, features in _LEVELS.items()
}
