"""YooKassa v3 on the wire: what it accepts, what it answers, what it notifies of. No state.

Source: yookassa.ru/developers, its OpenAPI specification for fields, limits and codes; the texts of errors are ours.
"""

import base64
import re
import secrets
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

import msgspec
from msgspec import Meta

from app.sandbox.party import Answer
from app.sandbox.pay_page import Bill

T = TypeVar("T")

PARTY = "YooKassa"
NOTIFICATIONS = (
    11  # within the 24 hours of using-api/webhooks, each wait twice the last (the spacing is not documented)
)
KEY_LIFE = timedelta(hours=24)  # of an idempotence key, from its first use
PAGE_LIFE = timedelta(hours=1)  # of the pay page (card, SBP, YooMoney, T-Pay, SberPay)
CAPTURE_LIFE = timedelta(days=7)
FEE = Decimal("0.035")  # what the shop does not get, in `income_amount`; any number would do

Status = Literal["pending", "waiting_for_capture", "succeeded", "canceled"]
RefundStatus = Literal["pending", "succeeded", "canceled"]

_VALUE = re.compile(r"(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,2})?", re.ASCII)
_KEY = re.compile(r"[0-9A-Za-z+,._-]{1,64}", re.ASCII)


class Refused(Exception):
    """The API answers so."""

    def __init__(self, status: int, code: str, description: str, parameter: str | None = None) -> None:
        super().__init__(description)
        self.status, self.code, self.parameter = status, code, parameter

    def answer(self) -> Answer:
        body = {"type": "error", "id": str(uuid4()), "code": self.code, "description": str(self)}
        return Answer(self.status, body | ({"parameter": self.parameter} if self.parameter else {}))


class Amount(msgspec.Struct):
    """Decimal text, always with its fraction."""

    value: str
    currency: str


class Redirect(msgspec.Struct):
    """The one kind of confirmation that is played."""

    type: Literal["redirect"]
    return_url: Annotated[str, Meta(max_length=2048, pattern=r"^https?://[^\s]+$")]
    locale: str | None = None
    enforce: bool = False


class Create(msgspec.Struct, kw_only=True):
    """`POST /v3/payments`, as far as it is played; other fields are ignored."""

    amount: Amount
    confirmation: Redirect
    capture: bool = False
    description: Annotated[str, Meta(max_length=128)] | None = None
    metadata: dict[Annotated[str, Meta(max_length=32)], Annotated[str, Meta(max_length=512)] | None] = {}


class CreateRefund(msgspec.Struct, kw_only=True):
    """`POST /v3/refunds`, likewise."""

    payment_id: str
    amount: Amount
    description: Annotated[str, Meta(max_length=250)] | None = None
    metadata: dict[str, str | None] = {}


