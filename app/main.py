"""Wires a web process: settings in, ASGI application out. The only file that sees all floors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig

from app.base import clock
from app.base.address import Proxies
from app.base.version import VERSION
from app.infra import observe
from app.settings import BadSettings, Settings
from app.shop import Shop, opened
from app.web import (
    admin,
    admin_orders,
    admin_promos,
    admin_stock,
    front,
    growth,
    guards,
    health,
    hooks,
    money,
    orders,
    problems,
    reviews,
    shop,
)
from app.web.bodies import MAX_BODY_BYTES
from app.web.requests import JsonRequest, RequestId

log = structlog.get_logger(__name__)

HANDLERS = (
    shop.open_session, shop.me, shop.list_products, shop.show_product,
    reviews.write_review, reviews.list_reviews,
    orders.place_order, orders.list_orders, orders.show_order, orders.show_goods,
    money.pay_order, money.move_order, money.show_balance,
    hooks.payment, hooks.crystalpay,
    admin.list_admin_products, admin.create_product, admin.show_admin_product, admin.change_product,
    admin.share_content, admin.list_changes,
    admin_orders.refund_order, admin_orders.list_refunds, admin_orders.hand_over_made,
    admin_stock.add_stock, admin_stock.list_stock, admin_stock.withdraw_stock,
    admin_promos.list_promos, admin_promos.create_promo, admin_promos.change_promo,
    growth.show_referrals, growth.show_leaderboard,
    health.live, health.ready,
)  # fmt: skip


def create_app(settings: Settings) -> Litestar:
    """The service on these settings. Postgres must answer when it starts; Redis may come later. Raises: BadSettings."""
    observe.configure(settings)
    try:
        proxies = Proxies(settings.trusted_proxies)
    except ValueError as error:
        raise BadSettings(f"TORG_TRUSTED_PROXIES: {error}") from None

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with opened(settings) as parts:
            app.state.shop = parts
            app.state.proxies = proxies
            app.state.callbacks = 0  # gateway callbacks being worked on
            _say_what_is_off(settings)
            log.info("web is ready", gateways=sorted(parts.gateways), at=clock.now().isoformat())
            yield

    return Litestar(
        route_handlers=[*HANDLERS, *front.handlers()],
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
