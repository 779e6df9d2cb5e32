"""The signed way to the jobs: who does not prove the call changes nothing, and who does can only hurry what is owed.

`F12` is number 12 of FAILURES §4. What makes a signature good or bad is in tests/infra/test_qstash.py.
"""

import asyncio
import hashlib
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from app import errors
from app.base import keys
from app.domain import summons
from app.flows import summon
from app.flows.summon import WORKS
from app.infra.embedded import Servers
from app.shop import Shop
from app.web.workers import MAX_BODY_BYTES
from tests.infra.test_qstash import ALLOWED, BODY, BODY_CLAIM, CURRENT, FOLLOWING, FORGED, WRONG, b64, claims, token
from tests.web.test_shop import NO_REDIS, in_module, own_world, problem
from tests.world import World, invoice_of

SIGNED = {"qstash_current_key": CURRENT, "qstash_next_key": FOLLOWING}
HEADER = re.compile(r"(?!\s)[^\0\r\n]{0,8000}(?<!\s)")  # the others of FORGED no header can hold
OWE = "INSERT INTO outbox (kind, key, payload, state) VALUES ($1, $2, '{}', $3) RETURNING id"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "workers", 14, **SIGNED) as opened:
        yield opened


def proof(world: World, job: str, body: bytes, /, **changes: Any) -> dict[str, Any]:
    """The claims of a call of this job with this body, with an id of its own."""
    url = f"{world.shop.deps.settings.public_url}/api/workers/{job}"
    return claims(**{"sub": url, "body": b64(hashlib.sha256(body).digest()), "jti": uuid4().hex} | changes)


