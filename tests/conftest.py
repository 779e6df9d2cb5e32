"""A real Postgres and a real Redis for every test: one pair of servers per run, one fresh database per test."""

import gc
import os
import re
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from aiogram.client.session.aiohttp import AiohttpSession

from app.base.keys import KEYS
from app.infra import embedded
from app.infra.embedded import Servers
from app.infra.lua import Redis
from app.infra.migrate import migrate
from app.infra.pipe import Pipe
from app.infra.sql import Postgres
from app.settings import Settings
from tests.databases import Databases
from tests.roots import read_once
from tests.world import World, settings_for

TEMPLATE = "torg_template"
LONG = {
    "test_broadcasts.py",
    "test_catalog_races.py",
    "test_consult.py",
    "test_money_storms.py",
    "test_stock_import.py",
}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first, in whatever order: last, one process would wait for the other."""
    items.sort(key=lambda item: "e2e" not in item.path.parts and item.path.name not in LONG)


def pytest_collection_finish() -> None:
    """What was collected stays: the garbage collector need not look through it again and again (8 % of the time)."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if seed := config.getoption("randomly_seed", None):
        terminalreporter.write_line(f"in the order of --randomly-seed={seed}")


@pytest.fixture(scope="session", autouse=True)
def redis_binary() -> Iterator[None]:
    """Every Redis of this run is the embedded one, or the one that TORG_TEST_REDIS names (`make test-redis`)."""
    with pytest.MonkeyPatch.context() as patch:
        if wanted := os.environ.get("TORG_TEST_REDIS"):
            found = redis_7(wanted)
            patch.setattr(embedded, "_redis", lambda: found)
        yield


@pytest.fixture(scope="session", autouse=True)
def roots() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", read_once())
        yield


@pytest.fixture(scope="session", autouse=True)
def sessions() -> Iterator[None]:
    """aiogram's session closes without its nap of 0.25 s, which is for the goodbye of TLS: here is none."""

    async def close(self: AiohttpSession) -> None:
        if self._session is not None and not self._session.closed:
            await self._session.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AiohttpSession, "close", close)
        yield


def redis_7(wanted: str) -> str:
    """The path of this server; one that is missing or older fails the test with the line that says how to get it."""
    found = shutil.which(wanted)
    told = subprocess.run([found, "--version"], capture_output=True, check=False).stdout if found else b"not there"
    if not found or not re.search(rb"\bv=([7-9]|\d\d)\.", told):
        says = told.decode(errors="replace").strip()[:80]
        pytest.fail(f"no Redis 7 ({wanted}: {says}): apt-get install redis-server, or set TORG_TEST_REDIS", False)
    return found


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The servers of this run; missing binaries fail every test with the one line that says how to get them."""
    with tempfile.TemporaryDirectory(prefix="torg-test-") as home, embedded.serve(Path(home)) as running:
        yield running


@pytest.fixture(scope="session")
def databases(servers: Servers, template: str) -> Databases:
    return Databases(servers.database_url, template)


@pytest.fixture
async def pg_url(databases: Databases) -> AsyncIterator[str]:
    """A database of this test's own, with every migration and nothing else."""
    yield await databases.take()
    await databases.give_back()


@pytest.fixture(scope="session")
def template(servers: Servers) -> str:
    """A migrated database to copy."""
    import asyncio

    async def make() -> None:
        admin = await asyncpg.connect(servers.database_url)
        try:
            await admin.execute(f"CREATE DATABASE {TEMPLATE}")
        finally:
            await admin.close()
        await migrate(servers.database_url.replace("/torg?", f"/{TEMPLATE}?"))

    asyncio.run(make())
    return TEMPLATE


@pytest.fixture
async def pg(pg_url: str) -> AsyncIterator[Postgres]:
    pool = await Postgres.open(pg_url, pool_size=8, timeout_ms=10_000)
    yield pool
    await pool.close()


@pytest.fixture
async def redis(servers: Servers) -> AsyncIterator[Pipe]:
    """An empty Redis; afterwards every key that is left is on the key map and will expire."""
    async with aclosing(Pipe(servers.redis_url, timeout_ms=10_000)) as pipe, emptied(pipe):
        yield pipe


@asynccontextmanager
async def emptied(store: Redis) -> AsyncIterator[None]:
    """Nothing is there inside the block; what its end finds is checked. Raises: AssertionError."""
    await store.command("FLUSHALL")
    try:
        yield
        await check_keys(store)
    finally:
        await store.command("FLUSHALL")


async def check_keys(pipe: Redis) -> None:
    """Raises: AssertionError for a key that the map does not have, or that lives longer than it says."""
    rows = [(re.compile(_regex(key.pattern)), key.ttl) for key in KEYS]
    keys = await pipe.command("KEYS", "*")
    assert isinstance(keys, list)
    for name in keys:
        text = name.decode()
        ttl = next((ttl for pattern, ttl in rows if pattern.fullmatch(text)), None)
        assert ttl is not None, f"Redis key {text!r} is not on the map of app/base/keys.py"
        left = await pipe.command("PTTL", name)
        assert isinstance(left, int)
        assert ttl == "permanent" or left != -1, f"Redis key {text!r} never expires"


def _regex(pattern: str) -> str:
    return "".join(".+" if part.startswith("<") else re.escape(part) for part in re.split(r"(<[^>]+>)", pattern))


@pytest.fixture
def settings(pg_url: str, servers: Servers) -> Settings:
    """Settings with every secret set; no outside party runs behind them."""
    return settings_for(pg_url, servers.redis_url)


@pytest.fixture
async def world(pg_url: str, servers: Servers, redis: Pipe) -> AsyncIterator[World]:
    """A whole shop: web over HTTP, both simulators over HTTP, jobs on demand."""
    async with World.opened(pg_url, servers.redis_url) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def shared(module_world: World) -> World:
    """The world of all tests of a module, in which nothing that the test before has left is waiting."""
    await module_world.forget()
    return module_world
