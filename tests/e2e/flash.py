"""A flash sale of real processes on servers of its own, which may die, and a crowd that insists on an answer."""

import asyncio
import os
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec

from app.base import clock, keys
from app.domain import catalog, stock
from app.infra import embedded
from app.infra.migrate import migrate
from app.infra.pipe import Pipe
from app.infra.secrets import Sealer, Session, Tokens
from app.infra.sql import Postgres
from app.sandbox.crystalpay import CrystalPay
from app.sandbox.serve import running
from app.sandbox.telegram import Telegram
from app.settings import Settings
from tests.e2e.stage import environment_of
from tests.e2e.traps import Doors, Process, Zygote, until
from tests.world import BOT_TOKEN, SALT, add_keys, invoice_of, reserved_port, settings_for, with_gateway

HOST = "127.0.0.1"
WEBS = 2
LINES = 64  # buyers who are served at the same time
MOST_WAIT_S = 1.0  # however long an answer asks to wait
USERS = """
INSERT INTO users (telegram_id, name)
SELECT n, 'Ann' FROM (SELECT count(*) AS known FROM users) k, generate_series(k.known + 1, k.known + $1::int) n
RETURNING id
"""

# Answers that say: ask again.
AGAIN = {
    (409, "/problems/in-progress"), (429, "/problems/too-many-requests"), (503, "/problems/busy"),
    (503, "/problems/redis-down"), (503, "/problems/postgres-down"), (503, "/problems/provider-down"),
    (503, "/problems/unavailable"),
}  # fmt: skip


class Answer(msgspec.Struct, frozen=True):
    status: int
    wait_s: float
    body: dict[str, Any]


