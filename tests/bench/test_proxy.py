"""The proxy puts distance between two ends without changing what they say; real servers answer behind it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest
from arq.connections import RedisSettings
from litestar import Litestar, get

from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.sandbox.serve import running
from bench.proxy import HOST, Direction, Proxy, Upstream, listening, proxied, through, upstream_of

DELAY_S = 0.025
EARLY_S = 0.002  # timers count whole milliseconds; no upper bound, a busy machine is always later


@asynccontextmanager
async def echo() -> AsyncIterator[Upstream]:
    """A server that says everything back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield Upstream(HOST, server.sockets[0].getsockname()[1])


async def said_back(port: int, said: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(said)
    writer.write_eof()
    heard = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return heard


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  (nobody could set an event for it)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("url", "upstream", "changed"),
    [
        (
            "postgresql://torg@/torg?host=%2Ftmp%2Frun&port=5432",
            Upstream("", 0, "/tmp/run/.s.PGSQL.5432"),
            "postgresql://torg@127.0.0.1:7/torg?sslmode=disable",
        ),
        (
            "postgresql://u:p%40w@db.example:6432/shop?sslmode=require",
            Upstream("db.example", 6432),
            "postgresql://u:p%40w@127.0.0.1:7/shop?sslmode=require",
        ),
        ("unix:///tmp/a%20b/redis.sock?db=3", Upstream("", 0, "/tmp/a b/redis.sock"), "redis://127.0.0.1:7?db=3"),
        ("redis://:pw@cache/2", Upstream("cache", 6379), "redis://:pw@127.0.0.1:7/2"),
        ("http://127.0.0.1:8080", Upstream("127.0.0.1", 8080), "http://127.0.0.1:7"),
        ("http://pay.example/v3", Upstream("pay.example", 80), "http://127.0.0.1:7/v3"),
    ],
)
def test_a_url_by_way_of_the_proxy(url: str, upstream: Upstream, changed: str) -> None:
    assert upstream_of(url) == upstream
    assert through(url, 7) == changed


async def test_postgres_behind_its_unix_socket_is_one_delay_each_way_further(servers: Servers) -> None:
    async with proxied("postgres", servers.database_url, delay_s=DELAY_S) as (url, _):
        connection = await asyncpg.connect(url)
        start = time.perf_counter()
        assert await connection.fetchval("SELECT 42") == 42
        took_s = time.perf_counter() - start
        await connection.close()
    assert took_s >= 2 * DELAY_S - EARLY_S


async def test_redis_behind_its_unix_socket(servers: Servers) -> None:
    async with proxied("redis", f"{servers.redis_url.partition('?')[0]}?db=5", delay_s=DELAY_S) as (url, _):
        assert RedisSettings.from_dsn(url).database == 5
        pipe = Pipe(url, timeout_ms=10_000)
        await pipe.command("SET", "proxied", "yes", "PX", 1000)
        start = time.perf_counter()
        assert await pipe.command("GET", "proxied") == b"yes"
        assert time.perf_counter() - start >= 2 * DELAY_S - EARLY_S
        await pipe.aclose()
    direct = Pipe(f"{servers.redis_url.partition('?')[0]}?db=5", timeout_ms=10_000)
    assert await direct.command("DEL", "proxied") == 1
    await direct.aclose()


async def test_http_behind_a_port() -> None:
    @get("/hello")
    async def hello() -> str:
        return "hello"

    app = Litestar([hello], openapi_config=None)
    async with running(app) as url, proxied("http", url) as (near, _), httpx.AsyncClient(base_url=near) as client:
        assert (await client.get("/hello")).text == "hello"


async def test_bytes_keep_their_order_and_overlap_on_the_way() -> None:
    said = b"".join(n.to_bytes(4, "big") for n in range(1_000_000))  # 61 reads of 64 KiB at least
    async with echo() as upstream, listening("echo", upstream, delay_s=0.05) as proxy:
        start = time.perf_counter()
        assert await said_back(proxy.port, said) == said
        took_s = time.perf_counter() - start
    assert 0.1 - EARLY_S <= took_s < 61 * 0.05, "one chunk after another would take at least 61 delays"


async def test_the_hook_sees_every_byte_before_it_goes_on() -> None:
    seen: list[tuple[str, Direction, bytes]] = []

    async def note(name: str, direction: Direction, data: bytes) -> bool:
        await asyncio.sleep(0.01 if direction == "up" else 0)
        seen.append((name, direction, data))
        return True

    async with echo() as upstream, listening("echo", upstream, on_chunk=note) as proxy:
        assert await said_back(proxy.port, b"hello") == b"hello"
    assert seen == [("echo", "up", b"hello"), ("echo", "down", b"hello")]


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_refused_chunk_cuts_its_connection_and_no_other(direction: Direction) -> None:
    async def refuse(_: str, way: Direction, data: bytes) -> bool:
        return way != direction or data != b"secret"

    async with echo() as upstream, listening("echo", upstream, on_chunk=refuse) as proxy:
        other, keeps = await asyncio.open_connection(HOST, proxy.port)
        heard = b"?"
        try:
            heard = await said_back(proxy.port, b"secret")
        except ConnectionError:
            heard = b""
        assert heard == b""
        keeps.write(b"mine")
        assert await other.readexactly(4) == b"mine"
        keeps.close()
        await keeps.wait_closed()


async def test_without_a_server_the_client_is_cut_off() -> None:
    async with echo() as gone:
        pass
    async with listening("echo", gone) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        writer.close()


async def test_closing_cuts_what_is_open_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    kept: Proxy
    async with echo() as upstream, listening("echo", upstream, delay_s=60) as kept:
        clients = [await asyncio.open_connection(HOST, kept.port) for _ in range(20)]
        for _, writer in clients:
            writer.write(b"never arrives")
        await until(lambda: len(kept.connections) == 20)
    for reader, writer in clients:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        writer.close()
    assert not kept.connections
    await asyncio.sleep(0.05)  # the echo server's own tasks see their ends
    assert asyncio.all_tasks() == before
    with pytest.raises(OSError, match=str(kept.port)):
        await asyncio.open_connection(HOST, kept.port)


async def test_a_client_that_left_ends_its_connection() -> None:
    async with echo() as upstream, listening("echo", upstream) as proxy:
        assert await said_back(proxy.port, b"bye") == b"bye"
        await until(lambda: not proxy.connections)
