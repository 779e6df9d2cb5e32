"""The outbox: whatever must happen, written in the statement that owes it. The row is the job (DESIGN law 2).

An attempt claims a row with a lease; its id fences every effect, so a worker that lost its lease writes nothing.
"""

import random
from typing import TypeVar

import msgspec

from app.base.lease import Lease
from app.infra.sql import Many, Opt, Postgres

MAX_ATTEMPTS = 15  # of what fails for reasons of its own; an outage of others never buries a row

T = TypeVar("T")


class Growing(msgspec.Struct, frozen=True):
    """Some tries soon after one another, then waits that double; full jitter, so that a herd of retries spreads."""

    first_s: float = 5.0
    quick_tries: int = 3  # B3: three tries, at most five seconds apart, before the waits grow
    most_s: float = 900.0

    def delay_s(self, attempts: int) -> float:
        """How long to wait after so many attempts."""
        doubled = min(30, max(0, attempts - self.quick_tries))
        ceiling = min(self.most_s, self.first_s * 2.0**doubled)
        return random.uniform(min(0.1, ceiling), ceiling)  # noqa: S311  (spreads load, guards nothing)


class Ladder(msgspec.Struct, frozen=True):
    """A wait for each try, as a protocol asks; each up to `jitter` longer. The last one stands for all after it."""

    waits_s: tuple[float, ...]
    jitter: float = 0.1

    def delay_s(self, attempts: int) -> float:
        """How long to wait after so many attempts."""
        wait_s = self.waits_s[min(max(attempts, 1), len(self.waits_s)) - 1]
        return wait_s * random.uniform(1.0, 1.0 + self.jitter)  # noqa: S311  (spreads load, guards nothing)


GROWING = Growing()


class BadPayload(Exception):
    """The row's payload is not what its kind reads: no attempt can mend that."""


class Job(msgspec.Struct, frozen=True):
    """A claimed row."""

    id: int
    kind: str
    payload: str  # JSON
    attempts: int  # this one included
    orphaned: int = 0  # of those before it, in a row, whose worker died
    late_ms: int = 0  # since it was due

    def read(self, decoder: msgspec.json.Decoder[T]) -> T:
        """What the job is told. Raises: BadPayload, which no answer of a gateway can be mistaken for."""
        try:
            return decoder.decode(self.payload)
        except (msgspec.DecodeError, UnicodeError) as error:  # ValidationError is a DecodeError
            raise BadPayload(str(error)) from error


class Owed(msgspec.Struct, frozen=True):
    """A row that the handler's own statement made and leased to the same attempt: it can go on at once."""

    id: int
    kind: str
    payload: str


class Closed(msgspec.Struct, frozen=True):
    """A row that is done or dead, and the one of its aggregate whose turn it is now; a handler may hand it on."""

    id: int
    next_id: int | None


class Kept(msgspec.Struct, frozen=True):
    id: int


class Due(msgspec.Struct, frozen=True):
    """A row that should have started by now."""

    id: int
    turn: int  # for its ring: a number that no earlier ring of this row had
    overdue_ms: int


CLAIM = Opt("outbox/claim_job", Job)
FINISH = Opt("outbox/finish_job", Closed)
EXTEND = Opt("outbox/extend_job", Kept)
RETRY = Opt("outbox/retry_job", Kept)
RETURN = Opt("outbox/return_job", Kept)
BURY = Opt("outbox/bury_job", Closed)
DUE = Many("outbox/due_jobs", Due)


async def claim(pg: Postgres, lease: Lease) -> Job | None:
    """The row, now this attempt's; None when it is done, not due, another's, or not its turn in its aggregate."""
    return await CLAIM(pg, lease.outbox_id, lease.attempt_id, lease.lease_s)


async def extend(pg: Postgres, lease: Lease) -> bool:
    """The attempt keeps its row; False when it is no longer its own."""
    return await EXTEND(pg, lease.outbox_id, lease.attempt_id, lease.lease_s) is not None


async def finish(pg: Postgres, lease: Lease) -> Closed | None:
    """The row is done; None when it is no longer this attempt's."""
    return await FINISH(pg, lease.outbox_id, lease.attempt_id)


async def retry(pg: Postgres, lease: Lease, delay_s: float, error: str) -> bool:
    """The row is nobody's again, and due after the delay."""
    return await RETRY(pg, lease.outbox_id, lease.attempt_id, int(delay_s * 1000), error) is not None


async def give_back(pg: Postgres, lease: Lease) -> bool:
    """The row is nobody's again at once, and the attempt that was cut is not counted."""
    return await RETURN(pg, lease.outbox_id, lease.attempt_id) is not None


async def bury(pg: Postgres, lease: Lease, error: str) -> Closed | None:
    """The row is a dead letter, kept with its payload and error for a human."""
    return await BURY(pg, lease.outbox_id, lease.attempt_id, error)


async def due(pg: Postgres, *, grace_ms: int, size: int) -> list[Due]:
    """Rows that should have started by now and are nobody's."""
    return await DUE(pg, grace_ms, size)
