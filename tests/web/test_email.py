"""An address gets nothing but a link until its owner says yes; then the news of orders come there, too."""

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app import errors
from app.base import clock
from app.flows import mail
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.infra.secrets import Confirmation
from app.sandbox.telegram_wire import BotFault
from tests.infra.smtpserver import Mailroom, parts, receiving
from tests.web.test_shop import NO_REDIS, problem
from tests.workers.test_post import smtp
from tests.world import Buyer, World, invoice_of
from workers import post

OWED = "SELECT count(*) FROM outbox WHERE kind = 'email'"
BEHIND = """
INSERT INTO outbox (kind, key, aggregate, payload)
SELECT kind, key || ':more', aggregate,
       jsonb_build_object('order_id', $1::text, 'status', 'refund', 'amount_minor', 700)
  FROM outbox WHERE kind = 'tell'"""


@pytest.fixture
async def room() -> AsyncIterator[Mailroom]:
    async with receiving(Mailroom()) as room:
        yield room


@pytest.fixture
async def world(pg_url: str, servers: Servers, redis: Pipe, room: Mailroom) -> AsyncIterator[World]:
    async with World.opened(pg_url, servers.redis_url, **smtp(room)) as opened:
        yield opened


async def put(buyer: Buyer, address: Any) -> httpx.Response:
    return await buyer.http.put("/api/me/email", json={"email": address}, headers=buyer.headers)


async def asked(world: World, room: Mailroom, buyer: Buyer, address: str) -> str:
    """The path of the link that was sent there."""
    assert (await put(buyer, address)).status_code == 200
    await post.drain(world.shop)
    text, html = parts(room.mails()[-1])
    (link,) = re.findall(r"https?://\S+", text)
    assert link in html
    return str(link).removeprefix(world.shop.deps.settings.public_url)


async def confirmed(world: World, room: Mailroom, buyer: Buyer, address: str = "ann@x.example") -> None:
    answer = await world.http.post(await asked(world, room, buyer, address))
    assert answer.status_code == 200
    room.taken.clear()


async def addresses(buyer: Buyer) -> tuple[str | None, str | None]:
    me = (await buyer.get("/api/me")).json()
    return me["email"], me["email_asked"]


async def bought(world: World, buyer: Buyer, secret: str = "KEY-SECRET-1") -> str:
    """An order that is paid, delivered and told of, as far as Telegram lets it."""
    product = await world.product(secret, title="Editor <pro>")
    placed = (await buyer.order((product, 1))).json()
    await world.crystalpay.pay(invoice_of(placed))
    await world.drain()
    return str(placed["order"]["id"])


# ---- the address


async def test_an_address_is_confirmed_by_the_link_that_was_sent_there(world: World, room: Mailroom) -> None:
    ann = await world.buyer(language="ru")
    assert await addresses(ann) == (None, None)
    answer = await put(ann, "Ann@Почта.рф")
    assert answer.json() == {"email": None, "email_asked": "Ann@xn--80a1acny.xn--p1ai"}
    link = await asked(world, room, ann, "Ann@Почта.рф")
    assert await addresses(ann) == (None, "Ann@xn--80a1acny.xn--p1ai")
    page = await world.http.get(link)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "Да, подтверждаю" in page.text
    assert await addresses(ann) == (None, "Ann@xn--80a1acny.xn--p1ai")  # who only opens links confirms nothing
    (action,) = re.findall(r'<form method="post" action="([^"]+)"', page.text)
    for _ in range(2):
        done = await world.http.post(action)
        assert (done.status_code, "Готово" in done.text, "<form" in done.text) == (200, True, False)
        assert await addresses(ann) == ("Ann@xn--80a1acny.xn--p1ai", None)
    for header, value in {"cache-control": "no-store", "referrer-policy": "no-referrer"}.items():
        assert page.headers[header] == done.headers[header] == value
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_what_was_confirmed_stays_until_another_one_is_or_it_is_forgotten(world: World, room: Mailroom) -> None:
    ann = await world.buyer()
    await confirmed(world, room, ann, "ann@x.example")
    assert (await put(ann, "ann@x.example")).json() == {"email": "ann@x.example", "email_asked": None}
    await post.drain(world.shop)
    assert room.taken == []  # nothing to confirm
    first = await asked(world, room, ann, "ann@y.example")
    second = await asked(world, room, ann, "ann@z.example")
    assert await addresses(ann) == ("ann@x.example", "ann@z.example")
    gone = await world.http.post(first)
    assert (gone.status_code, "no longer good" in gone.text) == (410, True)
    assert await addresses(ann) == ("ann@x.example", "ann@z.example")
    assert (await put(ann, None)).json() == {"email": None, "email_asked": None}
    assert (await world.http.post(second)).status_code == 410
    assert (await world.http.get(second)).status_code == 410
    assert await addresses(ann) == (None, None)


