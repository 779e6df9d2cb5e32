"""YooKassa v3's JSON, and the pure maps between it and ours. Source: PROTOCOLS §3 (yookassa.ru/developers)."""

import re
from typing import Literal, TypeGuard, TypeVar

import msgspec

from app.base.money import MINOR_DIGITS, Money, decimal_text, parse_minor
from app.base.strictjson import BadJson, decode_object
from app.errors import Malformed, ProviderDown, ProviderRefused
from app.gateways.base import Ask, Claim, Foreign, Invoice, InvoiceState, Notice, Refunded, RefundRefused, order_of
from app.infra.http import Answer

T = TypeVar("T")

PARTY = "YooKassa"
MAX_DESCRIPTION = 128  # characters
CLAIMS: dict[str, Claim] = {"payment.succeeded": "paid", "refund.succeeded": "refunded"}

_ID = re.compile(r"[0-9a-f-]{36}", re.ASCII)
_EVENT = re.compile(r"[a-z_]{1,40}\.[a-z_]{1,40}", re.ASCII)
_WORD = re.compile(r"[a-z0-9_]{1,50}", re.ASCII)  # an error's code, a reason: what may be told of an answer


class Amount(msgspec.Struct, frozen=True):
    """Decimal text and its currency."""

    value: str
    currency: str


class Redirect(msgspec.Struct, frozen=True):
    """The buyer is sent to YooKassa's page, and from there to `return_url`."""

    return_url: str
    type: str = "redirect"


class Create(msgspec.Struct, frozen=True):
    """`POST /v3/payments`. With `capture` false, the default, the money would only be held."""

    amount: Amount
    capture: bool
    confirmation: Redirect
    description: str
    metadata: dict[str, str]


class Confirmation(msgspec.Struct, frozen=True):
    """Where the buyer pays; only in a payment that waits for it."""

    confirmation_url: str = ""


class Payment(msgspec.Struct, frozen=True):
    """The answer to create and to `GET /v3/payments/{id}`, as far as we read it."""

    id: str
    status: Literal["pending", "waiting_for_capture", "succeeded", "canceled"]
    amount: Amount
    test: bool
    confirmation: Confirmation | None = None
    refunded_amount: Amount | None = None  # absent until there is a refund that succeeded
    metadata: dict[str, str | None] | None = None


class Refund(msgspec.Struct, frozen=True):
    """`POST /v3/refunds`: its request. `metadata` names it for longer than YooKassa knows its key."""

    payment_id: str
    amount: Amount
    metadata: dict[str, str]


class Cancellation(msgspec.Struct, frozen=True):
    """Why something was canceled."""

    reason: str = ""


class RefundMade(msgspec.Struct, frozen=True):
    """Its answer, and an item of the list."""

    id: str
    payment_id: str
    status: Literal["pending", "succeeded", "canceled"]
    amount: Amount
    cancellation_details: Cancellation | None = None
    metadata: dict[str, str | None] | None = None


class Refunds(msgspec.Struct, frozen=True):
    """`GET /v3/refunds?payment_id={id}`."""

    items: list[RefundMade]
    next_cursor: str | None = None  # there are more


class Error(msgspec.Struct, frozen=True):
    """The answer with a 4xx status; its description may quote our request and is never told on."""

    type: Literal["error"]
    code: str
    parameter: str | None = None  # of our request, that is to blame


def is_id(text: object) -> TypeGuard[str]:
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def create_body(ask: Ask) -> bytes:
    """The request for a payment that carries our reference. The same ask is the same bytes, as its key demands."""
    return msgspec.json.encode(
        Create(
            amount=_amount(ask.money),
            capture=True,
            confirmation=Redirect(ask.return_url),
            description=f"Order {ask.number}"[:MAX_DESCRIPTION],
            metadata={"reference": ask.reference},
        )
    )


def refund_body(payment_id: str, money: Money, key: str) -> bytes:
    return msgspec.json.encode(Refund(payment_id, _amount(money), {"key": key}))


def read_created(answer: Answer) -> Invoice:
    """Raises: ProviderDown when the gateway refused, or did not speak its own protocol."""
    payment = _read(answer, Payment)
    url = payment.confirmation.confirmation_url if payment.confirmation else ""
    if not is_id(payment.id) or not url.startswith(("https://", "http://")):
        raise ProviderRefused(f"{PARTY} made no payment that can be paid")
    return Invoice(payment.id, url)


