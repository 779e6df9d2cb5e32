"""Subscribe: staff say which address hears of their orders; its secret is shown once; each change is on record."""

from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

import structlog

from app.base.ids import new_id
from app.base.target import Refused, parse
from app.domain import endpoints
from app.domain.endpoints import Endpoint
from app.errors import Conflict, Forbidden, Malformed, NotFound, RedisDown
from app.flows.curate import NO_STAFF, require_staff
from app.infra.secrets import Sealer
from app.shop import Shop

log = structlog.get_logger(__name__)

MAX_PAGE = 100


async def create(shop: Shop, user_id: int, seller_id: int | None, url: str, types: list[str]) -> tuple[Endpoint, str]:
    """The new endpoint and its secret. Raises: Forbidden, NotFound, Malformed; Conflict beyond the limit."""
    _check(shop, url)
    endpoint_id, secret = new_id(), endpoints.new_secret()
    word = await endpoints.create(
        shop.deps.pg, _sealer(shop), user_id, endpoint_id, seller_id, url, _distinct(types), secret
    )
    match word:
        case "forbidden":
            raise Forbidden(NO_STAFF)
        case "no_seller":
            if seller_id is None:
                raise Malformed("seller_id: say whose orders it hears of")
            raise NotFound(f"seller {seller_id} is not here")
        case "full":
            raise Conflict(f"a seller has at most {endpoints.MOST} webhooks", limit=endpoints.MOST)
    return await find(shop, user_id, endpoint_id), secret


async def change(shop: Shop, user_id: int, endpoint_id: UUID, version: int, fields: dict[str, Any]) -> Endpoint:
    """The endpoint as it is now. Raises: Forbidden, NotFound, Malformed; Conflict with the current `version`."""
    if "url" in fields:
        _check(shop, fields["url"])
    if "types" in fields:
        fields = fields | {"types": _distinct(fields["types"])}
    changed = await endpoints.change(shop.deps.pg, user_id, endpoint_id, version, fields)
    if changed.word == "stale":
        raise Conflict("the webhook was changed meanwhile: read it again", version=changed.version)
    _check_word(changed)
    return await find(shop, user_id, endpoint_id)


async def rotate(shop: Shop, user_id: int, endpoint_id: UUID) -> tuple[Endpoint, str]:
    """The endpoint with another secret; the one before it signs too for a day. Raises: Forbidden, NotFound."""
    secret = endpoints.new_secret()
    _check_word(await endpoints.rotate(shop.deps.pg, _sealer(shop), user_id, endpoint_id, secret))
    return await find(shop, user_id, endpoint_id), secret


async def delete(shop: Shop, user_id: int, endpoint_id: UUID) -> None:
    """It is called no more. Raises: Forbidden, NotFound."""
    _check_word(await endpoints.delete(shop.deps.pg, user_id, endpoint_id))


async def try_out(shop: Shop, user_id: int, endpoint_id: UUID) -> str:
    """An event that means nothing is on its way; its id. Raises: Forbidden, NotFound; Conflict when it is disabled."""
    event_id = f"evt_test_{new_id().hex}"
    outbox_id = await endpoints.owe_test(shop.deps.pg, user_id, endpoint_id, event_id)
    if outbox_id is None:
        _refuse_disabled(await find(shop, user_id, endpoint_id))
        raise Conflict("the webhook was changed meanwhile: read it again")
    await _ring(shop, outbox_id, 0)
    return event_id


async def replay(shop: Shop, user_id: int, endpoint_id: UUID, event_id: str, since: datetime | None) -> int:
    """How many calls are owed again. Raises: Forbidden, NotFound; Conflict when it is disabled."""
    _refuse_disabled(await find(shop, user_id, endpoint_id))
    again = await endpoints.replay(shop.deps.pg, user_id, endpoint_id, event_id, since)
    if event_id and not again:
        raise NotFound("this event was not sent there, or is on its way at this moment")
    if event_id:
        await _ring(shop, again[0].id, again[0].turn)  # of many, the relay finds each within a second
    return len(again)


async def calls(shop: Shop, user_id: int, endpoint_id: UUID, *, before: int, size: int) -> list[endpoints.Listed]:
    """What the endpoint was sent, the newest first. Raises: Forbidden, NotFound."""
    await find(shop, user_id, endpoint_id)
    return await endpoints.calls(shop.deps.pg, endpoint_id, before=before, size=size)


async def find(shop: Shop, user_id: int, endpoint_id: UUID) -> Endpoint:
    """Raises: Forbidden; NotFound, for another seller's endpoint as for none."""
    found = await endpoints.find(shop.deps.pg, user_id, endpoint_id)
    if found is None:
        await require_staff(shop, user_id)
        _refuse()
    return found


def _check(shop: Shop, url: str) -> None:
    """Raises: Malformed for where nobody is sent, as far as that is known before the name is looked up."""
    try:
        shop.deps.outbound.rules.check(parse(url))
    except Refused as refused:
        raise Malformed(f"url: {refused}") from None


def _check_word(changed: endpoints.Changed) -> None:
    if changed.word == "forbidden":
        raise Forbidden(NO_STAFF)
    if changed.word == "missing":
        _refuse()


def _refuse() -> NoReturn:
    raise NotFound("no such webhook")


def _refuse_disabled(found: Endpoint) -> None:
    if found.disabled_at:
        raise Conflict("the webhook is disabled: enable it first", why=found.disabled_why)


def _distinct(types: list[str]) -> list[str]:
    """In the order of the table, each once: the same wish is always spelt the same."""
    return [type for type in endpoints.TYPES if type in types]


def _sealer(shop: Shop) -> Sealer:
    if shop.deps.sealer is None:
        raise NotFound("this shop has no goods keys: TORG_GOODS_KEYS is not set")
    return shop.deps.sealer


async def _ring(shop: Shop, outbox_id: int, turn: int) -> None:
    try:
        await shop.deps.queue.ring(outbox_id, turn)
    except RedisDown as error:
        log.warning("not rung, the relay will", outbox_id=outbox_id, error=str(error))
