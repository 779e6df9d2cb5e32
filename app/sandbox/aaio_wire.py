"""AAIO on the wire: what it accepts, what it answers, how it signs. No state.

Source: wiki.aaio.so "sozdanie-zakaza-zaprosom-rekomenduem", "informaciya-o-zakaze", "opoveshenie-ob-oplate-zakaza".
The codes and texts of errors are not documented, nor what becomes of an order id that is used twice.
"""

import hashlib
import re
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec import Meta

from app.sandbox.pay_page import Bill

PARTY = "AAIO"
FORM = "application/x-www-form-urlencoded"
TIME = "%Y-%m-%d %H:%M:%S"
PAID_STATES = ("success", "hold")

# Roubles per unit, for `profit` and `commission`.
RUB_RATES = {"RUB": "1", "USD": "81.46", "EUR": "94.10", "UAH": "1.95"}
COMMISSION = Decimal("0.03")

AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2})?", re.ASCII)
ORDER_ID = re.compile(r"[A-Za-z0-9:_\-\[\]|]{1,64}", re.ASCII)

# What the pay page says of a state, and how.
NOTES: dict[str, tuple[str, Literal["good", "warn", "bad"]]] = {
    "success": ("✓ Paid. Thank you!", "good"),
    "hold": ("✓ Paid. Thank you!", "good"),
    "expired": ("This order's time is over. It can no longer be paid.", "bad"),
}


class Refused(Exception):
    """The API answers with `type: error`; the text is its message."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Order(msgspec.Struct, kw_only=True):
    """The documented sample of `/api/info-pay`, field by field in its order; amounts are decimal text here."""

    id: str  # AAIO's own
    order_id: str
    desc: str
    merchant_id: str
    merchant_domain: str = "shop.example"
    method: str | None = None
    amount: str
    currency: str
    profit: str
    commission: str
    commission_client: str = "0"
    commission_type: str = "100:0"
    email: str | None = None
    status: Literal["in_process", "success", "expired", "hold"] = "in_process"
    date: str
    expired_date: str
    complete_date: str | None = None
    us_vars: list[str] = []


class Callbacks(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How a notification goes out; the defaults are a gateway that behaves.

    `edit` and `omit` change the form after it was signed, so the signature stays the order's own.
    """

    copies: Annotated[int, Meta(ge=1, le=1000)] = 1  # the same notification so many times at once
    delay_ms: int = 0
    drop: int = 0  # 1: lost on the way, and not sent again
    signature: Literal["right", "wrong", "first secret", "absent"] = "right"
    edit: dict[str, str] = {}
    omit: list[str] = []


class Pay(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /sandbox/pay`."""

    id: str
    amount: str | None = None
    status: Literal["success", "hold"] = "success"
    callbacks: Callbacks | None = None  # None: the simulator's own plan
    wait: bool = False  # answer when the notification is delivered or lost


class Cabinet(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`PUT /sandbox/cabinet`."""

    callback_url: str
    return_url: str = ""


def sign(merchant_id: str, amount: str, currency: str, secret: str, order_id: str) -> str:
    return hashlib.sha256(f"{merchant_id}:{amount}:{currency}:{secret}:{order_id}".encode()).hexdigest()


def order_from(given: dict[str, str], merchant_id: str, secret: str, now: datetime, lifetime_s: int) -> Order:
    """The new order of a request's form.

    Raises: Refused.
    """
    amount, currency, order_id = (given.get(name, "") for name in ("amount", "currency", "order_id"))
    if given.get("merchant_id") != merchant_id:
        raise Refused("merchant_id: no such merchant")
    if not AMOUNT.fullmatch(amount) or not Decimal(amount):
        raise Refused("amount: must be a positive number")
    if currency not in RUB_RATES:
        raise Refused("currency: must be RUB, UAH, EUR or USD")
    if not ORDER_ID.fullmatch(order_id):
        raise Refused("order_id: must be 1 to 64 letters, digits and :-_[]|")
    if len(given.get("desc", "")) > 512 or given.get("lang", "ru") not in ("ru", "en"):
        raise Refused("desc or lang: out of bounds")
    if given.get("sign") != sign(merchant_id, amount, currency, secret, order_id):
        raise Refused("sign: wrong signature")
    profit, commission = shares(amount, currency)
    return Order(
        id=str(uuid.uuid4()),
        order_id=order_id,
        desc=given.get("desc", ""),
        merchant_id=merchant_id,
        method=given.get("method"),
        amount=amount,
        currency=currency,
        profit=profit,
        commission=commission,
        email=given.get("email"),
        date=now.strftime(TIME),
        expired_date=(now + timedelta(seconds=lifetime_s)).strftime(TIME),
        us_vars=[value for name, value in given.items() if name.startswith("us_")],
    )


def shares(amount: str, currency: str) -> tuple[str, str]:
    """In roubles: what the shop gets, and what AAIO keeps."""
    whole = Decimal(amount) * Decimal(RUB_RATES[currency])
    kept = (whole * COMMISSION).quantize(Decimal("0.01"))
    return f"{whole - kept:.2f}", f"{kept:.2f}"


def told(order: Order) -> dict[str, Any]:
    """The order as info-pay tells it: amounts are numbers."""
    numbers = ("amount", "profit", "commission", "commission_client")
    fields: dict[str, Any] = msgspec.to_builtins(order)
    return fields | {name: msgspec.Raw(number(fields[name]).encode()) for name in numbers}


def number(text: str) -> str:
    """`1490.5` for `1490.50`, and never `1E+2`."""
    return f"{Decimal(text).normalize():f}"


def notification(order: Order, plan: Callbacks, secret_1: str, secret_2: str) -> dict[str, str]:
    """The form of one notification, spoiled as `plan` says. Its amount is the text that the shop gave."""
    names = ("merchant_id", "order_id", "amount", "currency", "profit", "commission", "commission_client")
    form = {name: str(getattr(order, name)) for name in names} | {
        "invoice_id": order.id,
        "status": order.status,
        "commission_type": order.commission_type,
        "method": order.method or "",
        "desc": order.desc,
        "email": order.email or "",
    }
    secret = {"right": secret_2, "first secret": secret_1, "wrong": secret_2 + "?"}.get(plan.signature)
    if secret is not None:
        form["sign"] = sign(order.merchant_id, order.amount, order.currency, secret, order.order_id)
    return {name: value for name, value in (form | plan.edit).items() if name not in plan.omit}


def form_bytes(form: dict[str, str]) -> bytes:
    return urlencode(form).encode()


def fields(raw: bytes) -> dict[str, str]:
    return dict(parse_qsl(raw.decode(errors="replace"), keep_blank_values=True))


def bill(order: Order, now: datetime, return_url: str) -> Bill:
    """The order as its pay page shows it: whole or not at all."""
    note, tone = NOTES.get(order.status, ("", "warn"))
    ends = datetime.strptime(order.expired_date, TIME).replace(tzinfo=UTC)
    return Bill(
        party=PARTY,
        id=order.order_id,
        amount=order.amount,
        currency=order.currency,
        description=order.desc,
        note=note,
        tone=tone,
        due=order.amount if order.status == "in_process" else "",
        left_s=int((ends - now).total_seconds()),
        hows=("pay", "cancel"),
        back_url=return_url,
    )
