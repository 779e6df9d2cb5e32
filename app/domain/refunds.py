"""Refunds: money on its way back, to the buyer's balance or over the rail by which it came, each once."""

from datetime import datetime
from uuid import UUID

import msgspec

from app.base.lease import Lease
from app.infra.sql import Many, Opt, Postgres


class Refunded(msgspec.Struct, frozen=True):
    refund_id: UUID
    amount_minor: int
    status: str  # of the order, now


class Refund(msgspec.Struct, frozen=True):
    """A refund as admins read it."""

    id: UUID
    order_id: UUID
    target: str
    amount_minor: int
    currency: str
    state: str
    reason: str
    note: str
    at: datetime
    done_at: datetime | None


class Call(msgspec.Struct, frozen=True):
    """What a gateway must be told."""

    provider: str
    invoice_id: str
    amount_minor: int
    currency: str
    accounted_minor: int  # of the invoice that we take for gone, this refund included


class Finished(msgspec.Struct, frozen=True):
    order_id: UUID


class Repaid(msgspec.Struct, frozen=True):
    """What a cancelled order gave back, and the job that what hangs on it is owed by."""

    amount_minor: int
    outbox_id: int | None


class Overdue(msgspec.Struct, frozen=True):
    order_id: UUID


MAKE = Opt("refunds/refund_order", Refunded)
FIND = Opt("refunds/find_refund", Refund)
LIST = Many("refunds/list_refunds", Refund)
CALL = Opt("refunds/find_call", Call)
FINISH = Opt("refunds/finish_refund", Finished)
REPAY = Opt("refunds/repay_order", Repaid)
OVERDUE = Many("refunds/refund_overdue", Overdue)


class New(msgspec.Struct, frozen=True, kw_only=True):
    """What an admin decided."""

    refund_id: UUID
    order_id: UUID
    amount_minor: int  # 0: all that is left
    target: str
    reason: str
    note: str
    user_id: int
    key: str


async def make(pg: Postgres, new: New) -> Refunded | None:
    """The refund stands; None when its key was used before, or it is more than is left (on that rail)."""
    return await MAKE(pg, *msgspec.structs.astuple(new))


async def find(pg: Postgres, order_id: UUID, key: str) -> Refund | None:
    return await FIND(pg, order_id, key)


async def of_order(pg: Postgres, order_id: UUID) -> list[Refund]:
    return await LIST(pg, order_id)


async def call(pg: Postgres, refund_id: UUID) -> Call | None:
    """What the gateway must be told; None when it was."""
    return await CALL(pg, refund_id)


async def finish(pg: Postgres, lease: Lease, refund_id: UUID, gateway_id: str) -> bool:
    """The gateway has it under this id; or, without one, never will, and the money is on the balance instead."""
    return await FINISH(pg, lease.outbox_id, lease.attempt_id, refund_id, gateway_id) is not None


async def repay(pg: Postgres, lease: Lease, order_id: UUID) -> Repaid | None:
    """What was not delivered of a cancelled order is on its buyer's balance; None when nothing is to be paid back."""
    return await REPAY(pg, lease.outbox_id, lease.attempt_id, order_id)


async def overdue(pg: Postgres, *, size: int) -> list[Overdue]:
    """Orders whose made goods did not come by their deadline; their money is on the buyers' balances now."""
    return await OVERDUE(pg, size)
