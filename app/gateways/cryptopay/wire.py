"""Crypto Pay's JSON, and the pure maps between it and ours. Source: PROTOCOLS §4 (help.send.tg, Crypto Pay API 1.5)."""

import hashlib
import hmac
import re
from typing import Any, TypeVar

import msgspec

from app.base.money import MINOR_DIGITS, Money, decimal_text, parse_minor
from app.base.strictjson import BadJson, decode_object
from app.errors import Malformed, ProviderDown, ProviderRefused
from app.gateways.base import Ask, Foreign, Invoice, InvoiceState, Notice, order_of
from app.infra.http import Answer

T = TypeVar("T")

PARTY = "Crypto Pay"
# What createInvoice takes as `fiat`.
FIATS = frozenset({
    "USD", "EUR", "RUB", "BYN", "UAH", "GBP", "CNY", "KZT", "UZS", "GEL",
    "TRY", "AMD", "THB", "INR", "BRL", "IDR", "AZN", "AED", "PLN", "ILS",
})  # fmt: skip
CURRENCIES = FIATS.intersection(MINOR_DIGITS)
STATUSES = frozenset({"active", "paid", "expired"})
MAX_LIFETIME_S = 2_678_400  # 31 days

_URL = re.compile(r"https?://[!-~]{1,2000}", re.ASCII)


class Create(msgspec.Struct, frozen=True):
    """`createInvoice` in money: the buyer chooses the coin, Crypto Pay the rate."""

    currency_type: str
    fiat: str
    amount: str
    description: str
    payload: str
    paid_btn_name: str
    paid_btn_url: str
    expires_in: int  # seconds
    allow_comments: bool


class Created(msgspec.Struct, frozen=True):
    """The new invoice, as far as we read it."""

    invoice_id: int
    mini_app_invoice_url: str = ""  # since API 1.4
    bot_invoice_url: str = ""


class Told(msgspec.Struct, frozen=True):
    """An invoice that is told about, as far as we read it. One in money has no `asset`: what paid is `paid_asset`."""

    invoice_id: int
    status: str
    amount: str
    currency_type: str = ""
    fiat: str | None = None
    payload: str | None = None


class Page(msgspec.Struct, frozen=True):
    """What getInvoices found."""

    items: list[Told]


class Error(msgspec.Struct, frozen=True):
    code: int
    name: str


class Said(msgspec.Struct, frozen=True):
    """What every answer has."""

    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Error | None = None


def sign(body: bytes, token: str) -> str:
    """Lower-case hex of HMAC-SHA256 over the raw body; the key is the SHA-256 of the token, its 32 bytes."""
    return hmac.new(hashlib.sha256(token.encode()).digest(), body, hashlib.sha256).hexdigest()


def create_body(ask: Ask) -> bytes:
    """The request for an invoice that carries our reference and lives as long as its goods are held.

    It has no place for a callback address, which is the app's setting at Crypto Pay, nor for an idempotency key.
    """
    return msgspec.json.encode(
        Create(
            currency_type="fiat",
            fiat=ask.money.currency,
            amount=decimal_text(ask.money.amount_minor, ask.money.currency),
            description=f"Order {ask.number}",
            payload=ask.reference,
            paid_btn_name="callback",  # its label is "Return"
            paid_btn_url=ask.return_url,
            expires_in=min(max(1, ask.lifetime_s), MAX_LIFETIME_S),
            allow_comments=False,
        )
    )


def read_created(answer: Answer) -> Invoice:
    """Raises: ProviderDown when the gateway refused, or did not speak its own protocol.

    The address is that of Crypto Bot's own Mini App: it opens above ours, and closing it leads back, where the
    bot's address leaves ours for a chat.
    """
    made = _decode(answer, Created)
    url = made.mini_app_invoice_url or made.bot_invoice_url
    if made.invoice_id < 1 or not _URL.fullmatch(url):
        raise ProviderRefused(f"{PARTY} made no invoice that can be paid")
    return Invoice(str(made.invoice_id), url)


def read_state(answer: Answer, invoice_id: str) -> InvoiceState:
    """The state of exactly this invoice. Raises: ProviderDown, Foreign.

    The compared field is `amount` in `fiat` (what we asked for): `paid_amount` is in a coin, fees are the shop's.
    """
    items = _decode(answer, Page).items
    if len(items) != 1 or str(items[0].invoice_id) != invoice_id:
        raise ProviderRefused(f"{PARTY} did not tell about the invoice")
    state = _state(items[0])
    if state is None:
        raise Foreign(f"{PARTY} told an amount that is none of a currency of ours")
    return state


def read_notice(body: bytes) -> Notice:
    """What a proven callback says. Raises: Malformed.

    `update_id` is documented as not unique, so the event is the invoice with its status. `request_date` is not judged:
    nothing says how old it may be, and a callback is repeated for days.
    """
    try:
        fields = decode_object(body)
    except BadJson as error:
        raise Malformed(f"the body: {error}") from None
    payload = fields.get("payload")
    invoice_id = payload.get("invoice_id") if isinstance(payload, dict) else None
    if type(invoice_id) is not int or not 0 < invoice_id < 2**63:
        raise Malformed("the invoice id is missing or not one of Crypto Pay's")
    told = _told(payload)
    word = told.status if told and fields.get("update_type") == "invoice_paid" else "other"
    paid = word == "paid"
    return Notice(
        event_key=f"{invoice_id}:{word if word in STATUSES else 'other'}",
        invoice_id=str(invoice_id),
        claims="paid" if paid else "other",
        state=_state(told) if paid and told else None,
    )


def _told(payload: Any) -> Told | None:
    """None for an invoice that is not as documented: the gateway will be asked."""
    try:
        return msgspec.convert(payload, Told)
    except msgspec.ValidationError:
        return None


def _state(told: Told) -> InvoiceState | None:
    """None for an invoice in a coin, or in no amount of a currency of ours: not one that we made."""
    fiat = told.fiat or ""
    minor = parse_minor(told.amount, fiat) if told.currency_type == "fiat" else None
    if not minor:
        return None
    return InvoiceState(
        id=str(told.invoice_id),
        state=told.status,
        paid=told.status == "paid",
        final=told.status in ("paid", "expired"),
        money=Money(minor, fiat),
        order_id=order_of(told.payload or ""),
    )


def _decode(answer: Answer, shape: type[T]) -> T:
    try:
        said = msgspec.json.decode(answer.body, type=Said)
        if answer.status < 400 and said.ok:
            return msgspec.json.decode(said.result, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ProviderDown(f"{PARTY} answered {answer.status}, not in its protocol") from error
    raise ProviderRefused(f"{PARTY} refused: {answer.status} {said.error.name if said.error else ''}"[:200])
