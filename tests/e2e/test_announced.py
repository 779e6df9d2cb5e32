"""A web process dies soon after it has answered a move, again and again: everybody concerned hears of the move, once.

Several moves are under way each time, by sellers and buyers. What was answered stands in the audit trail; what stands
there has been announced, called, told and paid back, whether it was answered or not. TORG_KILLS=500 is the full run.
"""

import asyncio
import os
import random
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec

from app.base import clock
from app.channels.telegram import texts
from app.domain.stock import Units
from app.flows import checkout
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.infra.secrets import Session
from bench.proxy import HOST
from chaos.ear import Ear, messages
from tests.e2e.stage import environment_of
from tests.e2e.traps import PATIENCE_S, Doors, Process, Zygote, until
from tests.infra.rawserver import Raw, listening
from tests.web.test_admin import acting, call
from tests.world import Buyer, World, reserved_port

KILLS = int(os.environ.get("TORG_KILLS", "10"))
TOGETHER = 3  # moves under way when a process is killed
MOST_MS = 100  # from the first answer to the kill
BUYERS = 20
PATHS = (  # who moves an order to what, one after another
    (("seller", "confirmed"), ("seller", "in_delivery"), ("buyer", "delivered")),
    (("seller", "confirmed"), ("buyer", "cancelled")),
)
TRAIL = "SELECT order_id, to_status FROM order_events WHERE order_id = ANY ($1)"
MOVES = """
SELECT e.id, e.order_id, e.to_status, e.role, o.number, o.user_id, u.telegram_id,
       (SELECT count(*) FROM order_chat c WHERE c.event_id = e.id) AS lines,
       (SELECT count(*) FROM refunds r WHERE r.order_id = e.order_id) AS refunds
  FROM order_events e JOIN orders o ON o.id = e.order_id JOIN users u ON u.id = o.user_id
 WHERE e.role IN ('seller', 'buyer') AND e.from_status IS NOT NULL"""
CALLS = "SELECT payload ->> 'event_id' AS event_id FROM outbox WHERE kind = 'hook' AND state = 'done'"
OWED = "SELECT kind, last_error FROM outbox WHERE state <> 'done' AND kind <> 'refresh'"


class Order(msgspec.Struct):
    """An order on its way."""

    id: UUID
    buyer: str  # the token of its buyer
    path: tuple[tuple[str, str], ...]
    gone: int = 0  # steps of the path

    def step(self) -> tuple[str, str]:
        return self.path[self.gone]


class Desk:
    """A shop with a seller whose own system listens, and orders of things that are sent."""

    def __init__(self, world: World, seller: Buyer, product_id: int, buyers: list[tuple[int, str]]) -> None:
        self.world, self.seller, self.product_id, self.buyers = world, seller, product_id, buyers
        self.orders: list[Order] = []
        self.answered: list[tuple[UUID, str]] = []
        self.ages_ms: list[float] = []  # of each answer, when its process was killed

    @classmethod
    @asynccontextmanager
    async def opened(cls, database_url: str, redis_url: str, hook_port: int) -> AsyncIterator["Desk"]:
        async with World.opened(database_url, redis_url, webhook_networks="127.0.0.0/8") as world:
            product_id = await world.product(kind="shipped", pieces=KILLS * TOGETHER + 10)
            seller = await acting(world, "seller", world.seller_id)
            made = await call(seller, "POST", "webhooks", {"url": f"http://{HOST}:{hook_port}/hook"})
            assert made.status_code == 201, made.text
            tokens, until_s = world.shop.deps.tokens, clock.unix_s() + 7200
            assert tokens
            buyers = []
            for number in range(1, BUYERS + 1):
                user_id = (await (await world.buyer(number)).get("/api/me")).json()["user_id"]
                buyers.append((user_id, tokens.issue(Session(user_id, "buyer", until_s))))
            staff_id = (await seller.get("/api/me")).json()["user_id"]
            token = tokens.issue(Session(staff_id, "seller", until_s))
            yield cls(world, Buyer(world.http, token, seller.telegram_id), product_id, buyers)

    async def sell(self, count: int) -> None:
        """So many paid orders, whose delivery has run; nobody waits for news of them."""
        for _ in range(count):
            user_id, token = random.choice(self.buyers)
            want = checkout.Want(
                user_id=user_id, cart=[Units(self.product_id, 1)], provider="crystalpay", idempotency_key=str(uuid4()),
                request_hash=bytes(32),
            )  # fmt: skip
            order = (await checkout.place(self.world.shop, want)).order
            await self.world.crystalpay.pay(str(order.payment_url).rpartition("i=")[2])
            self.orders.append(Order(order.id, token, random.choice(PATHS)))
        await self.world.drain()

    async def strike(self, process: Process) -> None:
        """Some orders are moved through this process, which dies soon after its first answer."""
        while len(waiting := [order for order in self.orders if order.gone < len(order.path)]) < TOGETHER:
            await self.sell(TOGETHER)
        struck = random.sample(waiting, TOGETHER)
        answered: dict[UUID, float] = {}
        first = asyncio.Event()
        async with httpx.AsyncClient(timeout=PATIENCE_S) as http:

            async def patch(order: Order) -> None:
                if await self._patched(http, process, order):
                    answered[order.id] = monotonic()
                    first.set()

            patching = [asyncio.create_task(patch(order)) for order in struck]
            async with asyncio.timeout(PATIENCE_S):
                await first.wait()
            await asyncio.sleep(random.uniform(0, MOST_MS / 1000))
            process.kill()
            killed_s = monotonic()
            await asyncio.gather(*patching)
        self.ages_ms += [(killed_s - at_s) * 1000 for at_s in answered.values()]
        self.answered += [(order.id, order.step()[1]) for order in struck if order.id in answered]
        rows = await self.world.pg.fetch(TRAIL, ([order.id for order in struck],))
        trail = {(row["order_id"], row["to_status"]) for row in rows}
        for order in struck:
            order.gone += (order.id, order.step()[1]) in trail

    async def _patched(self, http: httpx.AsyncClient, process: Process, order: Order) -> bool:
        """Whether it was answered with 200, or its process died."""
        who, status = order.step()
        token = f"Bearer {order.buyer}" if who == "buyer" else self.seller.headers["Authorization"]
        url = f"http://{HOST}:{process.environment['TORG_PORT']}/api/orders/{order.id}/status"
        try:
            answer = await http.patch(url, json={"status": status}, headers={"Authorization": token})
        except httpx.TransportError:
            return False
        # What a dead process did after we looked: it is done, and was not answered.
        known = answer.status_code == 409 and answer.json()["order_status"] in (status, "refunded")
        assert known or answer.status_code == 200, answer.text
        return answer.status_code == 200


