"""The words a quantizer is configured with are read, printed and, when wrong, explained."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlq.errors import UsageError
from mlq.precision import (
    CALIBRATORS,
    F16,
    F32,
    GRANULARITIES,
    SCHEMES,
    W8A8,
    Precision,
    one_of,
)


@given(st.integers(2, 16), st.integers(2, 16))
def test_parse_reads_what_str_writes(weight_bits: int, activation_bits: int) -> None:
    precision = Precision(weight_bits, activation_bits)
    assert Precision.parse(str(precision)) == precision
    assert str(precision) == f"w{weight_bits}a{activation_bits}"


@pytest.mark.parametrize(("text", "precision"), [("f32", F32), ("f16", F16), ("w8a8", W8A8)])
def test_named_precisions(text: str, precision: Precision) -> None:
    assert Precision.parse(text) == precision
    assert str(precision) == text
    assert precision.is_float == text.startswith("f")


@pytest.mark.parametrize(
    "text", ["", "int8", "W8A8", "w8", "w08a8", "w1a8", "w8a17", "w8a8 ", "f64", "w8a8x", "w٨a٨"]
)
def test_a_wrong_name_says_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError, match=r"f32, f16 and w<int>a<int>"):
        Precision.parse(text)


def test_a_near_match_is_proposed() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'w8a8'\?"):
        Precision.parse("W8A8")


def test_lists_keep_order_and_drop_repetition() -> None:
    assert Precision.parse_list("w8a8, f32,w8a8") == (W8A8, F32)
    with pytest.raises(UsageError, match="unknown precision ''"):
        Precision.parse_list("f32,")


@pytest.mark.parametrize(
    ("what", "allowed"),
    [("scheme", SCHEMES), ("granularity", GRANULARITIES), ("calibrator", CALIBRATORS)],
)
def test_one_of(what: str, allowed: tuple[str, ...]) -> None:
    assert all(one_of(allowed, word, what) == word for word in allowed)
    with pytest.raises(UsageError) as caught:
        one_of(allowed, allowed[0][:-1], what)
    message = str(caught.value)
    assert message.startswith(f"unknown {what} ")
    assert f"did you mean '{allowed[0]}'?" in message
    assert all(word in message for word in allowed)
