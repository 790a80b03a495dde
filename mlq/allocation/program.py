"""The integer program behind an allocation, and the only use of SciPy's solver (HiGHS)."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlq.allocation.problem import Border, Measure, Problem, stored_bits

Vector: TypeAlias = NDArray[np.float64]

# The solver takes objectives that differ by 1e-6 for equal; scaled by this it sees 1e-9 parts.
_OBJECTIVE_SCALE = 1e3
# It returns binary columns to within 1e-6; which of the two is meant:
_TAKEN = 0.5


class Program:
    """The columns and rows of a problem.

    One binary column for each layer and precision; for each tensor that can be cast, one column
    that is 1 when it is. Minimising drives the latter down to what its rows demand: 0 or 1.
    """

    def __init__(self, problem: Problem) -> None:
        self._columns = [(layer, name) for layer in problem.layers for name in layer.options]
        self._index = {(layer.name, p): i for i, (layer, p) in enumerate(self._columns)}
        self._casts: list[float] = []
        self._rows: list[tuple[dict[int, float], float, float]] = []
        for layer in problem.layers:
            self._rows.append(({self._index[layer.name, p]: 1.0 for p in layer.options}, 1.0, 1.0))
        for members in problem.groups:
            self._tie(problem, members)
        for border in problem.borders:
            self._cast(problem, border)
        self.floats = self._weights(0.0 if stored_bits(p) else 1.0 for _, p in self._columns)
        ranks = (list(layer.options).index(p) for layer, p in self._columns)
        order = {layer.name: len(problem.layers) - i for i, layer in enumerate(problem.layers)}
        lateness = zip(ranks, self._columns, strict=True)
        self.late = self._weights(rank * order[layer.name] for rank, (layer, _) in lateness)
        self.costs: dict[Measure, Vector] = {
            "noise": self._weights(layer.options[p].noise for layer, p in self._columns),
            "us": self._weights((layer.options[p].us for layer, p in self._columns), self._casts),
            "bytes": self._weights(layer.options[p].bytes for layer, p in self._columns),
        }

    def minimise(self, weights: Vector, limits: Sequence[tuple[Vector, float]]) -> Vector | None:
        """The columns of the least `weights @ columns` within `limits`, or None."""
        # Loading the solver takes longer than solving; nobody else needs it.
        from scipy.optimize import LinearConstraint, milp
        from scipy.sparse import csr_array

        rows = list(self._rows)
        for limited, limit in limits:
            # Rows of size one make the solver's absolute tolerance a relative one.
            scale = abs(limit) or float(np.max(np.abs(limited))) or 1.0
            cells = {int(i): float(limited[i]) / scale for i in np.flatnonzero(limited)}
            rows.append((cells, -np.inf, limit / scale))
        at = np.repeat(np.arange(len(rows)), [len(cells) for cells, _, _ in rows])
        columns = np.array([i for cells, _, _ in rows for i in cells], np.intp)
        values = np.array([value for cells, _, _ in rows for value in cells.values()], np.float64)
        matrix = csr_array((values, (at, columns)), shape=(len(rows), len(weights)))
        lower, upper = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
        with _quiet():
            found = milp(
                weights * (_OBJECTIVE_SCALE / (float(np.max(np.abs(weights))) or 1.0)),
                integrality=np.ones(len(weights)),
                bounds=(0.0, 1.0),
                constraints=LinearConstraint(matrix, lower, upper),
                options={"mip_rel_gap": 0.0},
            )
        if found.x is None:
            return None
        solution: Vector = (np.asarray(found.x) > _TAKEN).astype(np.float64)
        return solution

    def precisions(self, solution: Vector) -> dict[str, str]:
        """Read the choice off a solution."""
        taken = zip(self._columns, solution, strict=False)
        return {layer.name: precision for (layer, precision), one in taken if one}

    def _weights(self, choices: Iterable[float], casts: Sequence[float] = ()) -> Vector:
        """Weights of all columns; columns of casts that are not given weigh nothing."""
        given = [*choices, *casts]
        return np.array([*given, *[0.0] * (len(self._columns) + len(self._casts) - len(given))])

    def _tie(self, problem: Problem, members: Sequence[str]) -> None:
        """Add rows by which all members of a group have the same precision."""
        options = {layer.name: layer.options for layer in problem.layers}
        for one, other in itertools.pairwise(dict.fromkeys(members)):
            for precision in {**options[one], **options[other]}:
                columns = [self._index.get((member, precision)) for member in (one, other)]
                signs = zip(columns, (1.0, -1.0), strict=True)
                self._rows.append(({i: sign for i, sign in signs if i is not None}, 0.0, 0.0))

    def _cast(self, problem: Problem, border: Border) -> None:
        """Add the casts of one tensor: each is 1 if what it makes is read and not there already."""
        consumers = sorted({*border.consumers} - {border.producer})
        column = self._cast_column(border.dequantize_us)
        made = self._stored(problem, border.producer)
        for consumer in consumers:
            self._if_but(column, made, self._stored(problem, consumer))
        for bits, cost in border.quantize_us.items():
            column = self._cast_column(cost)
            readers = [self._stored(problem, consumer, bits) for consumer in consumers]
            able = [i for i in made if self._bits_of(i) > 0 or self._bits_of(i) == bits]
            for reads in readers:
                self._if_but(column, reads, able)
            for reads, other in itertools.permutations(readers, 2):
                self._if_but(column, reads, other)

    def _bits_of(self, column: int) -> int:
        return stored_bits(self._columns[column][1])

    def _cast_column(self, cost: float) -> int:
        self._casts.append(cost)
        return len(self._columns) + len(self._casts) - 1

    def _stored(self, problem: Problem, name: str, bits: int | None = None) -> list[int]:
        """Columns of which one is 1 if a layer is reduced, to so many bits if given."""
        options = next((layer.options for layer in problem.layers if layer.name == name), {})
        return [
            self._index[name, each]
            for each in options
            if stored_bits(each) and bits in {None, stored_bits(each)}
        ]

    def _if_but(self, column: int, these: list[int], others: list[int]) -> None:
        """Add a row by which a column is 1 if one of `these` is, but none of the `others`."""
        row = {column: 1.0} | dict.fromkeys(these, -1.0)
        row |= {other: row.get(other, 0.0) + 1.0 for other in others}
        self._rows.append((row, 0.0, np.inf))


@contextmanager
def _quiet() -> Iterator[None]:
    """Send what native code writes to standard output nowhere.

    HiGHS prints a line of its own debugging ("transformNewIntegerFeasibleSolution") that no option
    turns off; it would end up in the middle of `--json`.
    """
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
