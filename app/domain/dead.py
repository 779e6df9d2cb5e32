"""Dead letters: jobs that no attempt could do. They wait, with payload and error, until a human replays or drops them.

They are outbox rows in state `dead`; a dropped one stays as `dropped`. Payloads name orders, invoices and people's ids,
and may hold customers' data, but never a secret: goods and tokens are read when a job runs.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from app.infra.sql import Many, Opt, Postgres

MOST = 10_000  # that one replay takes; what is left is taken by the next
EVER = datetime(1970, 1, 1, tzinfo=UTC)


class Letter(msgspec.Struct, frozen=True):
    """A dead letter in a list; the payload is left out."""

    id: int
    kind: str
    key: str
    aggregate: str | None
    attempts: int
    created_at: datetime
    died_at: datetime
    last_error: str


class Opened(msgspec.Struct, frozen=True):
    """A dead letter as a human judges it."""

    id: int
    kind: str
    key: str
    aggregate: str | None
    state: str  # dead or dropped
    payload: str  # JSON
    attempts: int
    created_at: datetime
    died_at: datetime
    last_error: str
    history: str  # a line for each replay, and for the drop


class Replayed(msgspec.Struct, frozen=True):
    id: int
    turn: int


class Dropped(msgspec.Struct, frozen=True):
    id: int
    kind: str


class By(msgspec.Struct, frozen=True):
    """Who acts: an admin of the shop, or (user 0) somebody at the machine."""

    user_id: int
    name: str


LIST = Many("dead/list_dead", Letter)
GET = Opt("dead/get_dead", Opened)
REPLAY = Many("dead/replay_dead", Replayed)
DROP = Opt("dead/drop_dead", Dropped)


async def newest(pg: Postgres, kind: str, *, since: datetime = EVER, before: int, size: int) -> list[Letter]:
    """Up to `size` dead letters older than `before`; of every kind when that is empty."""
    return await LIST(pg, kind, since, before, size)


async def get(pg: Postgres, outbox_id: int) -> Opened | None:
    """One dead or dropped letter."""
    return await GET(pg, outbox_id)


async def replay(pg: Postgres, ids: Sequence[int] | None, kind: str, by: By, *, dry_run: bool) -> list[Replayed]:
    """The chosen letters are owed again, `MOST` at a time, the oldest first; None and "" choose all."""
    if ids is not None and not ids:
        return []  # to the statement no ids would mean all
    return await REPLAY(pg, list(ids or ()), kind, by.user_id, by.name, MOST, dry_run)


async def drop(pg: Postgres, outbox_id: int, by: By) -> Dropped | None:
    """The letter is never done; None when there is no such dead letter."""
    return await DROP(pg, outbox_id, by.user_id, by.name)
