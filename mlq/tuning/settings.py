"""How a network is tuned: what is searched, how, for how long, and where trials are kept."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError

from mlq.errors import UsageError
from mlq.planning import MNAT_PER_UNIT_DROP
from mlq.precision import one_of
from mlq.tuning.sampler import SAMPLERS
from mlq.tuning.space import SPACES, Space
from mlq.values import Part

LOSSES = ("kl", "accuracy")
OBJECTIVES = ("loss", "loss,latency")
_TRANSFERS = "quantune"
_WORDS = {
    "sampler": SAMPLERS,
    "space": tuple(SPACES),
    "loss": LOSSES,
    "objectives": OBJECTIVES,
}


class Settings(Part):
    """The options of `mlq tune` by their names.

    `trials` are those of the study in all, `seconds` those of this call. `counts` are the numbers
    of calibration samples to choose from; by default the space's, as far as there are so many.
    `only` are restrictions of the space, `knob=value,value` each.
    `study` is an SQLAlchemy address. `tolerance` is how well the KL of a trial is to be known, as
    points of accuracy that it is worth: with 0, over all samples. `loss` is what is made small: the
    KL to float, or the points of accuracy that are lost; with `objectives` "loss,latency" the
    predicted time of a call is made small beside it. Trials are measured here, by `workers`
    processes of this machine, or by the workers of the Dask `scheduler` at an address.
    """

    trials: PositiveInt = 20
    seconds: float | None = Field(default=None, gt=0.0)
    sampler: str = "quantune"
    space: str = "quantune96"
    counts: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)
    only: tuple[str, ...] = ()
    loss: Literal["kl", "accuracy"] = "kl"
    objectives: Literal["loss", "loss,latency"] = "loss"
    tolerance: float = Field(default=0.1, ge=0.0)
    study: str | None = None
    target: str = "x86"
    seed: int = 0
    threads: PositiveInt = 1
    sizes: str = ""
    outputs: str = ""
    workers: PositiveInt | None = None
    scheduler: str | None = None

    @classmethod
    def of(cls, given: dict[str, Any]) -> Settings:
        """Settings from what was given; None is not given. UsageError names what is wrong."""
        values = {key: value for key, value in given.items() if value is not None}
        for key, words in _WORDS.items():
            one_of(words, values.get(key, words[0]), key)
        if "workers" in values and "scheduler" in values:
            raise UsageError("the scheduler has workers of its own; give --workers or --scheduler")
        try:
            made = cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"{where}: {first['msg']}, got {first.get('input')!r}") from None
        made.points.points()
        return made

    @property
    def points(self) -> Space:
        """The space, whatever the samples there are."""
        space = SPACES[self.space]
        for restriction in self.only:
            knob, _, values = restriction.partition("=")
            space = space.only(knob, values.split(","))
        return space

    @property
    def tolerance_mnat(self) -> float:
        """The same in milli-nats; no number of samples tells accuracy so well."""
        return self.tolerance / 100.0 * MNAT_PER_UNIT_DROP if self.loss == "kl" else 0.0

    @property
    def transfers(self) -> bool:
        """Whether the sampler learns from the trials of other networks."""
        return self.sampler == _TRANSFERS

    @property
    def timed(self) -> bool:
        """Whether the predicted time is made small too."""
        return self.objectives != "loss"
