"""The doors of the chat channels over real HTTP: what is proved waits in its buffer, once; all else leaves nothing."""

import asyncio
import hmac
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from app import errors
from app.base import keys
from app.domain import buffers, conversations
from app.domain.buffers import SHARDS, Heard
from app.flows import hear
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from tests.channels.test_updates import message, query
from tests.infra.one_redis import Server
from tests.infra.one_redis import until as once
from tests.web.listening import until
from tests.web.test_shop import Door, in_module, own_world, problem
from tests.world import World

SECRET = "webhook-secret_of-the-tests-0123456789"
APP_SECRET, VERIFY, PHONE = "app-secret-of-the-tests", "verify-token-of-the-tests", "10042"
ON: dict[str, Any] = {
    "telegram_webhook_secret": SECRET, "whatsapp_phone_id": PHONE, "whatsapp_app_secret": APP_SECRET,
    "whatsapp_verify_token": VERIFY, "whatsapp_access_token": "access-token-of-the-tests",
}  # fmt: skip
TELEGRAM, WHATSAPP = "/api/webhook", "/api/webhook/whatsapp"
OK = {"ok": True}
DAY_MS = 86_400_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "doors", 10, **ON) as world:
        yield world


async def update(world: World, told: Any, secret: str | bytes | None = SECRET) -> httpx.Response:
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    given = secret.encode() if isinstance(secret, str) else secret
    headers = [] if given is None else [(b"X-Telegram-Bot-Api-Secret-Token", given)]
    return await world.http.post(TELEGRAM, content=body, headers=headers)


def envelope(*messages: dict[str, Any], phone_id: str = PHONE, **more: Any) -> dict[str, Any]:
    metadata = {"display_phone_number": "1555", "phone_number_id": phone_id}
    value = {"messaging_product": "whatsapp", "metadata": metadata, "messages": list(messages)} | more
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}],
    }


def said(n: int, phone: str = "380501234567") -> dict[str, Any]:
    return {"from": phone, "id": f"wamid.{n}", "timestamp": "1800000000", "type": "text", "text": {"body": f"word {n}"}}


async def whatsapp(world: World, told: Any, signature: str | bytes | None = "") -> httpx.Response:
    """Signed, unless it has another signature."""
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    if signature == "":
        signature = "sha256=" + hmac.digest(APP_SECRET.encode(), body, "sha256").hex()
    given = signature.encode() if isinstance(signature, str) else signature
    headers = [] if given is None else [(b"X-Hub-Signature-256", given)]
    return await world.http.post(WHATSAPP, content=body, headers=headers)


async def waiting(redis: Pipe, *, within_ms: int = DAY_MS) -> dict[str, list[Heard]]:
    """What waits and is due within that time, by peer, taken and done."""
    now_ms = int((await time_s(redis)) * 1000) + within_ms
    found: dict[str, list[Heard]] = {}
    for shard in range(SHARDS):
        while batches := (await buffers.take(redis, shard, size=1000, lease_ms=1000, now_ms=now_ms)).batches:
            for batch in batches:
                found.setdefault(batch.peer, []).extend(batch.heard)
                await buffers.done(redis, batch)
    return found


async def time_s(redis: Pipe) -> float:
    told = await redis.command("TIME")
    assert isinstance(told, list)
    return int(told[0]) + int(told[1]) / 1e6


# ---- Telegram


@in_module
async def test_words_wait_for_more_and_the_answer_says_typing(shared: World) -> None:
    redis = shared.shop.deps.redis
    for n in (1, 2):
        answer = await update(shared, message() | {"update_id": n})
        assert (answer.status_code, answer.json()["method"]) == (200, "sendChatAction")
    again = await update(shared, message() | {"update_id": 2})
    assert (again.status_code, again.json()) == (200, OK)
    assert await waiting(redis, within_ms=4000) == {}
    found = await waiting(redis, within_ms=8500)
    assert [heard.external_id for heard in found["1001"]] == ["u1", "u2"]


@in_module
async def test_a_button_is_due_at_once_and_a_worker_is_rung_for(shared: World) -> None:
    redis = shared.shop.deps.redis
    await update(shared, message() | {"update_id": 11})
    assert await redis.command("EXISTS", keys.ARQ_BELL) == 0
    answer = await update(shared, query() | {"update_id": 12})
    assert answer.json() == {"method": "answerCallbackQuery", "callback_query_id": "44"}
    await rung(redis)
    found = await waiting(redis, within_ms=0)
    assert [heard.external_id for heard in found["1001"]] == ["u11", "u12"]  # what was written before comes first
    assert json.loads(found["1001"][1].raw)["callback_query"]["data"] == "buy:x"


