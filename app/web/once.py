"""Idempotency-Key over HTTP: the first request works, a repeat is answered with the same bytes, whatever happened.

Claim → work → keep the reply → answer. Dies before the claim: nothing happened. Dies in the work: the key is usable
when the lease ends, and Postgres knows whether the effect is there. Dies after the reply is kept: repeats get it. Only
a reply that no repeat could better is kept; a refusal changed nothing, so its key stays free.
"""

from collections.abc import Awaitable, Callable

import msgspec
import structlog
from litestar import Response

from app.domain import once
from app.domain.once import Lost, Mismatch, Replay, Running, Ticket
from app.errors import InProgress, KeyReused, Malformed, RedisDown
from app.shop import Shop
from app.web.handler import Req

log = structlog.get_logger(__name__)

MAX_KEY = 255  # characters of an Idempotency-Key


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """A final answer, as it is kept: everything that a repeat must get again."""

    status: int
    location: str
    body: bytes


class Done(msgspec.Struct, frozen=True):
    """What the work answers; `repeated` when Postgres knew the effect of an earlier request."""

    reply: Reply
    repeated: bool


Work = Callable[[str, bytes], Awaitable[Done]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Reply).decode


async def once_only(request: Req, shop: Shop, user_id: int, work: Work) -> Response[bytes]:
    """The answer of `work(key, print)`, or the one that an earlier request with this key got.

    Raises: Malformed for no key or a bad one; InProgress; KeyReused; whatever the work raises.
    """
    key = key_of(request)
    ticket = once.ticket(user_id, key, f"{request.method} {request.scope['path']}", await request.body())
    try:
        claim = await once.claim(shop.deps.redis, ticket)
    except RedisDown as error:
        # Postgres alone sees to it that there is one effect; only the equal bytes are lost.
        log.warning("key not claimed, Postgres decides", error=str(error))
        done = await work(key, ticket.print)
        return answer(done.reply, replayed=done.repeated)
    match claim:
        case Replay(reply=reply):
            return answer(_decode(reply), replayed=True)
        case Running(left_ms=left_ms):
            raise _in_progress(left_ms)
        case Mismatch():
            raise KeyReused("this Idempotency-Key belongs to another request")
    try:
        done = await work(key, ticket.print)
    except BaseException:
        await _abandon(shop, ticket)  # before the answer: the caller's next try finds the key free
        raise
    await _keep(shop, ticket, done.reply)
    return answer(done.reply, replayed=done.repeated)


def key_of(request: Req) -> str:
    """The one key of this request, bare or quoted. Raises: Malformed."""
    values = request.headers.getall("idempotency-key", [])
    if len(values) != 1:
        raise Malformed("Idempotency-Key: send exactly one")
    key = values[0].strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 1 <= len(key) <= MAX_KEY or not all("!" <= c <= "~" for c in key):
        raise Malformed(f"Idempotency-Key: 1 to {MAX_KEY} visible ASCII characters")
    return key


async def _keep(shop: Shop, ticket: Ticket, reply: Reply) -> None:
    """The reply is kept. Raises: InProgress when the lease ended meanwhile: whoever has the key now answers for it."""
    try:
        if isinstance(await once.finish(shop.deps.redis, ticket, _encode(reply)), Lost):
            raise _in_progress(0)
    except RedisDown as error:
        log.warning("reply not kept, a repeat is answered from Postgres", error=str(error))


async def _abandon(shop: Shop, ticket: Ticket) -> None:
    try:
        await once.abandon(shop.deps.redis, ticket)
    except RedisDown as error:
        log.warning("key not freed, its lease ends", error=str(error))


def _in_progress(left_ms: int) -> InProgress:
    # Most requests are done long before their lease ends.
    return InProgress(
        "a request with this Idempotency-Key is being worked on", retry_after_s=2 if left_ms > 2000 else 1
    )


def answer(reply: Reply, *, replayed: bool) -> Response[bytes]:
    """The reply over HTTP; a repeat says that it is one."""
    headers = {"Location": reply.location} if reply.location else {}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return Response(reply.body, status_code=reply.status, media_type="application/json", headers=headers)