async def test_a_link_that_is_not_needed_any_more_is_not_sent(world: World, room: Mailroom) -> None:
    ann = await world.buyer()
    await put(ann, "b@x.example")
    await world.pg.fetch("UPDATE outbox SET payload = payload || '{\"expires_s\": 1}', key = 'old'", ())
    for address in ("a@x.example", "c@x.example", None, "d@x.example", "b@x.example"):
        await put(ann, address)
    assert await world.scalar(OWED) == 5
    await post.drain(world.shop)
    assert [to for to, _ in room.taken] == ["b@x.example"]
    assert await world.scalar(OWED + " AND state = 'owed'") == 0


def token_of(world: World, user_id: int, address: str, *, in_s: int = 60) -> str:
    links = world.shop.deps.confirmations
    assert links
    return links.issue(Confirmation(user_id, address, clock.unix_s() + in_s))


async def test_a_forged_an_old_and_another_users_link_confirm_nothing(world: World, room: Mailroom) -> None:
    ann, bob = await world.buyer(1, language="uk"), await world.buyer(2)
    ids = {name: (await one.get("/api/me")).json()["user_id"] for name, one in (("ann", ann), ("bob", bob))}
    for one in (ann, bob):
        await put(one, "ann@x.example" if one is ann else "bob@x.example")
    good = token_of(world, ids["ann"], "ann@x.example")
    tokens = {
        "none": "", "nonsense": "v1.a.b.c.d", "cut": good[:-1], "long": good * 2, "not ASCII": "é" * 20,
        "altered": good.replace(f"v1.{ids['ann']}.", f"v1.{ids['bob']}."),
        "over": token_of(world, ids["ann"], "ann@x.example", in_s=0),
        "of another address": token_of(world, ids["ann"], "eve@x.example"),
        "of another user": token_of(world, ids["bob"], "ann@x.example"),
        "of nobody": token_of(world, 10**6, "ann@x.example"),
        "a session": ann.headers["Authorization"].removeprefix("Bearer "),
    }  # fmt: skip
    for name, token in tokens.items():
        for call in (world.http.get, world.http.post):
            answer = await call(mail.CONFIRM_PATH, params={"token": token})
            assert answer.status_code == 410, name
            assert "<form" not in answer.text
    over = await world.http.get(mail.CONFIRM_PATH, params={"token": tokens["over"]})
    assert "більше не дійсне" in over.text
    assert await addresses(ann) == (None, "ann@x.example")
    assert await addresses(bob) == (None, "bob@x.example")
    problem(await world.http.get(mail.CONFIRM_PATH, params={"token": "x" * 10_000}), errors.Malformed)
    assert (await world.http.post(mail.CONFIRM_PATH, params={"token": good})).status_code == 200
    assert await addresses(ann) == ("ann@x.example", None)


BAD: list[Any] = [
    {}, {"email": 7}, {"email": ""}, {"email": "ann"}, {"email": "a@b@c.example"}, {"email": "a@x.example", "more": 1},
    {"email": "ann@x.example\r\nBcc: eve@x.example"}, {"email": "a\x00@x.example"}, {"email": "a" * 400}, [], None,
]  # fmt: skip


async def test_what_is_no_address_is_refused(world: World) -> None:
    ann = await world.buyer()
    for body in BAD:
        problem(await world.http.put("/api/me/email", json=body, headers=ann.headers), errors.Malformed)
    problem(await world.http.put("/api/me/email", json={"email": "ann@x.example"}), errors.BadToken)
    assert await world.scalar(OWED) == 0


async def test_nobody_is_written_to_again_and_again(pg_url: str, servers: Servers, redis: Pipe, room: Mailroom) -> None:
    limits = "*=1000000/1 email=4/3600 mailbox=2/43200"
    async with World.opened(pg_url, servers.redis_url, limits=limits, **smtp(room)) as world:
        ann, bob = await world.buyer(1), await world.buyer(2)
        for buyer, address in ((ann, "vic@x.example"), (bob, "VIC@x.example")):
            assert (await put(buyer, address)).status_code == 200
        for buyer in (ann, bob):
            refused = await put(buyer, "vic@x.example")
            assert problem(refused, errors.TooManyRequests)["policies"] == ["mailbox"]
            assert int(refused.headers["retry-after"]) > 3600
        for n in range(3):
            assert (await put(ann, f"a{n}@x.example")).status_code == 200
        assert problem(await put(ann, "b@x.example"), errors.TooManyRequests)["policies"] == ["email"]
        assert (await put(ann, None)).status_code == 200  # which is always possible
        assert await world.scalar(OWED) == 5
        assert b"vic" not in b"".join(await redis.command("KEYS", "*"))  # type: ignore[arg-type]


