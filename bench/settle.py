"""Payments settled per second: signed callbacks to two web processes, the source's handler, and bare SQL by pgbench.

`torg` is two real `torg web` processes as they come, log and rate limiter included: a callback is proven, and its order
paid by `settle_signed`, together with what else has come; its delivery is owed, and rung for. `sequential` is
`source.py` in two processes: the same proof, 12 queries. `answered` is a handler beside it that proves the callback and
does nothing: what framework, callers and machine leave to be had. Each is called by 64 callers, 32 for each process,
nothing is far away, and Postgres writes to disk before it answers. `pgbench` runs `settle_signed` itself with one
callback a call, prepared, over as many connections, without HTTP, JSON or signatures: what the statement alone gives.

All work on one database with orders that are made before each turn, interleaved; no worker delivers meanwhile.
`correct`: every order paid and booked once, the ledger adds up, and nothing but 200 was answered.
"""

import asyncio
import itertools
import os
import re
import statistics
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import UUID

import msgspec

from app.base import clock
from app.base.ids import new_id
from app.base.money import Money
from app.demo import environment, processes
from app.domain import catalog, ledger
from app.domain.catalog import NewProduct
from app.gateways.base import Ask
from app.gateways.cryptopay.wire import create_body
from app.infra import embedded
from app.infra.embedded import Servers
from app.infra.migrate import migrate
from app.infra.sql import PLANS, Postgres, queries
from app.sandbox import cryptopay_wire as wire
from bench import baseline, callers, report
from bench.report import Round, Row

ROUNDS = 5
PROCESSES = 2
CALLERS = 64
CALLS = {"torg": 4096, "sequential": 512, "answered": 4096, "pgbench": 2048}  # in a turn: a second or so
BUYERS = 1000
PRICE_MINOR = 10_000
FIRST_INVOICE = 1_000_000
TOKEN = "12345:AAmade-up-app-token-of-the-bench"
PATIENCE_S = 60
SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers", "commit_delay")

# What checkout leaves: a unit held, an order of one line, a payment with its link.
SELL = """
WITH given AS (SELECT * FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS g (id, invoice_id, n)),
buyers AS (SELECT u.id, row_number() OVER (ORDER BY u.id) - 1 AS n FROM users u),
made AS (
    INSERT INTO orders (id, user_id, seller_id, currency, total_minor, idempotency_key, request_hash, expires_at, slot)
    SELECT g.id, b.id, $3, 'RUB', $5, g.id::text, sha256(g.id::text::bytea), now() + interval '2 hours',
           1 + g.n / (SELECT count(*) FROM buyers)
      FROM given g JOIN buyers b ON b.n = g.n % (SELECT count(*) FROM buyers)),
held AS (
    INSERT INTO stock_items (id, product_id, state, sealed, fingerprint)
    SELECT g.id, $4, 'held', decode(repeat('5a', 60), 'hex'), sha256(g.id::text::bytea) FROM given g),
lines AS (
    INSERT INTO order_items (order_id, position, product_id, title, kind, stock_item_id, list_price_minor, price_minor)
    SELECT g.id, 1, $4, 'Key', 'unit', g.id, $5, $5 FROM given g),
noted AS (INSERT INTO order_events (order_id, to_status, role) SELECT g.id, 'pending', 'buyer' FROM given g)
INSERT INTO payments (order_id, provider, status, invoice_id, url, amount_minor, currency, poll_at)
SELECT g.id, 'cryptopay', 'open', g.invoice_id, 'https://t.me/CryptoBot/app', $5, 'RUB', now() + interval '20 seconds'
  FROM given g ORDER BY g.n
RETURNING id"""

ONCE = """
SELECT count(*) FROM orders o JOIN unnest($1::uuid[], $2::text[]) AS sold (id, invoice_id) USING (id)
 WHERE o.status = 'paid' AND o.paid_at IS NOT NULL AND o.paid_by = 'cryptopay:' || sold.invoice_id
   AND (SELECT array_agg(p.status || p.invoice_id || p.received_minor) FROM payments p WHERE p.order_id = o.id)
       = ARRAY['paid' || sold.invoice_id || o.total_minor]
   AND (SELECT array_agg(p.debit || p.amount_minor) FROM postings p WHERE p.order_id = o.id)
       = ARRAY['gateway:cryptopay' || o.total_minor]"""
