"""IREE's portable virtual machine: one module runs on any CPU with an IREE runtime, slowly."""

from __future__ import annotations

from mlq.targets.base import Target
from mlq.targets.modelled import BYTES, Peak

TARGET = Target(
    name="vmvx",
    summary="IREE's portable virtual machine: one module for any CPU, hundreds of times slower",
    iree_flags=(
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=vmvx",
        "--iree-opt-level=O3",
    ),
    costs=Peak(
        gigahertz=1.0,
        f32_macs=0.05,
        int8_macs=0.05,
        lanes=0.05,
        bytes_per_us=200.0,
        dispatch_us=5.0,
    ).costs(),
    storage=BYTES,
    fixed_batch="where sizes are not, IREE 3.13's virtual machine fails to allocate memory",
)
