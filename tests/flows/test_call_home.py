"""A seller's system hears of an event, signed, until it has heard or is given up, and holds up nobody else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
import pytest
from standardwebhooks import Webhook

from app.base import clock
from app.domain import endpoints
from app.flows import call_home
from app.infra import outbound
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from tests.infra.rawserver import OK, Raw, listening
from tests.web.test_admin import acting, call
from tests.world import Buyer, World, order_id_of
from workers import jobs
from workers.kinds import KINDS


@pytest.fixture
async def world(pg_url: str, servers: Servers, redis: Pipe) -> AsyncIterator[World]:
    async with World.opened(pg_url, servers.redis_url, webhook_networks="127.0.0.0/8", admins="9001") as opened:
        yield opened


@pytest.fixture
async def raw() -> AsyncIterator[Raw]:
    """The seller's system."""
    async with listening(Raw()) as server:
        yield server


class Shopkeeper:
    """A seller with a webhook, and an order whose events it may hear."""

    def __init__(self, world: World, user: Buyer, webhook: dict[str, Any], order_id: UUID) -> None:
        self.world, self.user, self.webhook, self.order_id = world, user, webhook, order_id
        self.events = 1000

    @property
    def id(self) -> UUID:
        return UUID(self.webhook["id"])

    async def owe(self, type: str = "order.paid") -> int:
        self.events += 1
        (owed,) = await endpoints.owe(self.world.pg, self.order_id, self.events, type, clock.now())
        return owed

    async def row(self, outbox_id: int) -> Any:
        query = "SELECT *, extract(epoch FROM run_at - now())::float8 AS wait_s FROM outbox WHERE id = $1"
        return (await self.world.pg.fetch(query, (outbox_id,)))[0]

    async def run(self, outbox_id: int) -> Any:
        """The row after one attempt, which is due whenever it was due."""
        await self.world.pg.fetch("UPDATE outbox SET run_at = now() WHERE id = $1", (outbox_id,))
        await jobs.run(self.world.shop, outbox_id)
        return await self.row(outbox_id)

    async def deliveries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await call(self.user, "GET", f"webhooks/{self.id}/deliveries")).json()[
            "deliveries"
        ]
        return found


@pytest.fixture
async def keeper(world: World, raw: Raw) -> Shopkeeper:
    product = await world.product("KEY-1", "KEY-2")
    seller = await acting(world, "seller", world.seller_id)
    made = await call(seller, "POST", "webhooks", {"url": f"http://127.0.0.1:{raw.port}/hook"})
    assert made.status_code == 201, made.text
    placed = await (await world.buyer(1)).order((product, 2))
    return Shopkeeper(world, seller, made.json(), order_id_of(placed.json()))


def heard(request: bytes, secret: str) -> Any:
    """What the published verifier makes of a request. Raises: WebhookVerificationError."""
    head, _, body = request.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    return Webhook(secret).verify(body, {name.lower(): value for name, value in headers.items()})


def header(request: bytes, name: str) -> str:
    return next(line.partition(": ")[2] for line in request.decode().split("\r\n") if line.lower().startswith(name))


async def test_an_event_is_heard_and_proven(keeper: Shopkeeper, raw: Raw) -> None:
    owed = await keeper.owe()
    assert (await keeper.run(owed))["state"] == "done"
    told = heard(raw.requests[0], keeper.webhook["secret"])
    assert raw.requests[0].startswith(b"POST /hook HTTP/1.1\r\n")
    assert header(raw.requests[0], "webhook-id") == "evt_1001"
    assert header(raw.requests[0], "content-type") == "application/json"
    assert list(told) == ["type", "timestamp", "data"]
    assert (told["type"], told["data"]["order_id"]) == ("order.paid", str(keeper.order_id))
    assert told["data"]["lines"][0]["quantity"] == 2
    (one,) = await keeper.deliveries()
    assert (one["event_id"], one["state"], one["attempts"], one["event"]) == ("evt_1001", "done", 1, told)
    assert one["done_at"]
    assert one["next_at"] is None


