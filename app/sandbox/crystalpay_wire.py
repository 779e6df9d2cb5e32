"""CrystalPay v3 on the wire: what it accepts, what it answers, how it signs. No state.

Source: docs.crystalpay.io "metody-api/invoice-platezhi" (create, info), "callback/obshaya-informaciya"; the
callback's formula is on the v2 page "2/callback/uvedomlenie-ob-oplate". The texts of errors are not documented.
"""

import hashlib
import secrets
import string
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from app.sandbox.pay_page import Bill, price

PARTY = "CrystalPay"
ACCEPTED = (200, 429)  # statuses after which CrystalPay calls no more (callback/obshaya-informaciya)
ATTEMPTS = 10  # callbacks at most (same page)
TIME = "%Y-%m-%d %H:%M:%S"
OPEN_STATES = ("notpayed", "wrongamount")  # the buyer may still pay
UNPAID_STATES = ("notpayed", "failed", "unavailable")  # no money has come

# What the pay page says of a state, and how.
NOTES: dict[str, tuple[str, Literal["good", "warn", "bad"]]] = {
    "payed": ("✓ Paid. Thank you!", "good"),
    "processing": ("The payment is being checked.", "warn"),
    "unavailable": ("This invoice is not available.", "bad"),
    "failed": ("This invoice is closed. It can no longer be paid.", "bad"),
}

# Roubles per unit, for `rub_amount`; 81.46 is the documented sample's (100 USD, "8146").
RUB_RATES = {"RUB": "1", "USD": "81.46", "EUR": "94.10", "UAH": "1.95", "KZT": "0.16", "BYN": "25.40", "USDT": "81.40"}

# No official list is known; public v3 clients also name `unavailable`.
State = Literal["notpayed", "processing", "wrongamount", "failed", "payed", "unavailable"]
Signature = Literal["right", "wrong", "absent"]


class Refused(Exception):
    """The API answers HTTP 200 with `error: true` and these errors."""

    def __init__(self, *errors: str) -> None:
        super().__init__(*errors)
        self.errors = list(errors)


class Auth(msgspec.Struct):
    """The credentials in every request's body."""

    auth_login: str
    auth_secret: str


class Create(Auth, kw_only=True):
    """`POST /v3/invoice/create/`; unknown fields are ignored."""

    amount: Decimal
    type: Literal["purchase", "topup"]
    lifetime: Annotated[int, Meta(ge=1, le=4320)]  # minutes; three days, as the v2 API said (UNCONFIRMED for v3)
    currency: str | None = None
    amount_currency: str | None = None  # the older name of `currency`
    subtract_from: Literal["amount", "balance"] = "amount"
    required_method: str | None = None
    payer_details: Any = None
    description: Annotated[str, Meta(max_length=64)] | None = None
    extra: str | None = None
    redirect_url: Annotated[str, Meta(pattern=r"^https?://[^\s]+$")] | None = None
    callback_url: Annotated[str, Meta(pattern=r"^https?://[^\s]+$")] | None = None


class Info(Auth, kw_only=True):
    """`POST /v3/invoice/info/`."""

    id: str


class Invoice(msgspec.Struct, kw_only=True):
    """The documented sample of `/invoice/info/`, field by field in its order; every amount is decimal text."""

    id: str
    url: str
    state: str = "notpayed"
    type: str
    subtract_from: str
    method: str | None = None
    required_method: str | None
    rub_amount: str
    currency: str
    amount: str
    amount_currency: str
    initial_amount: str
    remaining_amount: str
    balance_amount: str
    commission_amount: str = "0"
    description: str | None
    redirect_url: str | None
    callback_url: str | None
    extra: str | None
    created_at: str
    expired_at: str
    final_at: str | None = None


