"""When to stop a trial: when it is worse than the best so far, or known well enough itself.

Worse: both run over the same samples, so each sample is a bet. A gambler stakes a part of the
capital on the rival doing better, sample after sample; were the configuration as good as its rival,
no stake could make the capital grow, and the chance that it ever exceeds 1 / alpha were at most
alpha (Ville's inequality). So the trial may be looked at after every batch, however often.
Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (2024).

Known: `radius` says how far the mean so far may be off, and may be looked at as often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]
Divergences = NDArray[np.float64]
"""KL to float of each sample, in milli-nats."""

# The capital is spread evenly over gamblers with these stakes.
_STAKES = (np.arange(32) + 0.5) / 32
# The number of samples for which `radius` is as small as it can be.
_NARROWEST = 60


def log_capital(differences: NDArray[np.floating]) -> float:
    """The logarithm of what bets against a mean of zero or more have made of a capital of one.

    `differences` are independent and in [-1, 1], the newest last.
    """
    grown = np.log1p(-_STAKES[:, None] * np.asarray(differences, np.float64)[None, :]).sum(axis=1)
    greatest = float(grown.max())
    return greatest + math.log(float(np.exp(grown - greatest).mean()))


def radius(deviation: float, samples: int, *, alpha: float = 0.05) -> float:
    """How far the mean of so many samples may be from that of all there could be.

    An asymptotic confidence sequence: with a probability of `alpha` at most it is ever farther, as
    far as the mean of so few is normal; `deviation` is the standard deviation of one.
    Source: Waudby-Smith et al., Time-uniform central limit theory and asymptotic confidence
    sequences (Annals of Statistics 52(6), 2024), theorem 2.2.
    """
    odds = -2.0 * math.log(alpha)
    growth = 1.0 + samples * (odds + math.log1p(odds)) / _NARROWEST
    wide = 2.0 * growth / (growth - 1.0) * math.log(math.sqrt(growth) / alpha)
    return deviation * math.sqrt(wide / samples)


@dataclass(frozen=True)
class Race:
    """By accuracy, against a rival's `hits` on the same samples, which are in a random order.

    A configuration that is no worse than its rival is stopped with a probability of at most
    `alpha`. Whatever is stopped is then worse by more than chance; nothing is said of by how much.
    """

    rival: Hits
    alpha: float = 0.01

    def is_lost(self, hits: Hits) -> bool:
        """Whether the samples so far show that the rival is better."""
        return log_capital(self._differences(hits)) > -math.log(self.alpha)

    def estimate(self, hits: Hits) -> float:
        """The accuracy over the rival's samples, from its own and the difference so far."""
        return float(self.rival.mean() + self._differences(hits).mean())

    def _differences(self, hits: Hits) -> NDArray[np.float64]:
        """As far as both went."""
        rival, own = self.rival[: len(hits)], hits[: len(self.rival)]
        return own.astype(np.float64) - rival


@dataclass(frozen=True)
class DivergenceRace:
    """By KL: what is compared is (rival - this) / (rival + this) of each sample, in [-1, 1].

    A configuration whose mean of that is zero or more, which diverges as much as its rival or less
    on a typical sample, is stopped with a probability of at most `alpha`. It is the mean of the KL
    that is tuned, which a few samples can dominate: a comparison of these alone would need all.
    """

    rival: Divergences
    alpha: float = 0.01

    def is_lost(self, divergences: Divergences) -> bool:
        """Whether the samples so far show that the rival diverges less."""
        rival, own = (np.maximum(each, 0.0) for each in self._both(divergences))
        total = rival + own
        differences = (rival - own) / np.where(total > 0.0, total, 1.0)
        return log_capital(differences) > -math.log(self.alpha)

    def estimate(self, divergences: Divergences) -> float:
        """The mean KL over the rival's samples, from its own and the quotient of both so far."""
        rival, own = self._both(divergences)
        before = float(rival.sum())
        return float(self.rival.mean() * own.sum() / before if before > 0.0 else own.mean())

    def _both(self, divergences: Divergences) -> tuple[Divergences, Divergences]:
        """The rival's and one's own, as far as both went."""
        return self.rival[: len(divergences)], divergences[: len(self.rival)]


def pack(hits: Hits) -> str:
    """Hits as hexadecimal digits, the first sample first."""
    return np.packbits(hits).tobytes().hex()


def unpack(digits: str, samples: int) -> Hits:
    """The hits that `pack` wrote."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8), count=samples)
    return bits.astype(np.bool_)


def pack_divergences(divergences: Divergences) -> str:
    """Divergences as hexadecimal digits, four a sample: to three digits, which is enough."""
    bounded = np.minimum(divergences, float(np.finfo(np.float16).max))
    return bounded.astype("<f2").tobytes().hex()


def unpack_divergences(digits: str) -> Divergences:
    """The divergences that `pack_divergences` wrote."""
    return np.frombuffer(bytes.fromhex(digits), "<f2").astype(np.float64)
