"""The webhook surface over real HTTP: what is refused leaves nothing, what is taken proves nothing about money.

`F12` is number 12 of FAILURES §4; the bad bodies themselves are in tests/gateways.
"""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
import structlog
from structlog.testing import LogCapture

from app import errors
from app.flows import settle
from app.infra.embedded import Servers
from app.sandbox.crystalpay import ApiFault
from app.sandbox.crystalpay_wire import Callbacks, Payment, sign
from tests.gateways.test_crystalpay import BAD, ID, MIB, OTHER_ID, event, proven
from tests.web.test_shop import NO_REDIS, Door, in_module, own_world, problem
from tests.world import GATEWAYS, SALT, Buyer, World, invoice_of

HOOKS = ("/api/webhook/crystalpay", "/api/webhook/payment/crystalpay")
TOO_LARGE = {"F51 1 MiB + 1": event().ljust(MIB + 1), "F51 2 MiB of an id": proven("a" * 2 * MIB)}
REFUSED = BAD | {name: (errors.TooLarge, body) for name, body in TOO_LARGE.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "hooks", 2, gateway_timeout_ms=2000) as opened:
        yield opened


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    capture = LogCapture()
    monkeypatch.setattr(settle, "log", structlog.wrap_logger(None, processors=[capture]))
    return capture


async def rows(world: World) -> tuple[int, int]:
    return await world.scalar("SELECT count(*) FROM inbox"), await world.scalar("SELECT count(*) FROM outbox")


@in_module
@pytest.mark.parametrize("path", HOOKS)
@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_callback_is_refused_and_leaves_nothing(shared: World, path: str, name: str) -> None:
    kind, body = REFUSED[name]
    before = await rows(shared)
    assert SALT not in str(problem(await shared.callback(body, path), kind))
    assert await rows(shared) == before
    assert not [asked for asked in shared.crystalpay.entries("request", "info") if asked.given["id"] in (ID, OTHER_ID)]


@in_module
@pytest.mark.parametrize(
    ("media", "encoding"),
    [("application/x-www-form-urlencoded", ""), ("multipart/form-data; boundary=x", ""), ("text/plain", ""),
     ("application/jsonp", ""), ("application/json; charset=UTF-16", ""), ("application/json", "gzip"),
     ("application/json", "identity, br")],
)  # fmt: skip
@pytest.mark.parametrize("path", HOOKS)
async def test_f49_another_media_type_is_refused(shared: World, path: str, media: str, encoding: str) -> None:
    before = await rows(shared)
    headers = {"Content-Type": media} | ({"Content-Encoding": encoding} if encoding else {})
    problem(await shared.http.post(path, content=event(), headers=headers), errors.UnsupportedMedia)
    assert await rows(shared) == before


@in_module
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", HOOKS)
async def test_f48_only_post_is_taken(shared: World, path: str, method: str) -> None:
    before = await rows(shared)
    answer = await shared.http.request(method, path, content=event())
    assert "POST" in answer.headers["allow"].split(", ")
    if method in ("HEAD", "OPTIONS"):  # no body to tell a problem in
        assert (answer.status_code, answer.content) == (405 if method == "HEAD" else 204, b"")
    else:
        problem(answer, errors.MethodNotAllowed)
    assert await rows(shared) == before


@in_module
@pytest.mark.parametrize(
    "name",
    ["yookassa", "CrystalPay", "CRYSTALPAY", "crystalpay%20", "%20crystalpay", "crystalpay%00", "crystalpay%0A", "%FF",
     "%D1%81rystalpay", "cr%D1%83stalpay", "..", "../crystalpay", "..%2Fcrystalpay", "%2e%2e/%2e%2e/crystalpay", "",
     "crystalpay/x", "crystalpay;x", "a" * 5000],
    ids=lambda name: name[:32],
)  # fmt: skip
async def test_f47_a_name_that_is_no_gateways_is_not_found(shared: World, name: str) -> None:
    before = await rows(shared)
    reader, writer = await asyncio.open_connection("127.0.0.1", shared.shop.deps.settings.port)
    head = f"POST /api/webhook/payment/{name} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(event())}\r\nConnection: close\r\n\r\n".encode() + event())
    status, _, rest = (await reader.read()).partition(b"\r\n")
    writer.close()
    assert status == b"HTTP/1.1 404 Not Found"
    assert json.loads(rest.partition(b"\r\n\r\n")[2])["type"] == errors.NotFound.type
    assert await rows(shared) == before


