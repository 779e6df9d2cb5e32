"""A whole shop in one process, on real servers and over real HTTP, for tests that tell a story."""

import base64
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Self
from uuid import UUID, uuid4

import httpx
import msgspec
from litestar import Litestar

from app.base import clock
from app.domain import catalog, goods, ledger, outbox, units
from app.domain.catalog import NewProduct
from app.errors import PostgresDown, RedisDown
from app.infra.secrets import Sealer
from app.infra.sql import Postgres
from app.infra.telegram import bot
from app.main import create_app
from app.sandbox.crystalpay import CrystalPay
from app.sandbox.initdata import sign_init_data
from app.sandbox.serve import running
from app.sandbox.telegram import Telegram
from app.settings import Settings
from app.shop import Shop, opened
from workers import jobs

BOT_TOKEN = "1234567890:AAtest-token-of-the-test-bot_0123456"
SALT = "salt-of-the-tests"
UNITS = """
INSERT INTO stock_items (id, product_id, sealed, fingerprint)
SELECT u.id, $1, u.sealed, u.fingerprint
  FROM unnest($2::uuid[], $3::bytea[], $4::bytea[]) AS u (id, sealed, fingerprint)"""
GATEWAYS = {"crystalpay": {"login": "desk", "secret": "secret-one-of-the-tests", "salt": SALT}}


def settings_for(database_url: str, redis_url: str, **changes: Any) -> Settings:
    """Settings with made-up secrets and short waits."""
    given: dict[str, Any] = {
        "database_url": database_url,
        "redis_url": redis_url,
        "telegram_bot_token": BOT_TOKEN,
        "session_secret": "session-secret-of-the-tests-0123456789",
        "goods_keys": f"t1:{base64.b64encode(b'k' * 32).decode()}",
        "gateways": GATEWAYS,
        "log_level": "warning",
        "lease_s": 2,
        "relay_ms": 100,
        "redis_timeout_ms": 5000,  # a busy machine is not a frozen Redis
        "limits": "*=1000000/1",
        "circuits": "999/1",  # what a test breaks on purpose is called all the same
        "telegram_pace": "*=1000000/1",
        "pending_orders": 100,
    }
    return Settings(**given | changes)


def with_gateway(settings: Settings, name: str, **fields: str) -> Settings:
    """The same with these fields of one gateway changed."""
    gateways = settings.gateways | {name: settings.gateways.get(name, {}) | fields}
    return msgspec.structs.replace(settings, gateways=gateways)


async def add_keys(pg: Postgres, sealer: Sealer, product_id: int, secrets: Iterable[str]) -> None:
    """These secrets are for sale."""
    keys = [units.Unit(line, secret) for line, secret in enumerate(secrets, 1)]
    await add_units(pg, product_id, units.seal(sealer, product_id, keys))


async def add_units(pg: Postgres, product_id: int, batch: list[units.Sealed]) -> None:
    """These units are for sale, as plain rows: nothing is audited and nothing owed."""
    columns = [[getattr(unit, name) for unit in batch] for name in ("id", "sealed", "fingerprint")]
    await pg.fetch(UNITS, (product_id, *columns))


class Buyer:
    """A signed-in user of the Mini App."""

    def __init__(self, http: httpx.AsyncClient, token: str, telegram_id: int) -> None:
        self.http, self.telegram_id = http, telegram_id
        self.headers = {"Authorization": f"Bearer {token}"}

    async def order(
        self, *lines: tuple[int, int], key: str | None = None, provider: str = "crystalpay"
    ) -> httpx.Response:
        cart = {"lines": [{"product_id": p, "quantity": n} for p, n in lines], "provider": provider}
        headers = self.headers | {"Idempotency-Key": key or str(uuid4())}
        return await self.http.post("/api/orders", json=cart, headers=headers)

    async def pay(self, order_id: str, *, key: str | None = None, provider: str = "crystalpay") -> httpx.Response:
        headers = self.headers | {"Idempotency-Key": key or str(uuid4())}
        return await self.http.post(f"/api/orders/{order_id}/payments", json={"provider": provider}, headers=headers)

    async def cancel(self, order_id: str) -> httpx.Response:
        move = {"status": "cancelled"}
        return await self.http.patch(f"/api/orders/{order_id}/status", json=move, headers=self.headers)

    async def get(self, path: str) -> httpx.Response:
        return await self.http.get(path, headers=self.headers)

    async def status(self, order_id: str) -> str:
        return str((await self.get(f"/api/orders/{order_id}")).json()["order"]["status"])

    async def goods(self, order_id: str) -> list[str]:
        return [good["content"] for good in (await self.get(f"/api/orders/{order_id}/goods")).json()["goods"]]


