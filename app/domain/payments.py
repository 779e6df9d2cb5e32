"""Payments: the invoices behind an order, and the judgement of money that came in or went back."""

from datetime import datetime
from uuid import UUID

import msgspec
import structlog

from app.base.batches import Batches
from app.base.lease import Lease
from app.base.money import Money
from app.errors import PostgresDown
from app.infra.sql import Many, Opt, Postgres

log = structlog.get_logger(__name__)

# What settling may say of money. `paid` and `repeated` need nothing more; what follows upon each other word is in
# app/flows/settle.py.
VERDICTS = (
    "paid", "repeated", "overpaid", "second", "underpaid", "late", "late_part", "cancelled", "wrong_currency",
    "unknown_order",
)  # fmt: skip


class Failed(msgspec.Struct, frozen=True):
    payment_id: int


class Closed(msgspec.Struct, frozen=True):
    payment_id: int


class Opening(msgspec.Struct, frozen=True):
    """A payment that is there to be opened, or is open already."""

    number: int
    currency: str
    total_minor: int  # of this payment: what the order still lacks
    expires_at: datetime
    opened_at: datetime
    payment_id: int
    turn: str  # ours: this caller opens it · busy: another does · open: it has its link
    url: str


class Verdict(msgspec.Struct, frozen=True):
    """What the money was, for which order, and the delivery that is owed for it."""

    word: str
    order_id: UUID | None
    user_id: int | None
    came_minor: int  # on top of what was booked before
    covered: bool  # the order is pending, and its part payments are enough for it
    booked: bool  # the order is paid by this very call
    outbox_id: int | None
    closed: bool  # event and job are done


class Credited(msgspec.Struct, frozen=True):
    balance_minor: int
    covered: bool


class Reversed(msgspec.Struct, frozen=True):
    """What went back at the gateway, and at whose cost."""

    order_id: UUID
    sold_minor: int
    taken_minor: int
    lent_minor: int


class Quota(msgspec.Struct, frozen=True):
    provider: str


class Due(msgspec.Struct, frozen=True):
    """An invoice that its gateway should be asked about, and what is known of it."""

    invoice_id: str
    received_minor: int
    refunded_minor: int


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A callback whose signature proves that so much came for this invoice."""

    provider: str
    event_key: str
    body: bytes
    headers: str  # JSON
    invoice_id: str
    order_id: UUID | None
    amount_minor: int
    currency: str


class Taken(msgspec.Struct, frozen=True):
    """What became of one of them; known: it was in the inbox before."""

    n: int
    known: bool
    paid: bool
    outbox_id: int | None


Settlements = Batches[Signed, Taken]

MOST_TOGETHER = 64  # callbacks of one statement
AT_ONCE = 4  # statements of one process, of its 8 connections
PATIENCE_S = 0.005  # longer than a statement on a Postgres next door takes, much shorter than the way to a distant one

FAIL = Opt("payments/fail_payment", Failed)
OPEN = Opt("payments/open_payment", Opening)
SETTLE = Opt("payments/settle_payment", Verdict)
CREDIT = Opt("payments/credit_payment", Credited)
REVERSE = Opt("payments/reverse_payment", Reversed)
CLOSE = Opt("payments/close_payment", Closed)
OPEN_QUOTA = Opt("payments/open_quota", Quota)
DUE = Many("payments/due_payments", Due)
SETTLE_SIGNED = Many("payments/settle_signed", Taken)


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway says of one invoice, and on which event's account it was asked."""

    inbox_id: int
    provider: str
    invoice_id: str
    order_id: UUID | None  # as the gateway's record has it; the payment that we opened wins over it
    money: Money  # that came in all
    refunded_minor: int  # of it, that went back


async def fail(pg: Postgres, order_id: UUID, provider: str, opened_at: datetime) -> None:
    """The next repeat may try at once; nothing changes when another's turn has come meanwhile."""
    await FAIL(pg, order_id, provider, opened_at)


async def open_(pg: Postgres, order_id: UUID, user_id: int, provider: str, lease_s: int) -> Opening | None:
    """The payment of this pending order that this caller may open, or that is there; None when it cannot be paid."""
    return await OPEN(pg, order_id, user_id, provider, lease_s)


async def settle(pg: Postgres, lease: Lease, proof: Proof) -> Verdict | None:
    """The money is judged, and the order paid if it is enough; None when the job is no longer this attempt's."""
    return await SETTLE(
        pg, lease.outbox_id, lease.attempt_id, proof.inbox_id, proof.provider, proof.invoice_id, proof.order_id,
        proof.money.amount_minor, proof.money.currency, proof.refunded_minor, lease.lease_s,
    )  # fmt: skip


async def credit(pg: Postgres, lease: Lease, proof: Proof, verdict: Verdict, window_s: int) -> Credited | None:
    """The money is on the buyer's balance, once; None when the order or the payment changed since the verdict."""
    return await CREDIT(
        pg, lease.attempt_id, lease.outbox_id, proof.inbox_id, proof.provider, proof.invoice_id, verdict.order_id,
        verdict.came_minor, proof.money.amount_minor, proof.money.currency, verdict.word, window_s,
    )  # fmt: skip


async def reverse(pg: Postgres, proof: Proof) -> Reversed | None:
    """What went back at the gateway is booked; None when it was known."""
    return await REVERSE(pg, proof.provider, proof.invoice_id, proof.refunded_minor)


async def close(pg: Postgres, provider: str, invoice_id: str) -> None:
    """No money can come for this invoice any more."""
    await CLOSE(pg, provider, invoice_id)


async def due(pg: Postgres, provider: str, per_minute: int) -> list[Due]:
    """Invoices whose turn has come, now this caller's to ask about, within the provider's quota."""
    await OPEN_QUOTA(pg, provider, per_minute)
    return await DUE(pg, provider, per_minute)


async def settle_signed(pg: Postgres, signed: list[Signed]) -> list[Taken]:
    """Each event is in the inbox, its order paid or its settle job owed; one answer each, in their order."""
    columns = zip(*(msgspec.structs.astuple(one) for one in signed), strict=True)
    return await SETTLE_SIGNED(pg, *map(list, columns))


def gathered(pg: Postgres) -> Settlements:
    """The same, one by one to its callers and together to Postgres."""

    async def settle_together(signed: list[Signed]) -> list[Taken]:
        taken = await settle_signed(pg, signed)
        paid = [one.invoice_id for one, became in zip(signed, taken, strict=True) if became.paid]
        log.info("payments settled", events=len(signed), paid=paid)  # a line each would cost a fifth of the request
        return taken

    return Batches(settle_together, most=MOST_TOGETHER, at_once=AT_ONCE, patience_s=PATIENCE_S, shared=PostgresDown)
