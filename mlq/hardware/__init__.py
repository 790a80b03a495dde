"""Hardware as a search sees it: latency, energy and memory traffic of a layer at given bits.

`layer`      what is computed: a convolution or a matrix product
`base`       the questions every model answers
`systolic`   a systolic array, cycle for cycle SCALE-Sim's; `caching` counts its DRAM reads
`roofline`   peak rates and a bandwidth
`table`      measured times
`files`      presets, and users' own TOML or JSON
"""

from __future__ import annotations

from mlq.hardware.base import Hardware, Traffic, compulsory
from mlq.hardware.files import load, presets
from mlq.hardware.layer import Layer
from mlq.hardware.roofline import Roofline
from mlq.hardware.systolic import SystolicArray
from mlq.hardware.table import Table

__all__ = [
    "Hardware",
    "Layer",
    "Roofline",
    "SystolicArray",
    "Table",
    "Traffic",
    "compulsory",
    "load",
    "presets",
]
