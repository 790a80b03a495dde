"""The configurations that a tuner chooses from: knobs, their values, and presets of both."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from mlq.precision import (
    CALIBRATORS,
    GRANULARITIES,
    ROUNDINGS,
    SCHEMES,
    Calibrator,
    Granularity,
    Method,
    Rounding,
    Scheme,
    can_fit,
    one_of,
)

Mixed = Literal["none", "ends", "quantunev2"]
"""Which layers stay float: none that can be quantized; the first and the last with weights; or the
allocator gives each layer a precision by the sensitivities under the rest of the configuration."""

Methods = Literal["none", "equalize", "bias-correction", "equalize+bias-correction"]
"""The accuracy methods that are on (`mlq.precision.METHODS`)."""
Equalized = Granularity | None
"""The granularity of weights that channels are made alike for, if they are."""

MIXED: tuple[Mixed, ...] = get_args(Mixed)
METHODS: tuple[Methods, ...] = get_args(Methods)
# One sample, some, many: those of mlq's trials. Quantune's were 1, 1000 and 10000.
SAMPLES = (1, 128, 512)


@dataclass(frozen=True)
class Configuration:
    """One point of the space: how a network is calibrated and quantized; `str` is short."""

    samples: int
    scheme: Scheme
    calibrator: Calibrator
    granularity: Granularity
    mixed: Mixed
    rounding: Rounding = "nearest"
    methods: Methods = "none"

    def uses(self, method: Method) -> bool:
        """Whether an accuracy method is on."""
        return method in self.methods.split("+")

    @property
    def equalized(self) -> Equalized:
        """The granularity, if channels are made alike."""
        return self.granularity if self.uses("equalize") else None

    @property
    def knobs(self) -> dict[str, Any]:
        """The values by the knobs' names, as Optuna and JSON hold them."""
        return asdict(self)

    def __str__(self) -> str:
        return " ".join(str(word) for knob, word in self.knobs.items() if word != _USUAL.get(knob))


KNOBS = tuple(field.name for field in fields(Configuration))
# What is meant where nothing is said: by trials of others, and by mlq's of former days.
_USUAL = {"rounding": "nearest", "methods": "none"}
# Those whose values are words; calibration counts are another matter.
_WORDS = tuple(knob for knob in KNOBS if knob != "samples")


@dataclass(frozen=True)
class Space:
    """The values that each knob can take; the space is their product."""

    samples: tuple[int, ...] = SAMPLES
    scheme: tuple[Scheme, ...] = SCHEMES
    calibrator: tuple[Calibrator, ...] = ("minmax", "entropy")
    granularity: tuple[Granularity, ...] = GRANULARITIES
    mixed: tuple[Mixed, ...] = ("none", "ends")
    rounding: tuple[Rounding, ...] = ("nearest",)
    methods: tuple[Methods, ...] = ("none",)

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The values by knob."""
        return {knob: getattr(self, knob) for knob in KNOBS}

    def points(self) -> tuple[Configuration, ...]:
        """Every configuration, in the order of Quantune's grid search: the scheme runs fastest."""
        order = ("methods", "rounding", "mixed", "samples", "granularity", "calibrator", "scheme")
        product = itertools.product(*(self.choices[knob] for knob in order))
        named = (dict(zip(order, values, strict=True)) for values in product)
        return tuple(dict.fromkeys(map(configuration, named)))

    def only(self, knob: str, values: Sequence[str]) -> Space:
        """This space with no other values of a knob; UsageError for what it does not have."""
        one_of(_WORDS, knob, "knob")
        kept = tuple(one_of(self.choices[knob], each, knob) for each in values)
        return replace(self, **{knob: kept})

    def fitted(self, available: int) -> Space:
        """This space for `available` calibration samples.

        Counts beyond them become all of them, and those in between a quarter at most: a list of
        three stays three, as long as there are some samples.
        """
        some = max(1, available // 4)
        counts = [
            min(count, available if count == max(self.samples) else some) for count in self.samples
        ]
        return replace(self, samples=tuple(dict.fromkeys(sorted(counts))))


def quantune96() -> Space:
    """The space of Quantune (arXiv 2202.05048): 3 x 4 x 2 x 2 x 2 points."""
    return Space()


def full() -> Space:
    """Quantune's with all that mlq has: 3 x 4 x 4 x 2 x 3 points, by the methods they go with."""
    return Space(calibrator=CALIBRATORS, mixed=MIXED, rounding=ROUNDINGS, methods=METHODS)


def configuration(knobs: Mapping[str, Any]) -> Configuration:
    """The configuration with these values by knob; other keys are left aside.

    Weights are rounded to the nearest where nothing is said of that, or least squares cannot;
    biases are corrected where there is a scale for each channel, and least squares does not do it.
    """
    given = {**_USUAL, **knobs}
    found = Configuration(**{knob: given[knob] for knob in KNOBS})
    if not can_fit(found.scheme, found.granularity):
        found = replace(found, rounding="nearest")
    if found.granularity == "per_axis" and found.rounding == "nearest":
        return found
    return replace(found, methods="equalize" if found.uses("equalize") else "none")


SPACES = {"quantune96": quantune96(), "full": full()}
