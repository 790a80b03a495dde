"""Functions of one real, such as sigmoid or hard_swish: a chain of steps, as text.

`add(3) | clip(0, 6) | multiply(0.5) | times_input` begins with the input, and each step takes what
the one before made; `times_input` multiplies that by the input. A step is an ONNX node of one
input, or of an input and constants, so that every activation that exporters take apart is a chain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.numerics.affine import Integers, QuantParams, Reals, dequantize, quantize

Doubles = NDArray[np.float64]

_STEP = re.compile(r"(\w+)(?:\(([^()]*)\))?")
_BYTES = 256
_TABLE_BITS = 12  # a table of more would not stay near


@dataclass(frozen=True)
class Step:
    """One step of a function, by the name of its formula (`FORMULAS`), and its numbers."""

    name: str
    numbers: tuple[float, ...] = ()

    def __str__(self) -> str:
        numbers = ", ".join(f"{number:.9g}" for number in self.numbers)  # enough for a float32
        return f"{self.name}({numbers})" if numbers else self.name


Function = tuple[Step, ...]


def parse(text: str) -> Function:
    """The function that a text means; ValueError says what is wrong with it."""
    return tuple(_parsed(part.strip()) for part in text.split("|"))


def text_of(function: Function) -> str:
    """The text that `parse` reads."""
    return " | ".join(map(str, function))


def evaluate(function: Function, x: Reals) -> Reals:
    """The function of each element: every step in float64, the last one's result rounded once."""
    given = x.astype(np.float64)
    value = given
    with np.errstate(over="ignore"):  # beyond float32 is infinite, as on any device
        for step in function:
            value = FORMULAS[step.name][1](value, given, *step.numbers)
        return value.astype(np.float32)


def is_looked_up(input: QuantParams) -> bool:
    """Whether there is a table of what is stored so: a byte, or of few more bits and no sign."""
    return input.dtype.itemsize == 1 or (not input.signed and input.limits[1] < 1 << _TABLE_BITS)


def table(
    function: Function, input: QuantParams, output: QuantParams | None = None
) -> Integers | Reals:
    """What an integer layer looks up, by what is stored: storage, or reals.

    [256] of bytes, [greatest + 1] of what is wider, which has no sign.
    """
    is_byte = input.dtype.itemsize == 1
    count = _BYTES if is_byte else input.limits[1] + 1
    stored = np.arange(count).astype(f"u{input.dtype.itemsize}").view(input.dtype)
    values = evaluate(function, dequantize(stored, input))
    return values if output is None else quantize(values, output)


def _parsed(text: str) -> Step:
    match = _STEP.fullmatch(text)
    if match is None or match[1] not in FORMULAS:
        raise ValueError(f"{text!r} is no step; there are {', '.join(FORMULAS)}")
    count = FORMULAS[match[1]][0]
    words = [word for word in (match[2] or "").split(",") if word.strip()]
    try:
        numbers = tuple(map(float, words))
    except ValueError:
        numbers = (math.nan,)
    if len(numbers) != count or any(map(math.isnan, numbers)):
        raise ValueError(f"{text!r} should have {count} numbers, {match[1]} has")
    return Step(match[1], numbers)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(v: Doubles, _x: Doubles) -> Doubles:
    sigmoid: Doubles = np.exp(-np.logaddexp(0.0, -v))
    return sigmoid


def _hard_sigmoid(v: Doubles, _x: Doubles, alpha: float, beta: float) -> Doubles:
    return np.clip(alpha * v + beta, 0.0, 1.0)


FORMULAS: dict[str, tuple[int, Callable[..., Any]]] = {
    "add": (1, lambda v, _, number: v + number),
    "clip": (2, lambda v, _, low, high: np.clip(v, low, high)),
    "elu": (1, lambda v, _, alpha: np.where(v > 0.0, v, alpha * np.expm1(np.minimum(v, 0.0)))),
    "erf": (0, lambda v, _: _erf(v)),
    "hard_sigmoid": (2, _hard_sigmoid),
    "hard_swish": (0, lambda v, x: v * _hard_sigmoid(v, x, 1.0 / 6.0, 0.5)),
    "leaky_relu": (1, lambda v, _, alpha: np.where(v < 0.0, alpha * v, v)),
    "multiply": (1, lambda v, _, number: v * number),
    "sigmoid": (0, _sigmoid),
    "softplus": (0, lambda v, _: np.logaddexp(0.0, v)),
    "tanh": (0, lambda v, _: np.tanh(v)),
    "times_input": (0, lambda v, x: v * x),
}
"""How many numbers each step has, and what it makes of `v`, given the input `x`."""
