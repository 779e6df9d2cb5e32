"""The post drains its line ten at a time, each mail is closed by its own outcome, and none is lost or forgotten."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from app.base.ids import new_id
from app.domain import dead, email, outbox
from app.errors import PostgresDown
from app.flows import mail
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.shop import Shop, opened
from tests.infra.smtpserver import OK, Mailroom, parts, receiving
from tests.workers.test_worker import until, working
from tests.world import World, settings_for
from workers import jobs, post

# arq closes redis-py's pool by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")

BUYERS = """
WITH s AS (INSERT INTO sellers (name) VALUES ('seller') RETURNING id),
p AS (INSERT INTO products (seller_id, title, category, kind, currency, list_price_minor)
      SELECT id, 'Ключ <7>', 'Keys', 'shared', 'EUR', 1000 FROM s RETURNING id),
u AS (INSERT INTO users (telegram_id, name, language, email)
      SELECT n, 'user', (ARRAY['en', 'ru', 'uk'])[1 + n % 3], 'user' || n || '@x.example' FROM generate_series(1, $1) n
      RETURNING id, telegram_id),
o AS (INSERT INTO orders
          (id, user_id, seller_id, status, currency, total_minor, idempotency_key, request_hash, expires_at)
      SELECT gen_random_uuid(), u.id, s.id, 'paid', 'EUR', 1000, 'k', sha256('x'), now() FROM u, s
      RETURNING id, user_id),
i AS (INSERT INTO order_items (order_id, position, product_id, title, kind, list_price_minor, price_minor)
      SELECT o.id, 1, p.id, 'Ключ <7>', 'shared', 1000, 1000 FROM o, p)
INSERT INTO outbox (kind, key, payload, run_at)
SELECT 'email', 'tell:' || o.id, jsonb_build_object('order_id', o.id, 'status', 'paid'),
       now() - interval '1 s' + u.telegram_id * interval '1 ms'  -- one after another, as in life
  FROM o JOIN u ON u.id = o.user_id ORDER BY u.telegram_id
