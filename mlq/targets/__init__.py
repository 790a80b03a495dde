"""The devices mlq compiles for; a file in this folder with a `TARGET` is one."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from mlq.errors import TargetError
from mlq.targets.base import Costs, Storage, Target, Work

__all__ = ["Costs", "Storage", "Target", "Work", "all_targets", "by_name"]


@cache
def _by_name() -> dict[str, Target]:
    targets: dict[str, Target] = {}
    for info in sorted(iter_modules(__path__), key=lambda info: info.name):
        target = getattr(import_module(f"{__name__}.{info.name}"), "TARGET", None)
        if target is None:
            continue
        if targets.setdefault(target.name, target) is not target:
            raise TargetError(f"two targets are called {target.name}")
    return targets


def all_targets() -> tuple[Target, ...]:
    """Every target, by name."""
    return tuple(target for _, target in sorted(_by_name().items()))


def by_name(name: str) -> Target:
    """The target of that name; TargetError lists the near names and all names."""
    targets = _by_name()
    if name in targets:
        return targets[name]
    near = difflib.get_close_matches(name, targets)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise TargetError(f"there is no target '{name}'; {hint}targets: {', '.join(sorted(targets))}")
