"""The inbox: every gateway event as it came, stored before anything is done about it, once."""

from datetime import datetime
from uuid import UUID

import msgspec

from app.base import keys
from app.base.lease import Lease
from app.infra.lua import Redis, Script
from app.infra.sql import Many, One, Opt, Postgres

MARK_MS = 60_000  # how long a repeat is answered without asking Postgres


class Fresh(msgspec.Struct, frozen=True):
    """Redis knows nothing of the event."""


class Known(msgspec.Struct, frozen=True):
    """Redis knows that Postgres holds the event."""


class Marked(msgspec.Struct, frozen=True):
    """Redis knows it from now on."""


class Stored(msgspec.Struct, frozen=True):
    """Postgres holds the event; `outbox_id` is the job that this very call made, None for a repeat."""

    outbox_id: int | None


class Ignored(msgspec.Struct, frozen=True):
    inbox_id: int


class Concluded(msgspec.Struct, frozen=True):
    inbox_id: int


class Resent(msgspec.Struct, frozen=True):
    outbox_id: int


class Listed(msgspec.Struct, frozen=True):
    """An event as an operator looks for it, with its job."""

    id: int
    provider: str
    event_key: str
    state: str
    outcome: str
    order_id: UUID | None
    received_at: datetime
    job_state: str | None
    attempts: int | None
    last_error: str | None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A verified event, as its gateway understood it."""

    provider: str
    key: str  # unique within the provider
    invoice_id: str
    claims: str  # paid, refunded or other: what the body says, which its signature need not cover


class Claim(msgspec.Struct, frozen=True):
    """What the settle job is told: which event, which invoice, and what the event said of it."""

    inbox_id: int
    provider: str
    event_key: str
    invoice_id: str
    claims: str  # "paid", "refunded" or "other"


SEEN: Script[Known | Fresh] = Script("inbox/seen", Known, Fresh)
MARK: Script[Marked] = Script("inbox/mark", Marked)
SCRIPTS = (SEEN, MARK)

STORE = One("inbox/store_event", Stored)
IGNORE = Opt("inbox/ignore_event", Ignored)
CONCLUDE = Opt("inbox/conclude_event", Concluded)
LIST = Many("inbox/list_events", Listed)
RESEND = Opt("inbox/resend_event", Resent)


async def seen(redis: Redis, event: Event) -> Known | Fresh:
    return await SEEN(redis, keys=[keys.event(event.provider, event.key)], args=[])


async def mark(redis: Redis, provider: str, event_key: str) -> None:
    """A crowd of repeats need not ask Postgres. Only for a settled event: what is marked is answered 200, no more."""
    await MARK(redis, keys=[keys.event(provider, event_key)], args=[MARK_MS])


async def store(pg: Postgres, event: Event, body: bytes, headers: dict[str, str]) -> Stored:
    """The event is in the inbox with the job that it owes; a repeat changes nothing that was final."""
    headers_json = msgspec.json.encode(headers).decode()
    return await STORE(pg, event.provider, event.key, body, headers_json, event.invoice_id, event.claims)


async def ignore(pg: Postgres, lease: Lease, inbox_id: int, outcome: str, *, asked_ms: int) -> bool:
    """Nothing was paid, said the gateway `asked_ms` ago: the event is closed until a repeat claims otherwise.

    False when a repeat came since then, or the job is no longer ours.
    """
    return await IGNORE(pg, lease.outbox_id, lease.attempt_id, inbox_id, outcome, asked_ms) is not None


async def conclude(
    pg: Postgres,
    lease: Lease,
    inbox_id: int,
    order_id: UUID | None,
    outcome: str,
    *,
    review: bool = False,
    alert: str = "",
) -> bool:
    """The event is judged, its job done; `review`: a human must look, whom an alert (JSON) tells.

    False: no longer our job.
    """
    state = "review" if review else "settled"
    done = await CONCLUDE(pg, lease.outbox_id, lease.attempt_id, inbox_id, order_id, outcome, alert, state)
    return done is not None


async def newest(pg: Postgres, state: str, *, size: int) -> list[Listed]:
    return await LIST(pg, state, size)


async def resend(pg: Postgres, inbox_id: int) -> int | None:
    """The event is worked on again; its job, or None when there is no such event."""
    resent = await RESEND(pg, inbox_id)
    return resent.outbox_id if resent else None
