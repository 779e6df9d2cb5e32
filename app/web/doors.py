"""Doors of the chat channels: verified, in its conversation's buffer with one Lua call, answered at once (B8, E1).

Redis away is 503: the channel comes again. What comes again is told apart by the channel's own id of it.
"""

from collections.abc import Sequence
from hmac import compare_digest

import structlog
from litestar import MediaType, Response, get, post
from litestar.types import ControllerRouterHandler

from app.base import clock
from app.channels.telegram import updates
from app.channels.whatsapp import wire
from app.errors import BadSignature, Forbidden, RedisDown
from app.flows import hear
from app.flows.hear import Channels, Message
from app.settings import Settings
from app.shop import Shop
from app.web.handler import Req, TheShop

log = structlog.get_logger(__name__)

SECRET, SIGNATURE = b"x-telegram-bot-api-secret-token", b"x-hub-signature-256"
WHATSAPP_BODY_BYTES = 3 * 1024 * 1024  # the most that Meta sends (PROTOCOLS §6)


def handlers(settings: Settings) -> list[ControllerRouterHandler]:
    """The routes, where there is something to verify by."""
    ours = hear.doors(settings)
    found: list[ControllerRouterHandler] = [hear_telegram] if "telegram" in ours else []
    if "whatsapp" in ours:
        found += [hear_whatsapp, *([prove_whatsapp] if settings.whatsapp_verify_token else [])]
    return found


@post("/api/webhook", status_code=200, limits=("webhooks",))
async def hear_telegram(request: Req, shop: TheShop) -> Response[bytes]:
    """An update of the bot, proved by `X-Telegram-Bot-Api-Secret-Token`.

    The answer may hold a call of the Bot API: "typing" for words, `answerCallbackQuery` for a button.
    401 for a wrong secret, and nothing is heard; 503 when it could not be kept: Telegram comes again.
    """
    settings = shop.deps.settings
    if not compare_digest(_header(request, SECRET), settings.telegram_webhook_secret.encode()):
        raise BadSignature("not the secret token of this bot's webhook")
    told = updates.read(await request.body(), clock.unix_s())
    channel = told and _channels(request).named("telegram", hear.doors(settings)["telegram"])
    if not told or not channel:
        return _said(updates.OK)
    (new,) = await _heard(shop, [(channel, told.peer, told.heard)])
    return _said(told.reply if new else updates.OK)


@get("/api/webhook/whatsapp", media_type=MediaType.TEXT, limits=("webhooks",))
async def prove_whatsapp(request: Req, shop: TheShop) -> Response[str]:
    """Meta asks, once, whether this address is ours: its challenge back for our verify token, else 403."""
    query = dict(request.query_params.multi_items())
    challenge = wire.challenge(query, shop.deps.settings.whatsapp_verify_token)
    if challenge is None:
        raise Forbidden("not our verify token")
    return Response(challenge, media_type=MediaType.TEXT, headers={"X-Content-Type-Options": "nosniff"})


@post("/api/webhook/whatsapp", status_code=200, limits=("webhooks",), request_max_body_size=WHATSAPP_BODY_BYTES)
async def hear_whatsapp(request: Req, shop: TheShop) -> Response[bytes]:
    """Messages of WhatsApp users, and what became of ours, proved by `X-Hub-Signature-256`.

    401 for a wrong signature, and nothing is heard; 400 for what is no webhook of theirs; 503 when not all of it could
    be kept: Meta comes again. A part that cannot be read is logged and left out: again it would be no better.
    """
    body = await request.body()
    signature = _header(request, SIGNATURE).decode("latin-1")
    if not wire.signed(body, signature, shop.deps.settings.whatsapp_app_secret):
        raise BadSignature("the body was not signed with this app's secret")
    told = wire.read(body)
    if told.odd:
        log.error("a part of a WhatsApp webhook cannot be read", parts=len(told.odd), first=told.odd[0])
    for status in told.failed:
        log.warning("WhatsApp message not delivered", external_id=status.external_id, code=status.code)
    ours = hear.doors(shop.deps.settings)["whatsapp"]  # of the account's numbers, the one that replies leave by
    for other in {phone_id for phone_id, _, _ in told.messages} - {ours}:
        log.warning("a channel is not heard", channel="whatsapp", external_id=other, why="not this shop's number")
    channel = _channels(request).named("whatsapp", ours) if told.messages else None
    if channel:
        await _heard(shop, [(channel, peer, said) for phone_id, peer, said in told.messages if phone_id == ours])
    return _said(updates.OK)


async def _heard(shop: Shop, messages: Sequence[Message]) -> list[bool]:
    try:
        return await hear.hear(shop, messages)
    except RedisDown:
        raise RedisDown("not heard while Redis is out", retry_after_s=1) from None


def _channels(request: Req) -> Channels:
    found: Channels = request.app.state.channels
    return found


def _header(request: Req, name: bytes) -> bytes:
    """The header's bytes; of one that is sent twice both, so that no proof hides behind another."""
    return b", ".join(value for known, value in request.scope["headers"] if known == name)


def _said(body: bytes) -> Response[bytes]:
    return Response(body, media_type=MediaType.JSON)