async def rung(redis: Pipe) -> None:
    async with asyncio.timeout(5):
        while not await redis.command("EXISTS", keys.ARQ_BELL):  # noqa: ASYNC110  (what is waited for is in Redis)
            await asyncio.sleep(0.005)


@in_module
async def test_the_fifth_message_is_due_at_once(shared: World) -> None:
    redis = shared.shop.deps.redis
    for n in range(5):
        await update(shared, message() | {"update_id": 20 + n})
    await rung(redis)
    assert len((await waiting(redis, within_ms=0))["1001"]) == 5


@in_module
@pytest.mark.parametrize(
    "secret",
    [None, "", "x", SECRET[:-1], SECRET + "x", SECRET.upper(), f"{SECRET}, {SECRET}", "ї".encode(), b"\xff\xfe",
     SECRET.encode() + b"\xff", b"\xd0\xb0" * 20],
    ids=repr,
)  # fmt: skip
async def test_without_the_secret_nothing_is_heard(shared: World, secret: str | bytes | None) -> None:
    answer = await update(shared, message() | {"update_id": 31}, secret)
    assert SECRET not in str(problem(answer, errors.BadSignature))
    assert await waiting(shared.shop.deps.redis) == {}


@in_module
async def test_two_secrets_are_none(shared: World) -> None:
    headers = [("X-Telegram-Bot-Api-Secret-Token", secret) for secret in ("x", SECRET)]
    answer = await shared.http.post(TELEGRAM, content=json.dumps(message()), headers=headers)
    problem(answer, errors.BadSignature)


@in_module
@pytest.mark.parametrize(
    "told",
    [message(chat={"id": -5, "type": "group"}), {"update_id": 1, "edited_message": message()["message"]}, {}, [], 7,
     {"update_id": 1}, message(chat=None)],
    ids=lambda told: str(told)[:50],
)  # fmt: skip
async def test_what_does_not_concern_the_shop_is_taken_and_forgotten(shared: World, told: Any) -> None:
    answer = await update(shared, told)
    assert (answer.status_code, answer.json()) == (200, OK)
    assert await waiting(shared.shop.deps.redis) == {}