async def test_a_repeat_has_the_same_id_and_body_and_a_new_time(
    keeper: Shopkeeper, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw.answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    owed = await keeper.owe()
    await keeper.run(owed)
    raw.answer = OK
    now_s = clock.unix_s() + 60
    monkeypatch.setattr(clock, "unix_s", lambda: now_s)
    await keeper.world.pg.fetch("UPDATE orders SET status = 'cancelled'", ())  # meanwhile: the event is what it was
    assert (await keeper.run(owed))["state"] == "done"
    first, second = raw.requests
    assert header(first, "webhook-id") == header(second, "webhook-id")
    assert first.partition(b"\r\n\r\n")[2] == second.partition(b"\r\n\r\n")[2]
    assert header(second, "webhook-timestamp") == str(now_s)
    for request in raw.requests:
        heard(request, keeper.webhook["secret"])


async def test_it_is_tried_on_the_ladder_and_then_given_up(keeper: Shopkeeper, raw: Raw) -> None:
    raw.answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    owed = await keeper.owe()
    for attempt, wait_s in enumerate(call_home.WAITS_S, 1):
        row = await keeper.run(owed)
        assert (row["state"], row["attempts"]) == ("owed", attempt)
        assert wait_s - 5 <= row["wait_s"] <= wait_s * 1.1
        assert row["last_error"] == "ProviderDown('answered 302')"
    row = await keeper.run(owed)
    assert (row["state"], row["attempts"], len(raw.requests)) == ("dead", 10, 10)
    (one,) = await keeper.deliveries()
    assert (one["state"], one["last_error"], one["next_at"]) == ("dead", "ProviderDown('answered 302')", None)
    assert call_home.WAITS_S == (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)  # PROTOCOLS §9
    assert KINDS["hook"].timeout_s > outbound.TIMEOUT_S + outbound.COURTESY_S


@pytest.mark.parametrize(("status", "believed"), [(429, True), (502, True), (503, True), (504, True), (500, False)])
async def test_the_wait_that_is_asked_for_is_kept(keeper: Shopkeeper, raw: Raw, status: int, believed: bool) -> None:
    raw.answer = f"HTTP/1.1 {status} Wait\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n".encode()
    row = await keeper.run(await keeper.owe())
    assert row["state"] == "owed"
    assert (590 < row["wait_s"] <= 600) is believed


async def test_one_that_is_gone_is_disabled_and_its_people_are_told(keeper: Shopkeeper, raw: Raw) -> None:
    first, second = await keeper.owe(), await keeper.owe()
    raw.answer = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
    assert (await keeper.run(first))["state"] == "dead"
    row = await keeper.run(second)
    assert (row["state"], row["last_error"], len(raw.requests)) == ("dead", "the webhook is disabled: gone", 1)
    shown = (await call(keeper.user, "GET", f"webhooks/{keeper.id}")).json()
    assert (shown["enabled"], shown["disabled_why"]) == (False, "gone")
    assert await endpoints.owe(keeper.world.pg, keeper.order_id, 5, "order.paid", clock.now()) == []
    await keeper.world.drain()
    told = {
        entry.given["chat_id"]: entry.given["text"] for entry in keeper.world.telegram.entries("request", "sendMessage")
    }
    assert told.keys() == {"9001", str(keeper.user.telegram_id)}
    assert set(told.values()) == {"The webhook at 127.0.0.1 answered that it is gone. It is disabled."}


async def test_days_of_failures_disable_it(keeper: Shopkeeper, raw: Raw) -> None:
    raw.answer = b""
    await keeper.run(await keeper.owe())
    await keeper.world.pg.fetch("UPDATE endpoints SET failing_since = now() - interval '5 days 1 second'", ())
    row = await keeper.run(await keeper.owe())
    assert (row["state"], row["attempts"]) == ("owed", 1)
    shown = (await call(keeper.user, "GET", f"webhooks/{keeper.id}")).json()
    assert (shown["enabled"], shown["disabled_why"]) == (False, "failing")
    assert (await keeper.run(row["id"]))["last_error"] == "the webhook is disabled: failing"
    enabled = await call(keeper.user, "PATCH", f"webhooks/{keeper.id}", {"version": shown["version"], "enabled": True})
    assert (enabled.json()["enabled"], enabled.json()["failing_since"]) == (True, None)
    raw.answer = OK
    again = await call(keeper.user, "POST", f"webhooks/{keeper.id}/replay", {"since": "2020-01-01T00:00:00Z"})
    assert again.json() == {"replayed": 2}
    await keeper.world.drain()
    assert {one["state"] for one in await keeper.deliveries()} == {"done"}


async def test_for_a_day_after_a_rotation_both_secrets_sign(keeper: Shopkeeper, raw: Raw) -> None:
    rotated = (await call(keeper.user, "POST", f"webhooks/{keeper.id}/secret")).json()
    old, new = keeper.webhook["secret"], rotated["secret"]
    assert old != new
    await keeper.run(await keeper.owe())
    for secret in (old, new):
        assert heard(raw.requests[0], secret)["type"] == "order.paid"
    await keeper.world.pg.fetch("UPDATE endpoints SET former_until = former_until - interval '1 day'", ())
    await keeper.run(await keeper.owe())
    assert heard(raw.requests[1], new)
    assert header(raw.requests[1], "webhook-signature").count("v1,") == 1


async def test_what_was_owed_to_a_deleted_one_is_given_up(keeper: Shopkeeper, raw: Raw) -> None:
    owed = await keeper.owe()
    assert (await call(keeper.user, "DELETE", f"webhooks/{keeper.id}")).status_code == 204
    row = await keeper.run(owed)
    assert (row["state"], row["last_error"], raw.requests) == ("dead", "no webhook", [])


async def test_a_name_that_leads_home_is_not_called(keeper: Shopkeeper, raw: Raw) -> None:
    """What it says of itself counts at each call, not what it said when it was entered."""

    async def resolve(host: str, port: int) -> list[str]:
        return ["10.0.0.1"]

    keeper.world.shop.deps.outbound.resolve = resolve
    wrong = {
        "https://rebind.example/": "no public address",
        f"https://rebind.example:{raw.port}/": "port 443, or 8000 to 9999",
        f"http://rebind.example:{raw.port}/": "https only",
        f"http://0x7f000001:{raw.port}/": "an address is four decimal numbers, or in brackets",
    }
    for url, why in wrong.items():
        await keeper.world.pg.fetch("UPDATE endpoints SET url = $1", (url,))
        row = await keeper.run(await keeper.owe())
        assert (row["state"], row["last_error"]) == ("owed", f"ProviderDown('not called: {why}')")
    assert raw.requests == []


async def test_one_that_hangs_takes_neither_attempts_nor_the_place_of_others(keeper: Shopkeeper, raw: Raw) -> None:
    async def hangs(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    raw.answer = hangs
    owed = [await keeper.owe() for _ in range(outbound.MOST_EACH + 2)]
    stuck = [asyncio.create_task(jobs.run(keeper.world.shop, one)) for one in owed[: outbound.MOST_EACH]]
    async with asyncio.timeout(10):
        while len(raw.requests) < outbound.MOST_EACH:  # noqa: ASYNC110  (a server's side has no event of ours)
            await asyncio.sleep(0.01)
    for one in owed[outbound.MOST_EACH :]:
        row = await keeper.run(one)
        assert (row["state"], row["attempts"], row["last_error"]) == ("owed", 0, "")
        assert 0 < row["wait_s"] <= call_home.CROWDED_S[1]
    for task in stuck:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    raw.answer = OK
    for one in owed:
        assert (await keeper.run(one))["state"] == "done"


async def test_a_payload_of_nobodys_is_a_dead_letter(keeper: Shopkeeper) -> None:
    owed = await keeper.owe()
    await keeper.world.pg.fetch("""UPDATE outbox SET payload = '{"endpoint_id": 7}' WHERE id = $1""", (owed,))
    row = await keeper.run(owed)
    assert row["state"] == "dead"
    assert "BadPayload" in row["last_error"]


async def test_no_event_has_the_goods(keeper: Shopkeeper, raw: Raw) -> None:
    for type in endpoints.TYPES:
        await keeper.run(await keeper.owe(type))
    assert len(raw.requests) == len(endpoints.TYPES)
    for request in raw.requests:
        assert b"KEY-" not in request
        assert msgspec.json.decode(request.partition(b"\r\n\r\n")[2])["data"].keys() == {
            "order_id", "number", "status", "currency", "total_minor", "refunded_minor", "lines",
        }  # fmt: skip
