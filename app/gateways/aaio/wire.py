"""AAIO's forms and JSON, and the pure maps between them and ours. Source: PROTOCOLS §2 (wiki.aaio.so)."""

import hashlib
import re
from typing import TypeVar
from urllib.parse import unquote_to_bytes, urlencode

import msgspec

from app.base.money import Money, decimal_text, parse_minor
from app.errors import BadSignature, Malformed, ProviderDown, ProviderRefused
from app.gateways.base import Ask, Foreign, Invoice, InvoiceState, Notice, order_of
from app.infra.http import Answer

T = TypeVar("T")

PARTY = "AAIO"
CURRENCIES = frozenset({"RUB", "UAH", "EUR", "USD"})
PAID = frozenset({"success", "hold"})  # `hold`: paid, and not yet on the shop's balance
FINAL = PAID | {"expired"}
LANGUAGE = "ru"  # of the pay page, until the buyer chooses another

# What a form of theirs holds at most; theirs has about fifteen fields, the longest (`desc`) of 512 characters.
MAX_FIELDS = 64
MAX_NAME = 64
MAX_VALUE = 2048

# No `:`, which AAIO lets into an order id and which would shift the fields of the signed text (FAILURES §4, 43).
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_WORD = re.compile(r"[a-z_]{1,32}", re.ASCII)
_URL = re.compile(r"https?://[!-~]{1,2000}", re.ASCII)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Said(msgspec.Struct, frozen=True):
    """What every answer has: `type` is success or error."""

    type: str
    code: int | str | None = None
    message: str | None = None


class Created(msgspec.Struct, frozen=True):
    """`POST /merchant/get_pay_url`: its answer."""

    url: str


class Informed(msgspec.Struct, frozen=True):
    """`POST /api/info-pay`: its answer, as far as we read it. The amount is a number, kept as it came."""

    order_id: str
    merchant_id: str
    amount: msgspec.Raw
    currency: str
    status: str


class Notification(msgspec.Struct, frozen=True):
    """The form that AAIO posts when an order is paid, as far as we read it: exact texts, as they were signed."""

    merchant_id: str
    invoice_id: str  # AAIO's own
    order_id: str
    amount: str
    currency: str
    status: str
    sign: str


def sign(merchant_id: str, amount: str, currency: str, secret: str, order_id: str) -> str:
    """Lower-case hex of SHA-256: secret 1 makes an order, secret 2 proves a notification. The amount is exact text."""
    return hashlib.sha256(":".join((merchant_id, amount, currency, secret, order_id)).encode()).hexdigest()


def create_form(ask: Ask, merchant_id: str, secret: str) -> bytes:
    """The request for the page on which the order is paid.

    It has no place for a lifetime, a way back or a callback address: those are the shop's settings at AAIO.
    """
    amount, currency = decimal_text(ask.money.amount_minor, ask.money.currency), ask.money.currency
    return urlencode(
        {
            "merchant_id": merchant_id,
            "amount": amount,
            "currency": currency,
            "order_id": ask.reference,
            "sign": sign(merchant_id, amount, currency, secret, ask.reference),
            "desc": f"Order {ask.number}",
            "lang": LANGUAGE,
        }
    ).encode()


def info_form(merchant_id: str, order_id: str) -> bytes:
    return urlencode({"merchant_id": merchant_id, "order_id": order_id}).encode()


def read_created(answer: Answer, ask: Ask) -> Invoice:
    """The page of this ask's order; AAIO names the order by our reference. Raises: ProviderDown."""
    url = _decode(answer, Created).url
    if not _URL.fullmatch(url):
        raise ProviderRefused(f"{PARTY} gave no address to pay at")
    return Invoice(ask.reference, url)


def read_state(answer: Answer, merchant_id: str, order_id: str) -> InvoiceState:
    """The state of exactly this order of ours. Raises: ProviderDown, Foreign.

    The compared field is `amount` in `currency` (what we asked for): `profit` and the commissions are in roubles,
    and between AAIO and the shop.
    """
    info = _decode(answer, Informed)
    if info.order_id != order_id or info.merchant_id != merchant_id:
        raise ProviderRefused(f"{PARTY} told about another order")
    if info.currency not in CURRENCIES:
        raise Foreign(f"{PARTY} told an amount in a currency that it does not take")
    minor = parse_minor(bytes(info.amount).decode("ascii", "replace").strip('"'), info.currency)
    if minor is None:
        raise ProviderRefused(f"{PARTY} told an amount that is no amount")
    return _state(order_id, info.status, Money(minor, info.currency))


def read_notification(body: bytes) -> Notification:
    """A callback, nothing of it verified. Raises: Malformed, BadSignature when it claims no signature."""
    fields = decode_form(body)
    if not fields.get("sign"):
        raise BadSignature("the signature is missing")
    try:
        return msgspec.convert(fields, Notification)
    except msgspec.ValidationError as error:
        raise Malformed(str(error)) from None


def read_notice(told: Notification) -> Notice:
    """What a proven notification says. Raises: Malformed.

    Neither `status` nor `invoice_id` is under the signature; that AAIO wrote of this order and amount is, and it
    writes of payments only. A status of which it does not write is therefore not believed but asked about. An order
    id that is not of our form is another shop's money at our merchant: kept, for a human (F41).
    """
    if not _ID.fullmatch(told.order_id) or not _ID.fullmatch(told.invoice_id) or not _WORD.fullmatch(told.status):
        raise Malformed("an id or the status is none of AAIO's")
    minor = parse_minor(told.amount, told.currency) if told.currency in CURRENCIES else None
    if not minor:
        raise Malformed("the amount is no amount of a currency that AAIO takes")
    paid = told.status in PAID
    return Notice(
        event_key=f"{told.order_id}:{told.invoice_id}:{told.status}",
        invoice_id=told.order_id,
        claims="paid" if paid else "other",
        state=_state(told.order_id, told.status, Money(minor, told.currency)) if paid else None,
    )


def decode_form(body: bytes) -> dict[str, str]:
    """The fields of a urlencoded form that can be read in one way only.

    Raises: Malformed for bad UTF-8 or escapes, NUL, a repeated name, a piece that is no `name=value`, and for more or
    longer fields than AAIO's notifications have.
    """
    try:
        text = body.decode()
        if text.count("&") >= MAX_FIELDS or _BAD_ESCAPE.search(text):
            raise Malformed("the form: too many fields, or a broken escape")
        pairs = [_pair(piece) for piece in text.split("&")]
    except UnicodeError:
        raise Malformed("the form: not valid UTF-8") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Malformed("the form: a field is repeated")
    return fields


def _pair(piece: str) -> tuple[str, str]:
    name, equals, value = (unquote_to_bytes(part).decode() for part in piece.replace("+", " ").partition("="))
    if not (name and equals) or len(name) > MAX_NAME or len(value) > MAX_VALUE or "\0" in name + value:
        raise Malformed("the form: a field without name or value, too long, or with NUL")
    return name, value


def _state(order_id: str, status: str, money: Money) -> InvoiceState:
    paid, final = status in PAID, status in FINAL
    return InvoiceState(id=order_id, state=status, paid=paid, final=final, money=money, order_id=order_of(order_id))


def _decode(answer: Answer, shape: type[T]) -> T:
    try:
        said = msgspec.json.decode(answer.body, type=Said)
        if answer.status < 400 and said.type == "success":
            return msgspec.json.decode(answer.body, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ProviderDown(f"{PARTY} answered {answer.status}, not in its protocol") from error
    raise ProviderRefused(f"{PARTY} refused: {answer.status} {said.code} {said.message}"[:200])
