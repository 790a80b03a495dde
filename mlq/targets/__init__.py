"""The devices mlq compiles for; a file in this folder with a `TARGET` is a family of them.

`NAME` is a family's default, `NAME:PRESET` one of its `PRESETS`, narrower kinds of the device.
"""

from __future__ import annotations

import difflib
import platform
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from mlq.errors import TargetError
from mlq.targets.base import Costs, Storage, Target, Work
from mlq.targets.device import Device, Emulator

__all__ = [
    "TESTED",
    "Costs",
    "Device",
    "Emulator",
    "Storage",
    "Target",
    "Work",
    "all_targets",
    "by_name",
    "host_target",
    "integer_target",
    "presets_of",
]

TESTED = "x86,arm64,riscv64,armv7,vmvx,vulkan:llvmpipe"
"""What a plan is verified on unless other targets are named: natively, or by an emulator."""
_ANY_MACHINE = "vmvx"


@cache
def _families() -> dict[str, tuple[Target, dict[str, Target]]]:
    """Each family's default and its presets, by its name."""
    found: dict[str, tuple[Target, dict[str, Target]]] = {}
    for info in sorted(iter_modules(__path__), key=lambda info: info.name):
        module = import_module(f"{__name__}.{info.name}")
        target = getattr(module, "TARGET", None)
        if target is None:
            continue
        if found.setdefault(target.name, (target, getattr(module, "PRESETS", {})))[0] is not target:
            raise TargetError(f"two targets are called {target.name}")
    return found


@cache
def _by_name() -> dict[str, Target]:
    named: dict[str, Target] = {}
    for target, presets in _families().values():
        named |= {each.name: each for each in (target, *presets.values())}
    return named


def all_targets() -> tuple[Target, ...]:
    """The default of every family, by name."""
    return tuple(target for _, (target, _) in sorted(_families().items()))


def presets_of(target: Target) -> tuple[Target, ...]:
    """The narrower kinds of a family's device, in the order of its file."""
    return tuple(_families()[target.name.partition(":")[0]][1].values())


def by_name(name: str) -> Target:
    """The target of that name; TargetError lists the near names and all families.

    A family's name stands for its default. A preset without its family is a near name.
    """
    targets = _by_name()
    if name in targets:
        return targets[name]
    family, _, preset = name.partition(":")
    if preset and family in _families():
        return _no_preset(family, preset)
    bare = [known for known in targets if known.partition(":")[2] == name]
    near = bare or difflib.get_close_matches(name, [*targets, *_presets()], cutoff=0.65)
    named = [_presets().get(each, each) for each in near]
    hint = f"did you mean {' or '.join(dict.fromkeys(named))}? " if near else ""
    families = ", ".join(sorted(_families()))
    raise TargetError(f"there is no target '{name}'; {hint}targets: {families}; see mlq targets")


def integer_target(name: str) -> Target:
    """The target of that name, if layers can be integer there; TargetError says why they cannot."""
    target = by_name(name)
    if target.float_only:
        raise TargetError(f"nothing can be integer on {target.name}: {target.float_only}")
    return target


def _presets() -> dict[str, str]:
    """Full names by what stands behind the colon."""
    return {name.partition(":")[2]: name for name in _by_name() if ":" in name}


def _no_preset(family: str, preset: str) -> Target:
    known = _families()[family][1]
    near = difflib.get_close_matches(preset, known)
    hint = f"did you mean {' or '.join(f'{family}:{each}' for each in near)}? " if near else ""
    listed = ", ".join(known) or "none"
    raise TargetError(f"{family} has no preset '{preset}'; {hint}presets: {listed}")


def host_target() -> Target:
    """The target of the CPU that this process runs on; the portable one for an unknown CPU."""
    machine = platform.machine().lower()
    served = [each for each in all_targets() if machine in each.device.machines]
    return served[0] if served else _by_name()[_ANY_MACHINE]