RETURNING id"""
BY = dead.By(0, "somebody")
ROW = """
SELECT state, attempts, orphaned, last_error, lease_until IS NULL AS free, run_at <= now() AS due,
       extract(epoch FROM run_at - now())::float8 AS wait_s FROM outbox WHERE id = $1"""


@pytest.fixture
async def room() -> AsyncIterator[Mailroom]:
    async with receiving(Mailroom()) as room:
        yield room


@pytest.fixture
async def shop(pg_url: str, servers: Servers, redis: Pipe, room: Mailroom) -> AsyncIterator[Shop]:
    async with mailing(pg_url, servers, room) as shop:
        yield shop


@asynccontextmanager
async def mailing(pg_url: str, servers: Servers, room: Mailroom, **changes: Any) -> AsyncIterator[Shop]:
    async with opened(settings_for(pg_url, servers.redis_url, **smtp(room) | changes)) as shop:
        yield shop


def smtp(room: Mailroom) -> dict[str, Any]:
    return {"smtp_url": f"smtp+plain://127.0.0.1:{room.port}", "smtp_from": "Лавка <orders@shop.example>"}


async def owe(shop: Shop, mails: int) -> list[int]:
    """So many mails to as many buyers are due."""
    return [row["id"] for row in await shop.deps.pg.fetch(BUYERS, (mails,))]


async def rows(shop: Shop, ids: list[int]) -> list[Any]:
    return [(await shop.deps.pg.fetch(ROW, (outbox_id,)))[0] for outbox_id in ids]


async def states(shop: Shop, ids: list[int]) -> list[str]:
    return [row["state"] for row in await rows(shop, ids)]


async def now_due(shop: Shop) -> None:
    await shop.deps.pg.fetch("UPDATE outbox SET run_at = now() WHERE state = 'owed'", ())


async def test_two_workers_send_each_mail_once_in_batches_of_ten_beside_one_another(
    pg_url: str, servers: Servers, shop: Shop, room: Mailroom
) -> None:
    ids = await owe(shop, 25)
    room.gate = asyncio.Event()
    async with mailing(pg_url, servers, room) as other:
        drains = [asyncio.create_task(post.drain(one)) for one in (shop, other)]

        async def both_are_full() -> bool:
            return room.at_once == 2 * mail.BATCH

        await until(both_are_full, within_s=10)
        room.gate.set()
        await asyncio.gather(*drains)
    assert sorted(to for to, _ in room.taken) == sorted(f"user{n}@x.example" for n in range(1, 26))
    assert len({str(one["Message-ID"]) for one in room.mails()}) == 25
    assert await states(shop, ids) == ["done"] * 25
    batches = await shop.deps.pg.fetch("SELECT count(*) AS mails FROM outbox GROUP BY attempt_id", ())
    sizes = sorted((batch["mails"] for batch in batches), reverse=True)
    # The last five are one batch, or two when both workers ask at once: who skips locked rows takes what is left.
    assert (sizes[:2], sum(sizes)) == ([mail.BATCH, mail.BATCH], 25)
    assert len(sizes) <= 4
    assert room.connections <= 2 * mail.BATCH


async def test_a_mail_tells_its_reader_in_the_readers_language(shop: Shop, room: Mailroom) -> None:
    await owe(shop, 3)
    await post.drain(shop)
    by_reader = {to: one for (to, _), one in zip(room.taken, room.mails(), strict=True)}
    assert by_reader["user3@x.example"]["Subject"] == "Order 3 is paid"
    assert by_reader["user1@x.example"]["Subject"] == "Заказ 1 оплачен"
    assert by_reader["user2@x.example"]["Subject"] == "Замовлення 2 оплачено"
    text, html = parts(by_reader["user1@x.example"])
    assert "1 x Ключ <7>: 10.00 EUR" in text
    assert "Ключ &lt;7&gt;" in html
    assert all(f"Order {n}" not in text for n in (2, 3))


async def test_what_a_server_puts_off_is_tried_again(shop: Shop, room: Mailroom) -> None:
    ids = await owe(shop, 3)
    room.says = lambda to: "451 4.7.1 greylisted" if to.startswith("user2") else OK
    await post.drain(shop)
    done, later, also_done = await rows(shop, ids)
    assert (done["state"], also_done["state"]) == ("done", "done")
    assert (later["state"], later["attempts"], later["free"]) == ("owed", 1, True)
    assert later["last_error"] == "451 4.7.1 greylisted"
    assert 0 < later["wait_s"] <= 5
    room.says = lambda to: OK
    await now_due(shop)
    await post.drain(shop)
    assert await states(shop, ids) == ["done"] * 3
    assert sorted(to for to, _ in room.taken) == ["user1@x.example", "user2@x.example", "user3@x.example"]


async def test_what_is_always_put_off_is_a_dead_letter_in_the_end(shop: Shop, room: Mailroom) -> None:
    ids = await owe(shop, 1)
    room.says_of_data = lambda to: "452 4.2.2 full"
    await shop.deps.pg.fetch("UPDATE outbox SET attempts = $1", (mail.TRIES - 2,))
    for state in ("owed", "dead"):
        await post.drain(shop)
        assert await states(shop, ids) == [state]
        await now_due(shop)


async def test_what_a_server_refuses_is_a_dead_letter_with_its_words_and_not_in_the_log(
    shop: Shop, room: Mailroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = LogCapture()
    monkeypatch.setattr(post, "log", structlog.wrap_logger(None, processors=[capture]))
    ids = await owe(shop, 2)
    room.says = lambda to: f"550 5.1.1 <{to}> unknown" if to.startswith("user1") else OK
    await post.drain(shop)
    refused, done = await rows(shop, ids)
    assert (refused["state"], refused["last_error"]) == ("dead", "550 5.1.1 <user1@x.example> unknown")
    assert done["state"] == "done"
    assert [line["outbox_id"] for line in capture.entries if line["log_level"] == "error"] == [ids[0]]
    assert "x.example" not in str(capture.entries)

    room.says = lambda to: OK  # a human has seen to it, and replays it
    assert [letter.id for letter in await dead.replay(shop.deps.pg, None, "email", BY, dry_run=False)] == [ids[0]]
    await post.drain(shop)
    assert await states(shop, ids) == ["done", "done"]


async def test_a_mail_that_nobody_can_write_is_no_other_mails_affair(shop: Shop, room: Mailroom) -> None:
    ids = await owe(shop, 8)
    for outbox_id, payload in zip(ids, (
        "[]", "{}", '{"order_id": "no"}', '{"user_id": 1, "order_id": "01980000-0000-7000-8000-000000000001"}'
    ), strict=False):  # fmt: skip
        await shop.deps.pg.fetch("UPDATE outbox SET payload = $2::text::jsonb WHERE id = $1", (outbox_id, payload))
    unknown = "jsonb_set(payload, '{status}', '\"of_tomorrow\"')"
    await shop.deps.pg.fetch(f"UPDATE outbox SET payload = {unknown} WHERE id = $1", (ids[4],))
    nobody = '\'{"order_id": "01980000-0000-7000-8000-000000000001"}\''
    await shop.deps.pg.fetch(f"UPDATE outbox SET payload = {nobody} WHERE id = $1", (ids[5],))
    await shop.deps.pg.fetch("UPDATE users SET email = NULL WHERE telegram_id = 7", ())
    await post.drain(shop)
    assert await states(shop, ids) == ["dead"] * 4 + ["owed"] + ["done"] * 3
    assert [row["last_error"].startswith("BadPayload(") for row in await rows(shop, ids[:4])] == [True] * 4
    assert [to for to, _ in room.taken] == ["user8@x.example"]


async def test_a_server_that_is_away_is_waited_for_and_left_alone(pg_url: str, servers: Servers, redis: Pipe) -> None:
    async with receiving(Mailroom()) as gone:
        pass
    async with mailing(pg_url, servers, gone, circuits="3/30") as shop:
        ids = await owe(shop, 25)
        await shop.deps.pg.fetch("UPDATE outbox SET attempts = $1", (mail.TRIES,))  # however often it was met before
        assert await post.drain(shop) > 0  # and does not go through the whole line
        tried = [row for row in await rows(shop, ids) if row["attempts"] > mail.TRIES]
        assert 3 <= len(tried) <= mail.BATCH
        assert await states(shop, ids) == ["owed"] * 25
        assert all(row["last_error"].startswith("no mail server") for row in tried)
        before = [row["attempts"] for row in await rows(shop, ids)]
        await now_due(shop)
        assert await post.drain(shop) > 0
        assert [row["attempts"] for row in await rows(shop, ids)] == before  # nobody was asked: no try was burnt
        assert [row["free"] for row in await rows(shop, ids)] == [True] * 25
        (state,) = [one for one in await shop.circuits.list() if one.name == "mail"]
        assert state.state == "open"

        async with receiving(Mailroom(), gone.port) as back:
            async with asyncio.timeout(30):
                while len(back.taken) < 25:
                    await now_due(shop)
                    await asyncio.sleep(min(1.0, await post.drain(shop)))
            assert len({to for to, _ in back.taken}) == 25
        assert await states(shop, ids) == ["done"] * 25


async def test_a_drain_that_is_cut_gives_its_mails_back_with_all_their_tries(shop: Shop, room: Mailroom) -> None:
    ids = await owe(shop, 12)
    room.gate = asyncio.Event()
    cut = asyncio.create_task(post.drain(shop))
    await room.came.wait()
    assert [row["free"] for row in await rows(shop, ids)] == [False] * 10 + [True] * 2
    cut.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut
    assert [(row["free"], row["due"], row["attempts"]) for row in await rows(shop, ids)] == [(True, True, 0)] * 12
    room.gate.set()
    await post.drain(shop)
    assert await states(shop, ids) == ["done"] * 12
    assert {to for to, _ in room.taken} == {f"user{n}@x.example" for n in range(1, 13)}


async def test_mails_of_a_dead_worker_come_back_and_one_that_kills_workers_ends(shop: Shop, room: Mailroom) -> None:
    ids = await owe(shop, 2)
    taken = await email.claim(shop.deps.pg, new_id(), 60, mail.BATCH)  # and nobody hears of it again
    assert sorted(due.id for due in taken) == ids
    await post.drain(shop)
    assert room.taken == []
    await shop.deps.pg.fetch("UPDATE outbox SET lease_until = now() - interval '1 s'", ())
    await shop.deps.pg.fetch("UPDATE outbox SET orphaned = $2 WHERE id = $1", (ids[0], outbox.MAX_ATTEMPTS - 1))
    await post.drain(shop)
    killer, done = await rows(shop, ids)
    assert (killer["state"], killer["last_error"]) == ("dead", f"its worker died {outbox.MAX_ATTEMPTS} times in a row")
    assert (done["state"], done["attempts"], done["orphaned"]) == ("done", 2, 1)


async def test_who_gets_a_mail_twice_can_tell(shop: Shop, room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least once: the server has it, and the row could not be closed."""
    ids = await owe(shop, 1)

    async def down(*_: object) -> None:
        raise PostgresDown("just now")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "finish", down)
        draining = asyncio.create_task(post.drain(shop))
        assert await asyncio.wait_for(draining, 10) > 0
    assert await states(shop, ids) == ["owed"]
    await shop.deps.pg.fetch("UPDATE outbox SET lease_until = now() - interval '1 s'", ())
    await post.drain(shop)
    first, second = room.mails()
    assert str(first["Message-ID"]) == str(second["Message-ID"])
    assert await states(shop, ids) == ["done"]


