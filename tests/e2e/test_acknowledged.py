"""A web process dies within a millisecond of its 2xx, again and again: what it acknowledged is never lost.

Several callbacks are under way each time. Those that were not answered come again, as a gateway does it, and have one
effect however far the dead process had come with them. TORG_KILLS=500 is the full run (two minutes or so).
"""

import asyncio
import os
import random
import selectors
import signal
import socket
import statistics
import struct
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec

from app.domain import customers, ledger
from app.domain.stock import Units
from app.flows import checkout
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.sandbox import crystalpay_wire
from bench.callers import post
from bench.proxy import HOST
from tests.e2e.stage import environment_of
from tests.e2e.traps import PATIENCE_S, Doors, Process, Zygote
from tests.gateways.drivers.cryptopay import Driver
from tests.world import GATEWAYS, World, reserved_port

KILLS = int(os.environ.get("TORG_KILLS", "15"))
TOGETHER = 4  # callbacks under way when a process is killed
SOON_MS = 1.0
MOST_TURNS = 5  # for each kill that must come so soon: a busy machine makes some late
SIGNED, UNSIGNED = "cryptopay", "crystalpay"
BUYERS = 20
SO_TIMESTAMPNS = 35  # asks Linux when it received what recvmsg gives; Python has no name for it
STAMP = struct.Struct("qq")

INBOX = """
SELECT i.provider, i.event_key, i.state, o.status FROM inbox i LEFT JOIN orders o ON o.id = i.order_id"""
ENDS = """
SELECT o.id, o.status,
       (SELECT array_agg(e.to_status ORDER BY e.id) FROM order_events e WHERE e.order_id = o.id) AS events,
       (SELECT array_agg(i.state || ' ' || i.outcome) FROM inbox i WHERE i.order_id = o.id) AS inbox,
       (SELECT array_agg(p.reason) FROM postings p WHERE p.order_id = o.id) AS postings,
       (SELECT array_agg(i.state || ' ' || s.state) FROM order_items i JOIN stock_items s ON s.id = i.stock_item_id
         WHERE i.order_id = o.id) AS units
  FROM orders o"""
ONCE = ("delivered", ["pending", "paid", "delivered"], ["settled paid"], ["sale"], ["delivered sold"])


class Event(msgspec.Struct, frozen=True):
    """A payment, and the callback that tells of it."""

    order_id: UUID
    provider: str
    invoice_id: str
    body: bytes
    headers: dict[str, str]

    def request(self) -> bytes:
        return post(f"http://{HOST}/api/webhook/payment/{self.provider}", self.body, self.headers)


class Struck(msgspec.Struct, frozen=True):
    """Which of the callbacks were acknowledged, and how old the first 2xx was when the process was killed."""

    acknowledged: list[bool]
    age_ms: float


class Till:
    """Where orders are paid for, by gateways that call only when the test does it for them."""

    def __init__(self, world: World, driver: Driver, product_id: int, buyers: Sequence[int]) -> None:
        self.world, self.driver, self.product_id, self.buyers = world, driver, product_id, buyers

    @classmethod
    @asynccontextmanager
    async def opened(cls, database_url: str, redis_url: str) -> AsyncIterator["Till"]:
        async with AsyncExitStack() as stack:
            driver = Driver()
            gateways = GATEWAYS | {SIGNED: await driver.settings(stack)}
            world = await stack.enter_async_context(World.opened(database_url, redis_url, gateways=gateways))
            product_id = await world.product(*(f"KEY-{n}" for n in range(KILLS * MOST_TURNS * TOGETHER)))
            buyers = [
                await customers.enter(world.pg, telegram_id=n, name="Ann", username=None, language="en", is_admin=False)
                for n in range(1, BUYERS + 1)
            ]
            yield cls(world, driver, product_id, [buyer.id for buyer in buyers])

    async def sell(self, provider: str) -> Event:
        """An order that is paid at its gateway, which has not told us."""
        want = checkout.Want(
            user_id=random.choice(self.buyers), cart=[Units(self.product_id, 1)], provider=provider,
            idempotency_key=str(uuid4()), request_hash=bytes(32),
        )  # fmt: skip
        order = (await checkout.place(self.world.shop, want)).order
        invoice_id = str(await self.world.scalar("SELECT invoice_id FROM payments WHERE order_id = $1", order.id))
        if provider == SIGNED:
            await self.driver.pay(invoice_id)
            return Event(order.id, provider, invoice_id, *self.driver.genuine(invoice_id))
        crystalpay = self.world.crystalpay
        await crystalpay.pay(invoice_id, crystalpay_wire.Payment(edit={"callback_url": None}))
        told = crystalpay_wire.callback_body(
            crystalpay.invoice(invoice_id), crystalpay_wire.Callbacks(), crystalpay.salt
        )
        return Event(order.id, provider, invoice_id, msgspec.json.encode(told), {"content-type": "application/json"})


