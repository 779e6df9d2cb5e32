"""Broadcasts: one message to all users or all buyers, with a cursor that says who had their turn."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from app.base.lease import Lease
from app.infra.sql import Many, One, Opt, Postgres

Outcome = Literal["sent", "blocked", "failed"]


class Broadcast(msgspec.Struct, frozen=True):
    """One broadcast as admins see it."""

    id: int
    texts: str  # JSON object: text by language
    audience: str  # all, buyers
    state: str  # running, paused, done, cancelled
    sent: int
    blocked: int
    failed: int
    created_by: int
    created_at: datetime
    ended_at: datetime | None


class Entered(msgspec.Struct, frozen=True):
    """`word`: created; forbidden, taken (the same is under way)."""

    word: str
    id: int | None
    outbox_id: int | None


class Drafted(msgspec.Struct, frozen=True):
    """What became of a draft."""

    id: int
    state: str
    sent: int  # users who have it


class Moved(msgspec.Struct, frozen=True):
    """`word`: moved, unchanged; forbidden, missing, ended. A job that is owed again has its id and turn here."""

    word: str
    was: str | None
    outbox_id: int | None
    turn: int | None


class Work(msgspec.Struct, frozen=True):
    """What a turn of the job begins with."""

    id: int
    texts: str  # JSON object: text by language
    state: str
    cursor_user_id: int


class Recipient(msgspec.Struct, frozen=True):
    id: int
    telegram_id: int
    language: str


class Told(msgspec.Struct, frozen=True):
    """The broadcast's state, now that a user was counted."""

    state: str


class Turned(msgspec.Struct, frozen=True):
    """The state of the job after its turn: owed or done."""

    state: str
    turn: int


CREATE = One("broadcasts/create_broadcast", Entered)
DRAFTED = Opt("broadcasts/find_drafted", Drafted)
MOVE = One("broadcasts/move_broadcast", Moved)
LIST = Many("broadcasts/list_broadcasts", Broadcast)
FIND = Opt("broadcasts/find_broadcast", Work)
RECIPIENTS = Many("broadcasts/list_recipients", Recipient)
COUNT = Opt("broadcasts/count_told", Told)
END_TURN = Opt("broadcasts/end_turn", Turned)

NEWEST = 2**63 - 1


async def create(
    pg: Postgres, user_id: int, texts: dict[str, str], audience: str, *,
    draft: UUID | None = None, state: str = "running",
) -> Entered:  # fmt: skip
    return await CREATE(pg, user_id, msgspec.json.encode(texts).decode(), audience, draft, state)


async def drafted(pg: Postgres, draft: UUID) -> Drafted | None:
    return await DRAFTED(pg, draft)


async def move(pg: Postgres, user_id: int, broadcast_id: int, state: str) -> Moved:
    return await MOVE(pg, user_id, broadcast_id, state)


async def page(pg: Postgres, user_id: int, *, before: int, size: int) -> list[Broadcast]:
    """Up to `size` broadcasts older than `before`; none for those who are no admins."""
    return await LIST(pg, user_id, 0, before, size)


async def get(pg: Postgres, user_id: int, broadcast_id: int) -> Broadcast | None:
    found = await LIST(pg, user_id, broadcast_id, NEWEST, 1)
    return found[0] if found else None


async def work(pg: Postgres, broadcast_id: int) -> Work | None:
    return await FIND(pg, broadcast_id)


async def recipients(pg: Postgres, broadcast_id: int, *, after: int, size: int) -> list[Recipient]:
    """Who is next, in the order of ids."""
    return await RECIPIENTS(pg, broadcast_id, after, size)


async def count(pg: Postgres, lease: Lease, broadcast_id: int, user_id: int, outcome: Outcome) -> str | None:
    """The user had their turn; the broadcast's state now, None when the job is no longer this attempt's."""
    told = await COUNT(pg, lease.outbox_id, lease.attempt_id, broadcast_id, user_id, outcome)
    return told.state if told else None


async def end_turn(pg: Postgres, lease: Lease, broadcast_id: int, *, all_told: bool) -> Turned | None:
    """The job is free for its next turn, or done; None when it is no longer this attempt's."""
    return await END_TURN(pg, lease.outbox_id, lease.attempt_id, broadcast_id, all_told)
