"""The two Redis of these tests: a real server, which judges, and fakeredis, which needs none (`-k fake`)."""

from collections.abc import AsyncIterator

import pytest

from app.infra.lua import Redis
from tests.fake_redis import FakeRedis


@pytest.fixture
async def fake() -> AsyncIterator[FakeRedis]:
    fake = FakeRedis()
    yield fake
    await fake.aclose()


@pytest.fixture(params=["server", "fake"])
def store(request: pytest.FixtureRequest) -> Redis:
    """An empty Redis. A test that needs what the fake lacks (INFO) asks for `redis` instead."""
    found: Redis = request.getfixturevalue("redis" if request.param == "server" else "fake")
    return found
