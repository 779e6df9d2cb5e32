"""Payments: the invoice behind an order, and the judgement of money that came in."""

from datetime import datetime
from uuid import UUID

import msgspec

from app.base.lease import Lease
from app.base.money import Money
from app.infra.sql import Opt, Postgres

# What settling may say. Only `paid` and `repeated` close the event; a human looks at the others.
VERDICTS = (
    "paid", "repeated", "unknown_order", "wrong_currency", "underpaid", "overpaid", "late", "not_payable",
)  # fmt: skip


class Failed(msgspec.Struct, frozen=True):
    payment_id: int


class Taken(msgspec.Struct, frozen=True):
    """An earlier try to open the payment is over, and this caller's turn has come."""

    number: int
    currency: str
    total_minor: int
    expires_at: datetime
    opened_at: datetime
    payment_id: int


class Verdict(msgspec.Struct, frozen=True):
    """What the money was, for which order, and the delivery that is owed for it."""

    word: str
    order_id: UUID | None
    outbox_id: int | None


FAIL = Opt("payments/fail_payment", Failed)
RETAKE = Opt("payments/retake_payment", Taken)
SETTLE = Opt("payments/settle_payment", Verdict)


async def fail(pg: Postgres, order_id: UUID, provider: str, opened_at: datetime) -> None:
    """The next repeat may try at once; nothing changes when another's turn has come meanwhile."""
    await FAIL(pg, order_id, provider, opened_at)


async def retake(pg: Postgres, order_id: UUID, provider: str, lease_s: int) -> Taken | None:
    return await RETAKE(pg, order_id, provider, lease_s)


async def settle(
    pg: Postgres, lease: Lease, inbox_id: int, provider: str, invoice_id: str, order_id: UUID | None, money: Money
) -> Verdict | None:
    """The money is judged and recorded once; None when the job is no longer this attempt's.

    Source: `order_id` is what the gateway's own record of the invoice says; the payment that we opened wins over it.
    """
    return await SETTLE(
        pg, lease.outbox_id, lease.attempt_id, inbox_id, provider, invoice_id, order_id,
        money.amount_minor, money.currency, lease.lease_s,
    )  # fmt: skip
