"""Orders: made with their claimed units in one statement, read with their lines, closed when nobody pays."""

from datetime import datetime
from uuid import UUID

import msgspec

from app.base.lease import Lease
from app.infra.sql import AlreadyThere, Many, One, Opt, Postgres

MAX_LINES = 20
MAX_UNITS = 50  # of one order: every unit is a row


class Created(msgspec.Struct, frozen=True):
    """A new order: its units are claimed, its payment is being opened."""

    number: int
    currency: str
    total_minor: int
    expires_at: datetime
    opened_at: datetime  # whose turn it is to open the payment
    payment_id: int


class Repeat(msgspec.Struct, frozen=True):
    """The order that an Idempotency-Key made before."""

    order_id: UUID
    request_hash: bytes


class Pending(msgspec.Struct, frozen=True):
    """A buyer's unpaid orders, of those that are capped."""

    orders: int


class Line(msgspec.Struct, frozen=True):
    """Like units of one product."""

    product_id: int
    title: str
    kind: str
    quantity: int
    total_minor: int


class Order(msgspec.Struct, frozen=True):
    """An order as its buyer reads it, with its latest payment."""

    id: UUID
    number: int
    status: str
    currency: str
    total_minor: int
    created_at: datetime
    expires_at: datetime
    paid_at: datetime | None
    delivered_at: datetime | None
    lines: str  # JSON of list[Line]
    credited_minor: int
    refunded_minor: int
    payment_provider: str | None
    payment_status: str | None
    payment_url: str | None
    payment_minor: int | None


class Delivered(msgspec.Struct, frozen=True):
    """What a paid order became, and the message that is owed for it."""

    status: str
    outbox_id: int | None


class Expired(msgspec.Struct, frozen=True):
    """An order that nobody paid, and whose counters its units change."""

    order_id: UUID
    seller_id: int
    product_ids: list[int]


class Freed(msgspec.Struct, frozen=True):
    """Products whose units are for sale again, or (revived) no longer."""

    seller_id: int
    product_ids: list[int]


class Supplied(msgspec.Struct, frozen=True):
    """Like units of an order, as its seller reads them."""

    number: int
    title: str
    quantity: int
    due_at: datetime | None


class PaidBy(msgspec.Struct, frozen=True):
    paid_by: str  # provider:invoice


CREATE = Opt("orders/create_order", Created)
FIND_REPEAT = Opt("orders/find_repeat", Repeat)
COUNT_PENDING = One("orders/count_pending", Pending)
GET = Opt("orders/get_order", Order)
LINK = Opt("orders/link_order", Order)
LIST = Many("orders/list_orders", Order)
DELIVER = Opt("orders/deliver_order", Delivered)
EXPIRE = Many("orders/expire_orders", Expired)
REVIVE = Opt("orders/revive_order", Freed)
FOLLOW = Opt("orders/follow_refund", Freed)
SUPPLIED = Many("orders/list_supplied", Supplied)
PAID_BY = Opt("orders/find_paid", PaidBy)

_lines = msgspec.json.Decoder(list[Line])


class New(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a new order is made of; prices are not among it."""

    order_id: UUID
    user_id: int
    seller_id: int
    product_ids: list[int]
    quantities: list[int]
    idempotency_key: str
    request_hash: bytes
    window_s: int
    provider: str
    most_pending: int
    promo: str = ""  # in upper case
    offered_minor: int = 0  # the only total at which it is made; 0: any


async def create(pg: Postgres, new: New) -> Created | None:
    """The order exists with all its units, or nothing happened: units are short, the key was used before, no slot, or
    another total than was offered."""
    return await CREATE(pg, *msgspec.structs.astuple(new))


async def find_repeat(pg: Postgres, user_id: int, idempotency_key: str) -> Repeat | None:
    return await FIND_REPEAT(pg, user_id, idempotency_key)


async def pending(pg: Postgres, user_id: int, most_pending: int) -> int:
    """How many unpaid orders count towards this user's cap."""
    return (await COUNT_PENDING(pg, user_id, most_pending)).orders


async def get(pg: Postgres, order_id: UUID, user_id: int) -> Order | None:
    """The order, if it is this user's."""
    return await GET(pg, order_id, user_id)


async def link(
    pg: Postgres, order_id: UUID, provider: str, invoice_id: str, url: str, opened_at: datetime
) -> Order | None:
    """The order with its new payment link; None when it is no longer pending, or the payment no longer ours to open."""
    try:
        return await LINK(pg, order_id, provider, invoice_id, url, opened_at)
    except AlreadyThere:  # its money was booked while this waited for the order
        return None


async def newest(pg: Postgres, user_id: int, *, before: int, size: int) -> list[Order]:
    return await LIST(pg, user_id, before, size)


async def deliver(pg: Postgres, lease: Lease, order_id: UUID, follows: list[str]) -> Delivered | None:
    """The goods are the buyer's, and jobs of these kinds owed; None when nothing is (left) to do for this attempt."""
    return await DELIVER(pg, lease.outbox_id, lease.attempt_id, order_id, lease.lease_s, follows)


async def revive(pg: Postgres, order_id: UUID, window_s: int) -> Freed | None:
    """The expired order has all its units again; None when not all can be had."""
    return await REVIVE(pg, order_id, window_s)


async def follow_refund(pg: Postgres, lease: Lease, order_id: UUID, word: str, follows: list[str]) -> Freed | None:
    """What the refund has in its train is done or owed; None when the job is no longer ours."""
    return await FOLLOW(pg, lease.outbox_id, lease.attempt_id, order_id, word, follows)


async def supplied(pg: Postgres, order_id: UUID) -> list[Supplied]:
    """What was sold, as the seller reads it."""
    return await SUPPLIED(pg, order_id)


async def paid_by(pg: Postgres, order_id: UUID) -> str | None:
    """The provider and invoice that paid the order; None when nobody did."""
    found = await PAID_BY(pg, order_id)
    return found.paid_by if found else None


async def expire(pg: Postgres, *, grace_s: int, size: int) -> list[Expired]:
    return await EXPIRE(pg, grace_s, size)


def lines(told: str) -> list[Line]:
    """The lines of an order as the statements tell them."""
    return _lines.decode(told)
