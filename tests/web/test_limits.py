"""Rate limits over real HTTP: who is told what, and what happens while Redis is away, frozen and back."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from app import errors
from app.domain import limits
from app.main import create_app
from app.settings import BadSettings, Settings
from app.web import hooks
from tests.infra.one_redis import Server
from tests.web.test_shop import NO_REDIS, problem
from tests.world import World

WIDE = "*=1000000/1"


@pytest.fixture
async def opened(pg_url: str, servers: Any) -> AsyncIterator[Any]:
    """Opens worlds with limits of their own."""
    worlds: list[Any] = []

    async def open_one(changes: str, redis_url: str = "", **more: Any) -> World:
        context = World.opened(pg_url, redis_url or servers.redis_url, limits=f"{WIDE} {changes}", **more)
        worlds.append(context)
        world = await context.__aenter__()
        if not redis_url:
            await world.shop.deps.redis.command("FLUSHALL")
        return world

    yield open_one
    for context in reversed(worlds):
        await context.__aexit__(None, None, None)


async def test_a_limit_is_told_before_and_when_it_is_used_up(opened: Any) -> None:
    world: World = await opened("search=3/2")
    for left in (2, 1, 0):
        answer = await world.http.get("/api/catalog")
        assert answer.status_code == 200
        assert f'"search";r={left};t=' in answer.headers["ratelimit"]
        assert answer.headers["ratelimit-policy"] == '"search";q=3;w=2'
    refused = await world.http.get("/api/catalog")
    told = problem(refused, errors.TooManyRequests)
    assert told["policies"] == ["search"]
    assert refused.headers["retry-after"] == "1"
    assert '"search";r=0' in refused.headers["ratelimit"]
    assert (await world.http.get("/api/products/1")).status_code == 404  # another endpoint, another bucket
    await asyncio.sleep(int(refused.headers["retry-after"]))
    assert (await world.http.get("/api/catalog")).status_code == 200


async def test_money_is_weighed_by_its_address_too(opened: Any) -> None:
    world: World = await opened("orders=9/60 address=4/3600")
    ann, bob = await world.buyer(1), await world.buyer(2)  # entering counts for the address
    answers = [await buyer.order((1, 1)) for buyer in (ann, bob, ann)]
    assert [answer.status_code for answer in answers] == [404, 404, 429]
    assert '"address";r=0' in answers[1].headers["ratelimit"]
    assert '"orders";r=8' in answers[1].headers["ratelimit"]
    told = problem(answers[2], errors.TooManyRequests)
    assert told["policies"] == ["address"]
    assert '"orders";r=8' in answers[2].headers["ratelimit"]  # all or nothing: only its first order counts


async def test_users_do_not_share_a_bucket_and_strangers_share_their_address(opened: Any) -> None:
    world: World = await opened("search=1/3600")
    ann, bob = await world.buyer(1), await world.buyer(2)
    assert (await ann.get("/api/catalog")).status_code == 200
    assert (await bob.get("/api/catalog")).status_code == 200
    problem(await ann.get("/api/catalog"), errors.TooManyRequests)
    assert (await world.http.get("/api/catalog")).status_code == 200
    forged = {"Authorization": "Bearer v1.3.buyer.9999999999.forged"}
    problem(await world.http.get("/api/catalog", headers=forged), errors.TooManyRequests)


async def test_a_forged_header_makes_nobody_new_unless_its_proxy_is_trusted(opened: Any) -> None:
    world: World = await opened("search=1/3600")
    assert (await world.http.get("/api/catalog", headers={"X-Forwarded-For": "198.51.100.1"})).status_code == 200
    for n in range(2, 5):
        answer = await world.http.get("/api/catalog", headers={"X-Forwarded-For": f"198.51.100.{n}"})
        problem(answer, errors.TooManyRequests)


async def test_behind_a_trusted_proxy_each_client_is_its_own(opened: Any) -> None:
    world: World = await opened("search=1/3600", trusted_proxies="127.0.0.0/8")

    async def ask(client: str) -> int:
        forwarded = f"1.1.1.1, {client}"  # the client wrote the first, the proxy the second
        return (await world.http.get("/api/catalog", headers={"X-Forwarded-For": forwarded})).status_code

    assert [await ask(f"198.51.100.{n}") for n in (1, 2, 1)] == [200, 200, 429]
    assert [await ask(f"2001:db8::{n}") for n in (1, 2)] == [200, 429]  # one /64


async def test_a_refusal_comes_before_the_body_is_read(opened: Any) -> None:
    world: World = await opened("session=1/3600")
    await world.buyer(1)
    answer = await world.http.post("/api/session", content=b"\xff not json")
    problem(answer, errors.TooManyRequests)


async def test_a_gateway_is_never_told_429(opened: Any) -> None:
    world: World = await opened("webhooks=2:1/60")
    answers = [await world.callback(b"{}") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [401, 401, 503, 503, 503]
    told = problem(answers[-1], errors.Busy)
    assert "callbacks" in told["detail"]
    assert int(answers[-1].headers["retry-after"]) > 0


async def test_too_many_callbacks_at_once_are_asked_to_come_again(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world: World = await opened("")
    monkeypatch.setattr(hooks, "MOST_CALLBACKS", 0)
    problem(await world.callback(b"{}"), errors.Busy)


async def test_without_redis_reads_go_on_by_own_buckets_and_money_and_login_wait(opened: Any) -> None:
    with_redis: World = await opened("")
    ann = await with_redis.buyer()
    world: World = await opened("search=2/3600", NO_REDIS)
    assert [(await world.http.get("/api/catalog")).status_code for _ in range(3)] == [200, 200, 429]
    ann.http = world.http
    assert (await ann.get("/api/orders")).status_code == 200
    entered = await world.http.post("/api/session", json={"init_data": world.init_data(2)})
    for answer in (entered, await ann.order((1, 1))):
        problem(answer, errors.RedisDown)
        assert answer.headers["retry-after"] == "1"


async def test_the_merchant_decides_what_is_open_without_redis(opened: Any) -> None:
    world: World = await opened("session=1/3600/open search=5/60/closed", NO_REDIS)
    await world.buyer(1)
    answer = await world.http.post("/api/session", json={"init_data": world.init_data(2)})
    problem(answer, errors.TooManyRequests)
    problem(await world.http.get("/api/catalog"), errors.RedisDown)


async def test_a_frozen_redis_costs_one_short_wait_and_its_return_is_noticed(opened: Any) -> None:
    server = Server()
    try:
        world: World = await opened("session=5/60", server.url, redis_timeout_ms=50)
        assert (await world.http.get("/api/catalog")).status_code == 200
        server.freeze()
        waited = []
        for _ in range(60):
            start = time.monotonic()
            assert (await world.http.get("/api/catalog")).status_code == 200
            waited.append(time.monotonic() - start)
        # The breaker is open: requests are as fast as without Redis, but for the one that found out.
        assert sorted(waited)[len(waited) // 2] < 0.05
        answer = await world.http.post("/api/session", json={"init_data": world.init_data(2)})
        problem(answer, errors.RedisDown)
        server.thaw()
        async with asyncio.timeout(5):
            again = {"init_data": world.init_data(2)}
            while (await world.http.post("/api/session", json=again)).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        server.kill()


async def test_a_lost_bucket_is_a_full_one(opened: Any) -> None:
    """A flush forgives, it never bans; a lost script is sent again."""
    world: World = await opened("search=1/3600")
    assert (await world.http.get("/api/catalog")).status_code == 200
    await world.shop.deps.redis.command("SCRIPT", "FLUSH")
    problem(await world.http.get("/api/catalog"), errors.TooManyRequests)
    await world.shop.deps.redis.command("FLUSHALL")
    assert (await world.http.get("/api/catalog")).status_code == 200


def handlers(settings: Settings) -> list[HTTPRouteHandler]:
    app = create_app(settings)
    routes = [route for route in app.routes if isinstance(route, HTTPRoute)]
    return [handler for route in routes if route.path.startswith("/api/") for handler in route.route_handlers]


def test_every_door_of_the_api_names_its_limits() -> None:
    found = handlers(Settings(database_url="postgresql://nowhere", redis_url=NO_REDIS))
    assert found
    known = limits.policies("")
    for handler in found:
        if handler.http_methods != {"OPTIONS"}:  # Litestar's own
            named = handler.opt.get("limits", ())
            assert named, f"{handler.handler_name} has no limits"
            assert set(named) <= known.keys(), handler.handler_name


@pytest.mark.parametrize(
    "text",
    ["search", "search=0/60", "search=10/0", "nothing=10/60", "search=10", "search=-1/60", "search=1e3/60",
     "search=10/60/maybe", "search=999999999:1/60", "search=٣/60"],
)  # fmt: skip
def test_bad_limits_are_refused_by_name(text: str) -> None:
    with pytest.raises(BadSettings, match="TORG_LIMITS"):
        limits.policies(text)


def test_changes_change_what_they_name() -> None:
    found = limits.policies("*=10:20/30, orders=5:20/60/open")
    assert (found["search"].burst, found["search"].refill, found["search"].period_s) == (10, 20, 30)
    assert found["search"].without_redis is limits.Without.OPEN
    assert (found["orders"].burst, found["orders"].refill, found["orders"].period_s) == (5, 20, 60)
    assert found["orders"].without_redis is limits.Without.OPEN
    assert found["session"].without_redis is limits.Without.CLOSED


def test_the_source_asks_for_a_hundred_searches_a_minute() -> None:
    search = limits.policies("")["search"]
    assert (search.burst, search.refill, search.period_s, search.who) == (100, 100, 60, limits.Who.CALLER)


def test_bad_proxies_stop_the_start() -> None:
    with pytest.raises(BadSettings, match="TORG_TRUSTED_PROXIES"):
        create_app(Settings(database_url="postgresql://nowhere", redis_url=NO_REDIS, trusted_proxies="10.0.0.0/99"))