async def test_without_redis_nobody_is_written_to(pg_url: str, servers: Servers, room: Mailroom) -> None:
    async with World.opened(pg_url, servers.redis_url, **smtp(room)) as world:
        headers = (await world.buyer()).headers
        async with World.opened(pg_url, NO_REDIS, **smtp(room)) as without:
            lone = Buyer(without.http, headers["Authorization"].removeprefix("Bearer "), 1001)
            problem(await put(lone, "ann@x.example"), errors.RedisDown)
            assert (await put(lone, None)).status_code == 200
            assert await world.scalar(OWED) == 0


# ---- the news


async def test_the_buyer_has_the_news_by_mail_too_and_never_the_goods(world: World, room: Mailroom) -> None:
    ann = await world.buyer()
    await confirmed(world, room, ann)
    await bought(world, ann)
    assert "KEY-SECRET-1" in world.telegram.sent_to(ann.telegram_id)[-1]["text"]
    await post.drain(world.shop)
    ((to, raw),), (news,) = room.taken, room.mails()
    text, html = parts(news)
    assert (to, news["Subject"]) == ("ann@x.example", "Order 1 is delivered")
    assert "1 x Editor <pro>: 100.00 RUB" in text
    assert "Editor &lt;pro&gt;" in html
    assert b"KEY-SECRET" not in raw
    assert "KEY-SECRET" not in text + html
    assert urlsplit(re.findall(r"https?://\S+", text)[0]).netloc in world.shop.deps.settings.public_url
    await world.drain()
    await post.drain(world.shop)
    assert len(room.taken) == 1


async def test_a_buyer_who_cannot_be_told_in_telegram_has_a_mail(world: World, room: Mailroom) -> None:
    ann = await world.buyer()
    await confirmed(world, room, ann)
    await world.pg.fetch("UPDATE users SET blocked_at = now()", ())
    await bought(world, ann)
    await post.drain(world.shop)
    assert (len(world.telegram.sent_to(ann.telegram_id)), len(room.taken)) == (0, 1)


async def test_a_telegram_that_is_away_holds_up_no_mail(world: World, room: Mailroom) -> None:
    """Nor those about news that wait behind it for their turn in Telegram."""
    ann = await world.buyer()
    await confirmed(world, room, ann)
    world.telegram.faults.append(BotFault(on="sendMessage", status=502, times=None))
    order_id = await bought(world, ann)
    await post.drain(world.shop)
    assert [one["Subject"] for one in room.mails()] == ["Order 1 is delivered"]
    await world.pg.fetch(BEHIND, (order_id,))
    await world.pg.fetch("UPDATE outbox SET run_at = now() WHERE kind = 'tell'", ())
    await world.drain()
    await post.drain(world.shop)
    assert [one["Subject"] for one in room.mails()] == ["Order 1 is delivered", "Order 1: money back"]
    assert "7.00 RUB refunded" in parts(room.mails()[1])[0]
    world.telegram.faults.clear()
    await world.pg.fetch("UPDATE outbox SET run_at = now() WHERE kind = 'tell'", ())
    await world.drain()
    await post.drain(world.shop)
    assert (len(world.telegram.sent_to(ann.telegram_id)), len(room.taken)) == (2, 2)


async def test_nobody_gets_mail_at_an_address_that_is_not_confirmed(world: World, room: Mailroom) -> None:
    ann = await world.buyer()
    await asked(world, room, ann, "ann@x.example")
    await bought(world, ann)
    await post.drain(world.shop)
    assert [one["Subject"] for one in room.mails()] == ["Confirm your address"]


async def test_without_a_mail_server_nothing_is_owed(pg_url: str, servers: Servers, redis: Pipe) -> None:
    async with World.opened(pg_url, servers.redis_url) as world:
        ann = await world.buyer()
        problem(await put(ann, "ann@x.example"), errors.NotFound)
        assert (await world.http.get(mail.CONFIRM_PATH, params={"token": "v1.1.email.9.x"})).status_code == 410
        await world.pg.fetch("UPDATE users SET email = 'ann@x.example'", ())
        assert await addresses(ann) == ("ann@x.example", None)
        await bought(world, ann)
        assert len(world.telegram.sent_to(ann.telegram_id)) == 1
        assert await world.scalar(OWED) == 0
        assert (await put(ann, None)).json() == {"email": None, "email_asked": None}
