"""The post: mails that are due are taken ten at a time, sent beside one another, and each closed by what became of it.

One batch after another until nothing is due, then at the next ring, or a look each second. Any number of workers drain
the line together (`FOR UPDATE SKIP LOCKED`). A worker that dies leaves its rows to whoever finds their lease over, and
what it had sent is sent again, with the same Message-ID (docs/email.md).
"""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

import structlog

from app.base import tally
from app.base.ids import new_id
from app.base.lease import Lease
from app.domain import email, outbox
from app.errors import PostgresDown, ProviderDown
from app.flows import mail
from app.infra import observe
from app.infra.smtp import Accepted, Deferred, Refused
from app.shop import Shop

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
KIND = "email"  # in logs and metrics


class Post:
    """The mail of one worker; one batch is under way at a time."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def wake(self) -> None:
        """There may be a mail."""
        self._rung.set()

    async def work(self, shop: Shop, told: asyncio.Event) -> None:
        """Mails are sent until the worker is told to stop. Cancelled it gives back what is under way."""
        while not told.is_set():
            self._rung.clear()
            rest_s = LOOK_EVERY_S
            try:
                rest_s = max(rest_s, await drain(shop, told))
                await mail.on(shop).tidy()
            except PostgresDown as error:
                log.warning("mails not looked for", error=str(error))
            except Exception as error:  # a defect; mails that are taken are free again when their lease is over
                log.error("mail drain broke off", exc_info=error)
            await _first(told, None if rest_s > LOOK_EVERY_S else self._rung, within_s=rest_s)


async def drain(shop: Shop, told: asyncio.Event | None = None) -> float:
    """What is due was tried, until nothing is, or the mail server is to be left alone: so long.

    Raises: PostgresDown.
    """
    while not (told and told.is_set()):
        attempt_id, lease_s = new_id(), shop.deps.settings.lease_s
        batch = await email.claim(shop.deps.pg, attempt_id, lease_s, mail.BATCH)
        if not batch:
            return 0.0
        alone_s = await _sent(shop, batch, attempt_id, lease_s)
        if alone_s:
            return alone_s
    return 0.0


async def _sent(shop: Shop, batch: Sequence[email.Due], attempt_id: UUID, lease_s: int) -> float:
    """Every mail of the batch is closed, or free again; how long the server is to be left alone."""
    ids = [due.id for due in batch]
    alive = asyncio.create_task(_keep(shop, ids, attempt_id, lease_s))
    done = False
    try:
        written = await mail.write(shop, batch)
        leases = [Lease(outbox_id, attempt_id, lease_s) for outbox_id in ids]
        tries = [_one(shop, lease, due, one) for lease, due, one in zip(leases, batch, written, strict=True)]
        ended = await asyncio.gather(
            *tries, return_exceptions=True
        )  # so that it waits for all, also when it is cancelled
        done = True
        return max(_wait_s(one) for one in ended)
    finally:
        alive.cancel()
        if not done:  # told to stop, or Postgres is away: what is still ours is free at once, and keeps its tries
            await asyncio.shield(_give_back(shop, ids, attempt_id))


def _wait_s(ended: float | BaseException) -> float:
    """Raises: what is a defect; the mail is free again when its lease is over."""
    if isinstance(ended, BaseException):
        raise ended
    return ended


async def _one(shop: Shop, lease: Lease, due: email.Due, written: mail.Written) -> float:
    """The mail is closed or free again. Returns how long the server is to be left alone."""
    tally.JOB_LAG.of(KIND).observe(due.late_ms / 1000)
    started = time.monotonic()
    try:
        return await _tried(shop, lease, due, written)
    except PostgresDown as down:  # what became of it cannot be written
        log.warning("lease runs out by itself", error=str(down), **_facts(due))
        return LOOK_EVERY_S
    finally:
        tally.JOB_SECONDS.of(KIND).observe(time.monotonic() - started)


async def _tried(shop: Shop, lease: Lease, due: email.Due, written: mail.Written) -> float:
    """Raises: PostgresDown."""
    if due.orphaned >= outbox.MAX_ATTEMPTS:
        return await _bury(shop, lease, due, f"its worker died {due.orphaned} times in a row")
    try:
        if isinstance(written, Exception):
            raise written
        outcome = await mail.send(shop, written) if written else Accepted()
    except ProviderDown as error:
        if "circuit" in error.facts:  # nobody was asked, so it was no try
            alone_s = float(error.retry_after_s or LOOK_EVERY_S)
            await email.give_back(shop.deps.pg, [due.id], lease.attempt_id, alone_s)
            tally.JOBS.add(KIND, "returned")
            return alone_s
        return await _again(shop, lease, due, str(error), patient=True)
    except outbox.BadPayload as error:
        return await _bury(shop, lease, due, repr(error))
    except Exception as error:  # a defect, of this mail alone
        log.error("mail not written", exc_info=error, **_facts(due))
        return await _again(shop, lease, due, repr(error))
    match outcome:
        case Accepted():
            await outbox.finish(shop.deps.pg, lease)
            tally.JOBS.add(KIND, "done")
            log.info("mail sent" if written else "mail that nobody wants any more", **_facts(due))
            return 0.0
        case Deferred(said):
            return await _again(shop, lease, due, said)
        case Refused(said):
            return await _bury(shop, lease, due, said)


async def _again(shop: Shop, lease: Lease, due: email.Due, error: str, *, patient: bool = False) -> float:
    """Free again after a wait, with the error; a server that is away buries no mail, however often it was met."""
    if due.attempts >= mail.TRIES and not patient:
        return await _bury(shop, lease, due, error)
    delay_s = mail.WAITS.delay_s(due.attempts)
    tally.JOBS.add(KIND, "retried")
    said = {"error": error} if patient else {}  # what is said of one mail often holds the address
    log.warning("mail will be tried again", delay_s=round(delay_s, 1), **said, **_facts(due))
    await outbox.retry(shop.deps.pg, lease, delay_s, _masked(shop, error))
    return 0.0


async def _bury(shop: Shop, lease: Lease, due: email.Due, error: str) -> float:
    """A human must look: what the server said is in the row."""
    tally.JOBS.add(KIND, "dead")
    log.error("mail is a dead letter", **_facts(due))
    await outbox.bury(shop.deps.pg, lease, _masked(shop, error))
    return 0.0


async def _give_back(shop: Shop, ids: list[int], attempt_id: UUID) -> None:
    try:
        mails = await email.give_back(shop.deps.pg, ids, attempt_id)
        log.info("mails given back", mails=mails)
    except PostgresDown as down:
        log.warning("leases run out by themselves", mails=len(ids), error=str(down))


async def _keep(shop: Shop, ids: list[int], attempt_id: UUID, lease_s: int) -> None:
    """The leases of what is not closed yet live as long as this task."""
    while True:
        await asyncio.sleep(lease_s / 3)
        try:
            await email.extend(shop.deps.pg, ids, attempt_id, lease_s)
        except PostgresDown as error:
            log.warning("leases not renewed", mails=len(ids), error=str(error))


async def _first(told: asyncio.Event, rung: asyncio.Event | None, *, within_s: float) -> None:
    """One of the two has happened, or the time is over."""
    waits = [asyncio.create_task(event.wait()) for event in (told, rung) if event]
    try:
        await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _masked(shop: Shop, error: str) -> str:
    return observe.masker(shop.deps.settings)(error)


def _facts(due: email.Due) -> dict[str, object]:
    return {"outbox_id": due.id, "kind": KIND, "attempt": due.attempts}
