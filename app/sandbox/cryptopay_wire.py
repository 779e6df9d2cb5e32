"""Crypto Pay on the wire: what it accepts, what it answers, how it signs. No state.

Source: help.send.tg "Crypto Pay API" 1.5.2 (createInvoice, getInvoices, getMe, Webhooks, Invoice). The names of errors
are not documented, nor the spacing of a webhook's attempts.
"""

import hashlib
import hmac
import json
import secrets
import string
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from app.sandbox.pay_page import Bill, price

PARTY = "Crypto Pay"
SIGNATURE = "crypto-pay-api-signature"
ATTEMPTS = 17  # webhooks at most, within three days (1.5.2)
GAP_MINUTES = 30  # times the attempts so far: 17 attempts take three days, as they should
ASSETS = ("USDT", "TON", "BTC", "ETH", "LTC", "BNB", "TRX", "USDC")
FIATS = {
    "USD", "EUR", "RUB", "BYN", "UAH", "GBP", "CNY", "KZT", "UZS", "GEL",
    "TRY", "AMD", "THB", "INR", "BRL", "IDR", "AZN", "AED", "PLN", "ILS",
}  # fmt: skip
RATES = {"RUB": "81.40", "EUR": "0.87", "UAH": "41.70", "KZT": "508", "BYN": "3.20"}  # of one USDT; the others': 1
FEE = Decimal("0.03")

# What the pay page says of a status, and how.
NOTES: dict[str, tuple[str, Literal["good", "warn", "bad"]]] = {
    "paid": ("✓ Paid. Thank you!", "good"),
    "expired": ("This invoice is closed. It can no longer be paid.", "bad"),
}

Address = Annotated[str, Meta(pattern=r"^https?://[^\s]+$")]


class Refused(Exception):
    """The API answers with `ok: false`; the text is the error's name."""

    def __init__(self, name: str, code: int = 400) -> None:
        super().__init__(name)
        self.name, self.code = name, code


class Create(msgspec.Struct, kw_only=True):
    """`createInvoice`; unknown parameters are ignored."""

    amount: Decimal
    currency_type: Literal["crypto", "fiat"] = "crypto"
    asset: str | None = None
    fiat: str | None = None
    accepted_assets: str | None = None  # separated by commas
    description: Annotated[str, Meta(max_length=1024)] | None = None
    hidden_message: Annotated[str, Meta(max_length=2048)] | None = None
    payload: Annotated[str, Meta(max_length=4096)] | None = None
    paid_btn_name: Literal["viewItem", "openChannel", "openBot", "callback"] | None = None
    paid_btn_url: Address | None = None
    allow_comments: bool = True
    allow_anonymous: bool = True
    expires_in: Annotated[int, Meta(ge=1, le=2_678_400)] | None = None  # seconds


class Find(msgspec.Struct, kw_only=True):
    """`getInvoices`."""

    invoice_ids: str | None = None  # separated by commas
    asset: str | None = None
    fiat: str | None = None
    status: Literal["active", "paid"] | None = None
    offset: Annotated[int, Meta(ge=0)] = 0
    count: Annotated[int, Meta(ge=1, le=1000)] = 100


