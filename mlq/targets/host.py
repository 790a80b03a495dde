"""The CPU this process runs on: what it is called and which instructions it has."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
# Extensions that a compiler emits instructions of; kernels list much else under the same key.
_EXTENSION = re.compile(
    r"s?sse\d.*|avx.*|amx.*|fma4?|f16c|bmi[12]|gfni|vaes|popcnt|asimd.*|fphp|i8mm|bf16|sve.*|sme.*"
)


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's entries of Linux's cpuinfo; empty where there is none."""
    try:
        first = _CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_model() -> str:
    """The CPU's name with family, model and stepping, as reports print it."""
    info = _cpuinfo()
    name = info.get("model name") or platform.processor() or platform.machine()
    if "cpu family" not in info:
        return name
    return f"{name} (family {info['cpu family']} model {info['model']} stepping {info['stepping']})"


def cpu_features() -> frozenset[str]:
    """Instruction set extensions in Linux's spelling; empty where they cannot be known."""
    info = _cpuinfo()
    listed = (info.get("flags") or info.get("Features") or "").split()
    return frozenset(name for name in listed if _EXTENSION.fullmatch(name))
