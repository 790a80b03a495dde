"""The host's x86 CPU, through IREE's llvm-cpu backend."""

from __future__ import annotations

from mlq.targets.base import Costs, Storage, Target
from mlq.targets.device import X86_MACHINES, Device
from mlq.targets.host import cpu_features

TARGET = Target(
    name="x86",
    summary="the host's x86 CPU: int8 through IREE's llvm-cpu backend",
    iree_flags=(
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        "--iree-llvmcpu-target-cpu=host",
        "--iree-opt-level=O3",
        "--iree-llvmcpu-debug-symbols=false",
    ),
    # Printed by benchmarks/costs_x86.py on an Intel Xeon (family 6 model 167, 2.7 GHz), one thread.
    # Weights of 4 bits are stored in a byte each: w4a8 runs as w8a8 does.
    costs=Costs(
        giga_ops={
            "conv2d": {"f32": 56.3, "w8a8": 65.3, "w4a8": 65.3},
            "conv2d.pointwise": {"f32": 57.0, "w8a8": 62.9, "w4a8": 62.9},
            "conv2d.depthwise": {"f32": 8.2, "w8a8": 19.0, "w4a8": 19.0},
            "matmul": {"f32": 4.6, "w8a8": 10.6, "w4a8": 10.6},
            "add": {"f32": 5.5, "w8a8": 8.2},
            "avg_pool2d": {"f32": 3.2, "w8a8": 3.5},
        },
        bytes_per_us=44_000.0,
        dispatch_us=0.1,
        source="average rate of each op kind, measured on one x86 CPU; not this network's layers",
    ),
    storage={
        "f32": Storage(weight=4, activation=4),
        "w8a8": Storage(weight=1, activation=1),
        "w4a8": Storage(weight=1, activation=1),
    },
    cpu_features=cpu_features(),
    device=Device(machines=X86_MACHINES),
    formats=("vmfb", "vmfb+irpa", "static-library", "c-array"),
)