@in_module
@pytest.mark.parametrize(("media", "status"), [("application/json", b"413"), ("text/plain", b"415")])
@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 999999999999"])
async def test_f51_an_endless_body_is_cut(shared: World, framing: str, media: str, status: bytes) -> None:
    loop, sent = asyncio.get_running_loop(), 0
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n" if "chunked" in framing else b" " * 0x10000
    head = f"POST {HOOKS[0]} HTTP/1.1\r\nHost: x\r\nContent-Type: {media}\r\n{framing}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", shared.shop.deps.settings.port)) as client:
        client.setblocking(False)
        await loop.sock_sendall(client, head)
        with suppress(ConnectionError):
            while sent < 64 * MIB:
                await loop.sock_sendall(client, chunk)
                sent += len(chunk)
        assert sent < 64 * MIB, "it was read on and on"
        assert (await loop.sock_recv(client, 1000)).startswith(b"HTTP/1.1 " + status)


async def test_without_the_salt_there_is_no_gateway(pg_url: str, servers: Servers) -> None:
    async with World.opened(
        pg_url, servers.redis_url, gateways={"crystalpay": GATEWAYS["crystalpay"] | {"salt": ""}}
    ) as world:
        for path in HOOKS:
            for body in (event(), event(signature=...), event(signature=""), b""):
                problem(await world.callback(body, path), errors.NotFound)
        assert await rows(world) == (0, 0)


async def test_f64_a_flood_is_refused_and_the_genuine_event_taken(world: World) -> None:
    flood = [world.callback(event(signature="0" * 40, id=f"{n}_x")) for n in range(100)]
    answers = await asyncio.gather(*flood, world.callback(event()))
    assert [answer.status_code for answer in answers] == [401] * 100 + [200]  # 429 would read as delivered
    assert await rows(world) == (1, 1)
    assert world.crystalpay.entries("request") == []


# What is taken.


@in_module
@pytest.mark.parametrize("path", HOOKS)
async def test_a_right_callback_is_stored_once_and_as_it_came(shared: World, path: str) -> None:
    invoice = f"{uuid4().hex[:9]}_right"
    for _ in range(2):
        answer = await shared.callback(proven(invoice), path)
        assert (answer.status_code, answer.json()) == (200, {"ok": True})
    assert await events(shared, invoice) == [("new", "")]
    assert await shared.scalar("SELECT body FROM inbox WHERE event_key = $1", f"{invoice}:payed") == proven(invoice)


@in_module
async def test_f57_a_hundred_thousand_unknown_keys_are_ignored(shared: World) -> None:
    invoice = f"{uuid4().hex[:9]}_keys"
    keys = "".join(f'"{n:x}":1,' for n in range(100_000)) + '"__proto__":{"state":"payed"},"constructor":1,'
    body = proven(invoice).replace(b"{", b"{" + keys.encode(), 1)
    started = time.monotonic()
    assert (await shared.callback(body)).status_code == 200
    assert time.monotonic() - started < 5
    assert await events(shared, invoice) == [("new", "")]


@in_module
async def test_f51_a_body_of_exactly_1_mib_is_read(shared: World) -> None:
    assert (await shared.callback(proven(f"{uuid4().hex[:9]}_mib").ljust(MIB))).status_code == 200


@pytest.mark.parametrize("silent", [False, True], ids=["gone", "silent"])
async def test_f61_without_postgres_the_gateway_must_call_again(pg_url: str, servers: Servers, silent: bool) -> None:
    door = Door(pg_url)
    async with door.opened() as url, World.opened(url, servers.redis_url, pg_timeout_ms=200) as world:
        door.answers.clear() if silent else door.shut()
        for path in HOOKS:
            problem(await world.callback(event(), path), errors.PostgresDown)
        door.answers.set() if silent else await door.open()
        assert (await world.callback(event())).status_code == 200
        assert await rows(world) == (1, 1)


async def test_f62_without_redis_the_event_is_stored_and_settled(pg_url: str) -> None:
    async with World.opened(pg_url, NO_REDIS, limits="*=1000000/1/open") as world:
        buyer, order, invoice = await placed(world)
        await world.crystalpay.pay(invoice, Payment(callbacks=Callbacks(copies=30)))
        assert {entry.status for entry in world.crystalpay.entries("callback")} == {200}
        assert await rows(world) == (1, 1)
        await world.drain()
        assert await buyer.status(order) == "delivered"


# What it is worth: what the gateway says when it is asked, and nothing else.


async def placed(world: World, buyer: Buyer | None = None) -> tuple[Buyer, str, str]:
    """A pending order over 100.00 RUB: its buyer, its id, its invoice."""
    product = await world.product(f"KEY-{uuid4()}")
    buyer = buyer or await world.buyer()
    order = (await buyer.order((product, 1))).json()
    return buyer, order["order"]["id"], invoice_of(order)


