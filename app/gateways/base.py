"""What a payment gateway is to Torg: create, verify, fetch, refund, each in the provider's own protocol.

A gateway is a folder with two files (docs/gateways.md): `wire.py` parses and writes its texts, `gateway.py` has
the class that its `GATEWAY` names, with its settings and its traits. Flows ask the traits, never the provider's name.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol
from uuid import UUID

import httpx
import msgspec

from app.base.ids import parse_id
from app.base.money import Money

Claim = Literal["paid", "refunded", "other"]


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider can do."""

    signs_amount: bool  # its callback proves order, amount and currency: settled within the request
    retries: bool  # a callback that was not accepted comes again
    refunds: bool  # money can be sent back over its API
    polls_per_minute: int  # invoices that the poller may ask about; 0: polling is not allowed
    currencies: frozenset[str]  # that an invoice may be in
    media: str = "application/json"  # what its callbacks are sent as


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """The invoice that we want."""

    order_id: UUID
    payment_id: int  # one try to have the order paid; the same when a lost answer makes us ask again
    number: int  # what the buyer reads
    money: Money
    lifetime_s: int
    return_url: str  # where the buyer comes back to
    callback_url: str  # where the gateway tells us

    @property
    def reference(self) -> str:
        """What we write into the invoice, and the idempotency key of its creation: at most 56 of `[0-9a-f-]`."""
        return f"{self.order_id}-{self.payment_id}"


def order_of(reference: str) -> UUID | None:
    """The order that a reference of ours names; None for any other text."""
    order_id, dash, payment_id = reference[:36], reference[36:37], reference[37:]
    ours = dash == "-" and payment_id.isascii() and payment_id.isdigit() and len(payment_id) <= 19
    return parse_id(order_id) if ours else None


class Invoice(msgspec.Struct, frozen=True):
    """The gateway's invoice: its own id, and the page on which the buyer pays."""

    id: str
    url: str


class InvoiceState(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway says of an invoice: the only word on which anything is granted.

    It is a snapshot and never a difference, so that a repeated or an older one changes nothing.
    """

    id: str
    state: str  # the provider's own word, for the audit
    paid: bool  # money has come, if perhaps too little; stays true when it went back
    final: bool  # no (more) money can come
    money: Money  # what came in all, before fees; what would have to come when not paid
    refunded_minor: int = 0  # of it, what went back to the buyer, by refund or chargeback
    order_id: UUID | None  # what we wrote into the invoice


class Callback(msgspec.Struct, frozen=True):
    """A request that says it comes from the gateway."""

    body: bytes
    headers: Mapping[str, str]  # lower-case names; a repeated header is its values joined by ", "
    address: str  # of the caller, seen through trusted proxies: an IPv4 address, or the /64 of an IPv6 one


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A callback that this gateway really sent (or somebody who knows its secret)."""

    event_key: str  # equal for repeats of one event, at most 200 characters
    invoice_id: str
    claims: Claim
    state: InvoiceState | None = None  # where `signs_amount`: as good as asking


class Refunded(msgspec.Struct, frozen=True):
    """The gateway has the refund under this id."""

    id: str


class RefundRefused(Exception):
    """The gateway will never make this refund; the text says why, without secrets."""


class Foreign(Exception):
    """An invoice that no shop of ours can have made: in a coin, or in a currency that we do not have."""


class Gateway(Protocol):
    """One provider, as flows see it."""

    @property
    def name(self) -> str: ...  # the folder's

    @property
    def traits(self) -> Traits: ...

    async def create(self, ask: Ask) -> Invoice:
        """An invoice for this ask; asked again, the same one where the provider can. Raises: ProviderDown."""
        ...

    def verify(self, callback: Callback) -> Notice:
        """The callback, proven and parsed. Raises: BadSignature, Malformed."""
        ...

    async def fetch(self, invoice_id: str) -> InvoiceState:
        """The invoice as the gateway knows it now. Raises: ProviderDown, Foreign."""
        ...

    async def refund(self, invoice_id: str, money: Money, key: str) -> Refunded:
        """So much goes back to the buyer, once per key (at most 64 characters). Only where `traits.refunds`.

        Raises: ProviderDown (ask again with the same key), RefundRefused.
        """
        ...


class Provider(Gateway, Protocol):
    """What a folder holds. It has no state but its secrets; a missing secret keeps it out (DESIGN law 5)."""

    name: ClassVar[str]
    traits: ClassVar[Traits]
    settings: ClassVar[type[msgspec.Struct]]  # TORG_<NAME>_<FIELD>; those with an empty default are required

    def __init__(self, config: Any, http: httpx.AsyncClient) -> None:
        """`config` is one of `settings`, complete."""
        ...