async def test_what_was_acknowledged_is_not_lost_when_the_process_dies_at_once(
    zygote: Zygote, servers: Servers, pg_url: str, redis: Pipe, tmp_path: Path
) -> None:
    async with Till.opened(pg_url, servers.redis_url) as till:
        acknowledged, unanswered, ages_ms = await killed_again_and_again(till, zygote, tmp_path / "web.log")
        assert statistics.median(ages_ms) < SOON_MS, ages_ms
        stored = {(row["provider"], row["event_key"].partition(":")[0]): row for row in await rows(till, INBOX)}
        for event in acknowledged:
            row = stored[event.provider, event.invoice_id]
            assert event.provider != SIGNED or (row["state"], row["status"]) == ("settled", "paid")
        # The gateways repeat what nobody answered; and what somebody did, because they may not have heard it.
        for event in [*unanswered, *acknowledged]:
            told = await till.world.http.post(
                f"/api/webhook/payment/{event.provider}", content=event.body, headers=event.headers
            )
            assert told.status_code == 200
        await till.world.drain()
        ends = {row["id"]: tuple(row)[1:] for row in await rows(till, ENDS)}
        assert ends == {event.order_id: ONCE for event in [*acknowledged, *unanswered]}
        assert await rows(till, "SELECT * FROM outbox WHERE state <> 'done'") == []
        assert await ledger.check(till.world.pg) == []
        told_of = [message["text"] for buyer in range(1, BUYERS + 1) for message in till.world.telegram.sent_to(buyer)]
        assert len(told_of) == len(ends)
    print(f"{len(ages_ms)} kills, {len(acknowledged)} acknowledged, 2xx {statistics.median(ages_ms):.3f} ms old")


async def rows(till: Till, query: str) -> list[Any]:
    found: list[Any] = await till.world.pg.fetch(query, ())
    return found


async def killed_again_and_again(till: Till, zygote: Zygote, log: Path) -> tuple[list[Event], list[Event], list[float]]:
    """What was acknowledged, what never was, and the age of the first 2xx at each kill, until enough were soon."""
    acknowledged: list[Event] = []
    under_way: list[Event] = []
    ages_ms: list[float] = []
    async with web(till, zygote, log) as process, web(till, zygote, log) as following:
        process.start()
        while sum(age_ms < SOON_MS for age_ms in ages_ms) < KILLS:
            assert len(ages_ms) < KILLS * MOST_TURNS, ages_ms
            following.start()
            missing = [random.choice((SIGNED, UNSIGNED)) for _ in range(TOGETHER - len(under_way))]
            under_way += await asyncio.gather(*map(till.sell, missing))
            struck = await asyncio.to_thread(strike, process, [event.request() for event in under_way])
            ages_ms.append(struck.age_ms)
            pairs = list(zip(under_way, struck.acknowledged, strict=True))
            acknowledged += [event for event, heard in pairs if heard]
            under_way = [event for event, heard in pairs if not heard]
            process, following = following, process
    return acknowledged, under_way, ages_ms


@asynccontextmanager
async def web(till: Till, zygote: Zygote, log: Path) -> AsyncIterator[Process]:
    """A `torg web` on the till's database, not started yet."""
    async with AsyncExitStack() as stack:
        settings = msgspec.structs.replace(till.world.shop.deps.settings, port=reserved_port(stack))
        process = Process("web", zygote, Doors(), environment_of(settings), log)
        stack.callback(process.kill)
        yield process


def strike(process: Process, requests: Sequence[bytes]) -> Struck:
    """All requests are sent side by side; the first bytes of the first 2xx kill the process."""
    with selectors.DefaultSelector() as ready, ExitStack() as stack:
        callers = [stack.enter_context(dialled(process)) for _ in requests]
        stack.enter_context(at_once())
        for caller, request in zip(callers, requests, strict=True):
            ready.register(caller, selectors.EVENT_READ)
            caller.sendall(request)
        ((first, _), *_) = ready.select(PATIENCE_S)
        assert isinstance(first.fileobj, socket.socket)
        answer, stamps, _, _ = first.fileobj.recvmsg(65_536, socket.CMSG_SPACE(STAMP.size))
        os.kill(process.pid, signal.SIGKILL)
        killed_ns = time.time_ns()
        process.kill()
        heard = [answer if caller is first.fileobj else rest(caller) for caller in callers]
    assert {said[:12] for said in heard if said} == {b"HTTP/1.1 200"}, (heard, process.tail())
    came_s, came_ns = STAMP.unpack(stamps[0][2])
    return Struck([bool(said) for said in heard], (killed_ns - came_s * 1_000_000_000 - came_ns) / 1e6)


@contextmanager
def at_once() -> Iterator[None]:
    """This thread runs as soon as it can, however busy the machine; for root only."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def dialled(process: Process) -> Iterator[socket.socket]:
    """A connection to the process, which may not listen yet."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            caller = socket.create_connection((HOST, int(process.environment["TORG_PORT"])), timeout=PATIENCE_S)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline_s, f"web does not listen:\n{process.tail()}"
            time.sleep(0.002)
    with caller:
        caller.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield caller


def rest(caller: socket.socket) -> bytes:
    """What had been said to this caller before the end; empty when it was not answered."""
    try:
        return caller.recv(65_536)
    except ConnectionResetError:
        return b""
