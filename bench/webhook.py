"""One payment callback with 50 ms to everything: the source's handler, its parallelised version, and Torg itself.

All three are served processes in one run, on one Postgres; `torg` is the real `torg web` and `torg worker`. Postgres,
Redis and the gateway are 25 ms away each way (`proxy.py`), the caller of the webhook is not. One at a time, unless a
row says `x4` (four callers, each sends its next callback when the last is answered) or `20 repeats` (one callback 20
times at once). `goods`: from sending the callback until Postgres shows the order delivered, polled without delay.
`correct`: every order paid and delivered once, with the units that it had claimed, one audit line for each step.

What favours the baselines: `baseline.py` lists what they are spared; and they ask no gateway, while Torg believes only
what the gateway says. What favours Torg: its callback is answered before anything is delivered, which is the design
measured here, so look at `goods` too. Telegram is not delayed: only Torg speaks to it, after the goods.
"""

import asyncio
import os
import statistics
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import msgspec

from app import settings as settings_floor
from app.demo import environment, processes
from app.domain import catalog, customers, stock, units
from app.domain.catalog import NewProduct
from app.flows import checkout, shelve
from app.infra.embedded import Servers
from app.infra.migrate import migrate
from app.infra.pipe import Pipe
from app.sandbox import crystalpay_wire as wire
from app.sandbox.crystalpay import CrystalPay
from app.sandbox.serve import running
from app.sandbox.telegram import Telegram
from app.shop import Shop, opened
from bench import baseline, report
from bench.proxy import proxied
from bench.report import Round, Row

DELAY_S = 0.025  # each way
ROUND_TRIP_MS = 2 * DELAY_S * 1000
ROUNDS = 5
FIRST = 16  # callbacks at once before anything is measured: every connection of every pool has run every statement
WARM_UP = 5  # unmeasured callbacks before each turn
CALLS = 15  # measured, one at a time, in each turn
CALLERS, CALLS_OF_EACH = 4, 8
REPEATS = 20
POLL_S = 0.002
PATIENCE_S = 60
CART = (2, 1)  # units of each product in every order
BENCH = units.Actor(None, {"by": "bench"})
BUYERS = 40

VARIANTS = ("torg", "sequential", "gathered")
GOODS = {  # rows from sending the callback until the order is delivered
    "torg": "torg payment-to-goods",
    "sequential": "sequential goods visible",
    "gathered": "gathered goods visible",
}

ONCE = """
SELECT o.id, (SELECT array_agg(i.stock_item_id ORDER BY i.position) FROM order_items i WHERE i.order_id = o.id) AS units
  FROM orders o JOIN unnest($1::uuid[], $2::text[]) AS sold (order_id, invoice_id) ON sold.order_id = o.id
 WHERE o.status = 'delivered' AND o.delivered_at IS NOT NULL AND o.paid_by = 'crystalpay:' || sold.invoice_id
   AND (SELECT array_agg(e.to_status ORDER BY e.id) FROM order_events e WHERE e.order_id = o.id)
       = ARRAY['pending', 'paid', 'delivered']
   AND (SELECT array_agg(p.status || p.invoice_id) FROM payments p WHERE p.order_id = o.id)
       = ARRAY['paid' || sold.invoice_id]
   AND NOT EXISTS (SELECT FROM order_items i LEFT JOIN stock_items s ON s.id = i.stock_item_id
                    WHERE i.order_id = o.id AND (i.state <> 'delivered' OR s.state IS DISTINCT FROM 'sold'))"""


class Sale(msgspec.Struct, frozen=True):
    """An order whose buyer has just paid at the gateway, and the callback that says so."""

    order_id: UUID
    invoice_id: str
    units: list[UUID]
    body: bytes


class Turn(msgspec.Struct, frozen=True):
    """What some callbacks took to be answered, and what their orders took to be delivered."""

    answers: Round
    goods: Round
    refused: int


class Kept(msgspec.Struct):
    """Everything that one variant did."""

    sales: list[Sale]  # still to be paid
    done: list[Sale] = []
    repeated: list[Sale] = []
    single: list[Turn] = []
    crowd: list[Turn] = []
    repeats: list[Turn] = []
    refused: int = 0

    def take(self, count: int) -> list[Sale]:
        taken, self.sales = self.sales[:count], self.sales[count:]
        return taken


def main() -> None:
    report.run("webhook", compared)


