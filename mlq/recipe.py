"""The recipe: everything that decides what `mlq quantize` makes, fully resolved, as TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import tomlkit
from pydantic import Field, PositiveInt, ValidationError
from tomlkit.exceptions import TOMLKitError

from mlq.errors import UsageError
from mlq.frontends.specs import parse_outputs, parse_sizes, samples_a_call
from mlq.precision import (
    F32,
    GRANULARITIES,
    METHODS,
    ROUNDINGS,
    SCHEMES,
    Granularity,
    Method,
    Precision,
    Scheme,
    can_fit,
    one_of,
)
from mlq.rules import Rule
from mlq.values import Part

CALIBRATORS = ("auto", "minmax", "percentile", "entropy", "mse")
IR_LEVELS = ("fused", "folded", "onnx")
COSTS = ("measured", "table")
EFFORTS = ("quick", "default", "extensive")
METRICS = {
    "output-expected": "output_expected_mnat",
    "output-typical": "output_typical_error",
    "output-error": "output_error",
    "output-kl": "output_kl_mnat",
    "combined": "combined_error",
    "propagated": "propagated_error",
    "own-share": "own_share",
    "own-error": "own_error",
    "sqnr": "activation_sqnr_db",
    "sqnr-delta": "activation_sqnr_delta_db",
    "noise-share": "noise_share",
    "mse": "activation_mse",
    "weight-sqnr": "weight_sqnr_db",
    "weight-sqnr-delta": "weight_sqnr_delta_db",
    "weight-mse": "weight_mse",
}
_FITTED_BELOW = 8
# Those that two inferences do not give.
_TRIED_ALONE = ("output-expected", "output-typical", "output-error", "output-kl")


class Recipe(Part):
    """The options of `mlq quantize`, by the names they have on the command line.

    `max_drop` is in accuracy (0.01 is one point), `max_size` in bytes, `max_latency` in
    milliseconds; `samples` None takes all. `effort` quick makes two inferences; default also tries
    each layer alone on a few samples, extensive on all. `metric` auto is the best that the effort
    measures; `select` is a rule of `mlq.rules`; `rounding` is that of weights, of few bits by
    auto; `methods` are none or some of `mlq.precision.METHODS`, with commas, or by auto those that
    measurably help; `costs` are those of layers, measured where the target's CPU is here. `batch`
    is how many samples a call takes; with any, the module leaves it open, and one is measured with;
    `sizes` are of other axes of inputs that the network leaves open, as `T=98`, and `outputs` the
    values with which its graph is to end, as `boxes,scores`.
    """

    target: str = "x86"
    max_drop: float | None = Field(default=0.01, ge=0.0, le=1.0)
    max_size: PositiveInt | None = None
    max_latency: float | None = Field(default=None, gt=0.0)
    precisions: str = "f32,w8a8"
    ir_level: str = "fused"
    effort: str = "default"
    metric: str = "auto"
    select: str = "program"
    calibrator: str = "auto"
    scheme: Scheme = "asymmetric"
    granularity: Granularity = "per_axis"
    rounding: str = "auto"
    methods: str = "none"
    costs: str = "measured"
    samples: PositiveInt | None = None
    batch: PositiveInt | Literal["any"] = 1
    sizes: str = ""
    outputs: str = ""
    seed: int = 0
    threads: PositiveInt = 1

    def checked(self) -> Recipe:
        """This recipe, if its words are known; UsageError names the word and those allowed."""
        one_of(IR_LEVELS, self.ir_level, "IR level")
        one_of(EFFORTS, self.effort, "effort")
        one_of(("auto", *METRICS), self.metric, "metric")
        if self.metric in _TRIED_ALONE and self.effort == "quick":
            raise UsageError(f"effort quick measures no {self.metric}; use --effort default")
        limits = [self.max_size, self.max_latency]
        if Rule.parse(self.select).name != "program" and limits != [None, None]:
            raise UsageError(
                f"select {self.select} knows accuracy only; leave out max-size and max-latency, or"
                " select by program"
            )
        one_of(CALIBRATORS, self.calibrator, "calibrator")
        one_of(SCHEMES, self.scheme, "scheme")
        one_of(GRANULARITIES, self.granularity, "granularity")
        one_of(("auto", *ROUNDINGS), self.rounding, "rounding")
        one_of(COSTS, self.costs, "costs")
        if self.rounding == "least-squares" and not self._fits:
            raise UsageError(
                "rounding least-squares makes a scale for each channel; it goes with granularity"
                " per_axis and a scheme that is not power_of_two"
            )
        self.reduced_precisions()
        parse_sizes(self.sizes)
        parse_outputs(self.outputs)
        if self.uses("bias-correction") and self.granularity != "per_axis":
            raise UsageError("bias-correction goes with granularity per_axis")
        return self

    @property
    def import_options(self) -> dict[str, str]:
        """How `mlq.network.load` is to read the network, besides the batch."""
        return {"ir_level": self.ir_level, "sizes": self.sizes, "outputs": self.outputs}

    @property
    def samples_a_call(self) -> int:
        """How many samples a call is measured with."""
        return samples_a_call(self.batch)

    @property
    def sensitivity_metric(self) -> str:
        """The metric that allocation goes by, as sensitivities.json calls it."""
        if self.metric == "auto":
            return METRICS["combined" if self.effort == "quick" else "output-expected"]
        return METRICS[self.metric]

    def uses(self, method: Method) -> bool:
        """Whether an accuracy method is on, or may be by auto."""
        return any(method in each for each in self.method_sets)

    @property
    def method_sets(self) -> tuple[tuple[Method, ...], ...]:
        """The sets of accuracy methods to choose from, that of none first; one, unless by auto.

        Biases are not corrected where that would not show: least squares does so by itself.
        UsageError where `methods` lists an unknown word.
        """
        listed = [each.strip() for each in self.methods.split(",")]
        if listed != ["auto"]:
            words = {one_of(("none", *METHODS, "auto"), each, "method") for each in listed}
            if "auto" in words:
                raise UsageError("methods auto chooses by itself; list nothing beside it")
            return (tuple(each for each in METHODS if each in words),)
        base = self.reduced_precisions()[0]
        corrects = self.granularity == "per_axis" and base not in self.fitted_precisions
        sets: tuple[tuple[Method, ...], ...] = ((), ("bias-correction",), ("equalize",), METHODS)
        return tuple(each for each in sets if corrects or "bias-correction" not in each)

    @property
    def fitted_precisions(self) -> tuple[str, ...]:
        """The precisions whose weights are rounded by least squares.

        By auto those of fewer than 8 bits, which the nearest ruins; of 8 it gains less than chance.
        """
        if self.rounding == "nearest" or not self._fits:
            return ()
        least = _FITTED_BELOW if self.rounding == "auto" else _FITTED_BELOW + 1
        return tuple(
            name for name in self.reduced_precisions() if Precision.parse(name).weight_bits < least
        )

    @property
    def _fits(self) -> bool:
        return can_fit(self.scheme, self.granularity)

    def reduced_precisions(self) -> tuple[str, ...]:
        """The candidate precisions besides f32: integers as they were listed, then f16."""
        listed = Precision.parse_list(self.precisions)
        found = sorted((each for each in listed if each != F32), key=lambda each: each.is_float)
        if not found or found[0].is_float:
            raise UsageError(
                f"precisions {self.precisions!r} name no integer precision; "
                "f32,w8a8 is the usual choice"
            )
        return tuple(map(str, found))

    def with_menu(self, precisions: str) -> Recipe:
        """This recipe, with these precisions (those of its target) if it was given none."""
        given = "precisions" in self.model_fields_set
        return self if given else self.model_copy(update={"precisions": precisions})

    def to_toml(self) -> str:
        """The recipe as `recipe.toml`; what is None is left out."""
        return tomlkit.dumps(self.model_dump(exclude_none=True))


def resolve(given: dict[str, Any], file: Path | None = None) -> Recipe:
    """A recipe from a file and from what was given beside it, which wins; None is not given."""
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values.update(tomlkit.parse(file.read_text(encoding="utf-8")).unwrap())
        except (OSError, UnicodeDecodeError, TOMLKitError) as error:
            raise UsageError(f"{file}: cannot be read as a recipe: {error}") from None
    values.update({key: value for key, value in given.items() if value is not None})
    try:
        return Recipe(**values).checked()
    except ValidationError as error:
        first = error.errors()[0]
        where = first["loc"][0]
        raise UsageError(
            f"{file or 'options'}: {where}: {first['msg'].lower()}, got {first.get('input')!r}"
        ) from None
