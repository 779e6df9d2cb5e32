"""A shop with a bot that admins may write to."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.infra.embedded import Servers
from tests.bot.chat import Chat
from tests.world import World

ADMIN = 9009


@pytest.fixture
async def world(pg_url: str, servers: Servers, redis: Any) -> AsyncIterator[World]:
    async with World.opened(pg_url, servers.redis_url, admins=str(ADMIN)) as opened:
        yield opened


@pytest.fixture
def ann(world: World) -> Chat:
    return Chat(world)


@pytest.fixture
def admin(world: World) -> Chat:
    return Chat(world, ADMIN, name="Boss")
