"""Locations: the names of the ONNX nodes that an op comes from."""

from __future__ import annotations

from torch_mlir.ir import CallSiteLoc, FusedLoc, Location, NameLoc


def names_of(location: Location) -> list[str]:
    """The node names in a location, the op's own first."""
    if isinstance(location, NameLoc):
        return [location.name_str]
    if isinstance(location, FusedLoc):
        return [name for each in location.locations for name in names_of(each)]
    if isinstance(location, CallSiteLoc):
        return names_of(location.callee)
    return []