async def compared(folder: Path, servers: Servers) -> tuple[list[Row], list[str]]:
    async with AsyncExitStack() as stack:
        bench = await stack.enter_async_context(Bench.opened(folder, servers))
        orders = FIRST + ROUNDS * (WARM_UP + CALLS + CALLERS * CALLS_OF_EACH + 1)
        kept = {name: Kept(await bench.sell(orders)) for name in VARIANTS}
        for name, has in kept.items():
            await bench.turn(name, has.done, has.take(FIRST), callers=FIRST)
            await bench.idle()
        for number in range(ROUNDS):
            for name in VARIANTS[number % 3 :] + VARIANTS[: number % 3]:  # each begins a round in its turn
                await bench.round(name, kept[name])
        right = {name: await bench.right(has.done) for name, has in kept.items()}
        right_repeats = {name: await bench.right(has.repeated) for name, has in kept.items()}
        booked = {name: await bench.booked(has.repeated) for name, has in kept.items()}
        rows = table(kept, right, right_repeats)
        return rows, [f"one round trip: {await bench.round_trips()}", *verdict(rows), repeats_line(kept, booked)]


class Bench:
    """The processes under test and the undelayed access to what they work on."""

    def __init__(self, shop: Shop, crystalpay: CrystalPay, eye: Any, urls: Mapping[str, str], far: Servers) -> None:
        self.shop, self.crystalpay, self.eye, self.urls, self.far = shop, crystalpay, eye, urls, far

    @classmethod
    @asynccontextmanager
    async def opened(cls, folder: Path, servers: Servers) -> AsyncIterator["Bench"]:
        await migrate(servers.database_url)
        secrets = environment.secrets_of(folder)
        crystalpay = CrystalPay(*(secrets[f"TORG_CRYSTALPAY_{part}"] for part in ("LOGIN", "SECRET", "SALT")))
        telegram = Telegram(secrets["TORG_TELEGRAM_BOT_TOKEN"])
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            gateway_url = await enter(running(crystalpay.app()))
            near = secrets | {
                "TORG_DATA_DIR": str(folder),
                "TORG_DATABASE_URL": servers.database_url,
                "TORG_PENDING_ORDERS": "100",
                "TORG_REDIS_URL": servers.redis_url,
                "TORG_CRYSTALPAY_URL": gateway_url,
                "TORG_TELEGRAM_API_URL": await enter(running(telegram.app())),
                "TORG_PAYMENT_WINDOW_S": "7200",
                "TORG_TELEGRAM_PACE": "*=1000000/1",  # a place is taken as ever, and nobody waits for it
            }
            far = near | {"TORG_REDIS_TIMEOUT_MS": "1000"}  # it is as far away as the default is patient
            for name in ("DATABASE", "REDIS", "CRYSTALPAY"):
                key = f"TORG_{name}_URL"
                far[key], _ = await enter(proxied(name.lower(), near[key], delay_s=DELAY_S))
            urls = await enter(served(folder / "log", far))
            shop = await enter(opened(settings_floor.load(near)))
            eye = await asyncpg.connect(servers.database_url)
            stack.push_async_callback(eye.close)
            yield cls(shop, crystalpay, eye, urls, Servers(far["TORG_DATABASE_URL"], far["TORG_REDIS_URL"]))

    async def sell(self, count: int) -> list[Sale]:
        """So many orders of two products, with claimed units and a paid invoice, by the shop's own checkout."""
        pg = self.shop.deps.pg
        seller_id = await catalog.add_seller(pg, "Seller")
        cart = []
        for title, each in zip(("Key", "Voucher"), CART, strict=True):
            new = NewProduct(seller_id=seller_id, title=title, description="", category="Keys", kind="unit",
                             currency="RUB", list_price_minor=10_000)  # fmt: skip
            cart.append(stock.Units(await catalog.add_product(pg, new), each))
            keys = [units.Unit(line, str(uuid4())) for line in range(1, count * each + 1)]
            await shelve.shelve(self.shop, BENCH, cart[-1].product_id, keys, skip_duplicates=False)
        buyers = [
            await customers.enter(
                pg, telegram_id=number, name="Ann", username=None, language="en", is_admin=number == 1
            )
            for number in range(1, BUYERS + 1)
        ]
        return [await self._order(buyers[number % BUYERS].id, cart) for number in range(count)]

    async def _order(self, user_id: int, cart: list[stock.Units]) -> Sale:
        want = checkout.Want(user_id=user_id, cart=cart, provider="crystalpay", idempotency_key=str(uuid4()),
                             request_hash=bytes(32))  # fmt: skip
        order = (await checkout.place(self.shop, want)).order
        # Nobody else asks about it: the worker's poller would find the money before the bench has sent its callback.
        await self.eye.execute("UPDATE payments SET poll_at = NULL WHERE order_id = $1", order.id)
        invoice_id = str(order.payment_url).rpartition("i=")[2]
        # Without its address the gateway calls nobody: the bench does.
        await self.crystalpay.pay(invoice_id, wire.Payment(edit={"callback_url": None}))
        told = wire.callback_body(self.crystalpay.invoice(invoice_id), wire.Callbacks(), self.crystalpay.salt)
        rows = await self.eye.fetch(
            "SELECT stock_item_id FROM order_items WHERE order_id = $1 ORDER BY position", order.id
        )
        return Sale(order.id, invoice_id, [row[0] for row in rows], msgspec.json.encode(told))

    async def round(self, name: str, kept: Kept) -> None:
        """One variant's turn; the next one's begins when nothing is left to do for this."""
        for sale in kept.take(WARM_UP):
            await self.turn(name, kept.done, [sale])
        one_by_one = [await self.turn(name, kept.done, [sale]) for sale in kept.take(CALLS)]
        kept.single.append(in_a_row(one_by_one))
        await self.idle()
        kept.crowd.append(await self.turn(name, kept.done, kept.take(CALLERS * CALLS_OF_EACH), callers=CALLERS))
        await self.idle()
        (sale,) = kept.take(1)
        kept.repeats.append(await self.turn(name, kept.repeated, [sale] * REPEATS, callers=REPEATS))
        await self.idle()
        kept.refused += kept.single[-1].refused + kept.crowd[-1].refused

    async def turn(self, name: str, done: list[Sale], sales: Sequence[Sale], callers: int = 1) -> Turn:
        """Every callback is answered and every order delivered."""
        waiting = iter(sales)
        sent: dict[UUID, float] = {}
        answers_ms: list[float] = []
        refused = 0

        async def caller() -> None:
            nonlocal refused
            for sale in waiting:
                start = perf_counter()
                sent.setdefault(sale.order_id, start)
                status = await post(self.urls[name], sale.body)
                answers_ms.append((perf_counter() - start) * 1000)
                refused += status != 200

        start = perf_counter()
        watching = asyncio.create_task(self._delivered({sale.order_id for sale in sales}))
        try:
            await asyncio.gather(*(caller() for _ in range(callers)))
            answered_s = perf_counter() - start
            seen = await watching
        finally:
            watching.cancel()
        done += {sale.order_id: sale for sale in sales}.values()
        goods_ms = [(at - sent[order_id]) * 1000 for order_id, at in seen.items()]
        return Turn(Round(answers_ms, answered_s), Round(goods_ms, max(seen.values()) - start), refused)

    async def _delivered(self, orders: set[UUID]) -> dict[UUID, float]:
        """When each order was first seen delivered. Raises: TimeoutError."""
        seen: dict[UUID, float] = {}
        async with asyncio.timeout(PATIENCE_S):
            while left := orders - seen.keys():
                text = "SELECT id FROM orders WHERE id = ANY ($1) AND status = 'delivered'"
                rows = await self.eye.fetch(text, list(left))
                seen |= {row["id"]: perf_counter() for row in rows}
                await asyncio.sleep(POLL_S if len(left) > len(rows) else 0)
        return seen

    async def idle(self) -> None:
        """Torg owes nothing any more, and its buyers are told. Raises: TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            owed = True
            while owed:
                await asyncio.sleep(0.01)
                owed = await self.eye.fetchval("SELECT EXISTS (SELECT FROM outbox WHERE state = 'owed')")

    async def right(self, sales: list[Sale]) -> bool:
        rows = await self.eye.fetch(ONCE, [s.order_id for s in sales], [s.invoice_id for s in sales])
        return {row["id"]: row["units"] for row in rows} == {sale.order_id: sale.units for sale in sales}

    async def booked(self, sales: list[Sale]) -> float:
        """Lines in the books for each payment of these orders: one, if it was booked once."""
        text = "SELECT count(*) FROM order_events WHERE order_id = ANY ($1) AND to_status = 'paid'"
        return float(await self.eye.fetchval(text, [sale.order_id for sale in sales])) / len(sales)

    async def round_trips(self) -> str:
        """What the proxies really add, as medians."""
        far = await asyncpg.connect(self.far.database_url)
        redis = Pipe(self.far.redis_url, timeout_ms=1000)
        try:
            await redis.command("PING")
            postgres_ms = [await timed(far.fetch("SELECT 1")) for _ in range(21)]
            redis_ms = [await timed(redis.command("PING")) for _ in range(21)]
        finally:
            await redis.aclose()
            await far.close()
        return f"Postgres {statistics.median(postgres_ms):.1f} ms, Redis {statistics.median(redis_ms):.1f} ms"


async def post(url: str, body: bytes) -> int:
    """The status of an answer that has come whole. Written out, because httpx takes 2-5 ms for itself here."""
    to = urlsplit(url)
    reader, writer = await asyncio.open_connection(to.hostname, to.port)
    try:
        head = f"POST {to.path} HTTP/1.1\r\nHost: {to.netloc}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(answer.partition(b"content-length:")[2].split()[0]))
        return int(answer.split()[1])
    finally:
        writer.close()


async def timed(call: Any) -> float:
    start = perf_counter()
    await call
    return (perf_counter() - start) * 1000


@asynccontextmanager
async def served(log_dir: Path, environ: dict[str, str]) -> AsyncIterator[dict[str, str]]:
    """The address of each variant's webhook while its processes run."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TORG_")} | environ
    web_port, baseline_port = environment.free_port(), environment.free_port()
    web_url, baseline_url = f"http://127.0.0.1:{web_port}", f"http://127.0.0.1:{baseline_port}"
    ours |= {"TORG_PORT": str(web_port), "TORG_PUBLIC_URL": web_url}
    block = processes.running(log_dir, ours)
    start = block.__enter__()
    try:
        start("worker", "worker")
        web, other = start("web", "web"), baseline.start(start, baseline_port)
        await asyncio.to_thread(web.wait_ready, f"{web_url}/health/ready", PATIENCE_S)
        await asyncio.to_thread(other.wait_ready, f"{baseline_url}/ready", PATIENCE_S)
        urls = {name: f"{baseline_url}/{name}" for name in VARIANTS[1:]}
        yield urls | {"torg": f"{web_url}/api/webhook/crystalpay"}
    finally:
        # In a thread: on their way out the processes still speak through the proxies of this loop.
        await asyncio.to_thread(block.__exit__, None, None, None)


