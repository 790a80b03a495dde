"""The trials of `mlq tune`, as a report has them."""

from __future__ import annotations

from mlq.values import Part


class TrialReport(Part):
    """A configuration that was tried on `evaluated` samples; `artifact` is its folder in OUT's.

    `kl_within_mnat`: how far KL may be from that of more samples; None if it was stopped as worse,
    figures are then estimates. `on_front`: no other trial has less loss and less predicted time.
    """

    number: int
    samples: int
    scheme: str
    calibrator: str
    granularity: str
    mixed: str
    rounding: str = "nearest"
    methods: str = "none"
    accuracy: float
    lost_points: float
    kl_mnat: float
    evaluated: int
    kl_within_mnat: float | None = 0.0
    seconds: float
    predicted_us: float
    on_front: bool
    chosen: bool = False
    artifact: str = ""


class TuningReport(Part):
    """How `mlq tune` came to the configuration; `prior` are networks that it had learned from."""

    sampler: str
    space: str
    points: int
    loss: str
    objectives: str = "loss"
    prior: tuple[str, ...]
    trials: tuple[TrialReport, ...]
