"""A shop of real processes whose every byte to Postgres, Redis, the gateway and Telegram passes doors that we hold.

A `Trap` counts the chunks that are steps of a story; what it does at one of them (kill -9, FLUSHALL) happens exactly
there. Clients, the gateway and the supervisor then do what real ones do: they repeat and they start anew.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Self
from uuid import uuid4

import asyncpg
import httpx
import msgspec

from app.base import clock, keys
from app.domain import catalog, stock
from app.domain.once import LEASE_MS
from app.flows.pay import OPENING_MARGIN_S
from app.infra import embedded
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.infra.secrets import Sealer
from app.infra.sql import Postgres
from app.sandbox.crystalpay import CrystalPay
from app.sandbox.initdata import sign_init_data
from app.sandbox.serve import running
from app.sandbox.telegram import Telegram
from bench.proxy import HOST, Upstream, listening, proxied
from tests.conftest import check_keys
from tests.e2e.traps import AUDIT, PATIENCE_S, Doors, Process, Trap, Zygote, until
from tests.world import BOT_TOKEN, SALT, Buyer, add_keys, invoice_of, reserved_port, settings_for

MINUTE_MS = 100  # the gateway's "minute": its ten calls take 4.5 s
UNITS = 3  # on the shelf of every run
QUIET_S = 0.1  # nothing passes for so long: the story is over

# So many seconds have passed since a process that is dead now began to open a payment.
LATER = """
UPDATE payments SET opened_at = opened_at - $1::int * interval '1 second'
 WHERE status = 'opening' AND opened_at > now() - interval '1 second' RETURNING id
