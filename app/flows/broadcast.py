"""Broadcast: admins write to everybody; a job sends it in turns, at the bot's pace and behind all other messages.

One message is under way at a time, and the statement that counts it moves the cursor: a worker that is killed between
the two has one message sent again, to one user.
"""

from contextlib import suppress
from time import monotonic
from uuid import UUID

import msgspec
import structlog

from app.base import prose
from app.base.ending import to_the_end
from app.base.lease import Lease
from app.channels.telegram import texts
from app.domain import broadcasts, outbox
from app.errors import Conflict, Forbidden, Malformed, NotFound, ProviderDown, RedisDown
from app.infra.messenger import Messenger, Sent
from app.shop import Shop

log = structlog.get_logger(__name__)

MAX_PAGE = 100
TURN_S = 10.0  # of one attempt; with the longest wait for a place and for Telegram it is less than TORG_JOB_TIMEOUT_S
CHUNK = 100  # users read at a time
LONG_S = 60  # that Telegram makes a chat wait: then the broadcast goes on without it

OUTCOMES: dict[Sent, broadcasts.Outcome] = {
    Sent.DELIVERED: "sent",
    Sent.BLOCKED: "blocked",
    Sent.REFUSED: "failed",
}


class Owed(msgspec.Struct, frozen=True):
    """What the job is told."""

    broadcast_id: int


_owed = msgspec.json.Decoder(Owed)
_texts = msgspec.json.Decoder(dict[str, str])


async def create(shop: Shop, user_id: int, said: dict[str, str], audience: str) -> broadcasts.Broadcast:
    """The broadcast, under way. Raises: Forbidden, Malformed; Conflict while the same one is under way."""
    return await _get(shop, user_id, await _made(shop, user_id, said, audience))


async def approve(shop: Shop, user_id: int, draft: UUID, text: str, audience: str) -> broadcasts.Drafted:
    """What has become of the draft, by this call or an earlier one: a broadcast that is sent, or is cancelled.

    `audience`: "none" cancels it. Raises: Forbidden, Malformed; Conflict while the same one is under way.
    """
    said, state = dict.fromkeys(texts.LANGUAGES, text), "cancelled" if audience == "none" else "running"
    with suppress(Conflict):  # with an earlier press of it, or with another broadcast
        await _made(shop, user_id, said, "all" if audience == "none" else audience, draft, state)
    found = await broadcasts.drafted(shop.deps.pg, draft)
    if found is None:
        raise Conflict("the same broadcast is under way")
    return found


async def _made(
    shop: Shop, user_id: int, said: dict[str, str], audience: str, draft: UUID | None = None, state: str = "running"
) -> int:
    for language, text in said.items():
        if not text.strip() or prose.units(text) > texts.MAX_LENGTH:
            raise Malformed(f"texts.{language}: 1 to {texts.MAX_LENGTH} characters, as Telegram counts them")
    done = await broadcasts.create(shop.deps.pg, user_id, said, audience, draft=draft, state=state)
    if done.word == "forbidden":
        raise Forbidden("only admins may do this")
    if done.id is None:
        raise Conflict("the same broadcast is under way")
    if done.outbox_id is not None:
        await _ring(shop, done.outbox_id, 0)
    return done.id


async def move(shop: Shop, user_id: int, broadcast_id: int, state: str) -> broadcasts.Broadcast:
    """The broadcast, in this state. Raises: Forbidden, NotFound; Conflict when it is over."""
    done = await broadcasts.move(shop.deps.pg, user_id, broadcast_id, state)
    match done.word:
        case "forbidden":
            raise Forbidden("only admins may do this")
        case "missing":
            raise NotFound("no such broadcast")
        case "ended":
            raise Conflict(f"the broadcast is {done.was}", state=done.was)
    if done.outbox_id is not None:
        await _ring(shop, done.outbox_id, done.turn or 0)
    return await _get(shop, user_id, broadcast_id)


async def send(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """As many users as one turn allows have the message; the next turn is owed, until all have had theirs.

    Raises: ProviderDown: the job goes on later, at the same user.
    """
    broadcast_id = job.read(_owed).broadcast_id
    work = await broadcasts.work(shop.deps.pg, broadcast_id)
    if shop.crier is None or work is None:
        raise NotFound("no bot or no such broadcast: nobody can be told")
    ends_s, after, state = monotonic() + TURN_S, work.cursor_user_id, work.state
    said, all_told, late = _texts.decode(work.texts), False, False
    while state == "running" and not (all_told or late):
        people = await broadcasts.recipients(shop.deps.pg, broadcast_id, after=after, size=CHUNK)
        all_told = not people
        for one in people:
            # A worker that stops lets the message under way be counted: otherwise it would be sent again.
            told = await to_the_end(_tell(shop, shop.crier, lease, broadcast_id, one, said))
            if told is None:
                log.warning("broadcast goes on elsewhere", broadcast_id=broadcast_id)
                return
            after, state, late = one.id, told, monotonic() >= ends_s
            if state != "running" or late:
                break
    done = await broadcasts.end_turn(shop.deps.pg, lease, broadcast_id, all_told=all_told)
    if done and done.state == "owed":
        await _ring(shop, lease.outbox_id, done.turn)
    elif done:
        log.info("broadcast ended", broadcast_id=broadcast_id, all_told=all_told)


async def _tell(
    shop: Shop, crier: Messenger, lease: Lease, broadcast_id: int, to: broadcasts.Recipient, said: dict[str, str]
) -> str | None:
    """The user has the message, or cannot be told, and is counted: the broadcast's state now."""
    try:
        outcome = OUTCOMES[await crier.send(to.telegram_id, said.get(texts.language(to.language), said["en"]))]
    except ProviderDown as error:
        if error.facts.get("whose") != "chat" or (error.retry_after_s or 0) <= LONG_S:
            raise
        outcome = "failed"
    return await broadcasts.count(shop.deps.pg, lease, broadcast_id, to.id, outcome)


async def _get(shop: Shop, user_id: int, broadcast_id: int) -> broadcasts.Broadcast:
    found = await broadcasts.get(shop.deps.pg, user_id, broadcast_id)
    if found is None:
        raise NotFound("no such broadcast")
    return found


async def _ring(shop: Shop, outbox_id: int, turn: int) -> None:
    try:
        await shop.deps.queue.ring(outbox_id, turn)
    except RedisDown as error:
        log.warning("not rung, the relay will", outbox_id=outbox_id, error=str(error))
