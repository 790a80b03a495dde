"""The words a quantizer is configured with: precisions, schemes, granularities, calibrators.

Each word has a type for annotations (a `Literal`) and a tuple of what is allowed; `one_of` checks
what a person wrote against such a tuple.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar, cast, get_args

from mlq.errors import UsageError

Scheme = Literal["asymmetric", "symmetric", "symmetric_uint8", "power_of_two"]
Granularity = Literal["per_tensor", "per_axis"]
Calibrator = Literal["minmax", "percentile", "entropy", "mse"]
Rounding = Literal["nearest", "least-squares"]
Method = Literal["equalize", "bias-correction"]

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)
CALIBRATORS: tuple[Calibrator, ...] = get_args(Calibrator)
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
METHODS: tuple[Method, ...] = get_args(Method)

Word = TypeVar("Word", bound=str)

BYTE_BITS = 8
"""Wider activations are stored in two bytes, and keep all that calibration saw."""

_FLOAT_BITS = {"f32": 32, "f16": 16}
_INTEGER = re.compile(r"w(\d+)a(\d+)")
_LEAST_BITS, _MOST_BITS = 2, 16
# What `Precision.parse` proposes when a name is misspelled.
_USUAL = ("f32", "f16", "w8a8", "w4a8", "w8a16", "w10a12")


@dataclass(frozen=True)
class Precision:
    """In how many bits a layer keeps its weights and its activations.

    Written `f32`, `f16` or `w<int>a<int>` (`w8a8`, `w4a8`, ...); `str` gives what `parse` reads.
    """

    weight_bits: int
    activation_bits: int
    is_float: bool = False

    @classmethod
    @cache
    def parse(cls, text: str) -> Precision:
        """Read a precision's name; UsageError tells what is allowed."""
        if text in _FLOAT_BITS:
            return cls(_FLOAT_BITS[text], _FLOAT_BITS[text], is_float=True)
        match = _INTEGER.fullmatch(text)
        if match is not None:
            weight_bits, activation_bits = int(match[1]), int(match[2])
            both = (weight_bits, activation_bits)
            written = f"w{weight_bits}a{activation_bits}"
            if written == text and all(_LEAST_BITS <= bits <= _MOST_BITS for bits in both):
                return cls(*both)
        raise UsageError(
            f"unknown precision '{text}'{_near(text, _USUAL)}; allowed are f32, f16 and "
            f"w<int>a<int> with {_LEAST_BITS} to {_MOST_BITS} bits, such as w8a8"
        )

    @classmethod
    def parse_list(cls, text: str) -> tuple[Precision, ...]:
        """Read names separated by commas (`f32,w8a8`), each kept once, in the order given."""
        return tuple(dict.fromkeys(cls.parse(name.strip()) for name in text.split(",")))

    def stored_bits(self, *, centred: bool = False) -> int:
        """Bits of an activation that a layer reads.

        One that is `centred` is multiplied by as a weight is: where weights have fewer bits, it has
        no more than they, or than a byte.
        """
        most = max(self.weight_bits, BYTE_BITS) if centred else self.activation_bits
        return min(self.activation_bits, most)

    def __str__(self) -> str:
        if self.is_float:
            return f"f{self.weight_bits}"
        return f"w{self.weight_bits}a{self.activation_bits}"


F32 = Precision(32, 32, is_float=True)
F16 = Precision(16, 16, is_float=True)
W8A8 = Precision(8, 8)


def one_of(allowed: Sequence[Word], value: str, what: str) -> Word:
    """`value` if it is one of the `allowed` words; else a UsageError that lists them."""
    if value in allowed:
        return cast("Word", value)
    raise UsageError(
        f"unknown {what} '{value}'{_near(value, allowed)}; allowed: {', '.join(allowed)}"
    )


def can_fit(scheme: Scheme, granularity: Granularity) -> bool:
    """Whether weights can be rounded by least squares, which chooses a scale for each channel."""
    return granularity == "per_axis" and scheme != "power_of_two"


def _near(value: str, allowed: Sequence[str]) -> str:
    """Question after the word that was perhaps meant, or nothing."""
    matches = difflib.get_close_matches(value.lower(), allowed, n=1)
    return f" (did you mean '{matches[0]}'?)" if matches else ""
