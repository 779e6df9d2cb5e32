"""The source's payment handler on our schema: as it was, 14 queries in a row, and parallelised, the same 14 in 9 steps.

`bench/webhook.py` runs it as a process of its own, served exactly as `torg web` is. Like the source it believes the
callback and has no transaction. It also gets what the source did not have, each thing to its advantage: its
connections are held from a request's first query to its last (asyncpg's pool would send a reset, and so wait for a
second round trip, after every query); a change that our schema spreads over two tables is one query; the notices
are read for, but not sent, which spares it the source's three Telegram calls of 70 ms.
"""

import asyncio
import hmac
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import uvicorn
from litestar import Litestar, Request, Response, get, post
from litestar.exceptions import HTTPException

from app import settings as settings_floor
from app.demo import processes
from app.demo.processes import Child, Start
from app.infra import embedded
from app.sandbox.crystalpay_wire import sign
from app.settings import Settings

CONNECTIONS = 16  # as many as `torg web` and `torg worker` have together
WIDEST = 4  # queries side by side in the parallelised handler: one connection carries one query at a time

Req = Request[Any, Any, Any]
Queries = tuple[tuple[str, tuple[object, ...]], ...]

# The source's list, in its order (000-payment-webhook.md, "Текущая последовательность запросов в webhook").
FIND_PAYMENT = "SELECT order_id FROM payments WHERE provider = 'crystalpay' AND invoice_id = $1"
FIND_ORDER = "SELECT id, user_id, status, currency, total_minor FROM orders WHERE id = $1"
READ_ITEMS = "SELECT position, product_id, kind, stock_item_id FROM order_items WHERE order_id = $1"
CHECK_STOCK = "SELECT id, state FROM stock_items WHERE id = ANY ($1)"
SET_PAYMENT = """
WITH paid AS (
    UPDATE payments SET status = 'paid', paid_at = now() WHERE provider = 'crystalpay' AND invoice_id = $2)
UPDATE orders SET paid_by = 'crystalpay:' || $2 WHERE id = $1"""
SET_STATUS = "UPDATE orders SET status = 'paid', paid_at = now() WHERE id = $1"
READ_FOR_NOTICE = "SELECT number, status, currency, total_minor FROM orders WHERE id = $1"
READ_NAMES = "SELECT title, count(*) AS quantity FROM order_items WHERE order_id = $1 GROUP BY title"
READ_USER = "SELECT telegram_id, language FROM users WHERE id = $1"
READ_ADMINS = "SELECT telegram_id FROM users WHERE role = 'admin'"
# Stands for the source's balance transaction: a line that must be written once for each payment.
BOOK = """
INSERT INTO order_events (order_id, from_status, to_status, role, note)
SELECT id, 'pending', 'paid', 'gateway', 'crystalpay:' || $2::text FROM orders WHERE id = $1"""
HAND_OVER = """
WITH given AS (
    UPDATE order_items SET state = 'delivered', delivered_at = now() WHERE order_id = $1 RETURNING stock_item_id)
UPDATE stock_items s SET state = 'sold' FROM given g WHERE s.id = g.stock_item_id"""
CLOSE = """
WITH closed AS (
    UPDATE orders SET status = 'delivered', delivered_at = now() WHERE id = $1 RETURNING id)
INSERT INTO order_events (order_id, from_status, to_status, role)
SELECT id, 'paid', 'delivered', 'system' FROM closed"""
# Stands for the source's referral: whether this is the buyer's first paid order.
READ_REFERRAL = "SELECT count(*) FROM orders WHERE user_id = $1 AND paid_at IS NOT NULL"

# Every query with arguments that nothing in the database has: each connection prepares them before it is measured.
NOBODY, NOTHING = UUID(int=0), "no-such-invoice"
WARM_UP: Queries = (
    (FIND_PAYMENT, (NOTHING,)), (FIND_ORDER, (NOBODY,)), (READ_ITEMS, (NOBODY,)), (CHECK_STOCK, ([NOBODY],)),
    (SET_PAYMENT, (NOBODY, NOTHING)), (SET_STATUS, (NOBODY,)), (READ_FOR_NOTICE, (NOBODY,)), (READ_NAMES, (NOBODY,)),
    (READ_USER, (0,)), (READ_ADMINS, ()), (BOOK, (NOBODY, NOTHING)), (HAND_OVER, (NOBODY,)), (CLOSE, (NOBODY,)),
    (READ_REFERRAL, (0,)),
)  # fmt: skip


class Callback(msgspec.Struct, frozen=True):
    """What the handler reads of CrystalPay's callback; `extra` is our order's id."""

    id: str
    state: str
    extra: str
    signature: str


class NotInStock(Exception):
    """A unit of the order is not held for it."""


async def sequential(db: Any, told: Callback) -> None:
    """The order is paid and its goods are delivered, one query after another."""
    found = await db.fetch(FIND_PAYMENT, told.id)
    (order,) = await db.fetch(FIND_ORDER, found[0]["order_id"] if found else UUID(told.extra))
    if order["status"] != "pending":
        return  # all that this design has against repeats
    order_id, user_id = order["id"], order["user_id"]
    items = await db.fetch(READ_ITEMS, order_id)
    check(await db.fetch(CHECK_STOCK, units(items)))
    await db.fetch(SET_PAYMENT, order_id, told.id)
    await db.fetch(SET_STATUS, order_id)
    await db.fetch(READ_FOR_NOTICE, order_id)
    await db.fetch(READ_NAMES, order_id)
    await db.fetch(READ_USER, user_id)
    await db.fetch(READ_ADMINS)
    await db.fetch(BOOK, order_id, told.id)
    await db.fetch(HAND_OVER, order_id)
    await db.fetch(CLOSE, order_id)
    await db.fetch(READ_REFERRAL, user_id)


