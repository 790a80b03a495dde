"""Per-layer bit-widths searched against a device, as AMED does: a random walk over allocations.

`space`      what is chosen from, and what it costs on the device
`objective`  what is sought: accuracy-penalised latency within a size
`proposal`   where a chain may go next, guided by a learned table
`sampler`    Metropolis-Hastings: `begin`, `advance`
`archive`    every visited allocation, and the Pareto front
`sharing`    how measurements are shared between the chains and what refines the front
`running`    a search that can be killed and goes on
`baselines`  uniform bits, integer program, random, genetic
"""

from __future__ import annotations

from mlq.search.archive import Archive, Evaluate, Visit, front, hypervolume
from mlq.search.objective import Objective
from mlq.search.proposal import Guide, Scores
from mlq.search.running import run, turn
from mlq.search.sampler import Rung, Settings, State, advance, begin
from mlq.search.sharing import Refine
from mlq.search.space import Cost, Decision, Point, Space, menu, space_of

__all__ = [
    "Archive",
    "Cost",
    "Decision",
    "Evaluate",
    "Guide",
    "Objective",
    "Point",
    "Refine",
    "Rung",
    "Scores",
    "Settings",
    "Space",
    "State",
    "Visit",
    "advance",
    "begin",
    "front",
    "hypervolume",
    "menu",
    "run",
    "space_of",
    "turn",
]
