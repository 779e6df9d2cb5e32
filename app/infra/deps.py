"""Every outside part that a process holds, opened once and closed once."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import msgspec

from app.base import mailbox
from app.base.target import Rules
from app.infra import http as http_parts
from app.infra import llm
from app.infra.messenger import Messenger
from app.infra.outbound import Outbound
from app.infra.pipe import Pipe
from app.infra.qstash import Keys
from app.infra.queue import Queue
from app.infra.secrets import Confirmations, Offers, Sealer, Tokens
from app.infra.smtp import Smtp
from app.infra.sql import Postgres
from app.infra.whatsapp import WhatsApp
from app.settings import BadSettings, Settings


class Deps(msgspec.Struct, frozen=True, kw_only=True):
    """The parts; None where the settings leave the secret out."""

    settings: Settings
    redis: Pipe
    pg: Postgres
    queue: Queue
    http: httpx.AsyncClient
    outbound: Outbound
    qstash: Keys
    messenger: Messenger | None
    model: llm.Model | None
    whatsapp: WhatsApp | None
    smtp: Smtp | None
    confirmations: Confirmations | None
    tokens: Tokens | None
    offers: Offers | None
    sealer: Sealer | None


@asynccontextmanager
async def opened(settings: Settings, messenger: Messenger | None = None) -> AsyncIterator[Deps]:
    """The parts of `settings` and the given messenger, closed again in reverse order.

    Raises: BadSettings; PostgresDown when Postgres does not answer; Redis may come later (DESIGN law 1).
    """
    outbound, smtp = _outbound(settings), _smtp(settings)
    async with AsyncExitStack() as stack:
        pg = await Postgres.open(
            settings.database_url, pool_size=settings.pg_pool_size, timeout_ms=settings.pg_timeout_ms
        )
        stack.push_async_callback(pg.close)
        redis = Pipe(settings.redis_url, timeout_ms=settings.redis_timeout_ms)
        stack.push_async_callback(redis.aclose)
        http = await stack.enter_async_context(http_parts.client(settings.gateway_timeout_ms))
        stack.push_async_callback(outbound.aclose)
        if smtp:
            stack.push_async_callback(smtp.aclose)
        if messenger:
            stack.push_async_callback(messenger.close)
        model = llm.model(settings)
        if model:
            stack.push_async_callback(model.close)
        yield Deps(
            settings=settings,
            redis=redis,
            pg=pg,
            queue=Queue(redis),
            http=http,
            outbound=outbound,
            qstash=Keys(settings.qstash_current_key, settings.qstash_next_key),
            messenger=messenger,
            model=model,
            whatsapp=_whatsapp(settings, http),
            smtp=smtp,
            confirmations=Confirmations(settings.session_secret) if smtp and settings.session_secret else None,
            tokens=Tokens(settings.session_secret) if settings.session_secret else None,
            offers=Offers(settings.session_secret) if settings.session_secret else None,
            sealer=Sealer(settings.goods_keys) if settings.goods_keys else None,
        )


def _whatsapp(settings: Settings, http: httpx.AsyncClient) -> WhatsApp | None:
    """Our phone number; no connection is made yet."""
    phone_id, token = settings.whatsapp_phone_id, settings.whatsapp_access_token
    return WhatsApp(http, settings.whatsapp_api_url, phone_id, token) if phone_id and token else None


def _smtp(settings: Settings) -> Smtp | None:
    """The mail server; no connection is made yet."""
    if not settings.smtp_url:
        return None
    try:
        server, sender = mailbox.server(settings.smtp_url), mailbox.sender(settings.smtp_from)
    except mailbox.BadMailbox as error:
        raise BadSettings(f"TORG_SMTP_URL or TORG_SMTP_FROM: {error}") from None
    # As long as a gateway's step of two calls: a circuit's probe is given up soon after (app/shop.py).
    return Smtp(server, sender, timeout_s=2 * settings.gateway_timeout_ms / 1000)


def _outbound(settings: Settings) -> Outbound:
    try:
        return Outbound(Rules(settings.webhook_networks))
    except ValueError as error:
        raise BadSettings(f"TORG_WEBHOOK_NETWORKS: {error}") from None