"""


class Run(msgspec.Struct):
    """A buyer, and a product that nobody else sells or buys."""

    seller_id: int
    product_id: int
    buyer: Buyer
    key: str
    pieces: int = 1


class Stage:
    """One shop: its own database and Redis, both simulators in this process, web and workers in processes of theirs."""

    def __init__(self, pg: Postgres, redis: Pipe, sealer: Sealer, http: httpx.AsyncClient) -> None:
        self.pg, self.redis, self.sealer, self.http = pg, redis, sealer, http
        self.web: Process
        self.worker: Process
        self.second: Process  # another worker, which only its test starts
        self.crystalpay = CrystalPay("desk", "secret-one-of-the-tests", SALT, minute_ms=MINUTE_MS)
        self.telegram = Telegram(BOT_TOKEN)
        self.runs = 0

    @classmethod
    @asynccontextmanager
    async def opened(cls, zygote: Zygote, servers: Servers, template: str) -> AsyncIterator[Self]:
        """The outside world is there; `web.start()` and `worker.start()` are the test's."""
        async with AsyncExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torg-stage-")))
            redis_url = stack.enter_context(embedded.serve(home, postgres=False)).redis_url
            database_url = await stack.enter_async_context(database(servers.database_url, template))
            port, entrance = reserved_port(stack), Doors()
            front = await stack.enter_async_context(listening("web", Upstream(HOST, port), on_chunk=entrance.on_chunk))
            settings = settings_for(
                database_url, redis_url, port=port, public_url=f"http://{HOST}:{front.port}", gateway_timeout_ms=900,
                data_dir=str(home / "unused"), lease_s=1, expiry_grace_s=0, log_level="info",
                pg_pool_size=1,  # so that an answer is told by what was asked last
            )  # fmt: skip
            pg = await Postgres.open(database_url, pool_size=2, timeout_ms=10_000)
            stack.push_async_callback(pg.close)
            redis = Pipe(redis_url, timeout_ms=5000)
            stack.push_async_callback(redis.aclose)
            limits = httpx.Limits(max_keepalive_connections=0)
            client = httpx.AsyncClient(base_url=settings.public_url, timeout=PATIENCE_S, limits=limits)
            stage = cls(pg, redis, Sealer(settings.goods_keys), await stack.enter_async_context(client))
            urls = {
                "database_url": ("postgres", database_url),
                "redis_url": ("redis", redis_url),
                "crystalpay_url": ("gateway", await stack.enter_async_context(running(stage.crystalpay.app()))),
                "telegram_api_url": ("bot", await stack.enter_async_context(running(stage.telegram.app()))),
            }
            for name, command, doors in (
                ("web", "web", entrance), ("worker", "worker", Doors(AUDIT)), ("second", "worker", Doors(AUDIT)),
            ):  # fmt: skip
                near: dict[str, str] = {}
                for setting, (door, url) in urls.items():
                    near[setting], _ = await stack.enter_async_context(proxied(door, url, on_chunk=doors.on_chunk))
                env = environment_of(settings) | {f"TORG_{setting.upper()}": url for setting, url in near.items()}
                process = Process(command, zygote, doors, env, home / f"{name}.log")
                stack.callback(process.kill)
                setattr(stage, name, process)
            yield stage
            await check_keys(redis)

    async def start(self) -> None:
        """Both processes work."""
        self.web.start()
        self.worker.start()
        await self.ready()

    async def ready(self) -> None:
        """Those that were started can be asked."""

        async def web_answers() -> bool:
            try:
                return not self.web.pid or (await self.http.get("/health/ready")).status_code == 200
            except httpx.TransportError:
                return False

        async def worker_listens() -> bool:
            return all(worker.doors.listened or not worker.pid for worker in (self.worker, self.second))

        await until(web_answers, "web is ready", self.log)
        await until(worker_listens, "worker is ready", self.log)

    def log(self) -> str:
        return f"{self.web.tail()}\n{self.worker.tail()}"

    def arm(self, trap: Trap, *processes: Process) -> None:
        """The trap watches from here on."""
        for process in processes:
            process.doors.trap = trap

    async def disarm(self) -> None:
        """The story is over: its last steps have passed, and no trap watches any more."""

        async def quiet() -> bool:
            return monotonic() - max(self.web.doors.last_s, self.worker.doors.last_s) > QUIET_S

        await until(quiet, "nothing passes the doors", self.log)
        self.web.doors.trap = self.worker.doors.trap = None

    async def run(self, pieces: int = 1) -> Run:
        """A new seller with a new product, and a new buyer who is signed in."""
        self.runs += 1
        seller_id = await catalog.add_seller(self.pg, f"Seller {self.runs}")
        new = catalog.NewProduct(
            seller_id=seller_id, title="Key", description="", category="Keys", kind="unit", currency="RUB",
            list_price_minor=10_000,
        )  # fmt: skip
        product_id = await catalog.add_product(self.pg, new)
        await add_keys(self.pg, self.sealer, product_id, [f"KEY-{self.runs}-{n}" for n in range(UNITS)])
        return Run(seller_id, product_id, await self.buyer(), str(uuid4()), pieces)

    async def buyer(self) -> Buyer:
        self.runs += 1
        user = {"id": self.runs, "first_name": "Ann", "language_code": "en"}
        body = {"init_data": sign_init_data(BOT_TOKEN, user, auth_date=clock.unix_s())}
        entered = await self.http.post("/api/session", json=body)
        assert entered.status_code == 200, entered.text
        return Buyer(self.http, entered.json()["token"], self.runs)

    async def rehearse(self) -> None:
        """One undisturbed purchase: with statements prepared and connections open, steps are the same each time.

        So they are without what earlier stories left in Redis, as arq's notes of a job whose worker died.
        """
        run = await self.run()
        await self.crystalpay.pay(invoice_of(await self.buy(run)))
        await self.told(run)
        await self.disarm()
        await check_keys(self.redis)
        await self.flush()
        self.web.warm = self.worker.warm = True

    async def buy(self, run: Run) -> dict[str, Any]:
        """The order with its link: the buyer's client repeats with the same key until it has an answer."""
        deadline_s = monotonic() + PATIENCE_S
        while monotonic() < deadline_s:
            try:
                answer = await run.buyer.order((run.product_id, run.pieces), key=run.key)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 201:
                placed: dict[str, Any] = answer.json()
                return placed
            if answer.status_code != 503:
                assert answer.json()["type"] == "/problems/in-progress", answer.text
                await self.later()
            await asyncio.sleep(0.2)
        raise AssertionError(f"no order after {PATIENCE_S:.0f} s:\n{self.log()}")

    async def later(self) -> None:
        """Whatever a dead request left behind has run out: its turn at the gateway, its Idempotency-Key."""
        await self.rows(LATER, OPENING_MARGIN_S - 1)
        entries = await self.redis.command("KEYS", "{u:*}once:*")
        assert isinstance(entries, list)
        for entry in entries:
            left_ms = await self.redis.command("PTTL", entry)
            assert isinstance(left_ms, int)
            if left_ms <= LEASE_MS:
                await self.redis.command("DEL", entry)

    async def flush(self) -> bool:
        """A deed: Redis forgets everything; the chunk goes on."""
        await self.redis.command("FLUSHALL")
        return True

    async def rows(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.pg.fetch(query, args)]

    async def told(self, run: Run) -> None:
        """Nothing is owed any more, and the buyer knows."""

        async def done() -> bool:
            owed = await self.rows("SELECT kind FROM outbox WHERE state = 'owed'")
            return not owed and bool(self.telegram.sent_to(run.buyer.telegram_id))

        await until(done, "the buyer is told", self.log)

    async def half_a_minute_later(self, run: Run) -> None:
        """Every hold has lapsed, and the counters have forgotten themselves."""
        due = await self.redis.command("ZRANGE", keys.stock_due(run.seller_id), 0, -1)
        assert isinstance(due, list)
        for hold in due:
            await self.redis.command("ZADD", keys.stock_due(run.seller_id), 0, hold)
        await self.redis.command("DEL", keys.stock_free(run.seller_id))

    async def sold_once(self, run: Run, order_id: str) -> None:
        """THE end state, however the story went. Raises: AssertionError."""
        orders = await self.rows(
            "SELECT o.id::text, o.status FROM orders o WHERE o.idempotency_key = $1 OR o.seller_id = $2",
            run.key, run.seller_id,
        )  # fmt: skip
        assert orders == [(order_id, "delivered")]
        events = await self.rows(
            "SELECT from_status, to_status FROM order_events WHERE order_id = $1::text::uuid ORDER BY id", order_id
        )
        assert events == [(None, "pending"), ("pending", "paid"), ("paid", "delivered")]
        payments = await self.rows("SELECT status FROM payments WHERE order_id = $1::text::uuid", order_id)
        assert payments == [("paid",)]
        assert await self.rows("SELECT state, outcome FROM inbox WHERE order_id = $1::text::uuid", order_id) == [
            ("settled", "paid")
        ]
        assert await self.rows("SELECT DISTINCT state FROM outbox") == [("done",)]

        items = await self.rows(
            "SELECT i.stock_item_id, i.state, s.state FROM order_items i JOIN stock_items s ON s.id = i.stock_item_id"
            " WHERE s.product_id = $1",
            run.product_id,
        )
        assert [item[1:] for item in items] == [("delivered", "sold")] * run.pieces
        assert len({item[0] for item in items}) == run.pieces
        states = await self.rows("SELECT state FROM stock_items WHERE product_id = $1 ORDER BY 1", run.product_id)
        assert states == [("available",)] * (UNITS - run.pieces) + [("sold",)] * run.pieces
        await self.redis_agrees(run, UNITS - run.pieces)

        await self.ready()
        goods = await run.buyer.goods(order_id)
        assert len(set(goods)) == run.pieces
        messages = self.telegram.sent_to(run.buyer.telegram_id)
        assert messages
        assert all(good in message["text"] for message in messages for good in goods)
        crashes = [line for process in (self.web, self.worker) for line in process.lines() if '"exception"' in line]
        assert not crashes, "an expected disaster looks like a defect in the log"

    async def redis_agrees(self, run: Run, units: int) -> None:
        """Counted anew, Redis has what Postgres has. Raises: AssertionError."""
        await self.half_a_minute_later(run)
        assert await stock.count(self.pg, [run.product_id]) == {run.product_id: units}
        await stock.recount(self.redis, self.pg, run.seller_id, [run.product_id])
        counted = await self.redis.command("HGET", keys.stock_free(run.seller_id), str(run.product_id))
        assert counted == str(units).encode()


def environment_of(settings: msgspec.Struct) -> dict[str, str]:
    given: dict[str, Any] = msgspec.to_builtins(settings)
    for gateway, fields in given.pop("gateways").items():
        given |= {f"{gateway}_{field}": value for field, value in fields.items()}
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}
    return {f"TORG_{name.upper()}": text for name, text in texts.items()}


@asynccontextmanager
async def database(admin_url: str, template: str) -> AsyncIterator[str]:
    """A database of its own, with every migration."""
    name = f"s_{uuid4().hex}"
    admin = await asyncpg.connect(admin_url)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield admin_url.replace("/torg?", f"/{name}?")
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()