def read_state(answer: Answer, payment_id: str, *, takes_test: bool) -> InvoiceState:
    """The state of exactly this payment. Raises: ProviderDown, Foreign.

    `waiting_for_capture` is not paid: the money is held and not taken. We always ask for capture, so nobody but the
    merchant himself can bring a payment there.
    """
    if answer.status == 404 and (error := _error(answer)) and error.code == "not_found":
        raise Foreign(f"{PARTY} knows no such payment of this shop")  # anybody's shop may notify us of its own
    payment = _read(answer, Payment)
    if payment.id != payment_id:
        raise ProviderRefused(f"{PARTY} told about another payment")
    money = _money(payment.amount)
    refunded = _money(payment.refunded_amount) if payment.refunded_amount else Money(0, money.currency)
    if refunded.currency != money.currency or refunded.amount_minor > money.amount_minor:
        raise ProviderRefused(f"{PARTY} told a refund that the payment cannot have")
    toy = payment.test and not takes_test  # no money moves in a test payment
    return InvoiceState(
        id=payment.id,
        state="test" if toy else payment.status,
        paid=payment.status == "succeeded" and not toy,
        final=payment.status in ("succeeded", "canceled"),
        money=money,
        refunded_minor=0 if toy else refunded.amount_minor,
        order_id=order_of((payment.metadata or {}).get("reference") or ""),
    )


def find_refund(answer: Answer, key: str) -> RefundMade | None:
    """The payment's refund that was asked for under this key. Raises: ProviderDown."""
    found = _read(answer, Refunds)
    for made in found.items:
        if made.metadata and made.metadata.get("key") == key:
            return made
    if found.next_cursor:
        raise ProviderRefused(f"{PARTY} told of more refunds than we look through")
    return None


def read_refund(answer: Answer) -> RefundMade:
    """Raises: RefundRefused, ProviderDown."""
    if 400 <= answer.status < 500 and answer.status not in (401, 403, 429):
        _refuse(_error(answer))
    return _read(answer, RefundMade)


def outcome(made: RefundMade, payment_id: str, money: Money) -> Refunded:
    """The refund that we mean, done. Raises: RefundRefused; ProviderDown while it is under way."""
    if not is_id(made.id) or made.payment_id != payment_id or _money(made.amount) != money:
        raise ProviderRefused(f"{PARTY} told about another refund")
    if made.status == "canceled":
        reason = made.cancellation_details.reason if made.cancellation_details else ""
        raise RefundRefused(f"{PARTY} canceled the refund: {_word(reason) or 'no reason given'}")
    if made.status == "pending":
        raise ProviderRefused(
            f"{PARTY} has not made the refund yet"
        )  # asked again with the same key, it tells what became
    return Refunded(made.id)


def _refuse(error: Error | None) -> None:
    """Raises: RefundRefused, but for what says nothing of the refund: no error of YooKassa's, or one of the key."""
    if error and error.parameter != "Idempotence-Key":
        raise RefundRefused(f"{PARTY} refused the refund: {_word(error.code)}")


def read_notice(body: bytes) -> Notice:
    """A notification; nothing proves what it says, so it is a hint to ask. Raises: Malformed."""
    try:
        fields = decode_object(body)
    except BadJson as error:
        raise Malformed(f"the body: {error}") from None
    event, told = fields.get("event"), fields.get("object")
    if fields.get("type") != "notification" or not isinstance(event, str) or not _EVENT.fullmatch(event):
        raise Malformed("the body is no notification of YooKassa's")
    if not isinstance(told, dict) or not is_id(told.get("id")):
        raise Malformed("the object has no id of YooKassa's")
    payment_id = told["id"] if event.startswith("payment.") else told.get("payment_id")
    if not is_id(payment_id):
        raise Malformed("the object is neither a payment nor a part of one")
    return Notice(event_key=f"{told['id']}:{event}", invoice_id=payment_id, claims=CLAIMS.get(event, "other"))


def _amount(money: Money) -> Amount:
    return Amount(decimal_text(money.amount_minor, money.currency), money.currency)


def _money(amount: Amount) -> Money:
    if amount.currency not in MINOR_DIGITS:
        raise Foreign(f"{PARTY} told an amount in a currency that we do not have")
    minor = parse_minor(amount.value, amount.currency)
    if minor is None:
        raise ProviderRefused(f"{PARTY} told an amount that is no amount")
    return Money(minor, amount.currency)


def _read(answer: Answer, shape: type[T]) -> T:
    """The body of a 200; a 202 would mean that it does not know yet, and the repeat with the same key will tell."""
    if answer.status != 200:
        error = _error(answer)
        if error is None and answer.status >= 400:
            raise ProviderDown(f"{PARTY} answered {answer.status}")
        raise ProviderRefused(f"{PARTY} answered {answer.status} {_word(error.code) if error else ''}".rstrip())
    return _decode(answer.body, shape)


def _error(answer: Answer) -> Error | None:
    """Its error object; None when the body is something else, as from a proxy in between."""
    try:
        return _decode(answer.body, Error)
    except ProviderDown:
        return None


def _word(text: str) -> str:
    return text if _WORD.fullmatch(text) else ""


def _decode(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ProviderDown(f"{PARTY} did not answer in its protocol") from error
