"""A TCP proxy on loopback between a process and its Postgres, Redis or gateway: it puts distance there, watches, cuts.

Bytes leave `delay_s` after they came, in their order, with any number of chunks on the way; a connect costs nothing
extra. So 25 ms each way make every round trip 50 ms longer and take no throughput away.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlencode, urlsplit, urlunsplit

CHUNK_BYTES = 64 * 1024
CHUNKS = 4096  # on the way in one direction of one connection; beyond that the sender waits
HOST = "127.0.0.1"

Direction = Literal["up", "down"]  # up: what the process asks; down: what it is answered

# Awaited with (proxy's name, direction, chunk) before the chunk goes on; False: it does not, its connection is cut.
OnChunk = Callable[[str, Direction, bytes], Awaitable[bool]]


class Upstream(NamedTuple):
    """Where a server listens; `path` is its unix socket, empty for TCP."""

    host: str
    port: int
    path: str = ""


def upstream_of(url: str) -> Upstream:
    """Where the server of this Postgres, Redis or HTTP URL listens."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if parts.scheme == "unix":
        return Upstream("", 0, unquote(parts.path))
    host = parts.hostname or query.get("host", "")
    usual = {"postgresql": 5432, "postgres": 5432, "redis": 6379, "http": 80}[parts.scheme]
    port = parts.port or int(query.get("port", usual))
    return Upstream("", 0, f"{host}/.s.PGSQL.{port}") if host.startswith("/") else Upstream(host or HOST, port)


def through(url: str, port: int) -> str:
    """The same URL by way of a proxy on this port: user, database, path and options stay."""
    parts = urlsplit(url)
    options = {name: values[0] for name, values in parse_qs(parts.query).items() if name not in ("host", "port")}
    user, at, _ = parts.netloc.rpartition("@")
    scheme, path = parts.scheme, parts.path
    if scheme == "unix":
        scheme, path = "redis", ""
    elif upstream_of(url).path:
        options.setdefault("sslmode", "disable")  # or the client would ask for TLS first: one more round trip
    return urlunsplit((scheme, f"{user}{at}{HOST}:{port}", path, urlencode(options), parts.fragment))


class Proxy:
    """One listening proxy; `delay_s` and `on_chunk` may be changed while it runs."""

    def __init__(self, name: str, upstream: Upstream, *, delay_s: float = 0.0, on_chunk: OnChunk | None = None) -> None:
        self.name, self.upstream = name, upstream
        self.delay_s, self.on_chunk = delay_s, on_chunk
        self.port = 0
        self.connections: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, until both sides are done with it or it is cut."""
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        ends = [writer]
        try:
            above, beyond = await self._dial()
            ends += [beyond]
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry("up", reader, beyond))
                both.create_task(self._carry("down", above, writer))
            for end in ends:  # what is still in its buffer goes out first
                end.close()
                await end.wait_closed()
        except* (OSError, asyncio.CancelledError):
            pass  # one of the two is gone, so the other is cut off; or the proxy closes
        finally:
            for end in ends:
                end.transport.abort()
            self.connections.discard(task)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.upstream.path:
            return await asyncio.open_unix_connection(self.upstream.path)
        return await asyncio.open_connection(self.upstream.host, self.upstream.port)

    async def _carry(self, direction: Direction, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Everything that comes from the source reaches the sink later, its end included."""
        way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS)

        async def leave() -> None:
            while True:
                try:
                    data = await source.read(CHUNK_BYTES)
                except OSError:  # a reset: what was sent before it still arrives
                    data = b""
                await way.put((monotonic() + self.delay_s, data))
                if not data:
                    return

        async def arrive() -> None:
            while True:
                due_s, data = await way.get()
                if (early_s := due_s - monotonic()) > 0:
                    await asyncio.sleep(early_s)
                if not data:
                    sink.write_eof()
                    return
                if self.on_chunk and not await self.on_chunk(self.name, direction, data):
                    raise ConnectionAbortedError("cut by on_chunk")
                sink.write(data)
                await sink.drain()

        async with asyncio.TaskGroup() as ends:
            ends.create_task(leave())
            ends.create_task(arrive())


@asynccontextmanager
async def listening(
    name: str, upstream: Upstream, *, delay_s: float = 0.0, on_chunk: OnChunk | None = None
) -> AsyncIterator[Proxy]:
    """A proxy on a free port; at the end of the block every connection through it is cut."""
    proxy = Proxy(name, upstream, delay_s=delay_s, on_chunk=on_chunk)
    server = await asyncio.start_server(proxy.serve, HOST, 0, limit=CHUNK_BYTES)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(proxy.connections):
            task.cancel()
        await asyncio.gather(*proxy.connections, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def proxied(
    name: str, url: str, *, delay_s: float = 0.0, on_chunk: OnChunk | None = None
) -> AsyncIterator[tuple[str, Proxy]]:
    """The URL by way of a new proxy, and the proxy."""
    async with listening(name, upstream_of(url), delay_s=delay_s, on_chunk=on_chunk) as proxy:
        yield through(url, proxy.port), proxy
