"""Who listens, and to what, for the tests of events."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from app.flows import converse
from app.infra.embedded import Servers
from app.sandbox import serve
from app.web.server import Http
from tests.infra.one_redis import Server
from tests.web.chatting import Consultant
from tests.web.listening import Ann, signed_in, streams, until
from tests.world import Buyer, World


@pytest.fixture
def torgs_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are as in `torg web`."""
    plain = serve.quiet_config

    def config(app: Any) -> uvicorn.Config:
        made = plain(app)
        made.http = Http
        return made

    monkeypatch.setattr(serve, "quiet_config", config)


@pytest.fixture
async def ann(torgs_own_server: None, world: World) -> AsyncIterator[Ann]:
    """Afterwards her tabs are closed, and nothing is left of them here."""
    async with signed_in(world) as one:
        yield one
    await until(lambda: streams(world).open == 0)
    assert streams(world)._readers == {}
    assert await world.shop.deps.redis.command("PUBSUB", "CHANNELS") == []


@pytest.fixture
async def outage(torgs_own_server: None, pg_url: str, servers: Servers) -> AsyncIterator[tuple[Server, Ann]]:
    """A world whose Redis is its own."""
    server = Server()
    try:
        async with World.opened(pg_url, server.url) as world, signed_in(world) as ann:
            yield server, ann
    finally:
        server.kill()


@pytest.fixture
async def consultant(
    torgs_own_server: None, monkeypatch: pytest.MonkeyPatch, world: World
) -> AsyncIterator[Consultant]:
    """Afterwards nobody writes any more."""
    one = Consultant()
    monkeypatch.setattr(converse, "talk", one.talk)
    yield one
    await until(lambda: world.app.state.chats.open == [])


@pytest.fixture
async def buyer(world: World) -> Buyer:
    return await world.buyer(1001)
