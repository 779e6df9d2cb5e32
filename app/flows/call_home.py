"""Call home: a seller's own system hears of an event, once at least, or is given up after days of trying.

Read the endpoint → sign → one guarded POST → one statement that says how it went. Dies before the statement: the call
is made again with the same id, by which its receiver knows it. The address is a stranger's: what it may be, and how
much of its answer is read, app/base/target.py and app/infra/outbound.py say.
"""

import random
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import structlog

from app.base import clock
from app.base.lease import Lease
from app.domain import endpoints, outbox
from app.errors import NotFound, ProviderDown
from app.infra.outbound import Crowded
from app.shop import Shop

log = structlog.get_logger(__name__)

# After the first try, as Standard Webhooks advises; each up to a tenth longer. Then the row is a dead letter.
WAITS_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
TRIES = len(WAITS_S) + 1
TIMEOUT_S = 25  # of an attempt: the call's own 15 s, and what is read and written around it
CROWDED_S = (3.0, 10.0)  # until it is looked at again, when too many calls are under way

GONE = 410


class Event(msgspec.Struct, frozen=True):
    """What an endpoint hears: the body of the call."""

    type: str
    timestamp: str
    data: dict[str, Any]


class Call(msgspec.Struct, frozen=True):
    """What the hook job is told."""

    endpoint_id: UUID
    event_id: str
    event: Event


_call = msgspec.json.Decoder(Call)


async def call(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """The endpoint has heard, or is disabled and the call given up. Raises: ProviderDown: tried again later."""
    told, pg = job.read(_call), shop.deps.pg
    target = await endpoints.target(pg, told.endpoint_id)
    if target is None or target.disabled_why:
        await outbox.bury(pg, lease, f"the webhook is disabled: {target.disabled_why}" if target else "no webhook")
        return
    if shop.deps.sealer is None:
        raise NotFound("no goods keys: nothing can be signed")
    facts = {"webhook_id": str(told.endpoint_id), "event_id": told.event_id, "attempt": job.attempts}
    body = msgspec.json.encode(told.event)
    secrets = endpoints.opened(shop.deps.sealer, told.endpoint_id, target)
    headers = endpoints.signed(secrets, told.event_id, clock.unix_s(), body)
    try:
        reply = await shop.deps.outbound.post(
            target.url, body, headers | {"Content-Type": "application/json"}, party=f"seller:{target.seller_id}"
        )
    except Crowded:
        await endpoints.postpone(pg, lease, random.uniform(*CROWDED_S))  # noqa: S311  (spreads load, guards nothing)
        return
    except ProviderDown:
        await _failed(shop, told, target, gone=False)
        raise
    if 200 <= reply.status < 300:
        await endpoints.hear(pg, lease, told.endpoint_id)
        log.info("webhook heard", status=reply.status, **facts)
        return
    await _failed(shop, told, target, gone=reply.status == GONE)
    if reply.status == GONE:
        await outbox.bury(pg, lease, "answered 410: the webhook is disabled")
        return
    raise ProviderDown(f"answered {reply.status}", retry_after_s=reply.retry_after_s)


async def _failed(shop: Shop, told: Call, target: endpoints.Target, *, gone: bool) -> None:
    # The host alone: what follows it may be the endpoint's own secret.
    alert = msgspec.json.encode({"endpoint": urlsplit(target.url).hostname or ""}).decode()
    why = await endpoints.fail(shop.deps.pg, told.endpoint_id, gone=gone, alert=alert)
    if why:
        log.warning("webhook disabled", webhook_id=str(told.endpoint_id), why=why)