async def later(world: World) -> None:
    """The waits of all retries are over."""
    await world.pg.fetch("UPDATE outbox SET run_at = now() WHERE state = 'owed'", ())
    await world.drain()


async def events(world: World, invoice: str) -> list[tuple[str, str]]:
    found = await world.pg.fetch(
        "SELECT state, outcome FROM inbox WHERE split_part(event_key, ':', 1) = $1 ORDER BY id", (invoice,)
    )
    return [tuple(row) for row in found]


@in_module
@pytest.mark.parametrize(
    "edit",
    [{}, {"amount": "0.01", "rub_amount": "0.01"}, {"amount": 10**6}, {"currency": "USD"}, {"remaining_amount": "99"},
     {"extra": "another"}, {"extra": None, "error": False, "paid": True, "status": "paid"}],
    ids=repr,
)  # fmt: skip
async def test_f12_f13_f45_an_edited_body_changes_nothing(shared: World, edit: dict[str, Any]) -> None:
    buyer, order, invoice = await placed(shared)
    _, another, _ = await placed(shared, buyer)
    swapped = {"extra": f"{another}-1"} if edit.get("extra") else {}
    forged = Callbacks(edit={"state": "payed"} | edit | swapped)
    await shared.crystalpay.send_callback(invoice, forged)
    for attempt in (1, 2):
        await later(shared)
        assert [await buyer.status(order), await buyer.status(another)] == ["pending", "pending"]
        assert (await settling(shared, invoice))["attempts"] >= attempt
    # It becomes true, and the callback is a repeat; our own record of the invoice wins over the gateway's `extra`.
    await shared.crystalpay.pay(invoice, Payment(edit=swapped, callbacks=forged))
    await later(shared)
    assert [await buyer.status(order), await buyer.status(another)] == ["delivered", "pending"]
    assert await events(shared, invoice) == [("settled", "paid")]


async def settling(world: World, invoice: str) -> Any:
    """The settle job of an invoice's only event."""
    (row,) = await world.pg.fetch(
        "SELECT state, attempts, last_error, lease_until, extract(epoch FROM run_at - now())::float8 AS wait_s"
        "  FROM outbox WHERE kind = 'settle' AND payload->>'invoice_id' = $1",
        (invoice,),
    )
    return row


@in_module
async def test_f12_a_forged_event_does_not_bury_the_genuine_one(shared: World) -> None:
    buyer, order, invoice = await placed(shared)
    await shared.crystalpay.send_callback(invoice, Callbacks(edit={"state": "payed"}))
    for _ in range(settle.PATIENCE + 1):
        await later(shared)
    assert await events(shared, invoice) == [("ignored", "notpayed")]
    assert await buyer.status(order) == "pending"
    await shared.crystalpay.pay(invoice)
    await later(shared)
    assert await events(shared, invoice) == [("settled", "paid")]
    assert await buyer.status(order) == "delivered"


@in_module
@pytest.mark.parametrize("extra", ["the order's", "unknown", "not an id", ""])
async def test_f29_f41_an_invoice_that_we_did_not_make_grants_nothing(
    shared: World, logged: LogCapture, extra: str
) -> None:
    buyer, order, invoice = await placed(shared, await shared.buyer(uuid4().int >> 80))
    await shared.crystalpay.pay(invoice)
    await later(shared)
    gateway = shared.shop.deps.settings.gateways["crystalpay"]
    orders = {"the order's": f"{order}-9", "unknown": f"{uuid4()}-1"}
    wanted = {"amount": 100, "type": "purchase", "lifetime": 15, "extra": orders.get(extra, extra)}
    secrets = {"auth_login": gateway["login"], "auth_secret": gateway["secret"]}
    made = await shared.shop.deps.http.post(
        f"{gateway['url']}/v3/invoice/create/",
        json=wanted | secrets | {"callback_url": str(shared.http.base_url.join(HOOKS[0]))},
    )
    await shared.crystalpay.pay(made.json()["id"])
    assert shared.crystalpay.entries("callback")[-1].status == 200
    await later(shared)
    known = extra == "the order's"  # then it is money that the order does not need: the buyer's
    expected = ("settled", "second") if known else ("review", "unknown_order")
    assert await events(shared, made.json()["id"]) == [expected]
    errors = [line["verdict"] for line in logged.entries if line["log_level"] == "error"]
    assert errors == ([] if known else ["unknown_order"])
    credited = (
        "SELECT coalesce(sum(balance_minor), 0)::int8 FROM balances b JOIN orders o USING (user_id) WHERE o.id = $1"
    )
    assert await shared.scalar(credited, UUID(order)) == (10_000 if known else 0)
    assert (await buyer.status(order), len(await buyer.goods(order))) == ("delivered", 1)
    assert len(shared.telegram.sent_to(buyer.telegram_id)) == (2 if known else 1)