def in_a_row(turns: Sequence[Turn]) -> Turn:
    """Single callbacks as one turn, in which nobody waits for anything but answers (or goods)."""
    answers_ms = [ms for turn in turns for ms in turn.answers.calls_ms]
    goods_ms = [ms for turn in turns for ms in turn.goods.calls_ms]
    return Turn(
        Round(answers_ms, sum(answers_ms) / 1000), Round(goods_ms, sum(goods_ms) / 1000), sum(t.refused for t in turns)
    )


def table(kept: Mapping[str, Kept], right: Mapping[str, bool], right_repeats: Mapping[str, bool]) -> list[Row]:
    rows = []
    for name, has in kept.items():
        correct = right[name] and not has.refused
        rows.append(report.row(name, [turn.answers for turn in has.single], correct=correct))
        rows.append(report.row(GOODS[name], [turn.goods for turn in has.single], correct=correct))
        rows.append(report.row(f"{name} x{CALLERS}", [turn.answers for turn in has.crowd], correct=correct))
        rows.append(report.row(f"{name} x{CALLERS} goods", [turn.goods for turn in has.crowd], correct=correct))
        once = right_repeats[name] and not any(turn.refused for turn in has.repeats)
        rows.append(report.row(f"{name} {REPEATS} repeats", [turn.answers for turn in has.repeats], correct=once))
    return rows


