"""Admin: webhooks, for sellers (their own) and admins (all): addresses that hear what becomes of orders."""

from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from app.base.ids import parse_id
from app.base.target import MAX_URL
from app.domain import endpoints
from app.errors import Malformed, NotFound
from app.flows import curate, subscribe
from app.web.admin import acting, seen
from app.web.bodies import Id, exact
from app.web.handler import Req, TheShop
from app.web.params import MAX_ID, Cursor

Url = Annotated[str, Meta(max_length=MAX_URL)]
Type = Literal[
    "order.paid",
    "order.delivered",
    "order.cancelled",
    "order.expired",
    "order.refunded",
    "order.status",
    "conversation.message",
    "conversation.escalated",
]  # fmt: skip  (endpoints.TYPES)
Types = Annotated[list[Type], Meta(max_length=50)]

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
NOBODY = UUID(int=0)


class NewWebhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to call, and which types of events it wants (none: all). Sellers may leave out `seller_id`; it is final."""

    url: Url
    types: Types = []
    seller_id: Id | None = None


class WebhookEdit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to change: fields that are left out stay. `version` (or `If-Match`) is the one that you have seen."""

    version: Annotated[int, Meta(ge=1, le=MAX_ID)] | UnsetType = UNSET
    url: Url | UnsetType = UNSET
    types: Types | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class ReplayWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event by its id, heard or not; or all since a moment that were not heard. Exactly one of the two."""

    event_id: Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,80}$(?!\n)")] | None = None
    since: Annotated[datetime, Meta(tz=True)] | None = None


class Webhook(msgspec.Struct, frozen=True):
    """A webhook as its staff see it. `secret` is there once: when it is made or rotated."""

    id: UUID
    seller_id: int
    url: str
    types: list[str]
    enabled: bool
    disabled_at: datetime | None
    disabled_why: str | None
    failing_since: datetime | None
    heard_at: datetime | None
    former_secret_until: datetime | None
    version: int
    created_at: datetime
    secret: str | UnsetType = UNSET


class WebhookList(msgspec.Struct, frozen=True):
    webhooks: list[Webhook]
    next_cursor: str | None


class Delivery(msgspec.Struct, frozen=True):
    """One event for one webhook; `state`: owed (tried at `next_at`), done, dead (given up), dropped (by an admin)."""

    event_id: str
    state: str
    attempts: int
    created_at: datetime
    next_at: datetime | None
    done_at: datetime | None
    last_error: str
    event: msgspec.Raw


class DeliveryList(msgspec.Struct, frozen=True):
    """The newest first."""

    deliveries: list[Delivery]
    next_cursor: str | None


class OnItsWay(msgspec.Struct, frozen=True):
    event_id: str


class Replayed(msgspec.Struct, frozen=True):
    """How many calls will be made again, at most 1000 of one request."""

    replayed: int


@get("/api/admin/webhooks", limits=("address", "admin"))
async def list_webhooks(
    request: Req,
    shop: TheShop,
    cursor: Annotated[str, QueryParameter(max_length=36)] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=subscribe.MAX_PAGE)] = 50,
) -> WebhookList:
    """Your webhooks, disabled ones too."""
    session = acting(request, shop)
    after = parse_id(cursor) if cursor else NOBODY
    if after is None:
        raise Malformed("cursor: as the page before gave it")
    found = await endpoints.page(shop.deps.pg, session.user_id, after=after, size=limit + 1)
    if not found:
        await curate.require_staff(shop, session.user_id)
    more = len(found) > limit
    return WebhookList([_webhook(one) for one in found[:limit]], str(found[limit - 1].id) if more else None)


@post("/api/admin/webhooks", limits=("address", "admin"), status_code=201)
async def create_webhook(request: Req, data: JSONBody[NewWebhook], shop: TheShop) -> Response[Webhook]:
    """A new webhook; keep its secret, no answer shows it again."""
    session = acting(request, shop)
    body = await exact(request, NewWebhook)
    made, secret = await subscribe.create(shop, session.user_id, body.seller_id, body.url, list(body.types))
    return _answer(made, secret, status=201)


@get("/api/admin/webhooks/{webhook_id:str}", limits=("address", "admin"))
async def show_webhook(request: Req, webhook_id: FromPath[str], shop: TheShop) -> Response[Webhook]:
    """One of your webhooks; its `ETag` is its version."""
    session = acting(request, shop)
    return _answer(await subscribe.find(shop, session.user_id, _id(webhook_id)))


@patch("/api/admin/webhooks/{webhook_id:str}", limits=("address", "admin"))
async def change_webhook(
    request: Req, webhook_id: FromPath[str], data: JSONBody[WebhookEdit], shop: TheShop
) -> Response[Webhook]:
    """The fields that you send are changed, unless somebody changed the webhook after the version that you name."""
    session = acting(request, shop)
    body = await exact(request, WebhookEdit)
    version = seen(request, body.version)
    fields = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
    fields.pop("version", None)
    return _answer(await subscribe.change(shop, session.user_id, _id(webhook_id), version, fields))


@delete("/api/admin/webhooks/{webhook_id:str}", limits=("address", "admin"), status_code=204)
async def delete_webhook(request: Req, webhook_id: FromPath[str], shop: TheShop) -> None:
    """It is called no more; what it is still owed is given up."""
    session = acting(request, shop)
    await subscribe.delete(shop, session.user_id, _id(webhook_id))


@post("/api/admin/webhooks/{webhook_id:str}/secret", limits=("address", "admin"), status_code=201)
async def rotate_secret(request: Req, webhook_id: FromPath[str], shop: TheShop) -> Response[Webhook]:
    """A new secret signs from now on; for 24 hours the one before it signs too."""
    session = acting(request, shop)
    rotated, secret = await subscribe.rotate(shop, session.user_id, _id(webhook_id))
    return _answer(rotated, secret, status=201)


@get("/api/admin/webhooks/{webhook_id:str}/deliveries", limits=("address", "admin"))
async def list_deliveries(
    request: Req,
    webhook_id: FromPath[str],
    shop: TheShop,
    cursor: Cursor = "",
    limit: Annotated[int, QueryParameter(ge=1, le=subscribe.MAX_PAGE)] = 50,
) -> DeliveryList:
    """What this webhook was sent and is owed, how often it was tried, and why it failed."""
    session = acting(request, shop)
    before = int(cursor or MAX_ID)
    found = await subscribe.calls(shop, session.user_id, _id(webhook_id), before=before, size=limit + 1)
    more = len(found) > limit
    return DeliveryList([_delivery(one) for one in found[:limit]], str(found[limit - 1].id) if more else None)


@post("/api/admin/webhooks/{webhook_id:str}/replay", limits=("address", "admin"), status_code=202)
async def replay_deliveries(
    request: Req, webhook_id: FromPath[str], data: JSONBody[ReplayWish], shop: TheShop
) -> Replayed:
    """Calls are made again, under the ids that they had."""
    session = acting(request, shop)
    body = await exact(request, ReplayWish)
    if (body.event_id is None) == (body.since is None):
        raise Malformed("send event_id or since")
    if body.since is not None and body.since < EARLIEST:
        raise Malformed("since: absurdly far away")
    endpoint_id = _id(webhook_id)
    return Replayed(await subscribe.replay(shop, session.user_id, endpoint_id, body.event_id or "", body.since))


@post("/api/admin/webhooks/{webhook_id:str}/test", limits=("address", "admin"), status_code=202)
async def try_webhook(request: Req, webhook_id: FromPath[str], shop: TheShop) -> OnItsWay:
    """A `webhook.test` is on its way; its delivery says what came of it."""
    session = acting(request, shop)
    return OnItsWay(await subscribe.try_out(shop, session.user_id, _id(webhook_id)))


def _id(text: str) -> UUID:
    known = parse_id(text)
    if known is None:
        raise NotFound("no such webhook")
    return known


def _answer(found: endpoints.Endpoint, secret: str | UnsetType = UNSET, status: int = 200) -> Response[Webhook]:
    headers = {"ETag": f'"{found.version}"'}
    if status == 201:
        headers["Location"] = f"/api/admin/webhooks/{found.id}"
    return Response(_webhook(found, secret), status_code=status, headers=headers)


def _webhook(found: endpoints.Endpoint, secret: str | UnsetType = UNSET) -> Webhook:
    return Webhook(
        id=found.id, seller_id=found.seller_id, url=found.url, types=found.types, enabled=found.disabled_at is None,
        disabled_at=found.disabled_at, disabled_why=found.disabled_why, failing_since=found.failing_since,
        heard_at=found.heard_at, former_secret_until=found.former_until, version=found.version,
        created_at=found.created_at, secret=secret,
    )  # fmt: skip


def _delivery(one: endpoints.Listed) -> Delivery:
    next_at = one.run_at if one.state == "owed" else None
    return Delivery(
        one.event_id, one.state, one.attempts, one.created_at, next_at, one.done_at, one.last_error,
        msgspec.Raw(one.event.encode()),
    )  # fmt: skip