class Payment(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A payment as the API tells it: what has a default here is absent until there is something to tell."""

    id: str
    status: Status
    paid: bool
    amount: Amount
    income_amount: Amount | None = None
    confirmation: dict[str, str] | None = None
    created_at: str
    captured_at: str | None = None
    expires_at: str | None = None
    description: str | None = None
    metadata: dict[str, str | None]
    payment_method: dict[str, Any] | None = None
    recipient: dict[str, str]
    refundable: bool
    refunded_amount: Amount | None = None
    test: bool
    cancellation_details: dict[str, str] | None = None


class Refund(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A refund as the API tells it."""

    id: str
    payment_id: str
    status: RefundStatus
    created_at: str
    amount: Amount
    description: str | None = None
    metadata: dict[str, str | None] = {}
    cancellation_details: dict[str, str] | None = None


class Terms(msgspec.Struct):
    """What YooKassa knows of a payment and does not tell."""

    capture: bool
    return_url: str
    until: datetime  # nobody can pay it any more


class Callbacks(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How notifications go out; the defaults are a gateway that behaves. There is no signature to spoil."""

    copies: Annotated[int, Meta(ge=1, le=1000)] = 1  # the same notification so many times at once
    delay_ms: int = 0
    drop: int = 0  # the first attempts that get lost on the way; 11 loses all
    event: str | None = None  # None: what fits the state
    edit: dict[str, Any] = {}  # of the notification
    object: dict[str, Any] = {}  # of its object
    omit: list[str] = []  # from its object


class Buying(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the buyer does, and what the gateway makes of it."""

    status: Status | None = None  # None: succeeded, or waiting_for_capture if capture was not asked for
    method: str = "bank_card"
    edit: dict[str, Any] = {}  # the payment's fields afterwards; {"amount": {…}} is a merchant who captured a part
    callbacks: Callbacks | None = None  # None: the simulator's own plan


class Pay(Buying, kw_only=True):
    """`POST /sandbox/pay`."""

    id: str
    wait: bool = False  # answer when the notifications are delivered or given up


class GiveBack(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /sandbox/refund`: the merchant's cabinet, or a chargeback."""

    id: str
    amount: str | None = None  # decimal text; None: all that is left


class Cabinet(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`PUT /sandbox/cabinet`: the merchant's "Integration, HTTP notifications"."""

    callback_url: str


def check_key(key: str) -> str:
    """Raises: Refused for an idempotence key that is missing, too long or not of its letters."""
    if not _KEY.fullmatch(key):
        raise Refused(400, "invalid_request", "Idempotence key is missing or not valid", "Idempotence-Key")
    return key


def decode(raw: bytes, shape: type[T]) -> T:
    """Raises: Refused, naming the field that is to blame."""
    try:
        return msgspec.json.decode(raw, type=shape)
    except msgspec.DecodeError as error:
        text, _, path = str(error).partition(" - at `$.")
        raise Refused(400, "invalid_request", text, path.rstrip("`") or None) from None


def amount_of(wanted: Amount, currency: str) -> Amount:
    """The amount in its one spelling. Raises: Refused for none above zero in the shop's currency."""
    if wanted.currency != currency:
        raise Refused(400, "invalid_request", "The shop has another currency", "amount.currency")
    if not _VALUE.fullmatch(wanted.value) or Decimal(wanted.value) <= 0:
        raise Refused(400, "invalid_request", "The amount must be above zero", "amount.value")
    return Amount(text(Decimal(wanted.value)), currency)


def payment_from(wanted: Create, amount: Amount, recipient: dict[str, str], now: datetime, *, test: bool) -> Payment:
    """A new payment that waits for its buyer; `confirmation` is the caller's to add. Raises: Refused."""
    if len(wanted.metadata) > 16:
        raise Refused(400, "invalid_request", "More than 16 keys", "metadata")
    return Payment(
        id=new_id("000f"),
        status="pending",
        paid=False,
        amount=amount,
        created_at=stamp(now),
        description=wanted.description,
        metadata=dict(wanted.metadata),
        recipient=recipient,
        refundable=False,
        test=test,
    )


def method_of(kind: str, payment_id: str) -> dict[str, Any]:
    """`payment_method` of somebody who paid."""
    told: dict[str, Any] = {"type": kind, "id": payment_id, "saved": False, "status": "inactive"}
    if kind == "bank_card":
        card = {"first6": "555555", "last4": "4444", "expiry_month": "12", "expiry_year": "2030"}
        told |= {"title": "Bank card *4444", "card": card | {"card_type": "MasterCard", "issuer_country": "RU"}}
    return told


def income_of(amount: Amount) -> Amount:
    return Amount(text(Decimal(amount.value) * (1 - FEE)), amount.currency)


def notification(event: str, told: Payment | Refund, plan: Callbacks) -> dict[str, Any]:
    """The JSON of one notification, spoiled as `plan` says."""
    about = {k: v for k, v in (msgspec.to_builtins(told) | plan.object).items() if k not in plan.omit}
    return {"type": "notification", "event": event, "object": about} | plan.edit


def bill(payment: Payment, terms: Terms, now: datetime) -> Bill:
    """The payment as its pay page shows it: whole or not at all, so nobody pays less."""
    pending = payment.status == "pending"
    return Bill(
        party=PARTY,
        id=payment.id,
        amount=payment.amount.value,
        currency=payment.amount.currency,
        description=payment.description,
        note={"pending": "", "canceled": "This payment is canceled."}.get(payment.status, "✓ Paid. Thank you!"),
        tone="bad" if payment.status == "canceled" else "good",
        rows=[("Test payment", "no money moves")] if payment.test else [],
        due=payment.amount.value if pending else "",
        left_s=int((terms.until - now).total_seconds()),
        hows=("pay", "cancel"),
        back_url=terms.return_url,
    )


def basic(shop_id: str, secret_key: str) -> str:
    """The Authorization header of a shop."""
    return "Basic " + base64.b64encode(f"{shop_id}:{secret_key}".encode()).decode()


def listed(found: list[Refund], limit: str) -> dict[str, Any]:
    """A page of a list, the newest first. Raises: Refused for a limit that is none."""
    size = int(limit) if limit.isdecimal() else 0
    if not 1 <= size <= 100:
        raise Refused(400, "invalid_request", "From 1 to 100", "limit")
    more = {"next_cursor": found[-1 - size].id} if len(found) > size else {}
    return {"type": "list", "items": found[::-1][:size]} | more


def shown(raw: bytes) -> Any:
    """A request's body for the journal."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return raw[:1000].decode(errors="replace")


def new_id(middle: str) -> str:
    """An id of the documented shape: `22e12f66-000f-5000-8000-18db351245c7`; refunds have `0015` in the middle."""
    variant = secrets.choice("89ab") + secrets.token_hex(2)[1:]
    return f"{secrets.token_hex(4)}-{middle}-5000-{variant}-{secrets.token_hex(6)}"


def text(value: Decimal) -> str:
    return str(value.quantize(Decimal("0.01")))


def stamp(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
