"""PATCH of an order's status with 50 ms to everything: the source's sequential endpoint, and Torg's.

Both are served processes in one run, on one Postgres and one Redis that are 25 ms away each way (`proxy.py`); the
caller is not. `torg` is the real `torg web`, with a `torg worker` as far away, which announces, calls and tells
meanwhile; `sequential` is `steps.py`, which does all that before it answers. Each has 8 connections to Postgres. One
call at a time, then 8 callers (`x8`), each with its next call when the last is answered; every call moves an order of
its own from `paid` to `confirmed`. `correct`: every order is confirmed by one audit line, nothing but 200 was answered,
and (torg) every realtime event and every notice is there in the end, once.

What favours the baseline stands in `steps.py`. What favours Torg: others hear of the move after the answer, which is
the design measured here, and the outbox rows that a trigger writes for any moved order are written for the baseline's
too, and worked off beside it.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from app.base import clock, keys
from app.base.ids import new_id
from app.demo import environment, processes
from app.infra.embedded import Servers
from app.infra.migrate import migrate
from app.infra.pipe import Pipe
from app.infra.secrets import Session, Tokens
from app.sandbox.serve import running
from app.sandbox.telegram import Telegram
from bench import baseline, callers, report, steps
from bench.proxy import proxied
from bench.report import Round, Row

DELAY_S = 0.025  # each way
ROUND_TRIP_MS = 2 * DELAY_S * 1000
ROUNDS = 5
CALLERS = 8
CALLS = {1: 15, CALLERS: 64}  # in a turn, by callers
PATIENCE_S = 60
BODY = b'{"status":"confirmed"}'

# What a paid order of a thing that is sent looks like when its delivery job has run.
SELL = """
WITH given AS (SELECT * FROM unnest($1::uuid[], $2::bigint[]) AS g (id, user_id)),
made AS (
    INSERT INTO orders (id, user_id, seller_id, status, currency, total_minor, idempotency_key, request_hash,
                        expires_at, paid_at, paid_by)
    SELECT g.id, g.user_id, $3, 'paid', 'RUB', 10000, g.id::text, sha256(g.id::text::bytea),
           now() + interval '2 hours', now(), 'crystalpay:' || g.id FROM given g),
sold AS (
    INSERT INTO stock_items (id, product_id, state) SELECT g.id, $4, 'sold' FROM given g),
lines AS (
    INSERT INTO order_items (order_id, position, product_id, title, kind, stock_item_id, list_price_minor, price_minor,
                             state)
    SELECT g.id, 1, $4, 'Thing', 'shipped', g.id, 10000, 10000, 'owed' FROM given g),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role)
    SELECT g.id, e.before, e.after, 'system'
      FROM given g, (VALUES (NULL, 'pending'), ('pending', 'paid')) AS e (before, after))