@in_module
async def test_damaged_updates_are_never_our_failure(shared: World) -> None:
    chance = random.Random(5)
    for n in range(300):
        body = bytearray(json.dumps(chance.choice([message(), query()]) | {"update_id": 1000 + n}).encode())
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(body))
            body[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        assert (await update(shared, bytes(body))).status_code in (200, 400)
    problem(await update(shared, b"\xff"), errors.Malformed)
    problem(await update(shared, b" " * 1_100_000), errors.TooLarge)


@in_module
async def test_a_channel_that_is_switched_off_is_not_heard(shared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = shared.app.state.channels
    bot = channels.named("telegram", "1234567890")
    off = msgspec.structs.replace(bot, active=False)
    monkeypatch.setattr(channels, "_by_name", {("telegram", "1234567890"): off})
    assert (await update(shared, message() | {"update_id": 41})).json() == OK
    assert await waiting(shared.shop.deps.redis) == {}


# ---- WhatsApp


@in_module
async def test_the_challenge_comes_back_as_it_is(shared: World) -> None:
    asked = {"hub.mode": "subscribe", "hub.verify_token": VERIFY, "hub.challenge": "<1158201444>"}
    answer = await shared.http.get(WHATSAPP, params=asked)
    assert (answer.status_code, answer.text) == (200, "<1158201444>")
    assert answer.headers["content-type"].startswith("text/plain")
    for wrong in ({"hub.verify_token": "x"}, {"hub.mode": "x"}, {"hub.verify_token": "ї"}):
        problem(await shared.http.get(WHATSAPP, params=asked | wrong), errors.Forbidden)
    problem(await shared.http.get(WHATSAPP), errors.Forbidden)
    problem(await shared.http.get(f"{WHATSAPP}?hub.verify_token=%FF&%FF=1&hub.mode"), errors.Forbidden)


@in_module
async def test_every_message_of_a_post_waits_in_its_conversation_in_order(shared: World) -> None:
    other = envelope(said(3, "380507654321"), said(4))
    both = {**other, "entry": envelope(said(1), said(2))["entry"] + other["entry"]}
    for _ in range(2):
        assert (await whatsapp(shared, both)).json() == OK
    found = await waiting(shared.shop.deps.redis)
    assert {peer: [heard.text for heard in told] for peer, told in found.items()} == {
        "380501234567": ["word 1", "word 2", "word 4"], "380507654321": ["word 3"],
    }  # fmt: skip


@in_module
async def test_another_phone_is_skipped_and_ours_is_heard(shared: World) -> None:
    """Also one that was ours before: nobody could answer there."""
    await conversations.register(shared.pg, "whatsapp", "998")
    shared.app.state.channels.know(await conversations.channels(shared.pg))
    told = envelope(said(11), phone_id="999")
    told["entry"] += envelope(said(13), phone_id="998")["entry"] + envelope(said(12))["entry"]
    assert (await whatsapp(shared, told)).status_code == 200
    found = await waiting(shared.shop.deps.redis)
    assert [heard.text for heard in found["380501234567"]] == ["word 12"]


@in_module
@pytest.mark.parametrize(
    "signature", [None, "x", "sha256=", "sha256=" + "0" * 64, b"\xff", "sha1=x", b"sha256=\xd0\xb0"]
)
async def test_without_the_signature_nothing_is_heard(shared: World, signature: str | bytes | None) -> None:
    problem(await whatsapp(shared, envelope(said(21)), signature), errors.BadSignature)
    assert await waiting(shared.shop.deps.redis) == {}


@in_module
async def test_damaged_posts_are_never_our_failure(shared: World) -> None:
    chance = random.Random(6)
    for n in range(300):
        body = bytearray(json.dumps(envelope(said(100 + n), statuses=[{"id": "w", "status": "failed"}])).encode())
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(body))
            body[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        assert (await whatsapp(shared, bytes(body))).status_code in (200, 400)
    problem(await whatsapp(shared, b"["), errors.Malformed)
    problem(await whatsapp(shared, b"[" * 100_000), errors.Malformed)
    problem(await whatsapp(shared, b" " * (3 * 1024 * 1024 + 1)), errors.TooLarge)
    assert (await whatsapp(shared, {"object": "page", "entry": []})).json() == OK


# ---- the shop itself


async def test_doors_without_a_secret_are_not_there(world: World) -> None:
    problem(await update(world, message()), errors.NotFound)
    problem(await whatsapp(world, envelope(said(1))), errors.NotFound)
    problem(await world.http.get(WHATSAPP), errors.NotFound)
    assert await world.scalar("SELECT count(*) FROM channels WHERE kind <> 'app'") == 0


async def test_nothing_is_taken_while_redis_is_away_and_the_channel_comes_again(pg_url: str) -> None:
    server = Server()
    try:
        async with World.opened(pg_url, server.url, **ON) as world:
            server.kill()
            for answer in (await update(world, message()), await whatsapp(world, envelope(said(1), said(2)))):
                problem(answer, errors.RedisDown)
                assert answer.headers["retry-after"] == "1"
            server.start()
            redis = world.shop.deps.redis
            await once(lambda: redis.command("PING"))
            await once(lambda: world.app.state.shop.deps.redis.command("PING"))
            assert (await update(world, message())).status_code == 200
            assert (await whatsapp(world, envelope(said(1), said(2)))).status_code == 200
            assert {peer: len(told) for peer, told in (await waiting(redis)).items()} == {"1001": 1, "380501234567": 2}
    finally:
        server.kill()


async def test_doors_stay_open_while_postgres_is_away(
    pg_url: str, servers: Servers, redis: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hear, "REFRESH_S", 0.02)
    door = Door(pg_url)
    async with door.opened() as url, World.opened(url, servers.redis_url, pg_timeout_ms=300, **ON) as world:
        door.shut()
        for n in range(20):
            assert (await update(world, message() | {"update_id": n})).status_code == 200
            await asyncio.sleep(0.01)  # several refreshes fail meanwhile
        assert len((await waiting(redis))["1001"]) == 20


async def test_what_an_admin_changes_of_a_channel_is_obeyed_soon(
    pg_url: str, servers: Servers, redis: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hear, "REFRESH_S", 0.02)
    async with World.opened(pg_url, servers.redis_url, **ON) as world:
        channels = world.app.state.channels
        await world.pg.fetch("UPDATE channels SET quiet_ms = 0, most = 2 WHERE kind = 'telegram'", ())
        await until(lambda: channels.named("telegram", "1234567890").quiet_ms == 0)
        await update(world, message())
        assert len((await waiting(redis, within_ms=0))["1001"]) == 1


async def test_too_many_at_once_are_asked_to_come_again_and_never_told_429(pg_url: str, servers: Servers) -> None:
    async with World.opened(pg_url, servers.redis_url, limits="*=1000000/1 webhooks=1/60", **ON) as world:
        assert (await update(world, {"update_id": 1})).status_code == 200
        refused = await update(world, {"update_id": 1})
        problem(refused, errors.Busy)
        assert int(refused.headers["retry-after"]) >= 1