@in_module
async def test_f19_the_same_event_a_hundred_times_has_one_effect(shared: World) -> None:
    ann = await shared.buyer(1019)
    _, order, invoice = await placed(shared, ann)
    await shared.crystalpay.pay(invoice, Payment(callbacks=Callbacks(copies=90)))
    await shared.drain()
    await shared.crystalpay.send_callback(invoice, Callbacks(copies=10))
    await later(shared)
    answers = [sent.status for sent in shared.crystalpay.entries("callback") if sent.given["id"] == invoice]
    assert answers == [200] * 100
    assert await events(shared, invoice) == [("settled", "paid")]
    assert (await ann.status(order), len(shared.telegram.sent_to(1019))) == ("delivered", 1)


@in_module
async def test_f22_one_invoice_under_several_states_has_one_effect(shared: World) -> None:
    ann = await shared.buyer(1022)
    _, order, invoice = await placed(shared, ann)
    plan = [Callbacks(edit={"state": state}) for state in ("processing", "wrongamount", "failed", "a new word")]
    await asyncio.gather(shared.crystalpay.pay(invoice), *(shared.crystalpay.send_callback(invoice, p) for p in plan))
    await later(shared)
    outcomes = sorted(await events(shared, invoice))
    assert outcomes == [("settled", "paid")] + [("settled", "repeated")] * 4
    assert (await ann.status(order), len(shared.telegram.sent_to(1022))) == ("delivered", 1)


@in_module
@pytest.mark.parametrize(
    "fault",
    [
        ApiFault(on="info", times=None, status=500),
        ApiFault(on="info", times=None, status=503, body="<html>busy</html>", content_type="text/html"),
        ApiFault(on="info", times=None, status=200, body="<html>hello</html>", content_type="text/html"),
        ApiFault(on="info", times=None, status=302, body=""),
        ApiFault(on="info", times=None, body=""),
        ApiFault(on="info", times=None, body='{"error":true,"errors":["try later"]}'),
        ApiFault(on="info", times=None, instead="another"),
        ApiFault(on="info", times=None, edit={"id": OTHER_ID}),
        ApiFault(on="info", times=None, edit={"amount": "1e2"}),
        ApiFault(on="info", times=None, edit={"description": "x" * 300_000}),
        ApiFault(on="info", times=None, wait_ms=9000),
    ],
    ids=["500", "503 HTML", "200 HTML", "redirect", "nothing", "error", "another invoice", "another id", "no amount",
         "too long", "hangs"],
)  # fmt: skip
async def test_f63_an_event_waits_until_the_gateway_can_be_asked(shared: World, fault: ApiFault) -> None:
    buyer, order, invoice = await placed(shared)
    _, _, paid_before = await placed(shared, buyer)
    await shared.crystalpay.pay(paid_before)
    await later(shared)
    if fault.instead:
        fault.instead = paid_before
    shared.crystalpay.faults.append(fault)
    try:
        await shared.crystalpay.pay(invoice)
        assert shared.crystalpay.entries("callback")[-1].status == 200
        await shared.drain()
        job = await settling(shared, invoice)
        assert (job["state"], job["lease_until"], await buyer.status(order)) == ("owed", None, "pending")
        assert job["last_error"].startswith(("ProviderDown", "ProviderRefused"))
        assert -1 < job["wait_s"] <= 5
    finally:
        shared.crystalpay.faults.clear()
    await later(shared)
    assert (await buyer.status(order), await events(shared, invoice)) == ("delivered", [("settled", "paid")])


@in_module
async def test_an_event_keeps_its_headers_but_no_credentials(shared: World) -> None:
    _, _, invoice = await placed(shared)
    more = {"X-Trace": "abc", "Cookie": "session=CANARY", "Authorization": "Bearer CANARY"}
    body = event(id=invoice, signature=sign(invoice, SALT))
    sent = await shared.http.post(HOOKS[0], content=body, headers={"Content-Type": "application/json"} | more)
    assert sent.status_code == 200
    kept = str(await shared.scalar("SELECT headers FROM inbox WHERE event_key LIKE $1", f"{invoice}:%"))
    assert '"x-trace": "abc"' in kept
    assert "CANARY" not in kept
