"""Moves: an order's life after the sale, step by step, by whoever may make the step (the table `order_moves`)."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from app.infra.sql import Opt, Postgres

# What a person may move an order to. The table has the moves themselves; tests/flows/test_moves.py compares.
Status = Literal[
    "reviewing", "issue_reported", "locked", "confirmed", "preparing", "ready_for_pickup", "in_delivery",
    "partially_delivered", "delivered", "completed", "cancelled",
]  # fmt: skip


class Card(msgspec.Struct, frozen=True):
    """An order with everything that belongs to it."""

    id: UUID
    number: int
    status: str
    currency: str
    total_minor: int
    created_at: datetime
    expires_at: datetime
    paid_at: datetime | None
    delivered_at: datetime | None
    lines: str  # JSON of list[orders.Line]
    credited_minor: int
    refunded_minor: int
    payment_provider: str | None
    payment_status: str | None
    payment_url: str | None
    payment_minor: int | None
    buyer_id: int
    buyer_name: str
    history: str  # JSON of list[Step], the oldest first
    chat: str  # JSON of list[Line], the oldest first


class Moved(Card, frozen=True):
    """The order, and what became of a move; only `moved` changed anything. `history` is that before it.

    `word`: moved · raced: another has just moved it, once more · stale: it is not what the caller has seen ·
    forbidden: others may make this move · refused: there is no such move.
    """

    word: str
    before: str
    seller_id: int
    event_id: int | None
    moved_at: datetime | None
    role: str | None  # as which the caller made it
    outbox_ids: list[int]
    product_ids: list[int]  # whose units are for sale again

    def with_step(self, note: str) -> "Moved":
        """The order with this move in its history."""
        if not self.role or not self.moved_at:
            return self
        step = Step(self.before, self.status, self.role, note, self.moved_at)
        return msgspec.structs.replace(self, history=msgspec.json.encode([*steps(self.history), step]).decode())


class Step(msgspec.Struct, frozen=True):
    """A line of an order's history."""

    before: str | None = msgspec.field(name="from")
    after: str = msgspec.field(name="to")
    role: str
    note: str
    at: datetime


class Line(msgspec.Struct, frozen=True):
    """What was said about an order."""

    role: str
    text: str
    at: datetime


class Announced(msgspec.Struct, frozen=True):
    """An event of an order, and whom it concerns."""

    id: int
    order_id: UUID
    number: int
    before: str
    after: str
    role: str
    at: datetime
    buyer_id: int
    seller_ids: list[int]


class Said(msgspec.Struct, frozen=True):
    id: int


MOVE = Opt("moves/move_order", Moved)
CARD = Opt("moves/get_card", Card)
ANNOUNCED = Opt("moves/find_announced", Announced)
SAY = Opt("moves/chat_line", Said)

_steps = msgspec.json.Decoder(list[Step])
_chat = msgspec.json.Decoder(list[Line])


async def move(
    pg: Postgres, order_id: UUID, user_id: int, status: str, *, expected: str, note: str, buyer_news: list[str]
) -> Moved | None:
    """The order is `status` now, or the word says why not; None when there is none that this user may see.

    `expected`: the status that the caller has seen, or empty. `buyer_news`: of which the buyer is told.
    """
    return await MOVE(pg, order_id, user_id, status, expected, note, buyer_news)


async def card(pg: Postgres, order_id: UUID, user_id: int) -> Card | None:
    """The order, for its buyer, its seller's people and admins."""
    return await CARD(pg, order_id, user_id)


async def announced(pg: Postgres, event_id: int | None, order_id: UUID | None) -> Announced | None:
    """The event; without an id, that the order was paid."""
    return await ANNOUNCED(pg, event_id, order_id)


async def say(pg: Postgres, order_id: UUID, event_id: int, role: str, line: str) -> bool:
    """The order's chat has a line about this event; False when it had it before."""
    return await SAY(pg, order_id, event_id, role, line) is not None


def steps(history: str) -> list[Step]:
    return _steps.decode(history)


def chat(lines: str) -> list[Line]:
    return _chat.decode(lines)