@asynccontextmanager
async def torg(command: str, desk: Desk, zygote: Zygote, log: Path) -> AsyncIterator[Process]:
    """A `torg web` or `torg worker` in the desk's shop, not started yet."""
    async with AsyncExitStack() as stack:
        settings = msgspec.structs.replace(desk.world.shop.deps.settings, port=reserved_port(stack))
        process = Process(command, zygote, Doors(), environment_of(settings), log)
        stack.callback(process.kill)
        yield process


async def listens(process: Process) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, int(process.environment["TORG_PORT"]))
    except OSError:
        return False
    writer.close()
    return True


async def killed_again_and_again(desk: Desk, zygote: Zygote, log: Path) -> None:
    async with torg("web", desk, zygote, log) as process, torg("web", desk, zygote, log) as following:
        process.start()
        for _ in range(KILLS):
            current = process
            await until(lambda: listens(current), "web listens", current.tail)  # noqa: B023  (awaited right here)
            following.start()
            await desk.strike(process)
            process, following = following, process


async def test_everybody_hears_of_a_move_whose_process_died(
    zygote: Zygote, servers: Servers, pg_url: str, redis: Pipe, tmp_path: Path
) -> None:
    ear = Ear(servers.redis_url)
    async with (
        listening(Raw()) as hook,
        Desk.opened(pg_url, servers.redis_url, hook.port) as desk,
        torg("worker", desk, zygote, tmp_path / "worker.log") as worker,
    ):
        sent = messages(desk.world.telegram)
        hearing = asyncio.create_task(ear.listen())
        await desk.sell(KILLS)
        worker.start()
        await killed_again_and_again(desk, zygote, tmp_path / "web.log")

        async def quiet() -> bool:
            return not await desk.world.pg.fetch(OWED, ())

        await until(quiet, "nothing is owed", worker.tail)
        await ear.look()
        hearing.cancel()
        await check(desk, ear, sent, hook)
    await ear.aclose()
    print(
        f"{KILLS} kills, {len(desk.answered)} answers, {statistics.median(desk.ages_ms):.0f} ms old; "
        f"{max(sent.values()) - 1} messages more than once"
    )


async def check(desk: Desk, ear: Ear, sent: Counter[tuple[int, str]], hook: Raw) -> None:
    moves: list[Any] = list(await desk.world.pg.fetch(MOVES, ()))
    trail = Counter((move["order_id"], move["to_status"]) for move in moves)
    assert set(trail.values()) == {1}
    assert [one for one in desk.answered if one not in trail] == []
    assert len(desk.answered) >= KILLS

    staff_id = await desk.world.scalar("SELECT id FROM users WHERE telegram_id = $1", desk.seller.telegram_id)
    heard = [(user, f"order:{move['id']}") for move in moves for user in (move["user_id"], staff_id)]
    assert ear.missing(heard) == []
    assert ear.repeats([]) == (0, 0)

    calls = Counter(row["event_id"] for row in await desk.world.pg.fetch(CALLS, ()))
    assert set(calls.values()) == {1}
    lines = [line for request in hook.requests for line in request.split(b"\r\n")]
    called = {line[12:].decode() for line in lines if line[:11] == b"webhook-id:"}
    for move in moves:
        status, number = move["to_status"], move["number"]
        more = {f"evt_{move['id']}"} if status in ("delivered", "cancelled") else set()
        assert calls.keys() & {f"evt_{move['id']}", f"evt_{move['id']}_status"} == {f"evt_{move['id']}_status", *more}
        assert called >= {f"evt_{move['id']}_status", *more}
        if move["role"] == "seller":
            assert sent[move["telegram_id"], texts.MOVES[status]["en"].format(number=number)] >= 1
        else:
            assert sent[desk.seller.telegram_id, texts.informed(status, "en", number)] >= 1
        if status == "cancelled":
            assert (move["lines"], move["refunds"]) == (1, 1)