class Line:
    """One keep-alive connection, used by one buyer after another."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def order(self, token: str, key: str, body: bytes) -> Answer:
        """Raises: OSError, EOFError when the connection or the process is gone."""
        reader, writer = self.streams = self.streams or await asyncio.open_connection(HOST, self.port)
        head = (
            f"POST /api/orders HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {key}\r\n"
        )
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        content = await reader.readexactly(int(headers["content-length"]))
        wait_s = min(MOST_WAIT_S, float(headers.get("retry-after", MOST_WAIT_S)))
        return Answer(int(status.split()[1]), wait_s, msgspec.json.decode(content))

    def hang_up(self) -> None:
        if self.streams:
            self.streams[1].transport.abort()
        self.streams = None


class Sale:
    """One product of one seller, two web processes and a worker, and their own Postgres and Redis."""

    def __init__(self, home: Path, settings: Settings, pg: Postgres, redis: Pipe) -> None:
        self.home, self.settings, self.pg, self.redis = home, settings, pg, redis
        self.sealer, self.tokens = Sealer(settings.goods_keys), Tokens(settings.session_secret)
        self.crystalpay = CrystalPay("desk", "secret-one-of-the-tests", SALT, minute_ms=100)
        self.telegram = Telegram(BOT_TOKEN)
        self.processes: list[Process] = []
        self.ports: list[int] = []
        self.seller_id = self.product_id = self.shelved = 0
        self.answers = Counter[str]()  # of every request
        self.answered = 0  # buyers who know what they got
        self.placed: list[tuple[int, dict[str, Any]]] = []  # user and order
        self.paying: list[asyncio.Task[Any]] = []
        self.news = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def opened(cls, zygote: Zygote) -> AsyncIterator[Self]:
        async with AsyncExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torg-flash-")))
            servers = stack.enter_context(embedded.serve(home))
            await migrate(servers.database_url)
            pg = await Postgres.open(servers.database_url, pool_size=4, timeout_ms=10_000)
            stack.push_async_callback(pg.close)
            redis = Pipe(servers.redis_url, timeout_ms=5000)
            stack.push_async_callback(redis.aclose)
            sale = cls(home, settings_for(servers.database_url, servers.redis_url), pg, redis)
            sale.ports = [reserved_port(stack) for _ in range(WEBS)]
            settings = msgspec.structs.replace(
                sale.settings,
                public_url=f"http://{HOST}:{sale.ports[0]}",
                telegram_api_url=await stack.enter_async_context(running(sale.telegram.app())),
            )
            gateway_url = await stack.enter_async_context(running(sale.crystalpay.app()))
            settings = with_gateway(settings, "crystalpay", url=gateway_url)
            for name, port in (*(("web", port) for port in sale.ports), ("worker", 0)):
                env = environment_of(msgspec.structs.replace(settings, port=port))
                process = Process(name, zygote, Doors(), env, home / f"{name}-{port}.log")
                stack.callback(process.kill)
                process.start()
                sale.processes.append(process)
            sale.seller_id = await catalog.add_seller(pg, "Seller")
            new = catalog.NewProduct(
                seller_id=sale.seller_id, title="Key", description="", category="Keys", kind="unit", currency="RUB",
                list_price_minor=10_000,
            )  # fmt: skip
            sale.product_id = await catalog.add_product(pg, new)
            await until(sale.open, "both doors are open", sale.log)
            yield sale

    async def open(self) -> bool:
        for port in self.ports:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                continue
            return False
        return True

    def log(self) -> str:
        return "\n".join(process.tail() for process in self.processes)

    # ---- the shop

    async def shelve(self, units: int) -> None:
        """So many more keys are for sale, as an import puts them there in the middle of it."""
        names = [f"KEY-{self.shelved + n}" for n in range(units)]
        await add_keys(self.pg, self.sealer, self.product_id, names)
        self.shelved += units
        await stock.forget(self.redis, self.seller_id, [self.product_id])

    async def counters(self) -> tuple[dict[int, int], int]:
        """What Redis counts, and how many holds it has."""
        flat: Any = await self.redis.command("HGETALL", keys.stock_free(self.seller_id))
        holds: Any = await self.redis.command("HLEN", keys.stock_held(self.seller_id))
        return {int(name): int(n) for name, n in zip(flat[::2], flat[1::2], strict=True)}, holds

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.pg.fetch(query, ())]

    async def goods(self) -> set[str]:
        """Every key that a buyer reads, each once. Raises: AssertionError."""
        read: list[str] = []
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{self.ports[0]}") as http:
            for user, placed in self.placed:
                token = self.tokens.issue(Session(user, "buyer", clock.unix_s() + 60))
                path = f"/api/orders/{placed['order']['id']}/goods"
                told = (await http.get(path, headers={"Authorization": f"Bearer {token}"})).json()
                read += [good["content"] for good in told["goods"]]
        assert len(read) == len(set(read))
        return set(read)

    def crashes(self) -> list[str]:
        """What looks like a defect in a log."""
        lines = [line for process in self.processes for line in process.lines()]
        return [line for line in lines if '"level": "error"' in line]

    # ---- the crowd

    async def crowd(self, size: int) -> None:
        """Each buyer has an order, paid at once, or knows that there is nothing left."""
        users = [row[0] for row in await self.pg.fetch(USERS, (size,))]
        session = (Session(user, "buyer", clock.unix_s() + 3600) for user in users)
        buyers = iter([(user, self.tokens.issue(next(session))) for user in users])
        async with asyncio.TaskGroup() as lines:
            for number in range(LINES):
                lines.create_task(self._serve(buyers, Line(self.ports[number % WEBS])))

    async def _serve(self, buyers: Iterator[tuple[int, str]], line: Line) -> None:
        body = msgspec.json.encode(
            {"lines": [{"product_id": self.product_id, "quantity": 1}], "provider": "crystalpay"}
        )
        for user, token in buyers:
            placed = await self._insist(line, token, f"flash-{user}", body)
            self.answered += 1
            if placed:
                self.placed.append((user, placed))
                self.paying.append(self.crystalpay.pay(invoice_of(placed)))
            async with self.news:
                self.news.notify_all()
        line.hang_up()

    async def _insist(self, line: Line, token: str, key: str, body: bytes) -> dict[str, Any] | None:
        while True:
            try:
                answer = await line.order(token, key, body)
            except (OSError, EOFError):
                self.answers["none"] += 1
                line.hang_up()
                await asyncio.sleep(0.05)
                continue
            kind = answer.status, str(answer.body.get("type", ""))
            self.answers[" ".join(map(str, kind)).strip()] += 1
            if answer.status == 201:
                return answer.body
            if kind == (409, "/problems/out-of-stock"):
                return None
            assert kind in AGAIN, f"{answer}\n{self.log()}"
            await asyncio.sleep(answer.wait_s)

    async def latecomers(self, units: int, within_s: float) -> int:
        """Buyers who come one by one until everything is sold; how many it took. Raises: TimeoutError."""
        came = 0
        async with asyncio.timeout(within_s):
            while len(self.placed) < units:
                await asyncio.sleep(0.2)
                await self.crowd(1)
                came += 1
        return came

    async def when(self, *, answered: float = 0, placed: int = 0) -> None:
        """So many buyers know what they got, and so many of them have an order."""
        async with self.news:
            await self.news.wait_for(lambda: self.answered >= answered and len(self.placed) >= placed)

    # ---- disasters

    async def flush(self) -> None:
        await self.redis.command("FLUSHALL")

    async def kill_redis(self) -> None:
        await self._restart(embedded.Redis(self.home, self.home / "run"), signal.SIGKILL)

    async def restart_postgres(self) -> None:
        """An immediate shutdown: what was not committed is gone, and it comes back by crash recovery."""
        await self._restart(embedded.Postgres(self.home, self.home / "run"), signal.SIGQUIT)

    async def _restart(self, server: embedded.Server, how: signal.Signals) -> None:
        os.kill(server.pid(), how)

        async def gone() -> bool:
            return not server.runs()

        await until(gone, f"{server.name} is gone", self.log)
        await asyncio.to_thread(self._start_again)

    def _start_again(self) -> None:
        with embedded.serve(self.home):  # whoever finds a server missing starts it; we are not its last user
            pass
