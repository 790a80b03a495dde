"""What a network is shipped as besides a module: C that links, C that embeds."""

from __future__ import annotations

from mlq.deployment.arrays import c_array
from mlq.deployment.sources import program_files

__all__ = ["c_array", "program_files"]
