"""The outbox: whatever must happen, written in the statement that owes it. The row is the job (DESIGN law 2).

An attempt claims a row with a lease; its id fences every effect, so a worker that lost its lease writes nothing.
"""

import random

import msgspec

from app.base.lease import Lease
from app.infra.sql import Many, Opt, Postgres

FIRST_DELAY_S = 5.0
QUICK_TRIES = 3  # B3: three tries, five seconds apart, before the waits grow
MAX_DELAY_S = 900.0
MAX_ATTEMPTS = 15  # of what fails for reasons of its own; an outage of others never buries a row


class Job(msgspec.Struct, frozen=True):
    """A claimed row."""

    id: int
    kind: str
    payload: str  # JSON
    attempts: int  # this one included


class Owed(msgspec.Struct, frozen=True):
    """A row that the handler's own statement made and leased to the same attempt: it can go on at once."""

    id: int
    kind: str
    payload: str


class Closed(msgspec.Struct, frozen=True):
    id: int


class Due(msgspec.Struct, frozen=True):
    """A row that should have started by now."""

    id: int
    attempts: int
    overdue_ms: int


CLAIM = Opt("outbox/claim_job", Job)
FINISH = Opt("outbox/finish_job", Closed)
EXTEND = Opt("outbox/extend_job", Closed)
RETRY = Opt("outbox/retry_job", Closed)
BURY = Opt("outbox/bury_job", Closed)
DUE = Many("outbox/due_jobs", Due)


async def claim(pg: Postgres, lease: Lease) -> Job | None:
    """The row, now this attempt's; None when it is done, not due, or another's."""
    return await CLAIM(pg, lease.outbox_id, lease.attempt_id, lease.lease_s)


async def extend(pg: Postgres, lease: Lease) -> bool:
    """The attempt keeps its row; False when it is no longer its own."""
    return await EXTEND(pg, lease.outbox_id, lease.attempt_id, lease.lease_s) is not None


async def finish(pg: Postgres, lease: Lease) -> bool:
    return await FINISH(pg, lease.outbox_id, lease.attempt_id) is not None


async def retry(pg: Postgres, lease: Lease, delay_s: float, error: str) -> bool:
    """The row is nobody's again, and due after the delay."""
    return await RETRY(pg, lease.outbox_id, lease.attempt_id, int(delay_s * 1000), error) is not None


async def bury(pg: Postgres, lease: Lease, error: str) -> bool:
    """The row is a dead letter, kept with its payload and error for a human."""
    return await BURY(pg, lease.outbox_id, lease.attempt_id, error) is not None


async def due(pg: Postgres, *, grace_ms: int, size: int) -> list[Due]:
    """Rows that should have started by now and are nobody's."""
    return await DUE(pg, grace_ms, size)


def delay_s(attempts: int) -> float:
    """How long to wait after so many attempts: full jitter, so that a herd of retries spreads."""
    ceiling = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** max(0, attempts - QUICK_TRIES))
    return random.uniform(0.1, ceiling)  # noqa: S311  (spreads load, guards nothing)