class Callbacks(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How callbacks go out; the defaults are a gateway that behaves.

    `edit` and `omit` change the body after it was signed, so the signature stays the invoice's own.
    """

    copies: Annotated[int, Meta(ge=1, le=1000)] = 1  # the same callback so many times at once
    delay_ms: int = 0
    drop: int = 0  # the first attempts that get lost on the way; 10 loses all
    signature: Signature = "right"
    edit: dict[str, Any] = {}
    omit: list[str] = []


class Payment(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the buyer does, and what the gateway makes of it."""

    amount: str | None = None  # decimal text; None: all that remains, or nothing in an unpaid state
    state: State | None = None  # None: payed when nothing remains, else wrongamount
    method: str = "TEST"
    edit: dict[str, Any] = {}  # the invoice's fields afterwards, as info tells them too
    callbacks: Callbacks | None = None  # None: the simulator's own plan


class Pay(Payment, kw_only=True):
    """`POST /sandbox/pay`."""

    id: str
    wait: bool = False  # answer when the callbacks are delivered or given up


def sign(invoice_id: str, salt: str) -> str:
    """SHA-1 over id and salt only: neither state nor amount is under the signature (FAILURES §4, 12)."""
    return hashlib.sha1(f"{invoice_id}:{salt}".encode()).hexdigest()  # noqa: S324 (the provider's choice)


def invoice_from(wanted: Create, invoice_id: str, url: str, now: datetime) -> Invoice:
    """The new invoice of a request that decoded.

    Raises: Refused for an amount that is not a positive number, or a currency that is not traded.
    """
    currency = wanted.currency or wanted.amount_currency or "RUB"
    if currency not in RUB_RATES:
        raise Refused(f"currency: {currency} is not supported")
    if not wanted.amount.is_finite() or not 0 < wanted.amount < 10**15:
        raise Refused("amount: must be a positive number")
    amount = decimal_text(wanted.amount)
    rub = (wanted.amount * Decimal(RUB_RATES[currency])).quantize(Decimal("0.01"))
    return Invoice(
        id=invoice_id,
        url=url,
        type=wanted.type,
        subtract_from=wanted.subtract_from,
        required_method=wanted.required_method,
        rub_amount=decimal_text(rub),
        currency=currency,
        amount=amount,
        amount_currency=currency,
        initial_amount=amount,
        remaining_amount=amount,
        balance_amount=amount,
        description=wanted.description,
        redirect_url=wanted.redirect_url,
        callback_url=wanted.callback_url,
        extra=wanted.extra,
        created_at=now.strftime(TIME),
        expired_at=(now + timedelta(minutes=wanted.lifetime)).strftime(TIME),
    )


def callback_body(invoice: Invoice, plan: Callbacks, salt: str) -> dict[str, Any]:
    """The JSON of one callback, spoiled as `plan` says."""
    body: dict[str, Any] = msgspec.to_builtins(invoice)
    if plan.signature == "right":
        body["signature"] = sign(invoice.id, salt)
    elif plan.signature == "wrong":
        body["signature"] = sign(invoice.id, salt + "?")
    body |= plan.edit
    for name in plan.omit:
        body.pop(name, None)
    return body


def bill(invoice: Invoice, now: datetime) -> Bill:
    """The invoice as its pay page shows it."""
    payable = invoice.state in OPEN_STATES and invoice.final_at is None
    note, tone = NOTES.get(invoice.state, ("", "warn"))
    rows = []
    if invoice.state == "wrongamount":
        note = f"Paid in part: {price(invoice.remaining_amount, invoice.currency)} still to pay."
        rows.append(("Received", price(invoice.balance_amount, invoice.currency)))
    if invoice.currency != "RUB":
        rows.append(("In roubles", price(invoice.rub_amount, "RUB")))
    if invoice.final_at:
        rows.append(("Closed", f"{invoice.final_at} UTC"))
    return Bill(
        party=PARTY,
        id=invoice.id,
        amount=invoice.amount,
        currency=invoice.currency,
        description=invoice.description,
        note=note,
        tone=tone,
        rows=rows,
        due=invoice.remaining_amount if payable else "",
        left_s=int((datetime.strptime(invoice.expired_at, TIME).replace(tzinfo=UTC) - now).total_seconds()),
        back_url=invoice.redirect_url,
    )


def decimal_text(value: Decimal) -> str:
    """`100`, not `1E+2` or `100.00`: the samples carry no trailing zeros."""
    return f"{value.normalize():f}"


def new_invoice_id() -> str:
    """An id of the documented shape: `123456789_abcdefghij`."""
    letters = "".join(secrets.choice(string.ascii_letters) for _ in range(10))
    return f"{secrets.randbelow(900_000_000) + 100_000_000}_{letters}"


def masked(raw: bytes) -> Any:
    """A request's body for the journal, without the secret."""
    try:
        given = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return raw[:1000].decode(errors="replace")
    return given | {"auth_secret": "***"} if isinstance(given, dict) and "auth_secret" in given else given