async def test_a_slow_server_costs_no_lease(pg_url: str, servers: Servers, redis: Pipe, room: Mailroom) -> None:
    room.gate = asyncio.Event()
    async with mailing(pg_url, servers, room, lease_s=1) as shop:
        ids = await owe(shop, 3)
        slow = asyncio.create_task(post.drain(shop))
        await room.came.wait()
        await asyncio.sleep(2)
        assert await email.claim(shop.deps.pg, new_id(), 60, mail.BATCH) == []
        room.gate.set()
        await slow
        assert [(row["state"], row["attempts"]) for row in await rows(shop, ids)] == [("done", 1)] * 3


async def test_nobody_else_takes_a_mail_out_of_the_line(shop: Shop, room: Mailroom) -> None:
    ids = await owe(shop, 2)
    assert await outbox.due(shop.deps.pg, grace_ms=0, size=10) == []
    await jobs.run(shop, ids[0])
    assert [(row["state"], row["attempts"]) for row in await rows(shop, ids)] == [("owed", 0)] * 2


async def test_a_ring_wakes_the_post_of_a_worker_and_a_lost_one_is_made_good(
    pg_url: str, servers: Servers, redis: Pipe, room: Mailroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World.opened(pg_url, servers.redis_url, **smtp(room)) as world:

        async def taken() -> bool:
            return len(room.taken) == wanted

        wanted = 1
        with monkeypatch.context() as patch:
            patch.setattr(post, "LOOK_EVERY_S", 600.0)
            async with working(world):
                (outbox_id,) = await owe(world.shop, 1)
                await mail.ring(world.shop, outbox_id)
                await until(taken, within_s=10)
        wanted = 2
        async with working(world):
            await world.pg.fetch("UPDATE outbox SET state = 'owed', attempt_id = NULL, done_at = NULL", ())
            await until(taken, within_s=10)


async def test_a_worker_that_stops_leaves_no_mail_taken(
    pg_url: str, servers: Servers, redis: Pipe, room: Mailroom
) -> None:
    room.gate = asyncio.Event()
    told = asyncio.Event()
    async with mailing(pg_url, servers, room) as shop:
        ids = await owe(shop, 12)
        working = asyncio.create_task(post.Post().work(shop, told))
        await room.came.wait()
        told.set()
        room.gate.set()
        await asyncio.wait_for(working, 10)  # the batch under way ends, and none begins
        assert (await states(shop, ids)).count("done") == 10
        assert [row["free"] for row in await rows(shop, ids[10:])] == [True] * 2
