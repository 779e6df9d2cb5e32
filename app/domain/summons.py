"""Summons: signed calls from outside that name a job which is owed already; each counts once."""

from datetime import UTC, datetime

import msgspec

from app.infra.sql import Opt, Postgres


class Heard(msgspec.Struct, frozen=True):
    """The named job: `state` as the outbox has it, `turn` for the ring; `first`: no call with this id before."""

    outbox_id: int
    state: str
    turn: int
    first: bool


HEAR = Opt("summons/hear_summons", Heard)


async def hear(pg: Postgres, id: str, expires_s: int, kind: str, *, key: str = "", outbox_id: int = 0) -> Heard | None:
    """The job of this kind with this key, or this id; None when nothing of the kind is, or was, owed."""
    return await HEAR(pg, id, datetime.fromtimestamp(expires_s, UTC), kind, key, outbox_id)