async def gathered(dbs: list[Any], told: Callback) -> None:
    """The same, with the queries that do not need each other side by side, as the source advises."""
    a, b, c, d = dbs
    found = await a.fetch(FIND_PAYMENT, told.id)
    order_id = found[0]["order_id"] if found else UUID(told.extra)
    (order,), items = await asyncio.gather(a.fetch(FIND_ORDER, order_id), b.fetch(READ_ITEMS, order_id))
    if order["status"] != "pending":
        return
    user_id = order["user_id"]
    check(await a.fetch(CHECK_STOCK, units(items)))
    await a.fetch(SET_PAYMENT, order_id, told.id)
    await a.fetch(SET_STATUS, order_id)
    await asyncio.gather(
        a.fetch(READ_FOR_NOTICE, order_id), b.fetch(READ_NAMES, order_id), c.fetch(READ_USER, user_id),
        d.fetch(READ_ADMINS),
    )  # fmt: skip
    await a.fetch(BOOK, order_id, told.id)
    await a.fetch(HAND_OVER, order_id)
    await asyncio.gather(a.fetch(CLOSE, order_id), b.fetch(READ_REFERRAL, user_id))


def units(items: list[Any]) -> list[UUID]:
    return [item["stock_item_id"] for item in items if item["stock_item_id"]]


def check(stock: list[Any]) -> None:
    if any(unit["state"] != "held" for unit in stock):
        raise NotInStock


class Desk:
    """The connections; a request takes all that it needs at once, so that no two wait for each other."""

    def __init__(self) -> None:
        self.free: asyncio.Queue[Any] = asyncio.Queue()
        self.turn = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, url: str, connections: int = CONNECTIONS, queries: Queries = WARM_UP
    ) -> AsyncIterator["Desk"]:
        desk = cls()
        opened = await asyncio.gather(*(asyncpg.connect(url) for _ in range(connections)))
        try:
            await asyncio.gather(*(warm(connection, queries) for connection in opened))
            for connection in opened:
                desk.free.put_nowait(connection)
            yield desk
        finally:
            await asyncio.gather(*(connection.close() for connection in opened))

    @asynccontextmanager
    async def held(self, count: int) -> AsyncIterator[list[Any]]:
        async with self.turn:
            taken = [await self.free.get() for _ in range(count)]
        try:
            yield taken
        finally:
            for connection in taken:
                self.free.put_nowait(connection)


async def warm(connection: Any, queries: Queries = WARM_UP) -> None:
    for text, args in queries:
        await connection.fetch(text, *args)


def create_app(settings: Settings) -> Litestar:
    """Both handlers; `/ready` answers once every connection is warm."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with Desk.opened(settings.database_url) as desk:
            app.state.desk = desk
            yield

    async def told(request: Req) -> Callback:
        callback = msgspec.json.decode(await request.body(), type=Callback)
        if not hmac.compare_digest(callback.signature, sign(callback.id, settings.gateways["crystalpay"]["salt"])):
            raise HTTPException(status_code=401)
        if callback.state != "payed":
            raise HTTPException(status_code=422)  # the bench sends no others
        return callback

    @post("/sequential", status_code=200)
    async def one_after_another(request: Req) -> Response[bytes]:
        callback = await told(request)
        async with request.app.state.desk.held(1) as (db,):
            await sequential(db, callback)
        return Response(b'{"ok":true}', media_type="application/json")

    @post("/gathered", status_code=200)
    async def side_by_side(request: Req) -> Response[bytes]:
        callback = await told(request)
        async with request.app.state.desk.held(WIDEST) as dbs:
            await gathered(dbs, callback)
        return Response(b'{"ok":true}', media_type="application/json")

    @get("/ready")
    async def ready() -> None:
        return None

    handlers = [one_after_another, side_by_side, ready]
    return Litestar(handlers, lifespan=[lifespan], openapi_config=None, logging_config=None, debug=False)


def start(block: Start, port: int, name: str = "baseline") -> Child:
    """The handlers of bench/<name>.py are served by one more process of the block, on this port."""
    log = block.log_dir / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", f"bench.{name}", str(block.lifeline)],
            env=block.environ | {"TORG_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            pass_fds=[block.lifeline],
            start_new_session=True,
        )
    child = Child(name, process, log)
    block.children.append(child)
    return child


def serve(app: Callable[[Settings], Litestar]) -> None:
    """Serves on TORG_PORT until SIGTERM, or until the pipe that the argument names is closed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    processes.hold_on_to(int(sys.argv[1]))
    settings = settings_floor.load(os.environ)
    # A user of the bench's servers: when the bench is killed, the last user to leave stops them.
    with embedded.serve(Path(settings.data_dir), postgres=False, redis=False):
        uvicorn.run(
            app(settings),
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )


if __name__ == "__main__":
    serve(create_app)
