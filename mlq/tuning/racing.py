"""When to stop a trial early: as soon as it is, with known confidence, worse than the best so far.

Both run over the same samples, so each sample is a bet. A gambler stakes a part of the capital on
the rival doing better, sample after sample; were the configuration as good as its rival, no stake
could make the capital grow, and the chance that it ever exceeds 1 / alpha were at most alpha
(Ville's inequality). So the trial may be looked at after every batch, however often.
Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]

# The capital is spread evenly over gamblers with these stakes.
_STAKES = (np.arange(32) + 0.5) / 32


def log_capital(differences: NDArray[np.floating]) -> float:
    """The logarithm of what bets against a mean of zero or more have made of a capital of one.

    `differences` are independent and in [-1, 1], the newest last.
    """
    grown = np.log1p(-_STAKES[:, None] * np.asarray(differences, np.float64)[None, :]).sum(axis=1)
    greatest = float(grown.max())
    return greatest + math.log(float(np.exp(grown - greatest).mean()))


@dataclass(frozen=True)
class Race:
    """Runs a configuration against a rival's `hits` on the same samples, in a random order.

    A configuration that is no worse than its rival is stopped with a probability of at most
    `alpha`. Whatever is stopped is then worse by more than chance; nothing is said of by how much.
    """

    rival: Hits
    alpha: float = 0.01

    def is_lost(self, hits: Hits) -> bool:
        """Whether the samples so far show that the rival is better."""
        return log_capital(self._differences(hits)) > -math.log(self.alpha)

    def estimate(self, hits: Hits) -> float:
        """The accuracy over all samples, from the rival's and the difference so far."""
        return float(self.rival.mean() + self._differences(hits).mean())

    def _differences(self, hits: Hits) -> NDArray[np.float64]:
        return hits.astype(np.float64) - self.rival[: len(hits)]