# What Torg has besides: the event, its audit line, and the delivery that is owed.
KEPT = """
SELECT count(*) FROM unnest($1::uuid[], $2::text[]) AS sold (id, invoice_id)
 WHERE (SELECT array_agg(i.state || i.order_id) FROM inbox i
         WHERE i.provider = 'cryptopay' AND i.event_key = sold.invoice_id || ':paid') = ARRAY['settled' || sold.id]
   AND (SELECT j.state FROM outbox j WHERE j.kind = 'deliver' AND j.key = sold.id::text) = 'owed'
   AND (SELECT array_agg(e.to_status ORDER BY e.id) FROM order_events e WHERE e.order_id = sold.id)
       = ARRAY['pending', 'paid']"""
TOGETHER = """
SELECT count(*)::float8 / count(DISTINCT i.xmin::text) FROM inbox i WHERE i.order_id = ANY ($1)"""


class Sale(msgspec.Struct, frozen=True):
    """An order whose buyer has paid."""

    order_id: UUID
    invoice_id: int
    payment_id: int


class Turn(msgspec.Struct, frozen=True):
    """One variant's part of a round."""

    round: Round
    correct: bool
    cpu: float = 0.0  # the callers' part of the machine
    together: float = 1.0  # callbacks of one statement


def main() -> None:
    report.run("settle", compared)


async def compared(folder: Path, servers: Servers) -> tuple[list[Row], list[str]]:
    async with Bench.opened(folder, servers) as bench:
        variants: dict[str, Callable[[Sequence[Sale]], Awaitable[Turn]]] = {
            "torg": bench.torg, "sequential": bench.sequential, "answered": bench.answered,
            "pgbench": bench.pgbench,
        }  # fmt: skip
        done: dict[str, list[Turn]] = {name: [] for name in variants}
        for _ in range(ROUNDS + 1):  # the first is warm-up
            for name, turn in variants.items():
                done[name].append(await turn(await bench.sell(CALLS[name])))
            await bench.pg.fetch("ANALYZE", ())  # as a database that has worked for a minute is
        turns = {name: each[1:] for name, each in done.items()}
        adds_up = not await ledger.check(bench.pg)
        rows = [
            report.row(name, [turn.round for turn in each], correct=adds_up and all(turn.correct for turn in each))
            for name, each in turns.items()
        ]
        return rows, [*verdict(rows, turns), await bench.settings()]