INSERT INTO payments (order_id, provider, status, invoice_id, amount_minor, received_minor, currency, paid_at)
SELECT g.id, 'crystalpay', 'paid', g.id::text, 10000, 10000, 'RUB', now() FROM given g"""
ONCE = """
SELECT count(*) FROM orders o WHERE o.id = ANY ($1) AND o.status = 'confirmed'
   AND (SELECT array_agg(e.to_status ORDER BY e.id) FROM order_events e WHERE e.order_id = o.id)
       = ARRAY['pending', 'paid', 'confirmed']"""
OWED = "SELECT count(*) FROM outbox WHERE state = 'owed'"


def main() -> None:
    report.run("status", compared)


async def compared(folder: Path, servers: Servers) -> tuple[list[Row], list[str]]:
    async with Bench.opened(folder, servers) as bench:
        done: dict[tuple[str, int], list[Round]] = {}
        right = dict.fromkeys(("torg", "sequential"), True)
        for number in range(ROUNDS + 1):
            for name in right:
                for crowd, count in CALLS.items():
                    turn, correct = await bench.turn(name, crowd, count)
                    right[name] &= correct
                    if number:  # the first is warm-up
                        done.setdefault((name, crowd), []).append(turn)
        rows = [
            report.row(name if crowd == 1 else f"{name} x{crowd}", turns, correct=right[name])
            for (name, crowd), turns in done.items()
        ]
        return rows, verdict(rows)


class Bench:
    """The processes under test, and the undelayed access to what they work on."""

    def __init__(self, eye: Any, redis: Pipe, telegram: Telegram, urls: dict[str, str], tokens: Tokens) -> None:
        self.eye, self.redis, self.telegram, self.urls, self.tokens = eye, redis, telegram, urls, tokens
        self.seller_id = self.product_id = self.staff_id = self.people = 0

    @classmethod
    @asynccontextmanager
    async def opened(cls, folder: Path, servers: Servers) -> AsyncIterator["Bench"]:
        await migrate(servers.database_url)
        secrets = environment.secrets_of(folder)
        telegram = Telegram(secrets["TORG_TELEGRAM_BOT_TOKEN"])
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            environ = secrets | {
                "TORG_DATA_DIR": str(folder),
                "TORG_TELEGRAM_API_URL": await enter(running(telegram.app())),
                "TORG_REDIS_TIMEOUT_MS": "1000",  # it is as far away as the default is patient
                "TORG_LIMITS": "*=1000000/1",  # as weighed as ever, and never refused
                "TORG_TELEGRAM_PACE": "*=1000000/1",
            }
            for name, url in (("DATABASE", servers.database_url), ("REDIS", servers.redis_url)):
                environ[f"TORG_{name}_URL"], _ = await enter(proxied(name.lower(), url, delay_s=DELAY_S))
            eye = await asyncpg.connect(servers.database_url)
            stack.push_async_callback(eye.close)
            await eye.execute(steps.TABLE)
            redis = Pipe(servers.redis_url, timeout_ms=1000)
            stack.push_async_callback(redis.aclose)
            urls = await enter(served(folder / "log", environ))
            bench = cls(eye, redis, telegram, urls, Tokens(secrets["TORG_SESSION_SECRET"]))
            await bench.furnish()
            yield bench

    async def furnish(self) -> None:
        """A seller with a person and a product."""
        self.seller_id = await self.eye.fetchval("INSERT INTO sellers (name) VALUES ('Seller') RETURNING id")
        self.staff_id = await self.person("seller", self.seller_id)
        made = """
            INSERT INTO products (seller_id, title, category, kind, currency, list_price_minor)
            VALUES ($1, 'Thing', 'Things', 'shipped', 'RUB', 10000) RETURNING id"""
        self.product_id = await self.eye.fetchval(made, self.seller_id)

    async def person(self, role: str, seller_id: int | None = None) -> int:
        self.people += 1
        made = "INSERT INTO users (telegram_id, name, role, seller_id) VALUES ($1, 'Ann', $2, $3) RETURNING id"
        return int(await self.eye.fetchval(made, self.people, role, seller_id))

    async def turn(self, name: str, crowd: int, count: int) -> tuple[Round, bool]:
        """So many orders, each of a new buyer, are confirmed, and everything that they owe is done."""
        buyers = {await self.person("buyer"): self.people for _ in range(count)}  # user id: Telegram id
        orders = [new_id() for _ in buyers]
        await self.eye.execute(SELL, orders, list(buyers), self.seller_id, self.product_id)
        calls = await callers.called([self.urls[name]], [self.request(name, order) for order in orders], crowd)
        await self.idle()
        right = calls.refused == 0 and await self.eye.fetchval(ONCE, orders) == count
        if name == "torg":
            heard = [await self.redis.command("XLEN", keys.events(user_id)) for user_id in buyers]
            told = [len(self.telegram.sent_to(telegram_id)) for telegram_id in buyers.values()]
            right = right and heard == told == [1] * count
        return calls.round, right

    def request(self, name: str, order_id: UUID) -> bytes:
        headers = {"content-type": "application/json"}
        if name == "torg":
            token = self.tokens.issue(Session(self.staff_id, "seller", clock.unix_s() + 3600))
            path, headers["authorization"] = f"/api/orders/{order_id}/status", f"Bearer {token}"
        else:
            path, headers[steps.CALLER] = f"/orders/{order_id}/status", str(self.staff_id)
        return callers.post(self.urls[name] + path, BODY, headers, "PATCH")

    async def idle(self) -> None:
        """Nothing is owed any more. Raises: TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.eye.fetchval(OWED):  # noqa: ASYNC110  (Postgres sets no event here)
                await asyncio.sleep(0.02)


@asynccontextmanager
async def served(log_dir: Path, environ: dict[str, str]) -> AsyncIterator[dict[str, str]]:
    """Where each variant is served, while its processes run."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TORG_")} | environ
    web_port, other_port = environment.free_port(), environment.free_port()
    urls = {"torg": f"http://127.0.0.1:{web_port}", "sequential": f"http://127.0.0.1:{other_port}"}
    ours |= {"TORG_PORT": str(web_port), "TORG_PUBLIC_URL": urls["torg"]}
    block = processes.running(log_dir, ours)
    start = block.__enter__()
    try:
        start("worker", "worker")
        web, other = start("web", "web"), baseline.start(start, other_port, "steps")
        await asyncio.to_thread(web.wait_ready, f"{urls['torg']}/health/ready", PATIENCE_S)
        await asyncio.to_thread(other.wait_ready, f"{urls['sequential']}/ready", PATIENCE_S)
        yield urls
    finally:
        await asyncio.to_thread(block.__exit__, None, None, None)


def verdict(rows: Sequence[Row]) -> list[str]:
    """What was promised beside what was measured."""
    by_name = {row.variant: row for row in rows}
    crowd = f" x{CALLERS}"
    times = by_name["torg" + crowd].per_second / by_name["sequential" + crowd].per_second
    over_ms = by_name["torg"].p50_ms - 1.2 * ROUND_TRIP_MS
    kept = {True: "kept", False: "MISSED"}
    return [
        f"{times:.1f} times as many as sequential, {CALLERS} callers each (promised: at least 12): {kept[times >= 12]}",
        f"torg answers in {by_name['torg'].p50_ms:.1f} ms (promised: 1.2 round trips + 5 ms = "
        f"{1.2 * ROUND_TRIP_MS + 5:.0f} ms): {kept[over_ms <= 5]}",
    ]
