"""Which precision each layer gets: an exact integer program over layers, precisions and borders.

Quantization noise is additive over layers (measured), so the cheapest plan within a noise budget,
or the least noisy one within a time or size budget, is the solution of a linear integer program.

`problem`      what is chosen from: layers, options, borders, groups, budgets
`program`      the same as columns and rows, solved by HiGHS
`search`       `solve` and `frontier`
`explanation`  the sentence that says why, layer by layer
"""

from __future__ import annotations

from mlq.allocation.problem import (
    OUTSIDE,
    Allocation,
    Border,
    Budget,
    LayerChoice,
    Measure,
    Option,
    Problem,
    stored_bits,
)
from mlq.allocation.search import frontier, solve

__all__ = [
    "OUTSIDE",
    "Allocation",
    "Border",
    "Budget",
    "LayerChoice",
    "Measure",
    "Option",
    "Problem",
    "frontier",
    "solve",
    "stored_bits",
]