class Bench:
    """The processes under test, and the undisturbed access to what they work on."""

    def __init__(self, pg: Postgres, folder: Path, servers: Servers, urls: dict[str, list[str]]) -> None:
        self.pg, self.folder, self.servers, self.urls = pg, folder, servers, urls
        self.invoices = itertools.count(FIRST_INVOICE)
        self.seller_id = self.product_id = 0

    @classmethod
    @asynccontextmanager
    async def opened(cls, folder: Path, servers: Servers) -> AsyncIterator["Bench"]:
        await migrate(servers.database_url)
        environ = environment.secrets_of(folder) | {
            "TORG_DATA_DIR": str(folder),
            "TORG_DATABASE_URL": servers.database_url,
            "TORG_REDIS_URL": servers.redis_url,
            "TORG_CRYPTOPAY_TOKEN": TOKEN,
            # As weighed as ever, and never refused: one address has 1000 a second for each process.
            "TORG_LIMITS": "webhooks=1000000/1",
        }
        async with AsyncExitStack() as stack:
            urls = await stack.enter_async_context(served(folder, environ))
            pg = await Postgres.open(servers.database_url, pool_size=2, timeout_ms=60_000)
            stack.push_async_callback(pg.close)
            bench = cls(pg, folder, servers, urls)
            await bench.furnish()
            yield bench

    async def furnish(self) -> None:
        """A seller with a product, and buyers."""
        self.seller_id = await catalog.add_seller(self.pg, "Seller")
        new = NewProduct(seller_id=self.seller_id, title="Key", description="", category="Keys", kind="unit",
                         currency="RUB", list_price_minor=PRICE_MINOR)  # fmt: skip
        self.product_id = await catalog.add_product(self.pg, new)
        text = "INSERT INTO users (telegram_id, name, role) SELECT n, 'Ann', $2 FROM generate_series(1, $1::int) n"
        await self.pg.fetch(text, (BUYERS, "buyer"))

    async def sell(self, count: int) -> list[Sale]:
        """So many orders with their payments linked."""
        orders, invoices = [new_id() for _ in range(count)], list(itertools.islice(self.invoices, count))
        args = (orders, [str(n) for n in invoices], self.seller_id, self.product_id, PRICE_MINOR)
        rows = await self.pg.fetch(SELL, args)
        return [Sale(*each, row["id"]) for each, row in zip(zip(orders, invoices, strict=True), rows, strict=True)]

    async def torg(self, sales: Sequence[Sale]) -> Turn:
        turn = await self.called("torg", sales)
        ((kept,),) = await self.pg.fetch(KEPT, named(sales))
        ((together,),) = await self.pg.fetch(TOGETHER, named(sales)[:1])
        return msgspec.structs.replace(turn, correct=turn.correct and kept == len(sales), together=together)

    async def sequential(self, sales: Sequence[Sale]) -> Turn:
        return await self.called("sequential", sales)

    async def answered(self, sales: Sequence[Sale]) -> Turn:
        turn = await self.called("answered", sales, paid=False)
        await self.pg.fetch("UPDATE orders SET status = 'expired' WHERE id = ANY ($1)", named(sales)[:1])
        return turn

    async def called(self, name: str, sales: Sequence[Sale], *, paid: bool = True) -> Turn:
        """Every callback is answered, and its order paid or left."""
        urls = self.urls[name]
        calls = await callers.called(urls, [request(urls[0], sale) for sale in sales], CALLERS)
        cpu = calls.cpu_s / calls.round.seconds / (os.cpu_count() or 1)
        return Turn(calls.round, not calls.refused and await self.paid(sales) is paid, cpu)

    async def pgbench(self, sales: Sequence[Sale]) -> Turn:
        """The statement, once for each callback."""
        each, log = len(sales) // CALLERS, self.folder / "log"
        (script := self.folder / "settle.sql").write_text(bare_statement())
        body, headers = callback(sales[0])
        given = {
            "first": sales[0].invoice_id, "each": each, "i": 0, "amount": PRICE_MINOR, "body": f"\\x{body.hex()}",
            "headers": msgspec.json.encode(headers).decode(),
        }  # fmt: skip
        flags = f"-n -M prepared -c {CALLERS} -j {PROCESSES} -t {each} -l -f {script} --log-prefix {log}/pgbench"
        command = [
            embedded._postgres("pgbench"),
            *flags.split(),
            *(f"-D{name}={value}" for name, value in given.items()),
        ]
        environ = {"PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in PLANS.items())}
        told = await asyncio.to_thread(
            subprocess.run, [*command, self.servers.database_url], capture_output=True, text=True, env=environ
        )
        rate = re.search(r"tps = ([0-9.]+)", told.stdout)
        if told.returncode or not rate:
            raise RuntimeError(f"pgbench: {told.stderr[:2000]}")
        calls_ms = []
        for part in log.glob("pgbench.*"):  # a line for each call: client, number, microseconds, …
            calls_ms += [int(line.split()[2]) / 1000 for line in part.read_text().splitlines()]
            part.unlink()
        assert len(calls_ms) == len(sales)
        return Turn(Round(calls_ms, len(sales) / float(rate[1])), await self.paid(sales))

    async def paid(self, sales: Sequence[Sale]) -> bool:
        ((right,),) = await self.pg.fetch(ONCE, named(sales))
        return bool(right == len(sales))

    async def settings(self) -> str:
        shown = [(await self.pg.fetch(f"SHOW {name}", ()))[0][0] for name in SETTINGS]
        said = ", ".join(f"{name} {value}" for name, value in zip(SETTINGS, shown, strict=True))
        return f"Postgres (embedded): {said}"


def named(sales: Sequence[Sale]) -> tuple[list[UUID], list[str]]:
    return [sale.order_id for sale in sales], [str(sale.invoice_id) for sale in sales]


def callback(sale: Sale) -> tuple[bytes, dict[str, str]]:
    """What Crypto Pay sends about the paid invoice."""
    ask = Ask(order_id=sale.order_id, payment_id=sale.payment_id, number=sale.payment_id,
              money=Money(PRICE_MINOR, "RUB"), lifetime_s=7200, return_url="https://shop.example/",
              callback_url="")  # fmt: skip
    wanted = msgspec.json.decode(create_body(ask), type=wire.Create)
    invoice = wire.invoice_from(wanted, sale.invoice_id, "https://pay.crypt.bot", clock.now())
    wire.mark_paid(invoice, clock.now())
    body, headers = wire.webhook(invoice, wire.Callbacks(), TOKEN, clock.now())
    return body, {"content-type": "application/json", "user-agent": "Crypto Pay API", **headers}


def request(url: str, sale: Sale) -> bytes:
    return callers.post(url, *callback(sale))


def bare_statement() -> str:
    """`settle_signed` of one callback as a pgbench script: its arguments are made of the number of the call."""
    text = queries("payments")["settle_signed"].text
    text = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    given = (
        "ARRAY['cryptopay']::text[]", "ARRAY[:n::text || ':' || 'paid']::text[]", "ARRAY[:body::bytea]::bytea[]",
        "ARRAY[:headers::text]::text[]", "ARRAY[:n::text]::text[]", "ARRAY[NULL]::uuid[]",
        "ARRAY[:amount::int8]::int8[]", "ARRAY['RUB']::text[]",
    )  # fmt: skip
    for number, argument in enumerate(given, 1):
        text = re.sub(rf"\${number}::\w+\[\]", argument, text)
    return f"\\set n :first + :client_id * :each + :i\n\\set i :i + 1\n{text}\n"


@asynccontextmanager
async def served(folder: Path, environ: dict[str, str]) -> AsyncIterator[dict[str, list[str]]]:
    """The addresses of each variant's webhook while its processes run."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TORG_")} | environ
    urls: dict[str, list[str]] = {"torg": [], "sequential": [], "answered": []}
    blocks = []
    try:
        for number in range(PROCESSES):
            web_port, source_port = environment.free_port(), environment.free_port()
            web_url, source_url = f"http://127.0.0.1:{web_port}", f"http://127.0.0.1:{source_port}"
            log_dir = folder / "log"
            log_dir.mkdir(exist_ok=True)
            block = processes.running(
                log_dir / str(number), ours | {"TORG_PORT": str(web_port), "TORG_PUBLIC_URL": web_url}
            )
            start = block.__enter__()
            blocks.append(block)
            web, source = start("web", "web"), baseline.start(start, source_port, "source")
            await asyncio.to_thread(web.wait_ready, f"{web_url}/health/ready", PATIENCE_S)
            await asyncio.to_thread(source.wait_ready, f"{source_url}/ready", PATIENCE_S)
            urls["torg"].append(f"{web_url}/api/webhook/payment/cryptopay")
            urls["sequential"].append(f"{source_url}/settle")
            urls["answered"].append(f"{source_url}/answer")
        yield urls
    finally:
        for block in blocks:
            await asyncio.to_thread(block.__exit__, None, None, None)


def verdict(rows: Sequence[Row], turns: dict[str, list[Turn]]) -> list[str]:
    """What was promised beside what was measured."""
    rate = {row.variant: row.per_second for row in rows}
    times, bare, most = (rate["torg"] / rate[name] for name in ("sequential", "pgbench", "answered"))
    together = statistics.median(turn.together for turn in turns["torg"])
    shares = {name: statistics.median(turn.cpu for turn in turns[name]) for name in ("torg", "sequential")}
    return [
        f"{times:.1f} times as many as sequential (promised: at least 8): {'kept' if times >= 8 else 'MISSED'}",
        f"{bare:.2f} times as many as the bare statement, one callback a call, by pgbench",
        f"{most:.0%} of a handler that proves the callback and does nothing ({times / most:.1f} times sequential)",
        f"{together:.1f} callbacks were settled by one statement",
        "the callers had " + ", ".join(f"{share:.0%} of the CPUs beside {name}" for name, share in shares.items()),
    ]