class World:
    """The shop, the outside world, and time that stands still until a test runs the jobs."""

    def __init__(
        self, shop: Shop, app: Litestar, http: httpx.AsyncClient, crystalpay: CrystalPay, telegram: Telegram
    ) -> None:
        self.shop, self.app, self.http, self.crystalpay, self.telegram = shop, app, http, crystalpay, telegram
        self.seller_id = 0
        self.keeps_books = True  # False: somebody without a ledger has been at its orders

    @classmethod
    @asynccontextmanager
    async def opened(cls, database_url: str, redis_url: str, **changes: Any) -> AsyncIterator[Self]:
        async with AsyncExitStack() as stack:
            crystalpay = CrystalPay("desk", "secret-one-of-the-tests", SALT, minute_ms=50)
            telegram = Telegram(BOT_TOKEN)
            port = reserved_port(stack)
            settings = settings_for(
                database_url,
                redis_url,
                telegram_api_url=await stack.enter_async_context(running(telegram.app())),
                public_url=f"http://127.0.0.1:{port}",
                port=port,
                **changes,
            )
            if "url" not in settings.gateways.get("crystalpay", {}):
                gateway_url = await stack.enter_async_context(running(crystalpay.app()))
                settings = with_gateway(settings, "crystalpay", url=gateway_url)
            shop = await stack.enter_async_context(opened(settings, bot(settings)))
            app = create_app(settings)
            url = await stack.enter_async_context(running(app, port=port))
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))
            world = cls(shop, app, http, crystalpay, telegram)
            yield world
            with suppress(PostgresDown):  # a test may have ended it
                assert (
                    not world.keeps_books or await ledger.check(world.pg) == []
                )  # whatever was told, the sums are right

    @property
    def pg(self) -> Any:
        return self.shop.deps.pg

    async def product(
        self, *secrets: str, kind: str = "unit", pieces: int = 0, price_minor: int = 10_000, **more: Any
    ) -> int:
        """A product of this world's one seller, with stock."""
        if not self.seller_id:
            self.seller_id = await catalog.add_seller(self.pg, "Seller")
        fields: dict[str, Any] = {"title": "Key", "description": "", "category": "Keys", "currency": "RUB"}
        fields |= {"seller_id": self.seller_id, "kind": kind, "list_price_minor": price_minor}
        fields |= {"lead_time_h": 48 if kind == "made" else None}
        new = NewProduct(**fields | more)
        product_id = await catalog.add_product(self.pg, new)
        assert self.shop.deps.sealer
        if secrets:
            await add_keys(self.pg, self.shop.deps.sealer, product_id, secrets)
        if pieces:
            await add_units(self.pg, product_id, units.pieces(pieces, 0, None))
        if kind == "shared":
            await goods.share(self.pg, self.shop.deps.sealer, product_id, "the shared file")
        await self.refresh()
        return product_id

    async def refresh(self) -> None:
        """What a test changed behind the shop's back is seen by everybody."""
        with suppress(RedisDown):
            await catalog.bump(self.shop.deps.redis)
        self.app.state.shop.copies.forget()

    def init_data(self, telegram_id: int, *, age_s: int = 0, name: str = "Ann", language: str = "en") -> str:
        user = {"id": telegram_id, "first_name": name, "language_code": language}
        return sign_init_data(BOT_TOKEN, user, auth_date=clock.unix_s() - age_s)

    async def buyer(self, telegram_id: int = 1001, **user: Any) -> Buyer:
        entered = await self.http.post("/api/session", json={"init_data": self.init_data(telegram_id, **user)})
        assert entered.status_code == 200, entered.text
        return Buyer(self.http, entered.json()["token"], telegram_id)

    async def callback(self, body: bytes | dict[str, Any], path: str = "/api/webhook/crystalpay") -> httpx.Response:
        content = body if isinstance(body, bytes) else httpx.Request("POST", "http://x", json=body).content
        return await self.http.post(path, content=content, headers={"Content-Type": "application/json"})

    async def drain(self) -> int:
        """Every job that is due now has been tried once; returns how many attempts that took."""
        tried = 0
        while due := await outbox.due(self.pg, grace_ms=0, size=1000):
            for row in due:
                await jobs.run(self.shop, row.id)
                tried += 1
        return tried

    async def forget(self) -> None:
        """What a test before this one has left waiting, or asked the outside to do, is nobody's."""
        self.crystalpay.faults.clear()
        self.telegram.faults.clear()
        await self.pg.fetch("DELETE FROM outbox", ())
        await self.shop.deps.redis.command("FLUSHDB")
        self.app.state.shop.copies.forget()

    async def scalar(self, query: str, *args: object) -> Any:
        return (await self.pg.fetch(query, args))[0][0]


def invoice_of(placed: dict[str, Any]) -> str:
    """The gateway's invoice id in an order's payment link."""
    return str(placed["payment"]["url"]).rpartition("i=")[2]


def order_id_of(placed: dict[str, Any]) -> UUID:
    return UUID(placed["order"]["id"])


def reserved_port(stack: AsyncExitStack) -> int:
    """A port that no outgoing connection of this busy machine, and no other test process, takes before we listen."""
    holder = stack.enter_context(socket.socket())
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    return port
