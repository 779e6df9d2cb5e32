"""The source's status endpoint on our schema (002-order-status.md, "Root Cause"): 13 steps, one after another.

`bench/status.py` serves it exactly as `torg web` is served. Who calls is looked up (1), then the order (2); the update
(3), its audit line (4), the order with its relations (5); two look-ups of realtime channels (6, 7), two broadcasts
(8, 9), a generic and a specific notice (10, 11), the chat line (12), the emitted event (13); then the answer. Spared,
each to its advantage: the session's proof, rate limits, and what its broadcasts and notices took beyond one round trip
(it says 100 and 50 to 150 ms). Like the source it has no transaction and checks the move before it makes it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
from litestar import Litestar, Response, get, patch
from litestar.exceptions import HTTPException
from litestar.params import FromPath

from app.infra.pipe import Pipe
from app.settings import Settings
from bench.baseline import NOBODY, Desk, Queries, Req, serve

CONNECTIONS = 8  # as many as one `torg web` has
CALLER = "x-user"

READ_CALLER = "SELECT id, role, seller_id FROM users WHERE id = $1"
FIND_ORDER = "SELECT id, user_id, seller_id, status FROM orders WHERE id = $1"
SET_STATUS = "UPDATE orders SET status = $2 WHERE id = $1"
NOTE = "INSERT INTO order_events (order_id, from_status, to_status, role, user_id) VALUES ($1, $2, $3, 'seller', $4)"
READ_WHOLE = """
SELECT o.*, u.name AS buyer_name, (SELECT json_agg(p.*) FROM payments p WHERE p.order_id = o.id) AS payments
  FROM orders_with_lines o JOIN users u ON u.id = o.user_id WHERE o.id = $1"""
FIND_SELLER = "SELECT id FROM users WHERE seller_id = $1 AND role = 'seller'"
FIND_BUYER = "SELECT id, language FROM users WHERE id = $1"
TELL = "INSERT INTO bench_notices (user_id, text) VALUES ($1, $2)"
CHAT = "INSERT INTO order_chat (order_id, role, text) VALUES ($1, 'system', $2)"
TABLE = (
    "CREATE TABLE IF NOT EXISTS bench_notices (id bigserial PRIMARY KEY, user_id bigint NOT NULL, text text NOT NULL)"
)

WARM_UP: Queries = (
    (READ_CALLER, (0,)), (FIND_ORDER, (NOBODY,)), (SET_STATUS, (NOBODY, "paid")), (READ_WHOLE, (NOBODY,)),
    (FIND_SELLER, (0,)), (FIND_BUYER, (0,)),
)  # fmt: skip


class Wanted(msgspec.Struct, frozen=True):
    status: str


async def step(db: Any, redis: Pipe, order_id: UUID, status: str, caller_id: int) -> dict[str, Any]:
    """The order is moved, and everybody has heard of it. Raises: HTTPException."""
    (caller,) = await db.fetch(READ_CALLER, caller_id)
    (order,) = await db.fetch(FIND_ORDER, order_id)
    if caller["seller_id"] != order["seller_id"] or (order["status"], status) != ("paid", "confirmed"):
        raise HTTPException(status_code=409)
    await db.fetch(SET_STATUS, order_id, status)
    await db.fetch(NOTE, order_id, order["status"], status, caller_id)
    (whole,) = await db.fetch(READ_WHOLE, order_id)
    (seller,) = await db.fetch(FIND_SELLER, order["seller_id"])
    (buyer,) = await db.fetch(FIND_BUYER, order["user_id"])
    said = f"order {whole['number']}: {order['status']} -> {status}"
    await redis.command("PUBLISH", f"seller-{seller['id']}", said)
    await redis.command("PUBLISH", f"buyer-{buyer['id']}", said)
    await db.fetch(TELL, buyer["id"], said)
    await db.fetch(TELL, buyer["id"], f"your order is {status}")
    await db.fetch(CHAT, order_id, said)
    await db.fetch(TELL, seller["id"], f"emitted: {said}")
    return {"id": order_id, "status": status, "number": whole["number"], "lines": whole["lines"]}


def create_app(settings: Settings) -> Litestar:
    """The endpoint; `/ready` answers once every connection is warm."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        redis = Pipe(settings.redis_url, timeout_ms=settings.redis_timeout_ms)
        try:
            await redis.command("PING")
            async with Desk.opened(settings.database_url, CONNECTIONS, WARM_UP) as desk:
                app.state.desk, app.state.redis = desk, redis
                yield
        finally:
            await redis.aclose()

    @patch("/orders/{order_id:uuid}/status")
    async def move(request: Req, order_id: FromPath[UUID]) -> Response[bytes]:
        wanted = msgspec.json.decode(await request.body(), type=Wanted)
        state = request.app.state
        async with state.desk.held(1) as (db,):
            told = await step(db, state.redis, order_id, wanted.status, int(request.headers[CALLER]))
        return Response(msgspec.json.encode(told), media_type="application/json")

    @get("/ready")
    async def ready() -> None:
        return None

    return Litestar([move, ready], lifespan=[lifespan], openapi_config=None, logging_config=None, debug=False)


if __name__ == "__main__":
    serve(create_app)