def verdict(rows: Sequence[Row]) -> list[str]:
    """What was promised beside what was measured."""
    p50 = {row.variant: row.p50_ms for row in rows}
    trips = p50["torg"] / ROUND_TRIP_MS
    goods, total = p50["torg payment-to-goods"], p50["gathered"]
    promises = [
        (f"torg answers in {trips:.2f} round trips of {ROUND_TRIP_MS:.0f} ms", "at most 1.30", trips <= 1.3),
        *(
            (
                f"{p50[name] / p50['torg']:.1f} times sooner than {name}",
                f"at least {least}",
                p50[name] / p50["torg"] >= least,
            )
            for name, least in (("gathered", 5), ("sequential", 10))
        ),
        (f"payment to goods in {goods:.0f} ms, gathered answers in {total:.0f} ms", "no later", goods <= total),
    ]
    lines = [f"{said} (promised: {promise}): {'kept' if met else 'MISSED'}" for said, promise, met in promises]
    # No promise, but the other half of the story: jobs wait while callbacks come faster than a far worker does them.
    busy = p50[f"torg x{CALLERS} goods"], p50[f"gathered x{CALLERS}"]
    return [*lines, f"{CALLERS} callers: payment to goods in {busy[0]:.0f} ms, gathered answers in {busy[1]:.0f} ms"]


def repeats_line(kept: Mapping[str, Kept], booked: Mapping[str, float]) -> str:
    said = (
        f"{name} {booked[name]:.1f} ({sum(turn.refused for turn in has.repeats)} refused)" for name, has in kept.items()
    )
    return f"the same callback {REPEATS} times at once, lines in the books for one payment: {', '.join(said)}"
