"""What a payment gateway is to Torg: four verbs, each in the provider's own protocol."""

from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

import msgspec

from app.base.money import Money


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """The invoice that we want."""

    order_id: UUID
    number: int  # what the buyer reads
    money: Money
    lifetime_s: int
    return_url: str  # where the buyer comes back to
    callback_url: str  # where the gateway tells us


class Invoice(msgspec.Struct, frozen=True):
    """The gateway's invoice: its own id, and the page on which the buyer pays."""

    id: str
    url: str


class InvoiceState(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway says of an invoice when it is asked: the only word on which anything is granted."""

    id: str
    state: str  # the provider's own word, for the audit
    paid: bool
    money: Money  # what was paid, or would have to be
    order_id: UUID | None  # what we wrote into the invoice


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A callback that this gateway really sent (or somebody who knows its secret)."""

    event_key: str  # equal for repeats of one event
    invoice_id: str
    claims_paid: bool


class Gateway(Protocol):
    """One provider. Adapters hold no state but their secrets; a missing secret keeps them out (DESIGN law 5)."""

    name: str

    async def create(self, ask: Ask) -> Invoice:
        """A new invoice. Raises: ProviderDown."""
        ...

    def verify(self, body: bytes, headers: Mapping[str, str]) -> Notice:
        """The callback, proven. Raises: BadSignature, Malformed."""
        ...

    async def fetch(self, invoice_id: str) -> InvoiceState:
        """The invoice as the gateway knows it now. Raises: ProviderDown."""
        ...
