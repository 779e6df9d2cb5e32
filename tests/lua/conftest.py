"""The judges of these tests: one real server, a real cluster, and fakeredis, which needs no server (`-k fake`)."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from app.infra import embedded
from app.infra.lua import Redis
from tests.cluster import Cluster, serve
from tests.conftest import emptied
from tests.fake_redis import FakeRedis

JUDGES = {"server": "redis", "cluster": "cluster", "fake": "fake"}


@pytest.fixture
async def fake() -> AsyncIterator[FakeRedis]:
    fake = FakeRedis()
    yield fake
    await fake.aclose()


@pytest.fixture(scope="session")
def nodes() -> Iterator[list[str]]:
    """Where the nodes of this run's cluster listen; they start with the first test that asks."""
    with serve(embedded._redis()) as urls:
        yield urls


@pytest.fixture
async def cluster(nodes: list[str]) -> AsyncIterator[Cluster]:
    """An empty cluster; afterwards every key that is left is on the key map and will expire."""
    async with aclosing(Cluster(nodes)) as cluster, emptied(cluster):
        yield cluster


@pytest.fixture(params=JUDGES)
def store(request: pytest.FixtureRequest) -> Redis:
    """An empty Redis. A test that needs what only one server has (INFO, DUMP) asks for `redis` instead."""
    found: Redis = request.getfixturevalue(JUDGES[request.param])
    return found
