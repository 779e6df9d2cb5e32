"""Wires a web process: settings in, ASGI application out. The only file that sees all floors."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import structlog
from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig

from app.base import clock
from app.base.address import Proxies
from app.base.version import VERSION
from app.flows import hear
from app.flows.follow import Streams
from app.flows.measure import Measures
from app.infra import observe
from app.settings import BadSettings, Settings
from app.shop import Shop, opened
from app.web import (
    admin,
    admin_channels,
    admin_conversations,
    admin_dead,
    admin_endpoints,
    admin_orders,
    admin_promos,
    admin_stock,
    admin_telegram,
    cart,
    chat,
    doors,
    email,
    events,
    front,
    growth,
    guards,
    health,
    hooks,
    metrics,
    money,
    moves,
    orders,
    problems,
    reviews,
    shop,
    workers,
)
from app.web.bodies import MAX_BODY_BYTES
from app.web.reply import Chats
from app.web.requests import JsonRequest, RequestId

log = structlog.get_logger(__name__)

HANDLERS = (
    shop.open_session, shop.me, shop.list_products, shop.show_product,
    email.put_email, email.show_confirmation, email.confirm_address,
    reviews.write_review, reviews.list_reviews,
    orders.place_order, orders.list_orders, orders.show_order, orders.show_goods,
    money.pay_order, money.show_balance, moves.move_order, cart.take_cart,
    hooks.payment, hooks.crystalpay,
    admin.list_admin_products, admin.create_product, admin.show_admin_product, admin.change_product,
    admin.share_content, admin.list_changes,
    admin_orders.refund_order, admin_orders.list_refunds, admin_orders.hand_over_made,
    admin_stock.add_stock, admin_stock.list_stock, admin_stock.withdraw_stock,
    admin_dead.list_dead, admin_dead.show_dead, admin_dead.replay_dead, admin_dead.drop_dead,
    admin_conversations.list_conversations, admin_conversations.show_conversation, admin_conversations.say_words,
    admin_conversations.hand_back, admin_channels.list_channels, admin_channels.change_channel,
    admin_promos.list_promos, admin_promos.create_promo, admin_promos.change_promo,
    admin_endpoints.list_webhooks, admin_endpoints.create_webhook, admin_endpoints.show_webhook,
    admin_endpoints.change_webhook, admin_endpoints.delete_webhook, admin_endpoints.rotate_secret,
    admin_endpoints.list_deliveries, admin_endpoints.replay_deliveries, admin_endpoints.try_webhook,
    admin_telegram.create_broadcast, admin_telegram.list_broadcasts, admin_telegram.move_broadcast,
    admin_telegram.list_circuits,
    growth.show_referrals, growth.show_leaderboard,
    events.open_ticket, events.stream_events, chat.chat, chat.show_chat,
    health.live, health.ready, metrics.show_metrics,
)  # fmt: skip


def create_app(settings: Settings) -> Litestar:
    """The service on these settings. Postgres must answer when it starts; Redis may come later. Raises: BadSettings."""
    observe.configure(settings)
    try:
        proxies = Proxies(settings.trusted_proxies)
    except ValueError as error:
        raise BadSettings(f"TORG_TRUSTED_PROXIES: {error}") from None
    readers = metrics.readers(settings, proxies)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with (
            opened(settings) as parts,
            aclosing(Streams(parts.deps.redis, settings.redis_url)) as streams,
            aclosing(Chats()) as chats,
            aclosing(Measures(parts, "web")) as measures,
            hear.channels(parts) as channels,
        ):
            app.state.shop = parts
            app.state.streams, app.state.chats = streams, chats
            app.state.channels = channels
            app.state.proxies, app.state.readers = proxies, readers
            app.state.callbacks = 0  # gateway callbacks being worked on
            app.state.measures = measures
            _say_what_is_off(settings)
            log.info("web is ready", gateways=sorted(parts.gateways), at=clock.now().isoformat())
            yield

    return Litestar(
        route_handlers=[*HANDLERS, *workers.handlers(settings), *doors.handlers(settings), *front.handlers()],
        dependencies={"shop": Provide(_shop, sync_to_thread=False)},
        exception_handlers={Exception: problems.respond},
        middleware=[RequestId, guards.Limited],
        request_class=JsonRequest,
        lifespan=[lifespan],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=OpenAPIConfig(title="Torg", version=VERSION, path="/schema"),
        logging_config=None,
        debug=False,
    )  # fmt: skip


def _shop(state: State) -> Shop:
    shop: Shop = state.shop
    return shop


def _say_what_is_off(settings: Settings) -> None:
    if not settings.telegram_bot_token or not settings.session_secret:
        log.warning("sign-in off", missing="TORG_TELEGRAM_BOT_TOKEN or TORG_SESSION_SECRET")
    if not settings.goods_keys:
        log.warning("goods off: nothing can be delivered or opened", missing="TORG_GOODS_KEYS")
    if not settings.smtp_url:
        log.info("e-mail off", missing="TORG_SMTP_URL")
    if not settings.telegram_webhook_secret:
        log.info("the bot is deaf", missing="TORG_TELEGRAM_WEBHOOK_SECRET")
    if not settings.whatsapp_phone_id or not settings.whatsapp_app_secret:
        log.info("WhatsApp off", missing="TORG_WHATSAPP_PHONE_ID or TORG_WHATSAPP_APP_SECRET")
    if not settings.qstash_current_key:
        log.info("signed calls of jobs off", missing="TORG_QSTASH_CURRENT_KEY")