class Invoice(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The documented Invoice: optional fields are absent, amounts are decimal text. One in money has no `asset`."""

    invoice_id: int
    hash: str
    currency_type: str
    asset: str | None = None
    fiat: str | None = None
    amount: str
    paid_asset: str | None = None
    paid_amount: str | None = None
    paid_fiat_rate: str | None = None
    accepted_assets: list[str] | None = None
    fee_asset: str | None = None
    fee_amount: str | None = None
    bot_invoice_url: str
    mini_app_invoice_url: str
    web_app_invoice_url: str
    description: str | None = None
    status: str
    created_at: str
    paid_usd_rate: str | None = None
    allow_comments: bool
    allow_anonymous: bool
    expiration_date: str | None = None
    paid_at: str | None = None
    paid_anonymously: bool | None = None
    hidden_message: str | None = None
    payload: str | None = None
    paid_btn_name: str | None = None
    paid_btn_url: str | None = None


class Callbacks(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How webhooks go out; the defaults are a gateway that behaves.

    `edit`, `omit` and `respell` change the body after it was signed, so the signature stays that of the true one.
    """

    copies: Annotated[int, Meta(ge=1, le=1000)] = 1  # the same webhook so many times at once
    delay_ms: int = 0
    drop: int = 0  # the first attempts that get lost on the way; 17 loses all
    signature: Literal["right", "wrong", "absent"] = "right"
    update_type: str = "invoice_paid"
    edit: dict[str, Any] = {}  # fields of the invoice
    omit: list[str] = []  # the same
    respell: bool = False  # a proxy reads the JSON and writes it anew


class Pay(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /sandbox/pay`."""

    id: str
    amount: str | None = None
    callbacks: Callbacks | None = None  # None: the simulator's own plan
    wait: bool = False  # answer when the webhooks are delivered or given up


class Cabinet(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`PUT /sandbox/cabinet`."""

    callback_url: str


def sign(body: bytes, token: str) -> str:
    key = hashlib.sha256(token.encode()).digest()
    return hmac.new(key, body, "sha256").hexdigest()


def invoice_from(wanted: Create, invoice_id: int, base: str, now: datetime) -> Invoice:
    """The new invoice of a request that decoded.

    Raises: Refused.
    """
    if wanted.currency_type == "fiat" and wanted.fiat not in FIATS:
        raise Refused("FIAT_INVALID")
    if wanted.currency_type == "crypto" and wanted.asset not in ASSETS:
        raise Refused("ASSET_INVALID")
    if not wanted.amount.is_finite() or not 0 < wanted.amount < 10**12:
        raise Refused("AMOUNT_INVALID")
    if (wanted.paid_btn_name is None) != (wanted.paid_btn_url is None):
        raise Refused("PAID_BTN_URL_REQUIRED")
    in_money = wanted.currency_type == "fiat"
    spelt = "IV" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(10))
    accepted = wanted.accepted_assets.split(",") if wanted.accepted_assets else list(ASSETS)
    expires = now + timedelta(seconds=wanted.expires_in) if wanted.expires_in else None
    return Invoice(
        invoice_id=invoice_id,
        hash=spelt,
        currency_type=wanted.currency_type,
        asset=None if in_money else wanted.asset,
        fiat=wanted.fiat if in_money else None,
        amount=decimal_text(wanted.amount),
        accepted_assets=accepted if in_money else None,
        bot_invoice_url=f"{base}/?start={spelt}",
        mini_app_invoice_url=f"{base}/app?startapp=invoice-{spelt}",
        web_app_invoice_url=f"{base}/invoices/{spelt}",
        description=wanted.description,
        status="active",
        created_at=stamp(now),
        allow_comments=wanted.allow_comments,
        allow_anonymous=wanted.allow_anonymous,
        expiration_date=stamp(expires) if expires else None,
        hidden_message=wanted.hidden_message,
        payload=wanted.payload,
        paid_btn_name=wanted.paid_btn_name,
        paid_btn_url=wanted.paid_btn_url,
    )


def mark_paid(invoice: Invoice, now: datetime) -> None:
    """The buyer paid: money in USDT at the rate of the moment, a coin in itself."""
    rate = Decimal(RATES.get(invoice.fiat or "", "1"))
    paid = (Decimal(invoice.amount) / rate).quantize(Decimal("0.00000001"))
    invoice.status, invoice.paid_at = "paid", stamp(now)
    invoice.paid_anonymously, invoice.paid_usd_rate = False, "1"
    invoice.fee_asset, invoice.fee_amount = invoice.asset or "USDT", decimal_text(paid * FEE)
    if invoice.fiat:
        invoice.paid_asset, invoice.paid_amount = "USDT", decimal_text(paid)
        invoice.paid_fiat_rate = decimal_text(rate)


def webhook(invoice: Invoice, plan: Callbacks, token: str, now: datetime) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of one webhook, spoiled as `plan` says. Its update_id is documented as not unique."""
    update: dict[str, Any] = {
        "update_id": 1,
        "update_type": plan.update_type,
        "request_date": stamp(now),
        "payload": msgspec.to_builtins(invoice),
    }
    body = msgspec.json.encode(update)
    signature = sign(body, token if plan.signature == "right" else token + "?")
    if plan.edit or plan.omit:
        payload = update["payload"] | plan.edit
        update["payload"] = {name: value for name, value in payload.items() if name not in plan.omit}
        body = msgspec.json.encode(update)
    if plan.respell:
        body = json.dumps(update).encode()
    return body, {} if plan.signature == "absent" else {SIGNATURE: signature}


def decimal_text(value: Decimal) -> str:
    """`100`, not `1E+2` or `100.00`."""
    return f"{value.normalize():f}"


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z"


def bill(invoice: Invoice, now: datetime) -> Bill:
    """The invoice as its pay page shows it: whole or not at all."""
    note, tone = NOTES.get(invoice.status, ("", "warn"))
    ends = datetime.fromisoformat(invoice.expiration_date) if invoice.expiration_date else None
    rows = [("Paid with", price(invoice.paid_amount, invoice.paid_asset or ""))] if invoice.paid_amount else []
    return Bill(
        party=PARTY,
        id=str(invoice.invoice_id),
        amount=invoice.amount,
        currency=invoice.fiat or invoice.asset or "",
        description=invoice.description,
        note=note,
        tone=tone,
        rows=rows,
        due=invoice.amount if invoice.status == "active" else "",
        left_s=int((ends - now).total_seconds()) if ends else None,
        hows=("pay", "cancel"),
        back_url=invoice.paid_btn_url,
    )
