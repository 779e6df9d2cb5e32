"""Behind a circuit: who fails is left alone, jobs wait, a buyer chooses another gateway, an admin sees it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from app import errors
from app.base import clock
from app.errors import ProviderDown
from app.infra.embedded import Servers
from app.infra.secrets import Session
from app.sandbox.crystalpay import ApiFault
from app.sandbox.telegram_wire import BotFault
from tests.flows.scripted import Scripted
from tests.flows.test_money import ordered, told
from tests.web.test_shop import problem
from tests.world import Buyer, World
from workers import jobs


@pytest.fixture
async def world(pg_url: str, servers: Servers, redis: Any) -> AsyncIterator[World]:
    """A shop whose circuits open as they do in production."""
    async with World.opened(pg_url, servers.redis_url, circuits="5/30") as opened:
        yield opened


async def listed(world: World) -> dict[str, dict[str, Any]]:
    """The circuits as an admin sees them."""
    await world.buyer(1)
    user_id = await world.scalar("UPDATE users SET role = 'admin' WHERE telegram_id = 1 RETURNING id")
    assert world.shop.deps.tokens
    admin = Buyer(world.http, world.shop.deps.tokens.issue(Session(user_id, "admin", clock.unix_s() + 60)), 1)
    return {one["name"]: one for one in (await admin.get("/api/admin/circuits")).json()["circuits"]}


async def test_a_gateway_that_fails_is_left_alone_and_another_one_takes_the_money(world: World) -> None:
    world.app.state.shop.gateways["scripted"] = Scripted()
    product = await world.product(*(f"KEY-{uuid4()}" for _ in range(20)))
    buyer = await world.buyer()
    world.crystalpay.faults.append(ApiFault(on="create", status=502, times=None))
    for _ in range(5):
        problem(await buyer.order((product, 1)), errors.ProviderDown)
    asked = len(world.crystalpay.log)
    for _ in range(5):
        refused = await buyer.order((product, 1))
        problem(refused, errors.ProviderDown)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert len(world.crystalpay.log) == asked
    paid = await buyer.pay(refused.json()["order_id"], provider="scripted")
    assert paid.status_code in (200, 201), paid.text
    seen = await listed(world)
    assert seen["crystalpay"]["state"] in ("open", "half_open")
    assert (seen["crystalpay"]["failures"], seen["telegram"]["state"]) == (5, "closed")
    assert seen["crystalpay"]["opened_at"]

    world.crystalpay.faults.clear()
    order = (await buyer.order((product, 1), key="k")).json()
    async with asyncio.timeout(20):
        while "order" not in order:
            await asyncio.sleep(0.1)
            order = (await buyer.order((product, 1), key="k")).json()
    assert (await listed(world))["crystalpay"]["state"] == "closed"


async def test_what_a_gateway_refuses_is_an_answer(world: World) -> None:
    for _ in range(10):
        with pytest.raises(errors.ProviderRefused):
            await world.shop.gateways["crystalpay"].fetch("no-such-invoice")
    assert (await listed(world))["crystalpay"] == {
        "name": "crystalpay", "state": "closed", "failures": 0, "opened_at": None, "retry_after_s": None,
    }  # fmt: skip


async def test_a_job_that_an_open_circuit_refuses_waits_and_is_not_buried(world: World) -> None:
    buyer, order, invoice, _ = await ordered(world)
    world.crystalpay.faults.append(ApiFault(on="info", status=502, times=None))
    await world.crystalpay.pay(invoice)
    outbox_id = await world.scalar("SELECT id FROM outbox WHERE kind = 'settle'")
    for _ in range(25):  # more than the tries after which a job of its own fault is a dead letter
        await world.pg.fetch("UPDATE outbox SET run_at = now() WHERE id = $1", (outbox_id,))
        await jobs.run(world.shop, outbox_id)
    row = (await world.pg.fetch("SELECT state, run_at > now() AS waits FROM outbox WHERE id = $1", (outbox_id,)))[0]
    assert tuple(row) == ("owed", True)
    assert len(world.crystalpay.entries("request", "info")) < 15
    world.crystalpay.faults.clear()
    async with asyncio.timeout(90):
        while await buyer.status(order) != "delivered":
            await world.pg.fetch("UPDATE outbox SET run_at = now() WHERE state = 'owed'", ())
            await world.drain()
            await asyncio.sleep(0.1)


async def test_telegram_has_a_circuit_and_being_told_to_wait_does_not_open_it(world: World) -> None:
    messenger = world.shop.deps.messenger
    assert messenger
    world.telegram.faults.append(BotFault(on="sendMessage", retry_after_s=1, times=8))
    for chat in range(8):
        with pytest.raises(ProviderDown):
            await messenger.send(5000 + chat, "x")
    assert (await listed(world))["telegram"]["state"] == "closed"
    await world.shop.deps.redis.command("FLUSHALL")  # nobody has to wait any more
    world.telegram.faults.clear()
    world.telegram.log.clear()
    world.telegram.faults.append(BotFault(on="sendMessage", status=502, times=None))
    for _ in range(10):
        with pytest.raises(ProviderDown):
            await messenger.send(6000, "x")
    assert len(world.telegram.entries("request", "sendMessage")) == 5
    seen = (await listed(world))["telegram"]
    assert (seen["state"] in ("open", "half_open"), seen["failures"]) == (True, 5)


async def test_a_message_that_waited_for_the_circuit_arrives(world: World) -> None:
    buyer, _, invoice, _ = await ordered(world)
    world.telegram.faults.append(BotFault(on="sendMessage", status=502, times=5))
    await world.crystalpay.pay(invoice)
    async with asyncio.timeout(60):
        while not told(world, buyer):
            await world.pg.fetch("UPDATE outbox SET run_at = now() WHERE state = 'owed'", ())
            await world.drain()
            await asyncio.sleep(0.05)
    assert len(told(world, buyer)) == 1