async def summoned(
    world: World, job: str, body: Any, *, signature: str | None = None, **headers: str
) -> httpx.Response:
    """A call as the queue makes it; a `signature` instead of the right one."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    signature = token(proof(world, job, sent)) if signature is None else signature
    told: dict[str, str] = {"Content-Type": "application/json", "Upstash-Signature": signature} | headers
    return await world.http.post(f"/api/workers/{job}", content=sent, headers=told)


async def owed(world: World, kind: str = "deliver", key: str = "", state: str = "owed") -> tuple[int, str]:
    """A job, and its key."""
    key = key or str(uuid4())
    return await world.scalar(OWE, kind, key, state), key


async def trace(world: World) -> tuple[Any, ...]:
    """All that a call can leave behind."""
    rung = await world.shop.deps.redis.command("ZCARD", keys.ARQ_QUEUE)
    return (
        await world.scalar("SELECT count(*) FROM summons"),
        await world.scalar("SELECT count(*) FROM outbox"),
        await world.scalar("SELECT sum(attempts)::int FROM outbox"),
        rung,
    )


# ---- who does not prove it


@in_module
@pytest.mark.parametrize("job", [*WORKS, "no-such-job"])
async def test_f1_without_a_signature_nothing_runs(shared: World, job: str) -> None:
    _, key = await owed(shared, WORKS["deliver-goods"].kind)
    before = await trace(shared)
    for headers in ({}, {"Upstash-Signature": ""}, {"Authorization": f"Bearer {token()}"}):
        answer = await shared.http.post(f"/api/workers/{job}", json={"order_id": key}, headers=headers)
        problem(answer, errors.BadSignature)
    assert await trace(shared) == before


@in_module
@pytest.mark.parametrize("name", [name for name, forged in FORGED.items() if HEADER.fullmatch(forged)])
async def test_a_forged_token_is_401(shared: World, name: str) -> None:
    before = await trace(shared)
    _, key = await owed(shared)
    headers = {b"Content-Type": b"application/json", b"Upstash-Signature": FORGED[name].encode("latin-1")}
    answer = await shared.http.post("/api/workers/deliver-goods", json={"order_id": key}, headers=headers)
    assert CURRENT not in str(problem(answer, errors.BadSignature))
    assert (await trace(shared))[0::3] == before[0::3]


@in_module
@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_claim_is_401(shared: World, name: str) -> None:
    _, key = await owed(shared)
    body = json.dumps({"order_id": key}).encode()
    before = await trace(shared)
    answer = await summoned(
        shared, "deliver-goods", body, signature=token(proof(shared, "deliver-goods", body, **WRONG[name]))
    )
    problem(answer, errors.BadSignature)
    assert await trace(shared) == before


@in_module
async def test_a_signature_is_good_for_its_own_job_and_body_alone(shared: World) -> None:
    _, key = await owed(shared, "reward")
    body = json.dumps({"order_id": key}).encode()
    mine = token(proof(shared, "referral-bonus", body))
    before = await trace(shared)
    problem(await summoned(shared, "deliver-goods", body, signature=mine), errors.BadSignature)
    problem(await summoned(shared, "referral-bonus", body + b" ", signature=mine), errors.BadSignature)
    problem(await summoned(shared, "referral-bonus", {"order_id": str(uuid4())}, signature=mine), errors.BadSignature)
    assert await trace(shared) == before
    assert (await summoned(shared, "referral-bonus", body, signature=mine)).status_code == 200


@in_module
async def test_two_signatures_are_none(shared: World) -> None:
    _, key = await owed(shared)
    body = json.dumps({"order_id": key}).encode()
    good = token(proof(shared, "deliver-goods", body))
    for pair in ((good, good), (good, "x"), ("x", good)):
        headers = [("Content-Type", "application/json"), *(("Upstash-Signature", one) for one in pair)]
        answer = await shared.http.post("/api/workers/deliver-goods", content=body, headers=headers)
        problem(answer, errors.BadSignature)


async def test_without_a_key_there_is_no_route(world: World) -> None:
    path = "/api/workers/deliver-goods"
    gone = problem(await summoned(world, "deliver-goods", BODY), errors.NotFound)
    assert gone == problem(await world.http.post("/api/nothing-here"), errors.NotFound)
    problem(await world.http.get(path), errors.NotFound)
    assert path not in (await world.http.get("/schema/openapi.json")).text


# ---- who does


@in_module
async def test_the_vector_of_the_protocol(shared: World) -> None:
    """PROTOCOLS §8: the body's claim is right, the order is nobody's."""
    made = proof(shared, "deliver-goods", BODY)
    assert made["body"] == BODY_CLAIM
    refused = problem(await summoned(shared, "deliver-goods", BODY, signature=token(made)), errors.Malformed)
    assert "order_id" in refused["detail"]


@in_module
@pytest.mark.parametrize("name", ALLOWED)
@pytest.mark.parametrize("key", [CURRENT, FOLLOWING])
async def test_a_proven_call_finds_what_is_owed(shared: World, name: str, key: str) -> None:
    outbox_id, order_id = await owed(shared)
    body = json.dumps({"order_id": order_id, "user_id": 7, "stock_item_id": "x"}).encode()
    changes = {claim: value for claim, value in ALLOWED[name]().items() if claim != "body"}
    made = proof(shared, "deliver-goods", body, **changes) | {"jti": uuid4().hex}
    answer = await summoned(shared, "deliver-goods", body, signature=token(made, key=key))
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "outbox_id": outbox_id, "state": "owed"})


async def test_every_job_of_a_sale_goes_by_its_public_name(pg_url: str, servers: Servers, redis: Any) -> None:
    async with World.opened(pg_url, servers.redis_url, **SIGNED) as world:
        product, ann = await world.product("KEY-1"), await world.buyer()
        placed = (await ann.order((product, 1))).json()
        order_id = placed["order"]["id"]
        problem(await summoned(world, "deliver-goods", {"order_id": order_id}), errors.NotFound)  # B7
        await world.crystalpay.pay(invoice_of(placed))
        ((inbox_id,),) = await world.pg.fetch("SELECT id FROM inbox", ())
        answer = await summoned(world, "settle-payment", {"inbox_id": inbox_id})
        assert (answer.status_code, answer.json()["state"]) == (200, "owed")
        await world.drain()
        assert await ann.goods(order_id) == ["KEY-1"]
        about = {
            "notify-buyer": {"order_id": order_id, "status": "delivered"},
            "settle-payment": {"inbox_id": inbox_id},
        }
        for job in WORKS.keys() - {"refund-payment"}:
            answer = await summoned(world, job, about.get(job, {"order_id": order_id}))
            assert (answer.status_code, answer.json()["state"]) == (200, "done"), (job, answer.text)
            named = {"outbox_id": answer.json()["outbox_id"]}
            assert (await summoned(world, job, named)).json() == answer.json()
        assert len(world.telegram.sent_to(ann.telegram_id)) == 1


@in_module
async def test_f19_a_repeat_gets_the_same_answer_and_rings_nobody(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung, heard = list[int](), asyncio.Event()

    async def ring(shop: Shop, found: summons.Heard) -> None:
        rung.append(found.outbox_id)
        heard.set()

    monkeypatch.setattr(summon, "ring", ring)
    outbox_id, order_id = await owed(shared)
    body = json.dumps({"order_id": order_id}).encode()
    same = token(proof(shared, "deliver-goods", body))
    answers = await asyncio.gather(*(summoned(shared, "deliver-goods", body, signature=same) for _ in range(100)))
    assert {(answer.status_code, answer.text) for answer in answers} == {
        (200, f'{{"outbox_id":{outbox_id},"state":"owed","ok":true}}')
    }
    async with asyncio.timeout(10):
        await heard.wait()  # it rings after its answer
    heard.clear()
    assert (await summoned(shared, "deliver-goods", body)).json()["outbox_id"] == outbox_id  # another id, another ring
    async with asyncio.timeout(10):
        await heard.wait()
    assert rung == [outbox_id] * 2


@in_module
async def test_ids_are_forgotten_once_their_signature_is_no_good(shared: World) -> None:
    await shared.pg.fetch("INSERT INTO summons (id, expires_at) VALUES ('old', now() - interval '1 hour')", ())
    _, order_id = await owed(shared)
    await summoned(shared, "deliver-goods", {"order_id": order_id})
    assert await shared.scalar("SELECT count(*) FROM summons WHERE id = 'old'") == 0


@in_module
@pytest.mark.parametrize("state", ["dead", "dropped"])
async def test_a_dead_letter_waits_for_a_human(shared: World, state: str) -> None:
    outbox_id, order_id = await owed(shared, state=state)
    before = await trace(shared)
    told = problem(await summoned(shared, "deliver-goods", {"order_id": order_id}), errors.Conflict)
    assert told["outbox_id"] == outbox_id
    assert await shared.scalar("SELECT state FROM outbox WHERE id = $1", outbox_id) == state
    assert (await trace(shared))[1:] == before[1:]


@in_module
async def test_f41_what_is_not_owed_is_not_made(shared: World) -> None:
    outbox_id, order_id = await owed(shared, "reward")
    before = await trace(shared)
    wanted: list[tuple[str, Any]] = [
        ("deliver-goods", {"order_id": str(uuid4())}), ("deliver-goods", {"order_id": order_id}),
        ("deliver-goods", {"outbox_id": outbox_id}), ("deliver-goods", {"outbox_id": 2**63 - 1}),
        ("settle-payment", {"inbox_id": 10**9}), ("notify-buyer", {"order_id": order_id, "status": "delivered"}),
        ("refund-payment", {"refund_id": str(uuid4())}),
    ]  # fmt: skip
    for job, body in wanted:
        problem(await summoned(shared, job, body), errors.NotFound)
    assert await trace(shared) == before


@in_module
@pytest.mark.parametrize("job", ["no-such-job", "Deliver-Goods", "DELIVER-GOODS", "deliver_goods", "a" * 2000, "hook"])
async def test_f47_a_job_of_no_such_name_is_not_found(shared: World, job: str) -> None:
    problem(await summoned(shared, job, {"outbox_id": 1}), errors.NotFound)


async def test_f62_without_redis_the_relay_finds_it(pg_url: str) -> None:
    async with World.opened(pg_url, NO_REDIS, **SIGNED) as world:
        outbox_id, order_id = await owed(world)
        answer = await summoned(world, "deliver-goods", {"order_id": order_id})
        assert answer.json() == {"ok": True, "outbox_id": outbox_id, "state": "owed"}


# ---- bodies and requests


DEEP = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
MALFORMED: dict[str, bytes] = {
    "F51 nothing": b"", "F51 one byte": b"{", "F56 a list": b"[]", "F56 text": b'"x"', "F56 a number": b"7",
    "F56 true": b"true",
    "F56 null": b"null", "F53 a key twice": b'{"outbox_id":1,"outbox_id":2}', "F54 deep": DEEP,
    "F55 bad UTF-8": b'{"a":"\xff"}',
    "F55 a surrogate": b'{"a":"\\ud800"}', "F55 NUL": b'{"a":"\\u0000"}', "F49 a BOM": b'\xef\xbb\xbf{"outbox_id":1}',
    "F49 utf-16": '{"outbox_id":1}'.encode("utf-16"), "F35 NaN": b'{"outbox_id":NaN}',
    "F35 1e400": b'{"outbox_id":1e400}',
    "F35 infinite": b'{"outbox_id":Infinity}', "F34 text": b'{"outbox_id":"1"}', "F34 a fraction": b'{"outbox_id":1.5}',
    "F34 negative": b'{"outbox_id":-1}', "F34 beyond": b'{"outbox_id":9223372036854775808}',
    "F35 huge": b'{"outbox_id":1%s}' % (b"0" * 5000),
    "F3 a list": b'{"order_id":["x"]}', "F3 a number": b'{"order_id":7}', "F3 true": b'{"outbox_id":true}',
    "F43 a colon": b'{"order_id":"0193f0a0-0000-7000-8000-000000000000:x"}',
    "F58 long": b'{"order_id":"%s"}' % (b"a" * 60_000),
    "F44 SQL": b'{"order_id":"\' OR 1=1 --"}', "nothing named": b"{}", "zero": b'{"outbox_id":0}',
    "no id": b'{"order_id":null}',
    "two named": b'{"outbox_id":1,"order_id":"0193f0a0-0000-7000-8000-000000000000"}',
    "another's name": b'{"inbox_id":1}',
    "F44 a line": b'{"order_id":"0193f0a0-0000-7000-8000-000000000000","status":"a\\n"}',
}  # fmt: skip


@in_module
@pytest.mark.parametrize("name", MALFORMED)
async def test_a_bad_body_is_refused_though_it_is_signed(shared: World, name: str) -> None:
    before = await trace(shared)
    problem(await summoned(shared, "deliver-goods", MALFORMED[name]), errors.Malformed)
    assert await trace(shared) == before


@in_module
async def test_f57_what_else_the_body_holds_is_nobodys_business(shared: World) -> None:
    outbox_id, order_id = await owed(shared)
    body = {"order_id": order_id, "__proto__": {"x": 1}, "constructor": [], **{f"k{n}": n for n in range(3000)}}
    assert (await summoned(shared, "deliver-goods", body)).json()["outbox_id"] == outbox_id


@in_module
async def test_f51_a_body_is_at_most_64_kib(shared: World) -> None:
    outbox_id, order_id = await owed(shared)
    body = json.dumps({"order_id": order_id}).encode()
    assert (await summoned(shared, "deliver-goods", body.ljust(MAX_BODY_BYTES))).json()["outbox_id"] == outbox_id
    for size in (MAX_BODY_BYTES + 1, 5_000_000):
        problem(await summoned(shared, "deliver-goods", body.ljust(size)), errors.TooLarge)


@in_module
async def test_f51_an_endless_body_is_cut(shared: World) -> None:
    loop, sent = asyncio.get_running_loop(), 0
    head = b"POST /api/workers/deliver-goods HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", shared.shop.deps.settings.port)) as client:
        client.setblocking(False)
        await loop.sock_sendall(client, head)
        with suppress(ConnectionError):
            while sent < 64_000_000:
                await loop.sock_sendall(client, b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                sent += 0x10000
        assert sent < 64_000_000, "it was read on and on"


@in_module
@pytest.mark.parametrize(
    ("media", "encoding"),
    [("application/x-www-form-urlencoded", ""), ("text/plain", ""), ("application/json; charset=utf-16", ""),
     ("multipart/form-data; boundary=x", ""), ("application/json", "gzip"), ("application/json", "identity, br")],
)  # fmt: skip
async def test_f49_another_media_type_is_refused(shared: World, media: str, encoding: str) -> None:
    _, order_id = await owed(shared)
    headers = {"Content-Type": media} | ({"Content-Encoding": encoding} if encoding else {})
    problem(await summoned(shared, "deliver-goods", {"order_id": order_id}, **headers), errors.UnsupportedMedia)


@in_module
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_f48_only_post_is_taken(shared: World, method: str) -> None:
    answer = await shared.http.request(method, "/api/workers/deliver-goods", headers={"Upstash-Signature": token()})
    problem(answer, errors.MethodNotAllowed)
