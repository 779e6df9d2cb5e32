"""`/metrics` of a real web process: what it counts, what it never tells, and that it answers when little else does."""

import time
from collections.abc import Mapping
from typing import Any, cast

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import errors
from app.base.tally import METRICS
from app.base.version import VERSION
from app.flows import measure
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.main import create_app
from app.settings import BadSettings, Settings, load
from tests.infra.one_redis import Server
from tests.web.test_shop import NO_REDIS, Door, problem
from tests.world import BOT_TOKEN, World, invoice_of

TOKEN = "token-of-the-scraper-of-the-tests-0123456789"

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not a dead Postgres."""
    monkeypatch.setattr(measure, "WAIT_S", 20)


def parsed(answer: httpx.Response) -> Samples:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def scraped(world: World) -> Samples:
    return parsed(await world.http.get("/metrics"))


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0)


def requests(samples: Samples, route: str, method: str, status: str) -> float:
    return of(samples, "torg_request_seconds_count", route=route, method=method, status=status)


pytestmark = pytest.mark.usefixtures("patient")


async def test_requests_are_counted_by_their_route_and_never_by_their_path(world: World) -> None:
    before = await scraped(world)
    ann = await world.buyer()
    for _ in range(3):
        assert (await ann.get("/api/products/987654321")).status_code == 404
    for path in (
        "/api/products/no-number",
        "/secret-path-of-a-client",
        "/api/webhook/payment/secret-path",
        "/%00secret-path",
    ):
        await world.http.get(path)
    assert (await world.http.delete("/api/catalog")).status_code == 405
    refused = await world.http.post("/api/webhook/payment/secret-path", content=b"{}")
    assert refused.status_code == 404
    assert refused.headers["x-request-id"]  # also where a middleware is the handler
    text = (await world.http.get("/metrics")).text
    after = await scraped(world)

    def more(route: str, method: str, status: str) -> float:
        return requests(after, route, method, status) - requests(before, route, method, status)

    assert more("/api/session", "POST", "2xx") == 1
    assert more("/api/products/{product_id}", "GET", "4xx") == 3
    assert more("unknown", "unknown", "4xx") == 5
    assert more("/api/webhook/payment/{provider}", "POST", "4xx") == 1
    assert more("/metrics", "GET", "2xx") == 2  # this one is not told in its own answer
    assert "secret-path" not in text
    assert "987654321" not in text


async def test_a_purchase_shows_in_every_stage(world: World) -> None:
    product = await world.product("KEY-1", "KEY-2")
    ann = await world.buyer()
    before = await scraped(world)
    placed = (await ann.order((product, 1))).json()
    await world.crystalpay.pay(invoice_of(placed))
    paid = await scraped(world)
    assert of(paid, "torg_outbox_rows", kind="settle") == 1
    assert of(paid, "torg_undelivered_orders") == 0
    await world.drain()
    after = await scraped(world)

    def more(name: str, **labels: str) -> float:
        return of(after, name, **labels) - of(before, name, **labels)

    for stage in ("verify", "store", "answer"):
        assert more("torg_webhook_seconds_count", gateway="crystalpay", stage=stage) == 1
    assert more("torg_statement_seconds_count", statement="orders/create_order") == 1
    assert more("torg_script_seconds_count", script="stock/reserve") >= 1
    for kind in ("settle", "deliver", "tell"):
        assert more("torg_jobs_total", kind=kind, outcome="done") == 1
        assert more("torg_job_seconds_count", kind=kind) == 1
    assert more("torg_telegram_messages_total", outcome="delivered") >= 1
    for step in ("reserved_to_paid", "paid_to_delivered"):
        assert of(after, "torg_orders_lately", step=step) == 1
        for quantile in ("0.5", "0.95"):
            assert 0 < of(after, "torg_order_lag_seconds", step=step, quantile=quantile) < 300
    assert {of(after, "torg_up", part=part) for part in ("postgres", "redis")} == {1}
    assert of(after, "torg_circuit", circuit="crystalpay", state="closed") == 1
    assert of(after, "torg_circuit", circuit="crystalpay", state="open") == 0


async def test_all_that_is_told_is_on_the_table_with_its_labels(world: World) -> None:
    await world.buyer()
    known = {metric.name: metric for metric in METRICS}
    for (name, labels), _ in (await scraped(world)).items():
        if name.startswith("process_"):
            continue
        metric = known.get(name) or known[name.rpartition("_")[0]]
        assert {label for label, _ in labels} - {"le"} == set(metric.labels), name


async def test_dead_letters_and_late_jobs_are_told(world: World) -> None:
    for kind, state, late_s in (("tell", "dead", 9), ("tell", "dead", 9), ("rank", "owed", 500)):
        await world.pg.fetch(
            "INSERT INTO outbox (kind, key, payload, state, run_at)"
            " VALUES ($1, gen_random_uuid(), '{}', $2, now() - $3::int * interval '1 second')",
            (kind, state, late_s),
        )
    found = await scraped(world)
    assert of(found, "torg_dead_letters", kind="tell") == 2
    assert 500 <= of(found, "torg_outbox_oldest_seconds", kind="rank") < 560


async def test_no_secret_is_told(pg_url: str, servers: Servers, redis: Pipe) -> None:
    async with World.opened(pg_url, servers.redis_url, metrics_token=TOKEN) as world:
        ann = await world.buyer()
        await ann.get("/api/me")
        await world.callback(b'{"id": "secret-of-a-body"}')
        text = (await world.http.get("/metrics")).text
        session = ann.headers["Authorization"].removeprefix("Bearer ")
        for secret in (*world.shop.deps.settings.secrets(), session, "secret-of-a-body", servers.redis_url, BOT_TOKEN):
            assert secret not in text


async def test_to_others_there_is_no_such_path(pg_url: str, servers: Servers, redis: Pipe) -> None:
    async with World.opened(pg_url, servers.redis_url, metrics_token=TOKEN, metrics_from="none") as world:
        nowhere = await world.http.get("/nowhere")
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-Forwarded-For": "127.0.0.1"}):
            answer = await world.http.get("/metrics", headers=headers)
            assert problem(answer, errors.NotFound) == nowhere.json()
        parsed(await world.http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}))
        assert "/metrics" not in (await world.http.get("/schema/openapi.json")).json()["paths"]


async def test_an_unknown_proxy_beside_us_opens_nothing(world: World) -> None:
    problem(await world.http.get("/metrics", headers={"X-Forwarded-For": "198.51.100.7"}), errors.NotFound)
    problem(await world.http.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}), errors.NotFound)


@pytest.mark.parametrize(
    ("public_url", "proxies", "status"),
    [("http://shop.example", "", 200), ("https://shop.example", "", 404), ("https://shop.example", "10.0.0.1/32", 200)],
)
async def test_behind_tls_that_is_not_ours_an_address_proves_nothing(
    settings: Settings, redis: Pipe, public_url: str, proxies: str, status: int
) -> None:
    app = create_app(msgspec.structs.replace(settings, public_url=public_url, trusted_proxies=proxies))
    async with app.lifespan():
        transport = httpx.ASGITransport(cast(Any, app), client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            assert (await http.get("/metrics")).status_code == status


def test_what_is_no_network_and_a_short_token_stop_the_start() -> None:
    with pytest.raises(BadSettings, match="TORG_METRICS_FROM"):
        create_app(Settings(database_url="postgresql://nowhere", redis_url=NO_REDIS, metrics_from="localhost"))
    with pytest.raises(BadSettings, match="TORG_METRICS_TOKEN"):
        load({"TORG_METRICS_TOKEN": "short"})


# ---- when little else answers


async def timed(world: World) -> tuple[Samples, float]:
    start = time.monotonic()
    found = await scraped(world)
    return found, time.monotonic() - start


async def test_without_redis_the_rest_is_told(pg_url: str, servers: Servers) -> None:
    async with World.opened(pg_url, NO_REDIS) as world:
        found, _ = await timed(world)
        assert of(found, "torg_up", part="redis") == 0
        assert of(found, "torg_up", part="postgres") == 1
        assert of(found, "torg_circuit", circuit="telegram", state="closed") == 1  # its own
        assert ("torg_undelivered_orders", frozenset()) in found


@pytest.mark.parametrize("frozen", [True, False])
async def test_without_postgres_the_rest_is_told(
    pg_url: str, servers: Servers, redis: Pipe, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    door = Door(pg_url)
    async with door.opened() as url, World.opened(url, servers.redis_url) as world:
        world.keeps_books = False
        await scraped(world)
        monkeypatch.setattr(measure, "WAIT_S", 0.3)
        if frozen:
            door.answers.clear()
        else:
            door.shut()
        for _ in range(3):
            found, took_s = await timed(world)
            assert took_s < 5, "it does not wait for Postgres' own timeout"
            assert of(found, "torg_up", part="postgres") == 0
            assert ("torg_undelivered_orders", frozenset()) not in found
            assert of(found, "torg_info", process="web", version=VERSION) == 1
        if frozen:  # all scrapes together hold one connection
            assert len(world.app.state.measures._flights.flying) == 1
            door.answers.set()
        else:
            await door.open()
        monkeypatch.setattr(measure, "WAIT_S", 20)
        for _ in range(50):
            if of(await scraped(world), "torg_up", part="postgres") == 1:
                break
        else:
            pytest.fail("Postgres is back, and the scrape does not see it")


async def test_a_frozen_redis_does_not_hold_up_the_scrape(pg_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    try:
        async with World.opened(pg_url, server.url, redis_timeout_ms=5000) as world:
            await scraped(world)
            server.freeze()
            monkeypatch.setattr(measure, "WAIT_S", 0.3)
            found, took_s = await timed(world)
            assert took_s < 4
            assert of(found, "torg_up", part="redis") == 0
            server.thaw()
    finally:
        server.kill()
