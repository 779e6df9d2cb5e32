"""Money has one spelling per amount, and every amount survives its own spelling."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.base.money import MINOR_DIGITS, Money, decimal_number, decimal_text, parse_minor

calm = settings(deadline=None)  # the machine may be busy
amounts = st.integers(0, 10**15)
currencies = st.sampled_from(sorted(MINOR_DIGITS))


@pytest.mark.parametrize(
    ("text", "minor"),
    [("0", 0), ("0.0", 0), ("0.00", 0), ("0.01", 1), ("0.1", 10), ("1", 100), ("100", 10_000), ("100.5", 10_050),
     ("100.50", 10_050), ("100.500000000000000000", 10_050), ("0.30", 30), ("999999999999999", 99_999_999_999_999_900)],
)  # fmt: skip
def test_a_canonical_amount_is_read(text: str, minor: int) -> None:
    assert parse_minor(text, "RUB") == minor


@pytest.mark.parametrize(
    "text",
    ["", " ", "1e2", "1E2", "+100", "-1", "-0", "-0.00", "100,00", "1,000.00", "1 000", "100.", ".5", "0100", "00",
     "00.5", "0.001", "100.005", "0.010000000000000001", "NaN", "Infinity", "inf", "0x10", "1_000", "100 ", " 100",
     "100\n", "100\0", "１００", "٣", "1" * 16, "9" * 10_000, "1." + "0" * 19, "1.0.0", "0b1", "1/2", "null", '"1"'],
    ids=lambda text: repr(text[:24]),
)  # fmt: skip
def test_any_other_amount_is_refused(text: str) -> None:
    assert parse_minor(text, "RUB") is None


@pytest.mark.parametrize("currency", ["USDT", "BTC", "rub", "RU", "", "RUB "])
def test_a_currency_that_we_do_not_price_in_has_no_amounts(currency: str) -> None:
    assert parse_minor("100", currency) is None


@calm
@given(amounts, currencies)
def test_an_amount_survives_its_text(minor: int, currency: str) -> None:
    text = decimal_text(minor, currency)
    assert parse_minor(text, currency) == minor
    assert parse_minor(text.rstrip("0").rstrip("."), currency) == minor
    assert str(Money(minor, currency)) == f"{text} {currency}"


@calm
@given(amounts, currencies)
def test_an_amount_survives_its_number(minor: int, currency: str) -> None:
    number = decimal_number(minor, currency)
    assert number * 100 == minor
    encoded = msgspec.json.Encoder(decimal_format="number").encode(number).decode()
    assert parse_minor(encoded, currency) == minor


@calm
@given(st.text(alphabet="0123456789.+-eE ,_", max_size=20))
def test_what_is_read_is_exactly_the_decimal_that_it_spells(text: str) -> None:
    minor = parse_minor(text, "USD")
    if minor is not None:
        assert minor == Decimal(text) * 100


def test_tenths_do_not_drift() -> None:
    assert decimal_text(10 + 20, "RUB") == "0.30"
    assert decimal_number(30, "RUB") == Decimal("0.3")
    assert str(decimal_number(100_000_000_000, "RUB")) == "1000000000"  # no exponent
