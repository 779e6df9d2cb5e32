"""Money: an integer of minor units and a currency, never a float.

Owns the maps between minor units and the decimal text that gateways speak.
"""

import re
from decimal import Decimal

import msgspec

# ISO 4217 currencies that a shop may price in, with their minor-unit digits.
MINOR_DIGITS = {"RUB": 2, "USD": 2, "EUR": 2, "UAH": 2, "KZT": 2, "BYN": 2}

# One spelling per amount: no sign, no exponent, no grouping, no leading zero (FAILURES §4, 34-35).
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,14})(?:\.([0-9]{1,18}))?", re.ASCII)


class Money(msgspec.Struct, frozen=True):
    """An amount in minor units (kopecks, cents) of one currency."""

    amount_minor: int
    currency: str

    def __str__(self) -> str:
        return f"{decimal_text(self.amount_minor, self.currency)} {self.currency}"


def decimal_text(amount_minor: int, currency: str) -> str:
    """`149050, "RUB"` as `"1490.50"`."""
    digits = MINOR_DIGITS[currency]
    whole, rest = divmod(amount_minor, 10**digits)
    return f"{whole}.{rest:0{digits}d}"


def decimal_number(amount_minor: int, currency: str) -> Decimal:
    """The same amount as an exact number, without trailing zeros: `Decimal("1490.5")`."""
    value = Decimal(amount_minor).scaleb(-MINOR_DIGITS[currency])
    return value.quantize(1) if value == value.to_integral() else value.normalize()


def parse_minor(text: str, currency: str) -> int | None:
    """Minor units of a gateway's decimal text; None when it is not one canonical, whole number of minor units.

    `"100"`, `"100.5"` and `"100.50"` are read; `"1e2"`, `"+100"`, `"100,00"`, `"0100"` and `"0.001"` are not.
    """
    digits = MINOR_DIGITS.get(currency)
    found = _DECIMAL.fullmatch(text)
    if digits is None or found is None:
        return None
    fraction = found[2] or ""
    if fraction[digits:].strip("0"):
        return None
    return int(found[1] + fraction[:digits].ljust(digits, "0"))
