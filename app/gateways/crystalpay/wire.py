"""CrystalPay v3's JSON, and the pure maps between it and ours. Source: PROTOCOLS §1 (docs.crystalpay.io)."""

import re
from decimal import Decimal
from typing import TypeVar

import msgspec

from app.base.money import MINOR_DIGITS, Money, decimal_number, parse_minor
from app.base.strictjson import BadJson, decode_object
from app.errors import BadSignature, Malformed, ProviderDown, ProviderRefused
from app.gateways.base import Ask, Claim, Foreign, Invoice, InvoiceState, Notice, order_of

T = TypeVar("T")

PARTY = "CrystalPay"
STATES = frozenset({"notpayed", "processing", "wrongamount", "failed", "payed"})
MAX_DESCRIPTION = 64  # characters

_INVOICE_ID = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)


class Create(msgspec.Struct, frozen=True):
    """`POST /v3/invoice/create/`."""

    auth_login: str
    auth_secret: str
    amount: Decimal
    type: str
    lifetime: int  # minutes
    currency: str
    description: str
    extra: str
    redirect_url: str
    callback_url: str


class Created(msgspec.Struct, frozen=True):
    """Its answer; with `error` true there is neither id nor url."""

    error: bool
    errors: list[str] = []
    id: str = ""
    url: str = ""


class Info(msgspec.Struct, frozen=True):
    """`POST /v3/invoice/info/`: its request."""

    auth_login: str
    auth_secret: str
    id: str


class Informed(msgspec.Struct, frozen=True):
    """Its answer, as far as we read it. Amounts come as text or as numbers, so they are kept as they came."""

    error: bool
    errors: list[str] = []
    id: str = ""
    state: str = ""
    amount: msgspec.Raw = msgspec.Raw(b"")
    remaining_amount: msgspec.Raw = msgspec.Raw(b"")
    currency: str = ""
    extra: str | None = None


_numbers = msgspec.json.Encoder(decimal_format="number")


def create_body(ask: Ask, login: str, secret: str) -> bytes:
    """The request for an invoice that carries our reference and lives as long as its goods are held."""
    return _numbers.encode(
        Create(
            auth_login=login,
            auth_secret=secret,
            amount=decimal_number(ask.money.amount_minor, ask.money.currency),
            type="purchase",
            lifetime=max(1, ask.lifetime_s // 60),  # never longer than the goods are held
            currency=ask.money.currency,
            description=f"Order {ask.number}"[:MAX_DESCRIPTION],
            extra=ask.reference,
            redirect_url=ask.return_url,
            callback_url=ask.callback_url,
        )
    )


def info_body(invoice_id: str, login: str, secret: str) -> bytes:
    return msgspec.json.encode(Info(login, secret, invoice_id))


def read_created(answer: bytes) -> Invoice:
    """Raises: ProviderDown when the gateway refused, or did not speak its own protocol."""
    created = _decode(answer, Created)
    if created.error or not _INVOICE_ID.fullmatch(created.id) or not created.url.startswith(("https://", "http://")):
        raise ProviderRefused(f"{PARTY} made no invoice: {'; '.join(created.errors)[:200]}")
    return Invoice(created.id, created.url)


def read_state(answer: bytes, invoice_id: str) -> InvoiceState:
    """The state of exactly this invoice. Raises: ProviderDown, Foreign.

    The compared field is `amount` in `currency` (what we asked for), less `remaining_amount`: a partly paid
    crypto invoice may already call itself payed.
    """
    info = _decode(answer, Informed)
    if info.error or info.id != invoice_id:
        raise ProviderRefused(f"{PARTY} did not tell about the invoice: {'; '.join(info.errors)[:200]}")
    amount_minor = _minor(info.amount, info.currency)
    remaining_minor = _minor(info.remaining_amount, info.currency)
    return InvoiceState(
        id=info.id,
        state=info.state,
        paid=info.state in ("payed", "wrongamount"),
        final=info.state == "failed" or (info.state == "payed" and remaining_minor == 0),
        money=Money(_received_minor(info.state, amount_minor, remaining_minor), info.currency),
        order_id=order_of(info.extra or ""),
    )


def _received_minor(state: str, amount_minor: int, remaining_minor: int) -> int:
    if state != "payed" and remaining_minor == 0:
        return 0  # wrongamount that does not say by how much: never read as enough
    return max(0, amount_minor - remaining_minor) if state in ("payed", "wrongamount") else amount_minor


def read_notice(body: bytes) -> tuple[Notice, str]:
    """A callback and the signature it claims. Raises: Malformed, BadSignature (nothing is verified here)."""
    try:
        fields = decode_object(body)
    except BadJson as error:
        raise Malformed(f"the body: {error}") from None
    signature, invoice_id, state = fields.get("signature"), fields.get("id"), fields.get("state")
    if not isinstance(signature, str) or not signature:
        raise BadSignature("the signature is missing")
    if not isinstance(invoice_id, str) or not _INVOICE_ID.fullmatch(invoice_id):
        raise Malformed("the invoice id is missing or not one of CrystalPay's")
    word = state if isinstance(state, str) and state in STATES else "other"
    claims: Claim = "paid" if word == "payed" else "other"
    return Notice(event_key=f"{invoice_id}:{word}", invoice_id=invoice_id, claims=claims), signature


def _minor(raw: msgspec.Raw, currency: str) -> int:
    text = bytes(raw).decode("ascii", "replace").strip('"')
    if currency and currency not in MINOR_DIGITS:
        raise Foreign(f"{PARTY} told an amount in a currency that we do not have")
    minor = parse_minor(text, currency)
    if minor is None:
        raise ProviderRefused(f"{PARTY} told an amount that is no amount")
    return minor


def _decode(answer: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ProviderDown(f"{PARTY} did not answer in its protocol") from error
