"""The host's x86 CPU: generated kernels, and IREE's llvm-cpu backend for the rest."""

from __future__ import annotations

from mlq.targets.base import Costs, Storage, Target
from mlq.targets.device import X86_MACHINES, Device
from mlq.targets.host import cpu_features

TARGET = Target(
    name="x86",
    summary="the host's x86 CPU: generated kernels, IREE's llvm-cpu for the rest",
    iree_flags=(
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        "--iree-llvmcpu-target-cpu=host",
        "--iree-opt-level=O3",
        "--iree-llvmcpu-debug-symbols=false",
    ),
    # Printed by benchmarks/costs_x86.py on an AMD EPYC (family 25 model 1, AVX2), one thread: where
    # there are dot products of bytes, integers are faster than this by far, floats are not.
    # Weights of 4 bits become bytes when the module is loaded: w4a8 then runs as w8a8 does.
    costs=Costs(
        giga_ops={
            "conv2d": {"f32": 37.7, "w8a8": 44.7, "w4a8": 44.7},
            "conv2d.pointwise": {"f32": 38.8, "w8a8": 50.3, "w4a8": 50.3},
            "conv2d.depthwise": {"f32": 4.3, "w8a8": 10.0, "w4a8": 10.0},
            "matmul": {"f32": 7.8, "w8a8": 19.9, "w4a8": 19.9},
            "add": {"f32": 3.6, "w8a8": 2.6},
            "avg_pool2d": {"f32": 1.6, "w8a8": 1.6},
        },
        bytes_per_us=24_900.0,
        dispatch_us=0.6,
        source="average rate of each op kind, measured on one x86 CPU; not this network's layers",
    ),
    storage={
        "f32": Storage(weight=4, activation=4),
        "w8a8": Storage(weight=1, activation=1),
        "w4a8": Storage(weight=0.5, activation=1),
    },
    cpu_features=cpu_features(),
    device=Device(machines=X86_MACHINES),
    formats=("vmfb", "vmfb+irpa", "static-library", "c-array"),
)
