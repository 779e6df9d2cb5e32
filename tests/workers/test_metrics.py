"""What a worker counts about its jobs and sweeps, and the page on which it shows that."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.base import keys, tally
from app.base.address import Proxies
from app.base.lease import Lease
from app.base.readers import Readers
from app.base.tally import Counter, Histogram, Series
from app.domain import outbox, stock
from app.errors import PostgresDown, ProviderDown
from app.flows.audit import audit
from app.settings import BadSettings
from app.shop import Shop
from tests.workers.test_jobs import done, hangs, owe, row
from tests.workers.test_worker import until, working
from tests.world import World, invoice_of
from workers import jobs, main, metrics
from workers.kinds import KINDS, Kind
from workers.relay import Relay

TOKEN = "token-of-the-scraper-of-the-tests-0123456789"
LOCAL = Readers("127.0.0.0/8", TOKEN, Proxies(""))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was counted yet."""
    for metric in tally.METRICS:
        if isinstance(metric, Counter):
            monkeypatch.setattr(metric, "values", dict.fromkeys(metric.known, 0))
        elif isinstance(metric, Histogram) and metric not in (tally.SCRIPTS, tally.STATEMENTS):
            monkeypatch.setattr(metric, "series", Series(metric))


@pytest.fixture
def port() -> Iterator[int]:
    """One that nobody takes meanwhile."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


async def page(port: int, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as http:
        return await http.get(f"http://127.0.0.1:{port}/metrics", headers=headers)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")
async def test_a_worker_shows_what_it_did(world: World, port: int) -> None:
    product = await world.product("KEY-1")
    ann = await world.buyer()
    async with working(world, metrics_port=port):
        placed = (await ann.order((product, 1))).json()
        await world.crystalpay.pay(invoice_of(placed))

        async def told() -> bool:
            return tally.TELEGRAM.values["delivered",] >= 1 and tally.JOBS.values.get(("tell", "done"), 0) >= 1

        await until(told, within_s=10)
        answer = await page(port)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        found = samples(answer.text)
        for kind in ("settle", "deliver", "tell"):
            assert found["torg_jobs_total", frozenset({("kind", kind), ("outcome", "done")})] >= 1
            assert found["torg_job_seconds_count", frozenset({("kind", kind)})] >= 1
        assert found["torg_job_lag_seconds_count", frozenset({("kind", "settle")})] == 1
        for sweep in ("relay", "expire", "poll", "overdue"):
            assert found["torg_sweeps_total", frozenset({("sweep", sweep), ("outcome", "done")})] >= 1
        assert {dict(labels)["process"] for name, labels in found if name == "torg_info"} == {"worker"}
        assert "torg_up" not in {name for name, _ in found}, "what all share is the web's to tell"
        for secret in world.shop.deps.settings.secrets():
            assert secret not in answer.text
        assert (await page(port, **{"X-Forwarded-For": "127.0.0.1"})).status_code == 404
    with pytest.raises(httpx.ConnectError):
        await page(port)


async def test_attempts_count_by_how_they_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        raise ProviderDown("away")

    async def breaks(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        raise outbox.BadPayload("no such thing")

    for name, handler in (("well", done), ("later", fails), ("never", breaks), ("hanging", hangs)):
        monkeypatch.setitem(KINDS, name, Kind(handler))
    shop: Shop = world.shop
    for name in ("well", "well", "later", "never", "of_tomorrow"):
        await jobs.run(shop, await owe(shop, name, overdue_s=70))
    hanging = await owe(shop, "hanging")
    running = asyncio.create_task(jobs.run(shop, hanging))
    while not (await row(shop, hanging))["leased"]:  # noqa: ASYNC110  (what is waited for is in Postgres)
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert tally.JOBS.values == {
        ("well", "done"): 2, ("later", "retried"): 1, ("never", "dead"): 1, ("unknown", "dead"): 1,
        ("hanging", "returned"): 1,
    }  # fmt: skip
    assert {labels[0]: sum(times.counts) for labels, times in tally.JOB_SECONDS.series.items()} == {
        "well": 2, "later": 1, "never": 1, "hanging": 1,
    }  # fmt: skip
    lags = tally.JOB_LAG.series
    assert lags["well",].counts[-2:] == [2, 0]  # 60 to 600 s
    assert 140 <= lags["well",].sum_s < 400
    assert lags["hanging",].sum_s < 60
    assert ("of_tomorrow",) not in lags


async def test_sweeps_and_what_the_relay_finds_count(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "well", Kind(done))
    for _ in range(3):
        await owe(world.shop, "well", overdue_s=1)
    assert await Relay(4).sweep(world.shop) == 3
    assert tally.RELAY_FOUND.values == {(): 3}

    told = asyncio.Event()

    async def expire(shop: Shop) -> int:
        told.set()
        raise PostgresDown("away")

    await main._every(0.01, expire, world.shop, told)
    ((labels, times),) = tally.SWEEPS.values.items()
    assert (labels[1], times) == ("failed", 1)


async def test_messages_count_by_how_they_ended(world: World) -> None:
    assert world.shop.deps.messenger
    await world.buyer(7001)
    await world.shop.deps.messenger.send(7001, "hello")
    world.telegram.blocked.add(7001)
    await world.shop.deps.messenger.send(7001, "hello?")
    assert {outcome: n for (outcome,), n in tally.TELEGRAM.values.items() if n} == {"delivered": 1, "blocked": 1}


async def test_drift_counts_in_both_directions(world: World) -> None:
    many, few = await world.product(*"ABC"), await world.product(*"ABC")
    redis = world.shop.deps.redis
    await stock.recount(redis, world.pg, world.seller_id, [many, few])
    await redis.command("HSET", keys.stock_free(world.seller_id), many, 99, few, 1)
    for _ in range(2):
        await audit(world.shop)
        assert tally.DRIFT.values == {("over",): 96, ("under",): 2}


# ---- the page


async def text() -> bytes:
    return b"x 1\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nauthorization:  Bearer wrong\r\n\r\n", b"200"),
        (b"GET /metrics?x=1 HTTP/1.1\r\n\r\n", b"404"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics HTTP/1.1\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n", b"404"),
        (b"\r\n\r\n", b"404"),
        (b"\xff\x00 \xff\r\n:::\r\n\xff\r\n\r\n", b"404"),
        (b"GET /metrics\r\n\r\n", b"404"),
    ],
)
async def test_only_a_get_of_the_page_is_answered(head: bytes, status: bytes) -> None:
    said = await metrics.answer(head, "127.0.0.1", LOCAL, text)
    assert said.startswith(b"HTTP/1.0 " + status)
    top, _, body = said.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in top


async def test_a_stranger_needs_the_token() -> None:
    with_token = b"GET /metrics HTTP/1.1\r\nAuthorization: Bearer %b\r\n\r\n" % TOKEN.encode()
    assert (await metrics.answer(with_token, "192.0.2.1", LOCAL, text)).startswith(b"HTTP/1.0 200")
    without = b"GET /metrics HTTP/1.1\r\n\r\n"
    assert (await metrics.answer(without, "192.0.2.1", LOCAL, text)).startswith(b"HTTP/1.0 404")


async def test_who_asks_too_slowly_or_too_much_is_dropped(
    world: World, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "ASK_S", 0.2)
    settings = msgspec.structs.replace(world.shop.deps.settings, metrics_port=port)
    async with metrics.served(settings, world.shop):
        for sent in (b"", b"GET /metrics HTTP/1.1\r\nX: ", b"x" * 3 * metrics.MAX_HEAD):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            async with asyncio.timeout(5):
                assert await dropped(reader.read) == b""
            writer.close()
        monkeypatch.setattr(metrics, "ASK_S", 20)
        assert (await page(port)).status_code == 200


async def dropped(read: Callable[[], Awaitable[bytes]]) -> bytes:
    try:
        return await read()
    except ConnectionResetError:
        return b""


async def test_a_port_that_is_taken_and_a_wrong_network_stop_the_start(world: World) -> None:
    def settings(**changes: Any) -> Any:
        return msgspec.structs.replace(world.shop.deps.settings, **changes)

    taken = settings(metrics_port=world.shop.deps.settings.port)
    unread = settings(metrics_port=1, metrics_from="x")
    for wrong, match in ((taken, "TORG_METRICS_PORT"), (unread, "TORG_METRICS_FROM")):
        with pytest.raises(BadSettings, match=match):
            async with metrics.served(wrong, world.shop):
                pass


def test_without_a_port_nothing_is_served_and_what_prints_is_not_even_loaded() -> None:
    code = "import sys, workers.main; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
