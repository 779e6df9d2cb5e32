"""One read-through of a warm key under 64 concurrent callers: ours beside the caches that one would install.

Variants take turns on one server, each as its own documentation has it, with Redis behind it. `torg` serves a copy of
its process for 500 ms, `torg+redis` asks Redis each time. `cashews` lets callers of one process share a call, which
is its default; `cashews-client-side` has a copy in the process as well; `aiocache` is its `cached_stampede`;
`litestar` its response cache, called without a socket (routing and response are in its figure, and in no other's).
`correct`: this run's red tests found no fault; 1.5 s after an invalidation the old value is one.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import uvloop
from aiocache import RedisCache, cached_stampede
from aiocache.serializers import NullSerializer
from cashews import Cache
from cashews.backends.redis import Redis as CashewsRedis
from cashews.backends.redis.client_side import BcastClientSide
from cashews.wrapper.backend_settings import register_backend
from litestar import Litestar, Response, get
from litestar.config.response_cache import ResponseCacheConfig
from litestar.stores.redis import RedisStore
from redis.asyncio import Redis

from app.base.copies import Copies
from app.domain import catalog
from app.flows import browse
from app.infra import embedded, lua
from app.infra.pipe import Pipe
from bench import crowd, report

CALLS, ROUNDS = 100, 7
CROWD = 500
SETTLED_S = 1.5  # beyond our own bound of 1 s, and far below every life
LIFE_S = 300
PROMISED = 2.0  # times the fastest correct peer

Load = Callable[[str], Awaitable[bytes]]


class Variant(NamedTuple):
    read: Callable[[str], Awaitable[bytes]]
    invalidate: Callable[[str], Awaitable[object]]


class Source:
    """What is behind every cache: a value, how often it was read, and a gate that holds the answers back."""

    def __init__(self) -> None:
        self.value, self.loads = b"old" * 700, 0
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()

    async def __call__(self, _key: str) -> bytes:
        self.loads += 1
        value = self.value
        self.asked.set()
        await asyncio.sleep(0.005)  # as a statement does
        await self.may_answer.wait()
        return value


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="t-") as folder,
        embedded.serve(Path(folder), postgres=False) as servers,
    ):
        rows, faults = uvloop.run(compared(servers.redis_url))
    report.publish("cache", rows)
    for name, found in faults.items():
        for fault in found:
            print(f"{name}: {fault}")
    print(verdict(rows))


async def compared(url: str) -> tuple[list[report.Row], dict[str, list[str]]]:
    faults = {name: await tried(url, open_) for name, open_ in CACHES.items()}
    source = Source()
    async with AsyncExitStack() as stack:
        opened = {name: await stack.enter_async_context(open_(url, source)) for name, open_ in CACHES.items()}
        calls = {name: reading(variant, f"warm-{name}") for name, variant in opened.items()}
        rounds = await crowd.in_turns(calls, ROUNDS, CALLS)
    return [report.row(name, rounds[name], correct=not faults[name]) for name in CACHES], faults


def reading(variant: Variant, key: str) -> crowd.Call:
    return lambda _name: variant.read(key)


# ---- red tests


async def tried(url: str, open_: "Open") -> list[str]:
    """What is wrong with this cache."""
    found = []
    for test in (one_load_for_a_crowd, nothing_stale_when_idle, nothing_stale_when_loading):
        source = Source()
        async with open_(url, source) as variant:
            fault = await test(variant, source, uuid4().hex)
        found += [fault] if fault else []
    return found


async def one_load_for_a_crowd(variant: Variant, source: Source, key: str) -> str:
    await asyncio.gather(*(variant.read(key) for _ in range(CROWD)))
    return "" if source.loads == 1 else f"{CROWD} misses at once are {source.loads} loads"


async def nothing_stale_when_idle(variant: Variant, source: Source, key: str) -> str:
    await variant.read(key)
    source.value = b"new"
    await variant.invalidate(key)
    await asyncio.sleep(SETTLED_S)
    return "" if await variant.read(key) == b"new" else "invalidated, and the old value is still served"


async def nothing_stale_when_loading(variant: Variant, source: Source, key: str) -> str:
    source.may_answer.clear()
    early = asyncio.ensure_future(variant.read(key))
    await source.asked.wait()
    source.value = b"new"
    await variant.invalidate(key)
    source.may_answer.set()
    await early
    await asyncio.sleep(SETTLED_S)
    return "" if await variant.read(key) == b"new" else "invalidated while loading: the old value stays"


# ---- the caches

Open = Callable[[str, Load], AbstractAsyncContextManager[Variant]]


@asynccontextmanager
async def torg(url: str, load: Load, *, copied: bool = True) -> AsyncIterator[Variant]:
    age_s = catalog.LOCAL_MS / 1000 if copied else -1.0
    copies = Copies(age_s=age_s, most=catalog.COPIES, most_bytes=catalog.COPIES_BYTES)
    async with aclosing(Pipe(url, timeout_ms=5000)) as pipe:
        await lua.load(pipe, catalog.SCRIPTS)

        async def read(key: str) -> bytes:
            async def loaded() -> browse.Loaded:
                return browse.Loaded(await load(key), LIFE_S * 1000)

            entry = f"{catalog.product_entry(0)}{key}"
            return await copies.read(entry, lambda: browse.through(pipe, copies.clock, entry, loaded))

        yield Variant(read, lambda _key: catalog.bump(pipe))  # another process's: our copies are not told


@asynccontextmanager
async def cashews(url: str, load: Load, scheme: str = "unix") -> AsyncIterator[Variant]:
    register_backend("unix", CashewsRedis, pass_uri=True)
    register_backend("side", lambda address, **more: BcastClientSide(address.replace("side:", "unix:"), **more), True)
    cache = Cache()
    cache.setup(url.replace("unix:", f"{scheme}:"))
    await cache.init()
    read = cache(ttl=LIFE_S, key="{key}")(one_argument(load))
    try:
        yield Variant(read, cache.delete)
    finally:
        await cache.close()


@asynccontextmanager
async def aiocache(url: str, load: Load) -> AsyncIterator[Variant]:
    decorated = cached_stampede(
        lease=2, ttl=LIFE_S, cache=RedisCache, serializer=NullSerializer(encoding=None), key_builder=lambda _f, key: key
    )
    read = decorated(one_argument(load))
    client = Redis.from_url(url)
    decorated.cache.client = client  # its own constructor knows host and port only
    try:
        yield Variant(read, decorated.cache.delete)
    finally:
        await client.aclose()
        await client.connection_pool.disconnect()


@asynccontextmanager
async def litestar(url: str, load: Load) -> AsyncIterator[Variant]:
    client = Redis.from_url(url)
    store = RedisStore(client)

    @get("/{key:str}", cache=LIFE_S)
    async def page(key: str) -> Response[bytes]:
        return Response(await load(key))

    app = Litestar(
        [page], stores={"response_cache": store}, openapi_config=None, logging_config=None,
        response_cache_config=ResponseCacheConfig(key_builder=lambda request: request.url.path),
    )  # fmt: skip

    async def read(key: str) -> bytes:
        bodies: list[bytes] = []

        async def send(message: Any) -> None:
            bodies.append(message.get("body", b""))

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope: Any = {
            "type": "http", "method": "GET", "path": f"/{key}", "raw_path": f"/{key}".encode(), "query_string": b"",
            "headers": [(b"host", b"bench")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http",
            "root_path": "", "http_version": "1.1", "asgi": {"version": "3.0", "spec_version": "2.3"},
        }  # fmt: skip
        await app(scope, receive, send)
        return b"".join(bodies)

    try:
        yield Variant(read, lambda key: store.delete(f"/{key}"))
    finally:
        await client.aclose()
        await client.connection_pool.disconnect()


def one_argument(load: Load) -> Load:
    """The libraries read the signature of what they decorate."""

    async def value(key: str) -> bytes:
        return await load(key)

    return value


CACHES: Mapping[str, Open] = {
    "torg": torg,
    "torg+redis": lambda url, load: torg(url, load, copied=False),
    "cashews": cashews,
    "cashews-client-side": lambda url, load: cashews(url, load, scheme="side"),
    "aiocache": aiocache,
    "litestar": litestar,
}


def verdict(rows: list[report.Row]) -> str:
    ours, _, *peers = rows
    correct = [row for row in peers if row.correct]
    fastest = max(correct or peers, key=lambda row: row.per_second)
    times = ours.per_second / fastest.per_second
    kind = "correct peer" if correct else "peer, and none is correct"
    kept = "kept" if times >= PROMISED else "MISSED"
    return f"torg is {times:.1f} times {fastest.variant}, the fastest {kind} (promised: {PROMISED:.0f} times): {kept}"


if __name__ == "__main__":
    main()
